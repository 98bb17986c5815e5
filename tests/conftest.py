"""Fixtures that many tests share."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import checkpoints

# No test asserts a time: on a busy machine an example takes long to run, and to be thought of.
settings.register_profile("recast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("recast")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Obey SIGINT, here and in what is started, though a job in the background may ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """A small fp32 checkpoint of two shards, ``tmp_path / "ckpt"``."""
    return checkpoints.two_shards(tmp_path / "ckpt")
