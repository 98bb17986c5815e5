"""Talking to `server`: one process, which forks itself for each run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.faults.server import Job, Outcome
from tests.faults.tracer import Point

_PROJECT = Path(__file__).parents[2]


class Server:
    """A running `server`. One run at a time."""

    def __init__(self, wrapper: Sequence[str] = ()) -> None:
        """Start it, by way of the command *wrapper* if one is given."""
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "tests.faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_PROJECT,
            # One thread before the fork: numpy's own would not survive it.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": _python_path()},
        )

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and whatever it runs."""
        self._process.kill()
        self._process.communicate()

    @property
    def process(self) -> int:
        """The number of its process."""
        return self._process.pid

    def run(self, job: Job) -> Outcome:
        """Carry out *job*, and return how it ended."""
        self._send(asdict(job))
        return _outcome(self._receive())

    def start(self, job: Job) -> None:
        """Begin *job*, without waiting for its end."""
        self._send(asdict(job))

    def finish(self) -> Outcome:
        """Return how the run that was started ended."""
        return _outcome(self._receive())

    @contextmanager
    def held(self, job: Job) -> Iterator[Point]:
        """Begin *job*, and yield the call at which its step holds it; then let it go on.

        Its outcome is `finish`'s.
        """
        self._send(asdict(job))
        answer = self._receive()
        assert "held" in answer, answer
        try:
            yield Point(*answer["held"])
        finally:
            self._send({})

    def _send(self, document: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(document) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has died"
        document: dict[str, Any] = json.loads(line)
        return document


def _outcome(document: dict[str, Any]) -> Outcome:
    """Return what a line of the server says."""
    points = [Point(*each) for each in document.pop("points")]
    stepped = document.pop("stepped")
    return Outcome(**document, points=points, stepped=stepped and Point(*stepped))


def _python_path() -> str:
    """Return where this process finds recast and the tests, for a process that it starts."""
    return os.pathsep.join(path for path in sys.path if path)
