"""Hosts that remember for a while what the shared disk held, as clients of NFS do.

Each host sees the disk through a FUSE file system of its own, whose names, attributes and missing
names its kernel caches. That is not NFS, which asks again when a file is opened and for names
that it never asked for: where this holds, less is cached there.
"""

import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import check_all, need
from tests.recipes.document import block
from tests.recipes.hosts import Host


def remember(hosts: list[Host], disk: Path, seconds: int) -> list[Host]:
    """Let hosts remember for some seconds what they have seen of the disk, and missed there."""
    need("bindfs")
    kinds = ("attr", "entry", "negative")
    options = ",".join(f"{kind}_timeout={seconds}" for kind in kinds)
    for host in hosts:
        host.run("bindfs", "-o", f"{options},nonempty", disk, disk)
    return hosts


@pytest.fixture
def remembering(cluster: list[Host], disk: Path) -> list[Host]:
    """Hosts that see through caches what the disk held a minute ago."""
    return remember(cluster, disk, 60)


def test_the_caches_are_real(remembering: list[Host], disk: Path) -> None:
    """A name that a host has missed is missing there, when another has made it."""
    login, node, _ = remembering
    assert node.run("sh", "-c", f"test -e {disk}/new || echo missing") == "missing\n"
    login.run("touch", disk / "new")
    assert node.run("sh", "-c", f"test -e {disk}/new || echo missing") == "missing\n"


def test_by_ssh(remembering: list[Host], disk: Path) -> None:
    """The recipe for SSH works between them."""
    changes = {
        "/shared/venv": sys.prefix,
        "/shared": str(disk),
        "--nworkers 8": "--nworkers 1",
        "--death-timeout 60": "--death-timeout 20",
    }
    script = disk / "recipe.sh"
    script.write_text(block("By SSH", 0, "sh", changes) + "wait\n")
    said = remembering[0].run("bash", "-eu", script)
    assert "6 repaired" in said
    check_all(disk)


_TAKE_OVER = """
import sys
from pathlib import Path
from recast.execution.publish import take_over
staged, path = map(Path, sys.argv[1:])
assert not staged.exists(), "the host knows already"
take_over(staged, path, 5)
"""


def test_a_file_that_was_missing_is_waited_for(cluster: list[Host], disk: Path) -> None:
    """What another host has made is found by one that remembers that it is not there."""
    login, node, _ = remember(cluster, disk, 5)
    staged = disk / "runs" / "staged"
    login.run("sh", "-c", f"test -e {staged} || true")
    node.run("sh", "-c", f"printf hello > {staged}")
    login.run(sys.executable, "-c", _TAKE_OVER, staged, disk / "runs" / "final")
    assert (disk / "runs" / "final").read_text() == "hello"


def test_nothing_is_left_beside_a_new_checkpoint(remembering: list[Host], disk: Path) -> None:
    """A lock that is removed while it is held, which such disks only hide, leaves no folder."""
    login = remembering[0]
    command = (sys.executable, "-m", "recast", disk / "runs", "-r", "--to", "bf16")
    assert "6 repaired" in login.run(*command, "-o", disk / "out")
    assert sorted(path.name for path in disk.iterdir()) == ["out", "runs"]
    assert not [path for path in disk.rglob(".*") if path.exists()]
