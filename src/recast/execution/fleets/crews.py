"""Crews for the checkpoints of a fleet: the workers are shared by those that are at work."""

from concurrent.futures import Executor
from threading import Lock, Semaphore

from recast.execution.crew import Crew, Threads, Workers
from recast.execution.shard import Effort
from recast.execution.workers import chosen_workers

IN_FLIGHT = 64  # shard jobs that an executor is given at once, unless somebody knows better
_COORDINATORS = 16  # checkpoints at work at once when their shards are an executor's


class Crews:
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


class _ExecutorCrews(Crews):
    """Crews that all give their jobs to one executor."""

    def __init__(self, executor: Executor, in_flight: int) -> None:
        super().__init__(in_flight)
        self.at_once = min(in_flight, _COORDINATORS)
        self._executor = executor
        self._places = Semaphore(in_flight)

    def crew(self, effort: Effort) -> Crew:
        """Return a crew for one checkpoint."""
        return Workers(self._executor, effort, self._places, self._workers)


def crews_for(executor: Executor | None, workers: int | None) -> Crews:
    """Return the crews for a fleet."""
    if executor is None:
        return Crews(chosen_workers(workers))
    return _ExecutorCrews(executor, IN_FLIGHT if workers is None else chosen_workers(workers))
