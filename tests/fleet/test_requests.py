"""The operations on files that an estimate announces, beside those that the kernel sees."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recast
from benchmarks import checkpoints
from recast.execution.fleets.survey import survey_all
from recast.execution.page_cache import is_cached
from recast.execution.values.pieces import PIECE_BYTES
from recast.planning import estimate
from recast.planning.estimate import requests
from recast.reports.fleet import work
from tests.faults.client import Server
from tests.faults.server import UNAVAILABLE, Job
from tests.fleet import runs

_OFF = 0.1  # of what is counted; a fifth would be too much
MiB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A process that runs the command under the kernel's eyes."""
    with Server() as one:
        yield one


def counted(server: Server, root: Path, *arguments: object) -> int:
    """Return how many system calls on what lies beside *root* a run of the command makes."""
    command = [str(root), "-r", "--to", "bf16", *map(str, arguments), "-q", "--workers", "1"]
    outcome = server.run(Job(str(root), command=command, folder=str(root.parent)))
    if outcome.status == UNAVAILABLE:
        pytest.skip(f"the kernel lets nobody count system calls here: {outcome.errors}")
    assert outcome.status == 0, outcome.errors
    return len(outcome.points)


def asked_of_memory(path: Path) -> int:
    """Return with how many calls, but one, a run asks whether *path* lies in this machine's memory.

    No disk sees them. Where nobody can tell, as of most disks across a network, it asks once.
    """
    asked: list[int] = []

    def preadv(*arguments: Any) -> int:
        asked.append(1)
        return real(*arguments)

    real = os.preadv
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "preadv", preadv)
        is_cached(file.fileno(), path.stat().st_size)
    return max(0, len(asked) - 1)


def announced(root: Path, *, in_place: bool) -> int:
    """Return how many operations `-n` announces."""
    surveys = survey_all(recast.discover(root), "bf16")
    return requests(work(surveys, in_place=in_place, scans=in_place))


def save(root: Path, count: int, shards: int, nbytes: int, others: int) -> Path:
    """Save a fleet of like checkpoints with *others* small files beside the weights."""
    for number in range(count):
        folder = root / f"run-{number}"
        folder.mkdir(parents=True)
        shapes = {f"model.layers.{each}.w": (nbytes // shards // 4,) for each in range(shards)}
        checkpoints.write(folder, shapes, {"model_type": "llama"}, shards)
        for other in range(others):
            (folder / f"vocabulary-{other}.txt").write_text("a")
    return runs.age(root)


FLEETS = {
    "tiny": (6, 1, 4096, 0),
    "many shards": (2, 8, 8 * 4096, 0),
    "many other files": (3, 1, 4096, 6),
    "large": (1, 2, 48 * MiB, 1),
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "new folder"])
def test_as_many_as_announced(
    tmp_path: Path, server: Server, fleet: tuple[int, int, int, int], *, in_place: bool
) -> None:
    """A repair makes the system calls that -n announces, and so does one that finds all right."""
    root = save(tmp_path / "here" / "runs", *fleet)
    where = ("--in-place",) if in_place else ("-o", root.with_name("out"))
    expected = announced(root, in_place=in_place)
    shards = list(root.rglob("*.safetensors"))
    unseen = asked_of_memory(shards[0]) * len(shards) * (2 if in_place else 1)
    found = counted(server, root, *where) - unseen
    assert expected == pytest.approx(found, rel=_OFF)
    right = root if in_place else root.with_name("out")
    expected = announced(right, in_place=True)
    assert expected == pytest.approx(counted(server, right, "--in-place"), rel=2 * _OFF)


def test_pieces_are_what_they_are() -> None:
    """The estimate reckons with the pieces that shards are cut into."""
    assert estimate.PIECE == PIECE_BYTES
