"""Trying many points of a run, on several servers at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tests.faults.client import Server
from tests.faults.scene import Mode, Scene
from tests.faults.server import Step
from tests.faults.tracer import Point

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """Whether everything is tried, or a sample that takes seconds."""

    every: bool

    def some(self, steps: Sequence[Step], stride: int) -> Sequence[Step]:
        """Return *steps*, or every *stride*-th of them, the last one included."""
        return steps if self.every else steps[::-stride]

    def count(self, many: int, few: int) -> int:
        """Return how often something is done."""
        return many if self.every else few


def errors(points: Sequence[Point]) -> list[Step]:
    """Return every point as one at which the disk fails, and is full where that may be."""
    steps = [Step(at, error="EIO") for at in range(len(points))]
    for at, point in enumerate(points):
        if point.needs_room:
            # What is written later than it is accepted is refused later, too.
            steps.append(Step(at, error="EDQUOT" if "sync" in point.call else "ENOSPC"))
    return steps


def kills(points: Sequence[Point]) -> list[Step]:
    """Return every point as one at which the process is killed."""
    return [Step(at, kill=True) for at in range(len(points))]


def try_all(
    steps: Iterable[Step],
    scenes: Sequence[tuple[Server, Scene]],
    attempt: Callable[[Server, Scene, Step], None],
) -> int:
    """Call *attempt* for every step, each scene in a thread of its own; return their number.

    Raises AssertionError, with what went wrong at which step, if it did anywhere.
    """
    shared = _Shared(steps)

    def work(server: Server, scene: Scene) -> None:
        for step in shared:
            try:
                attempt(server, scene, step)
            except AssertionError as error:
                shared.wrong.append(f"{step}: {error}")

    with ThreadPoolExecutor(len(scenes)) as pool:
        for job in [pool.submit(work, *each) for each in scenes]:
            job.result()
    shown = "\n".join(shared.wrong[:_SHOWN])
    assert not shared.wrong, f"{len(shared.wrong)} of {shared.taken} went wrong:\n{shown}"
    return shared.taken


def scenes(
    area: Path, mode: Mode, servers: Sequence[Server], rows: int = 8
) -> list[tuple[Server, Scene]]:
    """Return a scene for each server."""
    return [
        (server, Scene(area / str(number), mode, server, rows))
        for number, server in enumerate(servers)
    ]


class _Shared:
    """Steps that several threads take from, and what they found wrong."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)
        self._lock = Lock()
        self.taken = 0
        self.wrong: list[str] = []

    def __iter__(self) -> Iterator[Step]:
        while True:
            with self._lock:
                step = next(self._steps, None)
                if step is None:
                    return
                self.taken += 1
            yield step
