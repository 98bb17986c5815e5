"""A source that somebody else changes while it is converted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults import sweep
from tests.faults.client import Server
from tests.faults.scene import SHARDS, Mode, Scene, check_reported, contents, tree
from tests.faults.server import Step
from tests.faults.sweep import Thoroughness
from tests.faults.tracer import Point

pytestmark = pytest.mark.usefixtures("watching")

_SHARD = SHARDS[1]
_LOOKS = ("newfstatat", "fstat", "stat", "lstat", "statx")
_MEDDLINGS = ("empty", "truncate", "append", "touch", "rewrite", "remove", "replace")


def looks(points: Sequence[Point], name: str) -> list[int]:
    """Return when a run looks at what file *name* of the source is."""
    path = f"ckpt/{name}"
    return [at for at, point in enumerate(points) if point.path == path and point.call in _LOOKS]


def first_read(points: Sequence[Point], name: str) -> int:
    """Return when a run has read the header of a shard, or a whole small file."""
    return next(
        at + 1
        for at, point in enumerate(points)
        if point == Point("close", f"ckpt/{name}") and points[at - 1].call == "read"
    )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("meddling", _MEDDLINGS)
def test_a_shard_is_changed(
    meddling: str, mode: Mode, area: Path, servers: list[Server], thoroughness: Thoroughness
) -> None:
    """From its header's reading to its last byte's, a change to a shard ends the run, naming it.

    What the other has written is not overwritten, in place, and nothing is left in copy mode.
    """
    stages = sweep.scenes(area, mode, servers)
    points = stages[0][1].trace(stages[0][0])
    begin, end = first_read(points, _SHARD), looks(points, _SHARD)[-1]
    if mode is Mode.IN_PLACE:
        replaced = next(at for at, p in enumerate(points) if p.other == f"ckpt/{_SHARD}")
        end = max(at for at in looks(points, _SHARD) if at < replaced)

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        path = scene.source / _SHARD
        outcome = server.run(scene.job(Step(step.at, meddle=meddling, path=str(path))))
        check_reported(outcome)
        assert _SHARD in outcome.errors
        found = tree(scene.source)
        expected = _meddled(scene.old[_SHARD].content, meddling)
        assert found[_SHARD].content == expected if expected is not None else _SHARD not in found
        if mode is Mode.COPY:
            assert {entry.name for entry in scene.root.iterdir()} == {"ckpt"}
        others = {name for name in scene.old if name not in (_SHARD, ".recast/")}
        for name in others:
            allowed = scene.old[name].content, scene.new[name].content
            assert found[name].content in allowed, name

    steps = [Step(at) for at in range(begin, end + 1)]
    sweep.try_all(thoroughness.some(steps, 31), stages, attempt)


def _meddled(content: bytes, how: str) -> bytes | None:
    """Return what a meddler leaves of a file."""
    return {
        "empty": b"",
        "truncate": content[: len(content) // 2],
        "append": content + b"\0",
        "touch": content,
        "rewrite": content[:-1] + b"\0",
        "remove": None,
        "replace": content,
    }[how]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("meddling", ["empty", "truncate", "remove"])
def test_no_change_at_any_time_ends_in_a_crash(
    meddling: str, mode: Mode, area: Path, servers: list[Server], thoroughness: Thoroughness
) -> None:
    """Whenever a shard shrinks or goes, even while its header is read, it is an error at most."""
    stages = sweep.scenes(area, mode, servers)
    points = stages[0][1].trace(stages[0][0])

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        path = scene.source / _SHARD
        outcome = server.run(scene.job(Step(step.at, meddle=meddling, path=str(path))))
        if outcome.status:
            check_reported(outcome)
        elif mode is Mode.COPY:
            assert contents(tree(scene.target)) == contents(scene.new)

    steps = [Step(at) for at in range(len(points))]
    header = [at for at in range(first_read(points, _SHARD)) if points[at].path.endswith(_SHARD)]
    sweep.try_all({*thoroughness.some(steps, 41), *map(Step, header)}, stages, attempt)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_config_is_edited_in_place(
    name: str,
    area: Path,
    server: Server,
    servers: list[Server],
    thoroughness: Thoroughness,
    report: Callable[[str], None],
) -> None:
    """An edit made meanwhile is not overwritten, and going on takes it in."""
    stages = sweep.scenes(area, Mode.IN_PLACE, servers)
    points = stages[0][1].trace(server)
    read = [
        at
        for at, point in enumerate(points)
        if point.path == f"ckpt/{name}" and point.call == "read"
    ]
    # Read once to plan, and once, to its end, before it is replaced.
    begin, end = read[1], read[-2]
    assert end - begin > 50

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        path = scene.source / name
        meddle = Step(step.at, meddle="append", path=str(path))  # a zero byte: no JSON any more
        outcome = server.run(scene.job(meddle))
        check_reported(outcome)
        assert name in outcome.errors
        assert path.read_bytes() == scene.old[name].content + b"\0"
        path.write_bytes(scene.old[name].content)
        assert server.run(scene.job()).status == 0
        scene.check_finished()

    steps = [Step(at) for at in range(begin + 1, end + 1)]
    tried = sweep.try_all(thoroughness.some(steps, 31), stages, attempt)
    report(f"{name} edited at {tried} of {len(steps)} points")


def test_a_file_is_changed_while_it_is_copied(area: Path, server: Server) -> None:
    """A tokenizer that is written to while it is copied ends the run, naming it."""
    scene = Scene(area / "0", Mode.COPY, server)
    points = scene.trace(server)
    copied = [at for at, p in enumerate(points) if p.other == "ckpt/tokenizer.json"]
    assert copied
    for meddling in ("append", "touch", "rewrite", "remove"):
        scene.reset()
        step = Step(copied[-1], meddle=meddling, path=str(scene.source / "tokenizer.json"))
        outcome = server.run(scene.job(step))
        check_reported(outcome)
        assert "tokenizer.json" in outcome.errors
        assert {entry.name for entry in scene.root.iterdir()} == {"ckpt"}


@pytest.mark.parametrize("mode", Mode)
def test_the_folder_vanishes(
    mode: Mode, area: Path, servers: list[Server], thoroughness: Thoroughness
) -> None:
    """A checkpoint that is moved away under a run ends it, in one line."""
    stages = sweep.scenes(area, mode, servers)
    points = stages[0][1].trace(stages[0][0])
    last = looks(points, SHARDS[2])[-1]

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        outcome = server.run(scene.job(Step(step.at, meddle="move", path=str(scene.source))))
        check_reported(outcome)
        moved = scene.source.with_name("ckpt.moved")
        if mode is Mode.COPY:
            assert tree(moved) == scene.old

    steps = [Step(at) for at in range(1, last + 1)]
    sweep.try_all(thoroughness.some(steps, 23), stages, attempt)
