"""The recipe with MPI, on this machine and on two others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.recipes.conftest import check_all, need, repaired
from tests.recipes.document import block
from tests.recipes.hosts import Host, wait_until

SECTION = "MPI"
_BASH = "/bin/bash"
CHECKPOINTS = 100  # on the large disk
# These hosts share a kernel, so that MPI takes them for one, and tries to share memory.
_SETTINGS = f"export PATH={sys.prefix}/bin:$PATH UCX_TLS=tcp,self UCX_NET_DEVICES=eth0"


@pytest.fixture(autouse=True)
def mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have mpi4py, and the MPI that is installed beside it or on the machine."""
    pytest.importorskip("mpi4py", reason="make recipes installs it")
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin", prepend=os.pathsep)
    need("mpiexec")


def command(disk: Path, mpiexec: str = "mpiexec") -> str:
    """Write the script of the recipe, and return the command that runs it with two workers."""
    script = disk / "fleet.py"
    script.write_text(block(SECTION, 0, "python", {"/shared": str(disk)}))
    changes = {
        "/shared/venv": sys.prefix,
        "fleet.py": str(script),
        "mpiexec -n 33": f"{mpiexec} -n 3",
    }
    return block(SECTION, 1, "sh", changes)


def run(line: list[str]) -> None:
    """Run a command line, which prints no error of a checkpoint and succeeds."""
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_on_this_machine(disk: Path) -> None:
    """Processes of MPI repair the runs."""
    run([_BASH, "-euc", command(disk)])
    check_all(disk)


def test_a_process_is_lost(large_disk: Path) -> None:
    """When one process is killed all end, and the same command goes on."""
    line = [_BASH, "-euc", f"exec {command(large_disk)}"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: repaired(large_disk) > 0, "nothing is repaired")
        *_, last = workers(process.pid)
        os.kill(last, signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode
    assert repaired(large_disk) < CHECKPOINTS
    run(line)
    check_all(large_disk)


def workers(mpiexec: int) -> Iterator[int]:
    """Yield the Python processes that *mpiexec* has started, in the order of their ranks."""
    for process in psutil.Process(mpiexec).children(recursive=True):
        if "mpi4py.futures" in process.cmdline() and "python" in process.name():
            yield process.pid


@pytest.mark.parametrize("by", ["ssh", "slurm"])
def test_on_other_hosts(
    cluster: list[Host], disk: Path, request: pytest.FixtureRequest, by: str
) -> None:
    """Processes on two hosts, which SSH or SLURM reaches, repair the runs."""
    starters = {"ssh": "mpiexec -hosts node1,node2", "slurm": "srun --mpi=pmi2 -N 2"}
    if by == "slurm":
        request.getfixturevalue("with_slurm")
    script = disk / "recipe.sh"
    script.write_text(f"{_SETTINGS}\n{command(disk, starters[by])}")
    said = cluster[0].run("bash", "-eu", script)
    assert not said.strip()
    check_all(disk)
