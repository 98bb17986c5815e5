"""Going on after a kill, beginning anew, and seeing that nothing is to be done."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import recast
from recast.execution.workplace import workplace
from recast.planning.planner import plan_documents
from tests.faults.client import Server
from tests.faults.scene import KEPT, SHARDS, TWIN, Mode, Scene, check_reported, contents, tree
from tests.faults.server import Job, Outcome, Step
from tests.faults.sweep import Thoroughness
from tests.faults.test_every_point import in_the_middle

pytestmark = pytest.mark.usefixtures("watching")


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return which file each of *folder* is, and when it was written."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def interrupted(scene: Scene, server: Server) -> None:
    """Kill a run of *scene* when its second shard is done, and begin from there."""
    points = scene.trace(server)
    step = in_the_middle(points)
    for at, point in enumerate(points):
        if point.other.endswith("/shard-1.json"):  # it is noted, too
            step = Step(at + 1, kill=True)
    scene.interrupt(server, step)
    scene.reset()


def done(outcome: Outcome) -> dict[str, object]:
    """Return what a run that succeeded says of itself."""
    assert outcome.status == 0, outcome.errors
    assert outcome.done is not None
    return outcome.done


def fresh(scene: Scene, server: Server, **options: object) -> dict[str, bytes]:
    """Return what a run with other *options*, from the beginning, makes of the same source."""
    alone = scene.root.with_name("alone")
    shutil.copytree(scene.source, alone / "ckpt")
    shutil.rmtree(alone / "ckpt" / ".recast", ignore_errors=True)
    options = {"keep": [KEPT], "out": str(alone / "out")} | options
    done(server.run(Job(str(alone / "ckpt"), options=options)))
    found = contents(tree(alone / "out"))
    shutil.rmtree(alone)
    return found


def test_complete_shards_are_not_done_again(area: Path, server: Server) -> None:
    """What was complete before the kill is the very same file in the result, and is counted."""
    scene = Scene(area / "0", Mode.COPY, server)
    interrupted(scene, server)
    before = inodes(scene.root / ".ckpt-bf16.recast" / "result")
    assert before.keys() == set(SHARDS[:2])
    said = done(server.run(scene.job()))
    assert said["resumed"] == 2
    assert not said["discarded"]
    assert inodes(scene.target).items() >= before.items()
    scene.check_finished()


def test_replaced_shards_are_not_done_again(area: Path, server: Server) -> None:
    """In place, a shard that was replaced before the kill stays the very same file."""
    scene = Scene(area / "0", Mode.IN_PLACE, server)
    interrupted(scene, server)
    before = {name: inodes(scene.source)[name] for name in scene.converted}
    assert before.keys() == set(SHARDS[:2])
    assert done(server.run(scene.job()))["shards"] == [SHARDS[2]]
    assert inodes(scene.source).items() >= before.items()
    scene.check_finished()


def test_other_options_begin_anew(area: Path, server: Server) -> None:
    """What was staged for other options, be it as large, is not used, and it is said so."""
    scene = Scene(area / "0", Mode.COPY, server)
    interrupted(scene, server)
    expected = fresh(scene, server, keep=[TWIN])
    said = done(server.run(scene.job(keep=[TWIN])))
    assert said["discarded"]
    assert said["resumed"] == 0
    assert contents(tree(scene.target)) == expected != contents(scene.new)
    assert {entry.name for entry in scene.root.iterdir()} == {"ckpt", "ckpt-bf16"}


def test_another_source_begins_anew(area: Path, server: Server) -> None:
    """A source that was trained further since the kill is converted as it is now."""
    scene = Scene(area / "0", Mode.COPY, server)
    interrupted(scene, server)
    shard = scene.source / SHARDS[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-4] + content[-8:-4])
    expected = fresh(scene, server)
    said = done(server.run(scene.job()))
    assert said["discarded"]
    assert said["resumed"] == 0
    assert contents(tree(scene.target)) == expected != contents(scene.new)


def test_options_that_change_after_two_kills(
    area: Path, server: Server, thoroughness: Thoroughness
) -> None:
    """Wherever the second of two runs is killed, a third one with other options knows it."""
    scene = Scene(area / "0", Mode.COPY, server)
    interrupted(scene, server)
    expected = fresh(scene, server, keep=[TWIN])
    points = scene.trace(server)
    for at, point in enumerate(points):
        critical = point.path.startswith(".ckpt-bf16.recast/") and point.needs_room
        if thoroughness.every or (critical and at % 7 == 0) or "journal" in point.path:
            scene.reset()
            assert server.run(scene.job(Step(at, kill=True))).status == -9
            if not scene.target.exists():
                done(server.run(scene.job(keep=[TWIN])))
                assert contents(tree(scene.target)) == expected, point


def test_other_options_are_refused_in_place(
    area: Path, server: Server, thoroughness: Thoroughness
) -> None:
    """Half of a checkpoint that was rounded one way is not rounded on in another.

    Whether it was killed once, or again while it went on.
    """
    scene = Scene(area / "0", Mode.IN_PLACE, server)
    interrupted(scene, server)
    points = scene.trace(server)
    replaced = next(at for at, p in enumerate(points) if p.other == f"ckpt/{SHARDS[2]}")
    for at in range(0, replaced, 1 if thoroughness.every else 17):
        scene.reset()
        assert server.run(scene.job(Step(at, kill=True))).status == -9
        before = contents(tree(scene.source))
        outcome = server.run(scene.job(keep=[TWIN]))
        check_reported(outcome)
        assert "holds an unfinished conversion to bfloat16, made with other options" in (
            outcome.errors
        )
        after = contents(tree(scene.source))
        assert {n: c for n, c in after.items() if not n.endswith("lock")} == {
            n: c for n, c in before.items() if not n.endswith("lock")
        }
        done(server.run(scene.job()))
        scene.check_finished()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda path: recast.convert(path, "fp32", in_place=True),
        lambda path: recast.convert(path, "bf16", in_place=True, keep=["*"]),
        recast.fix_config,
    ],
    ids=["fp32", "keep all", "fix_config"],
)
@pytest.mark.parametrize("claim", ["float32", "float16"])
def test_nothing_else_takes_what_says_how_to_go_on(
    attempt: Callable[[Path], object], claim: str, area: Path, server: Server
) -> None:
    """Not even what changes no tensor does: what came next would round what is rounded already."""
    scene = Scene(area / "0", Mode.IN_PLACE, server)
    begun = recast.plan(scene.source, "bf16", keep=[KEPT])
    with workplace(scene.source / ".recast", scene.source) as work:
        work.begin(begun)
    before = contents(tree(scene.source))
    config = scene.source / "config.json"
    text = config.read_text()
    config.write_text(text.replace("float32", claim))
    for _ in range(2):
        with pytest.raises(recast.RefusedError, match="unfinished conversion to bfloat16"):
            attempt(scene.source)
    config.write_text(text)
    assert contents(tree(scene.source)) == before
    done(server.run(scene.job()))
    scene.check_finished()


def test_configs_that_were_being_fixed_are_in_nobodys_way(area: Path, server: Server) -> None:
    """A run of fix_config that was killed has rounded nothing: any conversion may follow."""
    scene = Scene(area / "0", Mode.IN_PLACE, server)
    with workplace(scene.source / ".recast", scene.source) as work:
        work.begin(plan_documents(recast.inspect(scene.source)))
    done(server.run(scene.job()))
    scene.check_finished()


@pytest.mark.parametrize("mode", Mode)
def test_what_is_finished_is_left_alone(mode: Mode, area: Path, server: Server) -> None:
    """A second run finds that all is done, and does not write a thing."""
    scene = Scene(area / "0", mode, server)
    done(server.run(scene.job()))
    before = inodes(scene.root)
    outcome = server.run(scene.job(watched=True))
    said = done(outcome)
    assert said["found"] is (mode is Mode.COPY)
    assert said["shards"] == []
    assert inodes(scene.root) == before
    assert not [point for point in outcome.points if point.needs_room]


@pytest.mark.parametrize("change", ["other options", "a file more", "a file less", "other source"])
def test_another_result_is_not_taken_for_this_one(change: str, area: Path, server: Server) -> None:
    """A target that differs in anything from what would be written is refused, and stays."""
    scene = Scene(area / "0", Mode.COPY, server)
    options = {}
    done(server.run(scene.job()))
    match change:
        case "other options":
            options = {"keep": [TWIN]}
        case "a file more":
            (scene.target / "notes.txt").touch()
        case "a file less":
            (scene.target / "tokenizer.json").unlink()
        case "other source":
            (scene.source / SHARDS[0]).touch()
    before = inodes(scene.root)
    outcome = server.run(scene.job(**options))
    check_reported(outcome)
    assert "ckpt-bf16: is there already; delete it" in outcome.errors
    assert inodes(scene.root) == before
