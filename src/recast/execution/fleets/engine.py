"""The engine of a fleet: which checkpoint is at work when, and what becomes of each."""

import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any, Self

from recast.errors import BusyError, LossError, RecastError, StorageError, TargetError
from recast.execution.converter import carry_out
from recast.execution.fleets.crews import Crews
from recast.execution.fleets.discovery import absolute
from recast.execution.fleets.meter import Meter, Watcher
from recast.execution.fleets.signs import Glance, busy, glance, judged, sign_of_life
from recast.execution.fleets.survey import planned
from recast.execution.reader import inspect
from recast.execution.shard import Effort
from recast.execution.target import lacks_room
from recast.reports.fleet import Fate, Outcome, repaired


@dataclass(frozen=True, slots=True)
class Places:
    """Where results go: below *out*, as they lie below *root*; beside their sources; in place.

    *root* matters to *out* alone, and is absolute. *untouched* are folders that stay as they are,
    links resolved.
    """

    out: Path | None
    root: Path
    in_place: bool
    untouched: frozenset[Path] = frozenset()

    def of(self, path: Path) -> Path | None:
        """Return where the result of *path* goes; None for where `convert` puts it."""
        return None if self.out is None else self.out / absolute(path).relative_to(self.root)


@dataclass(slots=True)
class _Task:
    """One checkpoint to be converted.

    Attributes:
        path: the checkpoint.
        seen: its files as they were at the beginning, or why they cannot be seen.
        inner: those that lie in its folder, and wait until it is done.
        untold: the bytes of its weights files of which the watcher is still to be told.
        again: whether this is the second try.
    """

    path: Path
    seen: Glance | RecastError
    inner: list["_Task"] = field(default_factory=list)
    untold: int = field(init=False)
    again: bool = False

    def __post_init__(self) -> None:
        self.untold = self.seen.weights if isinstance(self.seen, Glance) else 0

    def try_again(self) -> Self:
        """Prepare for the second try. The first may have replaced some of the files."""
        self.seen, self.again = _seen(self.path), True
        return self


