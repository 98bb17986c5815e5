"""convert_all(): many checkpoints whose shards share the workers; no failure stops the others."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Semaphore
from typing import Any

from recast import dtypes
from recast.errors import LossError, RecastError, StorageError, TargetError
from recast.execution.converter import carry_out, plan
from recast.execution.crew import Crew, Threads, Workers
from recast.execution.discovery import AnyPath, Glance, glance, sign_of_life
from recast.execution.lock import is_held
from recast.execution.reader import inspect
from recast.execution.shard import Effort
from recast.execution.target import lacks_room
from recast.execution.workers import chosen_workers
from recast.formats.checkpoint import Checkpoint
from recast.planning.planner import Plan
from recast.reports.fleet import Fate, Outcome, Survey, repaired, survey

IN_FLIGHT = 64  # shard jobs that an executor is given at once, unless somebody knows better
_COORDINATORS = 16  # checkpoints at work at once when their shards are an executor's

AUTO = "auto"  # for *like*: each checkpoint's own base


class Watcher:
    """Whoever is told how a fleet comes along. Subclass it, and override what is of interest."""

    def begin(self, nbytes: int) -> None:
        """Hear that checkpoints of *nbytes* of weights are to be dealt with."""

    def advance(self, path: Path, nbytes: int) -> None:
        """Hear that *nbytes* more of the weights of *path* are dealt with; from any thread."""

    def finish(self, outcome: Outcome) -> None:
        """Hear what became of one checkpoint; from the thread that called `convert_all`."""


def survey_all(paths: Iterable[AnyPath], dtype: object, **wishes: Any) -> Iterator[Survey]:  # noqa: ANN401 - what `plan` takes
    """Yield what is stored in each of *paths*, and what converting it to *dtype* would save.

    Reads headers only. *wishes* are the options of `plan`. What is wrong with a checkpoint is in
    its survey, and no exception.
    """
    for path in map(Path, paths):
        try:
            checkpoint = inspect(path)
        except RecastError as error:
            yield Survey(path, error=_bare(error))
            continue
        try:
            planned: Plan | RecastError = _planned(checkpoint, dtype, wishes)
        except RecastError as error:
            planned = _bare(error)
        yield survey(checkpoint, planned)


def _planned(checkpoint: Checkpoint, dtype: object, wishes: Mapping[str, Any]) -> Plan:
    """Plan what the wishes say for one checkpoint, whose own base may be meant."""
    if wishes.get("like") == AUTO:
        base = checkpoint.base
        here = base is not None and not base.startswith("hf://")
        wishes = {**wishes, "like": base if here else None}
    return plan(checkpoint, dtype, **wishes)


def convert_all(
    paths: Iterable[AnyPath],
    dtype: object,
    executor: Executor | None = None,
    *,
    out: AnyPath | None = None,
    root: AnyPath | None = None,
    in_place: bool = False,
    like: AnyPath | Checkpoint | None = None,
    keep: Iterable[str] = (),
    cast: Iterable[str] = (),
    keep_rules: bool = True,
    lossless: bool = False,
    allow: Iterable[str] = (),
    workers: int | None = None,
    evidence: bool = True,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Write every checkpoint of *paths* anew in *dtype*, each as `convert` does it.

    One that fails stops no other, and one that is right already costs only its headers. What
    was interrupted or killed is finished by calling again. A checkpoint that somebody is
    writing, a trainer or another recast, is skipped; so is, with *lossless*, one that would
    lose values.

    Args:
        paths: the checkpoints, such as `discover` yields them.
        dtype: the target, as for `plan`.
        executor: who converts the shards: any executor of `concurrent.futures`, such as a
            process pool or a Dask client's; the threads of this process if left out. Its
            workers need the same disk under the same paths, and the same version of recast.
        out: a folder in which each result gets the path that its source has below *root*; if
            left out, each lies beside its source, with the dtype in its name.
        root: the folder that holds all *paths*; by default the deepest one.
        in_place: whether to replace the sources, file by file.
        like: as for `plan`, for all of them; or "auto": for each, the base that its config.json
            or model card names, where that is a folder here, and else none.
        keep: as for `plan`.
        cast: as for `plan`.
        keep_rules: as for `plan`.
        lossless: whether to convert only what loses nothing.
        allow: as for `plan`.
        workers: the threads to use, by default the CPUs this process may use; with an
            executor, how many shards it is given at once.
        evidence: whether to look at what rounding did to each tensor.
        watcher: who is told how it comes along.

    Returns:
        What became of each checkpoint, in the order of *paths*.

    Raises:
        DtypeError: if *dtype* is none that recast converts to.
        TargetError: if *out* is given beside *in_place*.
        RefusedError: if *workers* is none.

    Example:
        >>> runs = recast.discover("./runs")  # doctest: +SKIP
        >>> done = recast.convert_all(runs, "bfloat16", in_place=True)  # doctest: +SKIP
        >>> sum(each.saved for each in done)  # bytes  # doctest: +SKIP
        1207959552000
    """
    dtypes.target(dtype)
    if in_place and out is not None:
        raise TargetError(str(out), "is given beside in_place", "choose one of them")
    listed = list(dict.fromkeys(map(Path, paths)))
    wishes = {
        "like": like if like in (None, AUTO) or isinstance(like, Checkpoint) else inspect(like),
        "keep": (keep,) if isinstance(keep, str) else tuple(keep),
        "cast": (cast,) if isinstance(cast, str) else tuple(cast),
        "keep_rules": keep_rules,
        "lossless": lossless,
        "allow": (allow,) if isinstance(allow, str) else tuple(allow),
    }
    places = _Places(Path(out) if out else None, _root(listed, root), in_place=in_place)
    fleet = _Fleet(
        dtype,
        wishes,
        places,
        _crews(executor, workers),
        watcher or Watcher(),
        evidence=evidence or lossless,
    )
    return fleet.convert(listed)


