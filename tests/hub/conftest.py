"""What the tests against a Hub share: the server, and the command as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub.server import TOKEN, HubServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A Hub that takes large files by LFS."""
    with HubServer(tmp_path / "store") as server:
        yield server


@pytest.fixture(params=["lfs", "xet"])
def either_hub(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HubServer]:
    """A Hub that takes large files by LFS, and one that takes them by xet."""
    with HubServer(tmp_path / "store", xet=request.param == "xet") as server:
        yield server


def environment(hub: HubServer, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
    """Return the environment of a client of *hub* whose home is *home*."""
    home.mkdir(exist_ok=True)
    mine = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "0" if hub.xet else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Ten seconds of its own are soon over where the server shares a busy machine with it.
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
        "HF_HUB_ETAG_TIMEOUT": "60",
        "TMPDIR": str(home),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    others = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return others | mine | ({"HF_TOKEN": token} if token else {})


@pytest.fixture
def recast(tmp_path: Path) -> Run:
    """Run the command against a hub, in the folder of the test."""

    def run(
        hub: HubServer, *arguments: object, token: str | None = TOKEN, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "recast", *map(str, arguments)],
            env=environment(hub, tmp_path / "home", token=token) | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that lets every request fail, rather than some."""
    parser.addoption("--every-request", action="store_true", help="let every request fail")
