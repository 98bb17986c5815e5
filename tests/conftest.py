"""Fixtures that many tests share."""

from pathlib import Path

import pytest

from tests import checkpoints


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """A small fp32 checkpoint of two shards, ``tmp_path / "ckpt"``."""
    return checkpoints.two_shards(tmp_path / "ckpt")
