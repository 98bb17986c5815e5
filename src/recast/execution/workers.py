"""How many threads to use, and running the same work in each of them."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from recast.errors import RefusedError

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")

Item = TypeVar("Item")
Result = TypeVar("Result")


def chosen_workers(workers: int | None) -> int:
    """Return how many threads to use, if the user says *workers*. Raises RefusedError."""
    if workers is None:
        return default_workers()
    if workers < 1:
        raise RefusedError("workers", f"is {workers}", "give at least 1, or leave it out")
    return workers


def default_workers() -> int:
    """Return the CPUs that this process may use: its affinity and its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return max(1, min(available, _quota(_CGROUP_QUOTA) or available))


def _quota(path: Path) -> int | None:
    """Return the whole CPUs that a cgroup's ``cpu.max`` allows; None if it sets no limit."""
    try:
        quota, period = path.read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


class Queue(Generic[Item]):
    """Items that several threads take from, each once, until it is closed."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Offer *items*, in their order."""
        self._items = iter(items)
        self._lock = Lock()
        self._open = True

    def __iter__(self) -> Iterator[Item]:
        """Yield items that no other thread has taken."""
        while True:
            with self._lock:
                if not self._open:
                    return
                try:
                    item = next(self._items)
                except StopIteration:
                    return
            yield item

    def close(self) -> None:
        """Offer nothing more: every thread ends after the item it has."""
        self._open = False


def share(
    items: Iterable[Item], work: Callable[[Iterable[Item]], Result], workers: int
) -> list[Result]:
    """Run *work* in *workers* threads, this one among them, which take *items* from one queue.

    Returns what each returned. Raises what a failing thread raised, once all have ended; they end
    after the item at hand. So they do when this thread is interrupted, and again while it waits:
    until they have ended, what they write to must not be closed.
    """
    queue = Queue(items)

    def take_part() -> Result:
        try:
            return work(queue)
        except BaseException:
            queue.close()
            raise

    with ThreadPoolExecutor(max(1, workers - 1), "recast") as pool:  # starts a thread when asked
        others = [pool.submit(take_part) for _ in range(workers - 1)]
        try:
            mine = take_part()
        finally:
            _wait(others, queue)
    return [mine, *(other.result() for other in others)]


def _wait(threads: Iterable[Future[Result]], queue: Queue[Item]) -> None:
    """Wait until all *threads* have ended, and only then raise what has interrupted the waiting."""
    interrupt: BaseException | None = None
    while True:
        try:
            wait(threads)
            break
        except BaseException as error:  # noqa: BLE001 - it is raised below
            queue.close()
            interrupt = error
    if interrupt is not None:
        raise interrupt
