"""In which order a run writes, syncs and renames, read off its system calls."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from tests.faults.client import Server
from tests.faults.scene import INDEX, SHARDS, Mode, Scene
from tests.faults.tracer import Point

pytestmark = pytest.mark.usefixtures("watching")

_WRITES = ("write", "pwrite64", "pwritev", "writev", "ftruncate", "fchmod", "chmod", "utimensat")
_COPIES = ("sendfile", "copy_file_range")


@pytest.fixture(params=Mode, ids=str)
def scene(request: pytest.FixtureRequest, area: Path, server: Server) -> Scene:
    """A scene of each mode."""
    return Scene(area / "0", request.param, server)


def placements(points: Sequence[Point]) -> dict[str, int]:
    """Return when each file of the result takes its final name, by that name."""
    return {
        _final(point.other): at
        for at, point in enumerate(points)
        if point.call.startswith("rename") and point.path.endswith(".partial")
    }


def _final(path: str) -> str:
    """Return a path as it will be once the result has its name."""
    return path.replace(".ckpt-bf16.recast/result", "ckpt-bf16")


def test_nothing_is_renamed_before_it_is_on_the_disk(scene: Scene, server: Server) -> None:
    """Every file is written, then synced, then renamed, and then its folder is synced."""
    points = scene.trace(server)
    renames = [
        (at, point)
        for at, point in enumerate(points)
        if point.call.startswith("rename") and point.path.endswith(".partial")
    ]
    assert {_final(point.other) for _, point in renames} >= {
        f"{scene.target.name}/{name}" for name in scene.new if not name.endswith("/")
    } - {f"ckpt/{name}" for name in scene.old if scene.new[name] == scene.old[name]}
    for at, renamed in renames:
        writes = [
            number
            for number, point in enumerate(points)
            if point.path in _names(points, at) and point.call in (*_WRITES, *_COPIES)
        ]
        syncs = [
            number
            for number, point in enumerate(points)
            if point.path in _names(points, at) and point.call == "fsync"
        ]
        assert writes
        assert max(writes) < max(syncs) < at
        _check_synced(points, at, str(PurePosixPath(renamed.other).parent))


def _names(points: Sequence[Point], renamed: int) -> set[str]:
    """Return all names that the file had which is renamed at this point: a shard has two."""
    names = {points[renamed].path}
    for point in reversed(points[:renamed]):
        if point.call.startswith("rename") and point.other in names:
            names.add(point.path)
    return names


def _check_synced(points: Sequence[Point], renamed: int, folder: str) -> None:
    """Check that *folder* is synced after a rename into it, and before anything else is done."""
    following = points[renamed + 1 :]
    sync = next(at for at, point in enumerate(following) if point.call == "fsync")
    assert following[sync].path == folder
    others = [point for point in following[:sync] if point.call in (*_WRITES, *_COPIES, "rename")]
    assert not others


def test_shards_then_configs_then_indexes(scene: Scene, server: Server) -> None:
    """Loaders look at the config and the index first, so these follow the shards they speak of."""
    placed = placements(scene.trace(server))
    shards = [placed[f"{scene.target.name}/{name}"] for name in SHARDS]
    config = placed[f"{scene.target.name}/config.json"]
    index = placed[f"{scene.target.name}/{INDEX}"]
    assert max(shards) < config < index


def test_a_new_folder_appears_last(area: Path, server: Server) -> None:
    """In copy mode the result takes its name when all in it is synced; then its folder is."""
    scene = Scene(area / "0", Mode.COPY, server)
    points = scene.trace(server)
    published = [at for at, point in enumerate(points) if point.other == "ckpt-bf16"]
    assert len(published) == 1
    assert points[published[0]].path == ".ckpt-bf16.recast/result"
    before = points[: published[0]]
    assert max(placements(points).values()) < published[0]
    for folder in (".ckpt-bf16.recast/result", ".ckpt-bf16.recast/result/1_Pooling"):
        last = max(
            at
            for at, point in enumerate(before)
            if point.other and str(PurePosixPath(point.other).parent) == folder
        )
        assert Point("fsync", folder, needs_room=True) in before[last:]
    _check_synced(points, published[0], ".")


def test_the_journal_is_on_the_disk_before_anything_is_replaced(area: Path, server: Server) -> None:
    """In place, what has been begun can be known from the disk before the first shard goes."""
    points = Scene(area / "0", Mode.IN_PLACE, server).trace(server)
    placed = placements(points)
    journal, shard = placed["ckpt/.recast/journal.json"], placed[f"ckpt/{SHARDS[0]}"]
    assert journal < shard
    for folder in ("ckpt", "ckpt/.recast"):
        assert Point("fsync", folder, needs_room=True) in points[:shard]


def test_new_folders_on_the_way_are_synced(area: Path, server: Server) -> None:
    """A result in folders that did not exist is on the disk with all of these."""
    scene = Scene(area / "0", Mode.COPY, server)
    out = scene.root / "models" / "today" / "ckpt-bf16"
    outcome = server.run(scene.job(watched=True, out=str(out)))
    assert outcome.status == 0, outcome.errors
    begun = next(at for at, p in enumerate(outcome.points) if p.path.endswith("ckpt-bf16.recast"))
    synced = {point.path for point in outcome.points[:begun] if point.call == "fsync"}
    made = {point.path for point in outcome.points if point.call == "mkdir"}
    assert {"models", "models/today"} <= made
    assert {".", "models"} <= synced


def test_the_source_is_only_read(area: Path, server: Server) -> None:
    """In copy mode no call creates, writes, renames or removes anything in the source."""
    points = Scene(area / "0", Mode.COPY, server).trace(server)
    allowed = {
        *("openat", "close", "read", "pread64", "preadv", "preadv2", "getdents64"),
        *("newfstatat", "fstat", "stat", "lstat", "statx", "readlink", "listxattr", "getxattr"),
    }
    calls = {point.call for point in points if point.path.split("/")[0] == "ckpt"}
    assert calls <= allowed
    opened = [p for p in points if p.path.split("/")[0] == "ckpt" and p.call == "openat"]
    assert not [point for point in opened if point.needs_room]


def test_the_source_is_never_mapped(scene: Scene, server: Server) -> None:
    """A mapped file that is truncated, or whose disk fails, would end the process."""
    assert not [point for point in scene.trace(server) if point.call == "mmap"]
