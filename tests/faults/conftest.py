"""What the tests of faults share: servers, a fast disk, and how thorough to be."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.client import Server
from tests.faults.server import UNAVAILABLE, Job
from tests.faults.sweep import Thoroughness

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - where files are fast; they get a folder of their own
_REPORTS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes every point of a run fail, rather than some."""
    parser.addoption(
        "--every-point", action="store_true", help="let a run fail at every point, not at some"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what tests have counted."""
    config.stash[_REPORTS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what tests have counted."""
    if reports := config.stash.get(_REPORTS, []):
        terminalreporter.section("faults")
        for line in reports:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def thoroughness(request: pytest.FixtureRequest) -> Thoroughness:
    """Whether every point is tried, as ``make faults`` does, or some."""
    return Thoroughness(every=request.config.getoption("--every-point", default=False))


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something in the summary at the end."""
    config = request.config
    if _REPORTS not in config.stash:  # this file was found too late to be asked
        config.stash[_REPORTS] = []
    return config.stash[_REPORTS].append


@pytest.fixture(scope="session")
def servers() -> Iterator[list[Server]]:
    """As many servers as there are cores, two at most."""
    with Server() as one, Server() as other:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        yield [one, other][:available]


@pytest.fixture(scope="session")
def server(servers: list[Server]) -> Server:
    """One server."""
    return servers[0]


@pytest.fixture(scope="session")
def watching(server: Server) -> None:
    """Skip where no process may watch another's system calls."""
    outcome = server.run(Job("nowhere", folder="/nowhere"))
    if outcome.status == UNAVAILABLE:
        pytest.skip(outcome.errors)


@pytest.fixture
def area() -> Iterator[Path]:
    """A folder on a disk where fsync takes no time, if there is one."""
    fast = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="recast-faults-", dir=fast)).resolve()
    yield folder
    shutil.rmtree(folder)
