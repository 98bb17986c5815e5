"""Every system call of a run fails once, and is once the last one before a kill."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults import sweep
from tests.faults.client import Server
from tests.faults.scene import SHARDS, Mode, Scene, check_reported, contents, tree
from tests.faults.server import CRASHED, Step
from tests.faults.sweep import Thoroughness
from tests.faults.tracer import Point

pytestmark = pytest.mark.usefixtures("watching")

LARGE = 300_000  # rows of 64 bytes: more than one thread's share, so that two have work


def in_the_middle(points: Sequence[Point]) -> Step:
    """Return the point right after the second shard has taken its final name."""
    renames = [
        at
        for at, point in enumerate(points)
        if point.call.startswith("rename") and point.other.endswith(SHARDS[1])
    ]
    return Step(renames[0] + 1, kill=True)


def attempt(points: Sequence[Point]) -> Callable[[Server, Scene, Step], None]:
    """Return what is done at each step, for a run whose system calls are *points*."""

    def attempt_one(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        outcome = server.run(scene.job(step))
        assert outcome.stepped is not None
        assert outcome.stepped.call == points[step.at].call
        _check(scene, outcome.status, step)
        if outcome.status == 1:
            check_reported(outcome)
        _check_rerun(server, scene)

    return attempt_one


def _check(scene: Scene, status: int, step: Step) -> None:
    """Check how a run has ended, and what it has left."""
    if step.kill:
        assert status == -9
        scene.check_interrupted()
    elif status == 0:  # nothing that matters was lost
        scene.check_interrupted()
        assert contents(tree(scene.target)).items() >= contents(scene.new).items()
    else:
        assert status != CRASHED
        scene.check_failed()


def _check_rerun(server: Server, scene: Scene) -> None:
    """Check that the same run, undisturbed, makes everything right."""
    again = server.run(scene.job())
    assert again.status == 0, again.errors
    scene.check_finished()


@pytest.mark.parametrize("begun", [False, True], ids=["from the beginning", "going on"])
@pytest.mark.parametrize("mode", Mode)
class TestEveryPoint:
    """A run with one thread does the same thing every time, so each of its calls has a number."""

    def test_fails(
        self,
        mode: Mode,
        begun: bool,  # noqa: FBT001 - a parameter of the test
        area: Path,
        servers: list[Server],
        thoroughness: Thoroughness,
        report: Callable[[str], None],
    ) -> None:
        """An I/O error at any point is one line; nothing is lost, and the rerun makes it right."""
        stages = sweep.scenes(area, mode, servers)
        points = self._points(stages, begun=begun)
        steps = sweep.errors(points)
        tried = sweep.try_all(thoroughness.some(steps, 11), stages, attempt(points))
        report(f"{mode}, {_begun(begun)}: {tried} of {len(steps)} errors at {len(points)} points")

    def test_is_where_the_process_is_killed(
        self,
        mode: Mode,
        begun: bool,  # noqa: FBT001 - a parameter of the test
        area: Path,
        servers: list[Server],
        thoroughness: Thoroughness,
        report: Callable[[str], None],
    ) -> None:
        """After a kill at any point the checkpoint is whole, and the rerun finishes the work."""
        stages = sweep.scenes(area, mode, servers)
        points = self._points(stages, begun=begun)
        steps = sweep.kills(points)
        tried = sweep.try_all(thoroughness.some(steps, 13), stages, attempt(points))
        report(f"{mode}, {_begun(begun)}: {tried} of {len(steps)} kills")

    def _points(self, stages: list[tuple[Server, Scene]], *, begun: bool) -> Sequence[Point]:
        """Return the points of the run, from where the scenes begin."""
        server, scene = stages[0]
        points = scene.trace(server)
        if begun:
            for each, other in stages:
                other.interrupt(each, in_the_middle(points))
            points = scene.trace(server)
        assert len(points) > 50
        return points


def _begun(begun: bool) -> str:  # noqa: FBT001 - the parameter of the tests
    return "going on after a kill" if begun else "from the beginning"


@pytest.mark.parametrize("mode", Mode)
def test_two_threads_of_the_command(
    mode: Mode,
    area: Path,
    server: Server,
    thoroughness: Thoroughness,
    report: Callable[[str], None],
) -> None:
    """The same holds for the command with two threads at work, in whatever order they take turns.

    The number of a point is counted over both, so one and only one call fails.
    """
    scene = Scene(area / "0", mode, server, rows=LARGE)
    points = scene.trace(server, scene.command(watched=True))
    steps = [*sweep.errors(points), *sweep.kills(points)]
    fewer = [step for step in steps if step.at < 0.9 * len(points)]  # no two runs are the same

    def try_one(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        outcome = server.run(scene.command(step))
        assert outcome.stepped is not None
        _check(scene, outcome.status, step)
        if outcome.status == 1:
            check_reported(outcome)
        _check_rerun(server, scene)

    few = fewer[:: 7 if thoroughness.every else 151]
    tried = sweep.try_all(few, [(server, scene)], try_one)
    report(f"{mode}, two threads: {tried} of {len(steps)} errors and kills")
