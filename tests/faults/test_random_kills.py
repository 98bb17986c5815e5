"""A larger run, killed at random times until it is done."""

import random
import shutil
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import checkpoints
from tests.faults.client import Server
from tests.faults.scene import Mode
from tests.faults.server import Job
from tests.faults.sweep import Thoroughness

_SHARDS = tuple(f"model-0000{number}-of-00008.safetensors" for number in range(1, 9))
_ROW_BYTES = 256


def save_large(folder: Path, size: int) -> Path:
    """Save a checkpoint of eight shards, which take *size* bytes in all."""
    rows = size // len(_SHARDS) // _ROW_BYTES
    generator = torch.Generator().manual_seed(0)
    shards = {
        name: {
            f"model.layers.{number}.weight": torch.randn(
                (rows, _ROW_BYTES // 4), generator=generator
            )
        }
        for number, name in enumerate(_SHARDS)
    }
    return checkpoints.save_sharded(folder, shards)


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of every file in *folder* and below."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def complete(mode: Mode, root: Path, sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the shards that are done: which file each is, and when it was written."""
    folders = [root / "ckpt"]
    if mode is Mode.COPY:
        folders = [root / "ckpt-bf16", root / ".ckpt-bf16.recast" / "result"]
    done = {}
    for folder in folders:
        for name in _SHARDS:
            path = folder / name
            if path.exists() and path.stat().st_size == sizes[name]:
                done[name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return done


@pytest.mark.parametrize("mode", Mode)
def test_killed_at_random_times(
    mode: Mode,
    area: Path,
    server: Server,
    thoroughness: Thoroughness,
    report: Callable[[str], None],
) -> None:
    """However often it is killed, it ends as if it never was, and no kill costs two shards."""
    start, root = area / "start", area / "run"
    save_large(start / "ckpt", thoroughness.count(200_000_000, 60_000_000))
    source = root / "ckpt"
    target = source if mode is Mode.IN_PLACE else root / "ckpt-bf16"
    options = {"in_place": mode is Mode.IN_PLACE, "workers": 2}

    shutil.copytree(start, root)
    begun = time.monotonic()
    assert server.run(Job(str(source), options=options)).status == 0
    seconds = time.monotonic() - begun
    expected = digests(target)
    sizes = {name: (target / name).stat().st_size for name in _SHARDS}
    tensor = load_file(start / "ckpt" / _SHARDS[0])["model.layers.0.weight"]
    assert torch.equal(load_file(target / _SHARDS[0])["model.layers.0.weight"], tensor.bfloat16())

    chance = random.Random(0)  # noqa: S311 - no secret
    wanted, kills, runs = thoroughness.count(100, 5), 0, 0
    while kills < wanted:
        shutil.rmtree(root)
        shutil.copytree(start, root)
        runs += 1
        done: dict[str, tuple[int, int]] = {}
        limit = seconds
        while True:
            job = Job(str(source), options=options, seconds=chance.uniform(0, limit))
            outcome = server.run(job)
            after = complete(mode, root, sizes)
            again = [name for name, file in done.items() if after.get(name) != file]
            # Between a shard's name and the note that it is done lies a moment.
            assert len(again) <= (1 if mode is Mode.COPY else 0), again
            if outcome.status == 0:
                break
            assert outcome.status == -9, outcome.errors
            kills += 1
            if len(after) <= len(done):  # perhaps the machine is slower by now
                limit *= 1.5
            done = after
        assert digests(target) == expected
        assert {entry.name for entry in root.iterdir()} == {"ckpt", target.name}
        if mode is Mode.COPY:
            assert digests(source) == digests(start / "ckpt")
    report(f"{mode}: {kills} kills at random times, {runs} runs finished")
