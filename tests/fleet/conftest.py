"""The executors that everything about fleets is tested on."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from recast.execution.fleets import cluster as fleets_cluster
from recast.execution.fleets.cluster import address_in, connected
from tests.fleet import cluster, runs
from tests.processes import end_with_the_tests


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes the sweeps of random kills long."""
    parser.addoption("--many-kills", action="store_true", help="kill workers for minutes")


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    """Whether the sweeps are long, as in ``make fleet``."""
    return bool(request.config.getoption("--many-kills", default=False))


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """Wait longer for a scheduler's answer than a user would: it shares a busy machine with us."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fleets_cluster, "_PATIENCE", 60.0)
        yield


@pytest.fixture(scope="session")
def threads() -> Iterator[Executor]:
    """Threads of this process."""
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="session")
def processes() -> Iterator[Executor]:
    """Processes that share nothing with this one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, initializer=end_with_the_tests) as executor:
        yield executor


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[LocalCluster]:
    """A Dask cluster of two processes, which are started again when they die."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as local:
        yield local


@pytest.fixture(scope="session")
def dask(local_cluster: LocalCluster) -> Iterator[Executor]:
    """The executor of a Dask client that a user has made."""
    with Client(local_cluster, set_as_default=False) as client:
        yield client.get_executor(pure=False, retries=2)


@pytest.fixture(scope="session")
def scheduler_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a scheduler and two workers that were started by hand."""
    with cluster.by_hand(tmp_path_factory.mktemp("cluster"), workers=2) as file:
        yield file


@pytest.fixture(scope="session")
def scheduler(scheduler_file: Path) -> Iterator[Executor]:
    """What `--scheduler-file` makes of that."""
    with connected(address_in(scheduler_file)) as found:
        yield found.executor


@pytest.fixture(params=["own threads", "threads", "processes", "dask", "scheduler"])
def executor(request: pytest.FixtureRequest) -> Executor | None:
    """Each executor in turn; None for the threads that recast takes by itself."""
    if request.param == "own threads":
        return None
    found: Executor = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two checkpoints, as they were saved; nobody writes here."""
    root = tmp_path_factory.mktemp("saved") / "runs"
    runs.save_runs(root, 3, 2)
    return root


@pytest.fixture
def root(saved: Path, tmp_path: Path) -> Path:
    """The same runs, for one test: ``tmp_path / "runs"``."""
    return runs.copied(saved, tmp_path / "runs")