class Fleet:
    """Many checkpoints, and what is to become of them."""

    def __init__(
        self,
        dtype: object,
        wishes: Mapping[str, Any],
        places: Places,
        crews: Crews,
        watcher: Watcher,
        *,
        evidence: bool,
    ) -> None:
        self.dtype = dtype
        self.wishes = wishes
        self.places = places
        self.crews = crews
        self.watcher = watcher
        self.evidence = evidence
        self.stopped = Event()
        self.finished: SimpleQueue[tuple[_Task, Outcome | BaseException]] = SimpleQueue()
        self.under_way = 0  # how many are begun, and not heard of yet

    def convert(self, paths: Sequence[Path]) -> list[Outcome]:
        """Convert them all, the largest first, and return what became of each."""
        tasks = [_Task(path, _seen(path)) for path in paths]
        self.watcher.begin(sum(task.untold for task in tasks))
        outermost = _nested(tasks)
        del tasks  # each goes when it is done: a fleet may have a hundred thousand
        pool = ThreadPoolExecutor(self.crews.at_once, "recast-fleet")
        try:
            self._start(pool, outermost)
            del outermost
            outcomes = self._outcomes(pool, len(paths))
        except BaseException:
            self.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return [outcomes[path] for path in paths]

    def _outcomes(self, pool: ThreadPoolExecutor, count: int) -> dict[Path, Outcome]:
        """Return what becomes of all *count* checkpoints, each begun when nothing is in its way."""
        outcomes: dict[Path, Outcome] = {}
        cramped: deque[_Task] = deque()
        while len(outcomes) < count:
            if not self.under_way:  # once more, when nobody else takes up room
                self._start(pool, [cramped.popleft().try_again()])
            task, outcome = self._next()
            is_cramped = outcome.error is not None and lacks_room(outcome.error)
            waits = is_cramped and not task.again and count > 1
            if waits:
                cramped.append(task)
            else:
                outcomes[task.path] = outcome
                self._tell(task, outcome)
            if not waits or self.places.out is None:
                self._release(pool, task, outcome)
        return outcomes

    def _next(self) -> tuple[_Task, Outcome]:
        """Wait for the next checkpoint that is done. Raises what is no RecastError."""
        task, outcome = self.finished.get()
        self.under_way -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return task, outcome

    def _tell(self, task: _Task, outcome: Outcome) -> None:
        """Tell the watcher what became of one checkpoint, and that nothing more will be done."""
        self.watcher.advance(task.path, task.untold)
        self.watcher.finish(outcome)

    def _start(self, pool: ThreadPoolExecutor, tasks: Collection[_Task]) -> None:
        """Let *tasks* be done, the largest first, so that none is left over at the end."""
        self.under_way += len(tasks)
        for task in sorted(tasks, key=lambda each: -each.untold):
            pool.submit(self._do, task)

    def _release(self, pool: ThreadPoolExecutor, task: _Task, outcome: Outcome) -> None:
        """Let begin what has waited for *task*, or fail with it."""
        inner, task.inner = task.inner, []
        if self.places.out is None or outcome.error is None:
            self._start(pool, inner)
            return
        # Their results lie in its result's folder, which has to be there first.
        self.under_way += len(inner)
        for each in inner:
            why = TargetError(
                str(each.path),
                f"lies in {task.path}, of which nothing was written",
                "see to that one first",
            )
            self.finished.put((each, Outcome(each.path, outcome.fate, error=why)))

    def _do(self, task: _Task) -> None:
        """Convert one checkpoint, in a thread of the pool, and say what became of it."""
        try:
            self.finished.put((task, self._convert(task)))
        except BaseException as error:  # noqa: BLE001 - raised where it can end everything
            self.finished.put((task, error))

    def _convert(self, task: _Task) -> Outcome:
        """Convert one checkpoint. What is wrong with it is in its outcome."""
        meter = Meter(task.path, task.untold, self.watcher, self.stopped)
        try:
            with self.crews:
                return self._repair(task, meter)
        except RecastError as error:
            if not os.path.lexists(task.path):
                gone = StorageError(str(task.path), "was deleted meanwhile")
                return Outcome(task.path, Fate.SKIPPED, error=gone)
            lossy = isinstance(error, LossError) and self.wishes["lossless"]
            fate = Fate.SKIPPED if lossy or isinstance(error, BusyError) else Fate.FAILED
            return Outcome(task.path, fate, error=error.bare())
        finally:
            task.untold = meter.left

    def _repair(self, task: _Task, meter: Meter) -> Outcome:
        """Convert one checkpoint, unless somebody is writing it."""
        meter.check()
        if isinstance(task.seen, RecastError):
            raise task.seen
        with _excused(task.path, task.seen):
            made = planned(inspect(task.path), self.dtype, self.wishes)
        if made.changes:
            _refuse_busy(task.path, task.seen)
            if task.path.resolve() in self.places.untouched:
                return Outcome(task.path, Fate.SKIPPED, error=_base_of_others(task.path))
        meter.expect(made, in_place=self.places.in_place)
        crew = self.crews.crew(Effort(1, self.evidence, meter.advance))
        target = self.places.of(task.path)
        if self.places.in_place:  # it changes the files itself
            return repaired(carry_out(made, target, crew, in_place=True))
        with _excused(task.path, task.seen):
            return repaired(carry_out(made, target, crew, in_place=False))


@contextmanager
def _excused(path: Path, seen: Glance) -> Iterator[None]:
    """Let an error inside the block be a BusyError if somebody is writing the checkpoint *path*."""
    try:
        yield
    except RecastError as error:
        if name := _gone(error, path):
            raise busy(path, f"{name} has just gone") from None
        _refuse_busy(path, seen)  # no wonder then
        raise judged(path, error) from None


def _gone(error: RecastError, path: Path) -> str:
    """Return the file of *path* that was listed and is gone, if that is the error; or nothing."""
    cause = error.__cause__
    place = cause.filename if isinstance(cause, FileNotFoundError) else None
    if not isinstance(place, str | os.PathLike) or not Path(place).is_relative_to(path):
        return ""
    return Path(place).name


def _refuse_busy(path: Path, seen: Glance) -> None:
    """Raise BusyError if somebody is writing the checkpoint *path*, which was *seen* before."""
    if sign := sign_of_life(path, seen):
        raise busy(path, sign)


def _base_of_others(path: Path) -> TargetError:
    """Return why a checkpoint is left as it is by which others are judged."""
    return TargetError(
        str(path),
        "is the base of others, which take its dtypes",
        "when they are all repaired, convert it by itself",
    )


def _seen(path: Path) -> Glance | RecastError:
    """Return a checkpoint's files as they are, or why they cannot be seen."""
    try:
        return glance(path)
    except RecastError as error:
        return error.bare()


def _nested(tasks: Sequence[_Task]) -> list[_Task]:
    """Put each task into the one in whose folder it lies; return those that lie in none.

    While a checkpoint is read, nothing in its folder should come and go.
    """
    by_path = {absolute(task.path): task for task in tasks}
    outermost: list[_Task] = []
    for task in tasks:
        parents = absolute(task.path).parents
        outer = next((by_path[each] for each in parents if each in by_path), None)
        (outermost if outer is None else outer.inner).append(task)
    return outermost