def _root(paths: Sequence[Path], root: AnyPath | None) -> Path:
    """Return the folder below which results get the paths of their sources."""
    if root is not None or not paths:
        return Path(root or ".")
    return Path(os.path.commonpath([each.parent for each in paths]))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where results go: below *out*, as they lie below *root*; beside their sources; in place."""

    out: Path | None
    root: Path
    in_place: bool

    def of(self, path: Path) -> Path | None:
        """Return where the result of *path* goes; None for where `convert` puts it."""
        return None if self.out is None else self.out / path.relative_to(self.root)


class _Crews:
    """Crews for the checkpoints of a fleet: this process's threads, shared by those at work."""

    def __init__(self, workers: int) -> None:
        self.at_once = workers
        self._workers = workers
        self._lock = Lock()
        self._at_work = 0

    def crew(self, effort: Effort) -> Crew:
        """Return a crew for one checkpoint: a thread each, or more when few are left."""
        return Threads(effort, lambda: max(1, self._workers // max(1, self._at_work)))

    def __enter__(self) -> None:
        """Count one more checkpoint at work."""
        with self._lock:
            self._at_work += 1

    def __exit__(self, *_: object) -> None:
        """Count one less."""
        with self._lock:
            self._at_work -= 1


class _ExecutorCrews(_Crews):
    """Crews that all give their jobs to one executor."""

    def __init__(self, executor: Executor, in_flight: int) -> None:
        super().__init__(in_flight)
        self.at_once = min(in_flight, _COORDINATORS)
        self._executor = executor
        self._places = Semaphore(in_flight)

    def crew(self, effort: Effort) -> Crew:
        """Return a crew for one checkpoint."""
        return Workers(self._executor, effort, self._places, self._workers)


def _crews(executor: Executor | None, workers: int | None) -> _Crews:
    """Return the crews for a fleet."""
    if executor is None:
        return _Crews(chosen_workers(workers))
    return _ExecutorCrews(executor, IN_FLIGHT if workers is None else chosen_workers(workers))


class _StoppedError(BaseException):
    """Everything ends, because the fleet was interrupted. No error to recover from."""


@dataclass(slots=True)
class _Task:
    """One checkpoint to be converted.

    Attributes:
        path: the checkpoint.
        seen: its files as they were at the beginning, or why they cannot be seen.
        inner: those that lie in its folder, and wait until it is done.
    """

    path: Path
    seen: Glance | RecastError
    inner: list["_Task"] = field(default_factory=list)

    @property
    def weights(self) -> int:
        """The bytes of its weights files."""
        return self.seen.weights if isinstance(self.seen, Glance) else 0


class _Fleet:
    """Many checkpoints, and what is to become of them."""

    def __init__(
        self,
        dtype: object,
        wishes: Mapping[str, Any],
        places: _Places,
        crews: _Crews,
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

    def convert(self, paths: Sequence[Path]) -> list[Outcome]:
        """Convert them all, the largest first, and return what became of each."""
        tasks = [_Task(path, _seen(path)) for path in paths]
        self.watcher.begin(sum(task.weights for task in tasks))
        outermost = _nested(tasks)
        outcomes: dict[Path, Outcome] = {}
        cramped: list[_Task] = []
        pool = ThreadPoolExecutor(self.crews.at_once, "recast-fleet")
        try:
            self._start(pool, outermost)
            for _ in tasks:
                task, outcome = self._next()
                outcomes[task.path] = outcome
                if outcome.error is not None and lacks_room(outcome.error) and len(tasks) > 1:
                    cramped.append(task)
                else:
                    self.watcher.finish(outcome)
                self._start(pool, self._released(task, outcome))
        except BaseException:
            self.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        for task in cramped:  # once more, when nobody else takes up room
            outcomes[task.path] = self._convert(task)
            self.watcher.finish(outcomes[task.path])
        return [outcomes[path] for path in paths]

    def _next(self) -> tuple[_Task, Outcome]:
        """Wait for the next checkpoint that is done. Raises what is no RecastError."""
        task, outcome = self.finished.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return task, outcome

    def _start(self, pool: ThreadPoolExecutor, tasks: Iterable[_Task]) -> None:
        """Let *tasks* be done, the largest first, so that none is left over at the end."""
        for task in sorted(tasks, key=lambda each: -each.weights):
            pool.submit(self._do, task)

    def _released(self, task: _Task, outcome: Outcome) -> list[_Task]:
        """Return what waited for *task* and can begin now."""
        if self.places.out is None or outcome.error is None:
            return task.inner
        # Their results lie in its result's folder, which has to be there first.
        for inner in task.inner:
            why = TargetError(
                str(inner.path),
                f"lies in {task.path}, of which nothing was written",
                "see to that one first",
            )
            self.watcher.advance(inner.path, inner.weights)
            self.finished.put((inner, Outcome(inner.path, outcome.fate, error=why)))
        return []

    def _do(self, task: _Task) -> None:
        """Convert one checkpoint, in a thread of the pool, and say what became of it."""
        try:
            self.finished.put((task, self._convert(task)))
        except BaseException as error:  # noqa: BLE001 - raised where it can end everything
            self.finished.put((task, error))

    def _convert(self, task: _Task) -> Outcome:
        """Convert one checkpoint. What is wrong with it is in its outcome."""
        meter = _Meter(task, self.watcher, self.stopped)
        try:
            with self.crews:
                return self._repair(task, meter)
        except RecastError as error:
            if not os.path.lexists(task.path):
                gone = StorageError(str(task.path), "was deleted meanwhile")
                return Outcome(task.path, Fate.SKIPPED, error=gone)
            lossy = isinstance(error, LossError) and self.wishes["lossless"]
            fate = Fate.SKIPPED if lossy or is_held(error) else Fate.FAILED
            return Outcome(task.path, fate, error=_bare(error))
        finally:
            meter.finish()

    def _repair(self, task: _Task, meter: "_Meter") -> Outcome:
        """Convert one checkpoint, unless somebody is writing it."""
        meter.check()
        if isinstance(task.seen, RecastError):
            raise task.seen
        try:
            made = _planned(inspect(task.path), self.dtype, self.wishes)
        except RecastError:
            if busy := _busy(task.path, task.seen):  # no wonder then
                return busy
            raise
        if made.changes and (busy := _busy(task.path, task.seen)):
            return busy
        meter.expect(made, scanned=self.places.in_place)
        crew = self.crews.crew(Effort(1, self.evidence, meter.advance))
        target = self.places.of(task.path)
        return repaired(carry_out(made, target, crew, in_place=self.places.in_place))


def _busy(path: Path, seen: Glance) -> Outcome | None:
    """Return what becomes of a checkpoint that somebody is writing; None if nobody is."""
    if not (sign := sign_of_life(path, seen)):
        return None
    problem, remedy = f"is being written: {sign}", "run again when it is finished"
    return Outcome(path, Fate.SKIPPED, error=StorageError(str(path), problem, remedy))


class _Meter:
    """Tells the watcher of one checkpoint, as much as its weights weigh, whatever is done."""

    def __init__(self, task: _Task, watcher: Watcher, stopped: Event) -> None:
        self._path = task.path
        self._weights = task.weights
        self._watcher = watcher
        self._stopped = stopped
        self._lock = Lock()
        self._whole = 0
        self._done = 0
        self._told = 0

    def check(self) -> None:
        """Raise _StoppedError if everything should end."""
        if self._stopped.is_set():
            raise _StoppedError

    def expect(self, made: Plan, *, scanned: bool) -> None:
        """Hear what will be done: in place, all values are looked at before."""
        twice = scanned and made.may_lose
        self._whole = sum(shard.size_before for shard in made.shards) * (2 if twice else 1)
        self._watcher.advance(self._path, 0)

    def advance(self, count: int) -> None:
        """Hear that *count* more bytes were done."""
        self.check()
        with self._lock:
            self._done += count
            due = self._weights * min(self._done, self._whole) // max(1, self._whole)
            more, self._told = due - self._told, due
        self._watcher.advance(self._path, more)

    def finish(self) -> None:
        """Hear that nothing more will be done."""
        self._watcher.advance(self._path, self._weights - self._told)


def _seen(path: Path) -> Glance | RecastError:
    """Return a checkpoint's files as they are, or why they cannot be seen."""
    try:
        return glance(path)
    except RecastError as error:
        return _bare(error)


def _nested(tasks: Sequence[_Task]) -> list[_Task]:
    """Put each task into the one in whose folder it lies; return those that lie in none.

    While a checkpoint is read, nothing in its folder should come and go.
    """
    by_path = {task.path: task for task in tasks}
    outermost: list[_Task] = []
    for task in tasks:
        outer = next((by_path[each] for each in task.path.parents if each in by_path), None)
        (outermost if outer is None else outer.inner).append(task)
    return outermost


def _bare(error: RecastError) -> RecastError:
    """Return *error* without what it refers to: frames, and in them all that is in memory."""
    return type(error)(error.subject, error.problem, error.remedy)
