"""Two processes on one checkpoint."""

import socket
from pathlib import Path

import pytest

from tests.faults import sweep
from tests.faults.client import Server
from tests.faults.scene import Mode, Scene, check_reported, contents, tree
from tests.faults.server import Step
from tests.faults.sweep import Thoroughness

pytestmark = pytest.mark.usefixtures("watching")


@pytest.mark.parametrize("mode", Mode)
def test_the_second_says_who_is_at_work(mode: Mode, area: Path, servers: list[Server]) -> None:
    """While one process converts, another is told which process, on which host, and goes."""
    first, second = servers
    scene = Scene(area / "0", mode, first)
    points = scene.trace(first)
    writing = next(at for at, point in enumerate(points) if point.call == "pwrite64") + 10
    with first.held(scene.job(Step(writing, hold=True))) as process:
        before = contents(tree(scene.root))
        outcome = second.run(scene.job())
        check_reported(outcome)
        assert f"is being written by process {process} on {socket.gethostname()}" in outcome.errors
        assert contents(tree(scene.root)) == before
    assert first.finish().status == 0
    scene.check_finished()


@pytest.mark.parametrize("mode", Mode)
def test_a_second_run_at_every_point_of_the_first(
    mode: Mode, area: Path, servers: list[Server], thoroughness: Thoroughness
) -> None:
    """Wherever the first stands while a second one runs, one of them does all the work."""
    first, second = servers
    scene = Scene(area / "0", mode, first)
    points = scene.trace(first)

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        with server.held(scene.job(Step(step.at, hold=True))):
            beside = second.run(scene.job())
            scene.check_interrupted()
        outcome = server.finish()
        assert 0 in (outcome.status, beside.status), (outcome.errors, beside.errors)
        for each in (outcome, beside):
            if each.status:
                check_reported(each)
        scene.check_interrupted()
        assert server.run(scene.job()).status == 0
        scene.check_finished()

    steps = [Step(at) for at in range(len(points))]
    sweep.try_all(thoroughness.some(steps, 37), [(first, scene)], attempt)


def test_a_copy_is_made_while_the_source_is_replaced(
    area: Path, servers: list[Server], thoroughness: Thoroughness
) -> None:
    """A copy that runs into a conversion in place is right, or fails; never something else."""
    first, second = servers
    scene = Scene(area / "0", Mode.IN_PLACE, first)
    points = scene.trace(first)
    copy = scene.root / "ckpt-bf16"

    def attempt(server: Server, scene: Scene, step: Step) -> None:
        scene.reset()
        with server.held(scene.job(Step(step.at, hold=True))):
            beside = second.run(scene.job(in_place=False, out=str(copy)))
        assert server.finish().status == 0
        if beside.status:
            check_reported(beside)
        elif copy.exists():  # unless all was converted already
            assert contents(tree(copy)) == contents(scene.new)

    steps = [Step(at) for at in range(len(points))]
    sweep.try_all(thoroughness.some(steps, 43), [(first, scene)], attempt)
