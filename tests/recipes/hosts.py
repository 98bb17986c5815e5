"""Machines that share a disk, as namespaces of this one: network, host name, processes, /etc.

Each has its own address and its own sshd on port 22. What is changed of the file system (the
table of hosts, the settings of the SSH client) is mounted where nobody else sees it, and
everything is gone with the last process.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_NET = "10.99.0"
_PATIENCE = 60  # seconds
_SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
"""
_SSH = """
IdentityFile {folder}/key
UserKnownHostsFile {folder}/known_hosts
StrictHostKeyChecking accept-new
LogLevel ERROR
"""
# What a host is: namespaces in which this is run, and then whatever it is there for.
_BOOT = """
set -e
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/ssh_config /etc/ssh/ssh_config
mount -t tmpfs none /run
mkdir /run/sshd
ip link set lo up
touch {folder}/{name}.up
exec {command}
"""
_UNSHARE = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child")
TOOLS = ("unshare", "nsenter", "ip", "sshd", "ssh", "ssh-keygen")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine.

    Attributes:
        name: what it calls itself, and is called by the others.
        keeper: the process that holds its namespaces; all others there die with it.
    """

    name: str
    keeper: "subprocess.Popen[bytes]"

    @property
    def process(self) -> int:
        """The first process in its namespaces, as the machine below numbers it."""
        (first,) = psutil.Process(self.keeper.pid).children()
        return int(first.pid)

    def on(self, *arguments: object) -> list[str]:
        """Return the command line that does something there."""
        inside = ("nsenter", "--target", str(self.process))
        return [*inside, "--net", "--uts", "--mount", "--pid", *map(str, arguments)]

    def run(self, *arguments: object) -> str:
        """Do something there, and return what it prints."""
        done = subprocess.run(
            self.on(*arguments), capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def lose(self) -> None:
        """Switch it off, without a word to anybody."""
        if self.keeper.poll() is None:  # no connection is closed, they are just silent
            subprocess.run(
                self.on("ip", "link", "set", "eth0", "down"), stderr=subprocess.DEVNULL, check=False
            )
        self.keeper.kill()
        self.keeper.wait(_PATIENCE)


@contextmanager
def together(folder: Path, names: Sequence[str]) -> Iterator[list[Host]]:
    """Start hosts that reach each other by their names; the first is where people log in."""
    folder.mkdir(parents=True)
    addresses = {name: f"{_NET}.{number}" for number, name in enumerate(names, 1)}
    table = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    (folder / "hosts").write_text("\n".join(table) + "\n")
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder))
    (folder / "ssh_config").write_text(_SSH.format(folder=folder))
    for key in ("key", "host_key"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
        subprocess.run(make, check=True)
    with ExitStack() as stack:
        hosts = []
        for name in names:
            host = _booted(folder, name)
            stack.callback(host.lose)
            hosts.append(host)
        _connect(hosts, addresses)
        yield hosts


def _booted(folder: Path, name: str) -> Host:
    """Start a host, which has no network yet."""
    sshd = f"{shutil.which('sshd')} -D -f {folder}/sshd_config"
    script = _BOOT.format(name=name, folder=folder, command=sshd)
    with (folder / f"{name}.log").open("wb") as log:
        keeper = subprocess.Popen(
            [*_UNSHARE, "--mount-proc", "sh", "-c", script], stdout=log, stderr=log
        )
    wait_until((folder / f"{name}.up").exists, f"{name} does not start, see {folder}")
    return Host(name, keeper)


def _connect(hosts: Sequence[Host], addresses: dict[str, str]) -> None:
    """Give the first host a switch, and connect all to it."""
    first, *others = hosts
    _ip(first, "link add br0 type bridge")
    _ip(first, f"addr add {addresses[first.name]}/24 dev br0")
    _ip(first, "link set br0 up")
    _ip(first, "route add default dev br0")  # Dask asks which way the world is
    for number, host in enumerate(others):
        _ip(first, f"link add port{number} type veth peer name eth0 netns {host.process}")
        _ip(first, f"link set port{number} master br0 up")
        _ip(host, f"addr add {addresses[host.name]}/24 dev eth0")
        _ip(host, "link set eth0 up")
        _ip(host, f"route add default via {addresses[first.name]}")


def _ip(host: Host, arguments: str) -> None:
    """Set up a host's network, seeing all processes of the machine below."""
    network = ("nsenter", "--target", str(host.process), "--net")
    subprocess.run([*network, "ip", *arguments.split()], check=True, timeout=_PATIENCE)


@contextmanager
def running(line: Sequence[str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Let a command line run, and kill it in the end."""
    with log.open("wb") as output, subprocess.Popen(line, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(holds: Callable[[], object], otherwise: str, patience: float = _PATIENCE) -> None:
    """Wait until something holds."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)
