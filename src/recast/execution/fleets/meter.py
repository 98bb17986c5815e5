"""How a fleet comes along: who is told, and how much of each checkpoint is done."""

from pathlib import Path
from threading import Event, Lock

from recast.planning.plan import Plan
from recast.reports.fleet import Outcome


class Watcher:
    """Whoever is told how a fleet comes along. Subclass it, and override what is of interest."""

    def begin(self, nbytes: int) -> None:
        """Hear that checkpoints of *nbytes* of weights are to be dealt with."""

    def advance(self, path: Path, nbytes: int) -> None:
        """Hear that *nbytes* more of the weights of *path* are dealt with; from any thread."""

    def finish(self, outcome: Outcome) -> None:
        """Hear what became of one checkpoint; from the thread that called `convert_all`."""


class StoppedError(BaseException):
    """Everything ends, because the fleet was interrupted. No error to recover from."""


class Meter:
    """Tells the watcher of one checkpoint, never more than its weights weigh, whatever is done."""

    def __init__(self, path: Path, weights: int, watcher: Watcher, stopped: Event) -> None:
        """Tell *watcher* of the checkpoint *path*, until *stopped*; *weights* is in bytes."""
        self._path = path
        self._weights = weights
        self._watcher = watcher
        self._stopped = stopped
        self._lock = Lock()
        self._whole = 0
        self._done = 0
        self._told = 0

    def check(self) -> None:
        """Raise StoppedError if everything should end."""
        if self._stopped.is_set():
            raise StoppedError

    def expect(self, made: Plan, *, in_place: bool) -> None:
        """Hear what will be done: in place, what may lose is looked at, and what stays is not."""
        for shard in made.shards:
            passes = 1
            if in_place:
                passes = shard.changes + any(tensor.narrows for tensor in shard.tensors)
            self._whole += passes * shard.size_before
        self._watcher.advance(self._path, 0)

    def advance(self, count: int) -> None:
        """Hear that *count* more bytes were done."""
        self.check()
        with self._lock:
            self._done += count
            due = self._weights * min(self._done, self._whole) // max(1, self._whole)
            more, self._told = due - self._told, due
        self._watcher.advance(self._path, more)

    @property
    def left(self) -> int:
        """The bytes of the weights of which the watcher was not told."""
        return self._weights - self._told
