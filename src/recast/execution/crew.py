"""Who carries out a checkpoint's shard jobs: the threads of this process, or any executor."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from threading import Semaphore
from typing import Protocol

from recast.errors import AGAIN, RecastError, WorkerError
from recast.execution.shard import Effort
from recast.execution.shard_job import ShardJob, carry_out, noted, own_version, pack
from recast.reports.conversion import ShardConversion

Done = tuple[ShardJob, ShardConversion]

_POLL = 0.5  # seconds between two looks at what workers have noted
_ATTEMPTS = 3  # before a job is given up whose worker fails without a word


class Crew(Protocol):
    """Whoever carries out shard jobs."""

    @property
    def effort(self) -> Effort:
        """How much to look at, and whom to tell of what is done here besides."""

    def carry_out(self, jobs: Iterable[ShardJob], at_once: int | None = None) -> Iterator[Done]:
        """Yield each job when it is done, with its evidence; no more than *at_once* at a time.

        Raises RecastError if one fails; those that have not begun are then called off.
        """


class Threads:
    """This process: one shard after another, each by several threads."""

    def __init__(self, effort: Effort, threads: Callable[[], int] | None = None) -> None:
        """Use as many threads as *effort* says, or as *threads* says before each shard."""
        self.effort = effort
        self._threads = threads or (lambda: effort.workers)

    def carry_out(self, jobs: Iterable[ShardJob], at_once: int | None = None) -> Iterator[Done]:  # noqa: ARG002 - one at a time is never more
        """Yield each job when it is done, with its evidence."""
        for job in jobs:
            yield job, job.run(replace(self.effort, workers=self._threads()))


class Workers:
    """The workers behind an executor, which several checkpoints may share.

    Only `submit` and the futures that it returns are relied upon.
    """

    def __init__(self, executor: Executor, effort: Effort, places: Semaphore, hands: int) -> None:
        """Give jobs to *executor*, one for each of *places* that is free."""
        self.effort = effort
        self._hands = hands
        self._executor = executor
        self._places = places

    def carry_out(self, jobs: Iterable[ShardJob], at_once: int | None = None) -> Iterator[Done]:
        """Yield each job when it is done, with its evidence; no more than *at_once* at a time.

        Raises RecastError if one fails; those that have not begun are then called off.
        """
        waiting = map(_Sent, jobs)
        hands = min(self._hands, at_once or self._hands)
        under_way: dict[Future[ShardConversion], _Sent] = {}
        try:
            sent = next(waiting, None)
            while sent or under_way:
                while sent and len(under_way) < hands and self._finds_place(wait=not under_way):
                    under_way[self._place(sent)] = sent
                    sent = next(waiting, None)
                done, _ = wait(under_way, _POLL, FIRST_COMPLETED)
                for each in under_way.values():
                    self.effort.advance(each.progress(noted(each.job)))
                for future in done:
                    finished = under_way[future]
                    result = self._result(future, finished)
                    if result is None:  # its place is kept
                        again = self._submit(finished)
                        under_way[again] = under_way.pop(future)
                        continue
                    del under_way[future]
                    self._places.release()
                    self.effort.advance(finished.progress(finished.job.plan.size_before))
                    yield finished.job, result
        finally:
            for future in under_way:
                future.cancel()
                self._places.release()

    def _finds_place(self, *, wait: bool) -> bool:
        """Take a place for one more job if there is one, or when there is one."""
        return self._places.acquire(blocking=wait)

    def _place(self, sent: "_Sent") -> Future[ShardConversion]:
        """Send a job off, for which a place was taken."""
        try:
            return self._submit(sent)
        except BaseException:
            self._places.release()
            raise

    def _submit(self, sent: "_Sent") -> Future[ShardConversion]:
        """Send a job off."""
        sent.attempts += 1
        content, evidence = pack(sent.job), self.effort.evidence
        try:
            return self._executor.submit(carry_out, own_version(), content, evidence=evidence)
        except RecastError:
            raise
        except Exception as error:  # noqa: BLE001 - shut down, broken, closed: each its own way
            raise WorkerError(
                str(sent.job.source),
                f"the executor takes no more jobs ({_said(error)})",
                f"make another one, then {AGAIN}",
            ) from None

    def _result(self, future: Future[ShardConversion], sent: "_Sent") -> ShardConversion | None:
        """Return what a future holds; None if the job should be tried again."""
        try:
            return future.result()
        except RecastError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an executor, or a dying worker, raises
            if sent.attempts < _ATTEMPTS:
                return None
            raise _failed(sent, error) from None


class _Sent:
    """A job that was given to a worker, and how far it is known to have come."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.attempts = 0
        self.done = 0

    def progress(self, done: int) -> int:
        """Return how many bytes are done that were not before: a job run again tells no news."""
        more = max(0, done - self.done)
        self.done += more
        return more


def _failed(sent: _Sent, error: BaseException) -> WorkerError:
    """Return the error of a job whose worker failed."""
    source = str(sent.job.source)
    if isinstance(error, ImportError | AttributeError):  # it could not even find the function
        problem = f"a worker has no recast, or an unlike one ({_said(error)})"
        return WorkerError(source, problem, f"install the same version there as here, then {AGAIN}")
    return WorkerError(source, f"a worker failed ({_said(error)})", AGAIN)


def _said(error: BaseException) -> str:
    """Return what kind of error it is, and the first line of what it says, if anything."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
