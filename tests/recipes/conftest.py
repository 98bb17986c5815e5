"""Where the recipes can be carried out, and what they are carried out on."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet import runs
from tests.recipes import hosts, slurm


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that carries the recipes out."""
    parser.addoption("--carry-out", action="store_true", help="start hosts, and clusters on them")


@pytest.fixture(scope="session", autouse=True)
def carried_out(request: pytest.FixtureRequest) -> None:
    """Skip unless it is wanted, as in ``make recipes``."""
    if not request.config.getoption("--carry-out", default=False):
        pytest.skip("two minutes, and hosts that are mounted and networked: make recipes")


def need_hosts() -> None:
    """Skip unless this machine can be several."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can make several hosts of a Linux machine")
    need(*hosts.TOOLS)


def need(*programs: str) -> None:
    """Skip unless these programs are installed."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The shared disk, with a folder of runs."""
    runs.save_runs(tmp_path / "before", 3, 2)
    (tmp_path / "shared").mkdir()
    runs.copied(tmp_path / "before", tmp_path / "shared" / "runs")
    return tmp_path / "shared"


@pytest.fixture
def large_disk(tmp_path: Path) -> Path:
    """The shared disk, with so many runs that something can happen in the middle."""
    runs.save_runs(tmp_path / "before", 20, 5)
    (tmp_path / "shared").mkdir()
    runs.copied(tmp_path / "before", tmp_path / "shared" / "runs")
    return tmp_path / "shared"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[hosts.Host]]:
    """Three hosts: a login node, and two others."""
    need_hosts()
    folder = tmp_path_factory.mktemp("cluster") / "hosts"
    with hosts.together(folder, ("login", "node1", "node2")) as started:
        yield started


@pytest.fixture(scope="module")
def with_slurm(cluster: list[hosts.Host], tmp_path_factory: pytest.TempPathFactory) -> hosts.Host:
    """The login node of hosts that run SLURM."""
    need(*slurm.TOOLS)
    slurm.start(tmp_path_factory.mktemp("slurm") / "slurm", cluster)
    return cluster[0]


def check_all(disk: Path) -> None:
    """Check that every checkpoint on the disk is what it should be."""
    before = disk.parent / "before"
    found = [path.parent for path in before.rglob("config.json")]
    assert found
    for path in found:
        runs.check_repaired(path, disk / "runs" / path.relative_to(before))


def repaired(disk: Path) -> int:
    """Return how many checkpoints on the disk are repaired."""
    configurations = (disk / "runs").glob("run-*/checkpoint-*/config.json")
    return sum("bfloat16" in path.read_text() for path in configurations)
