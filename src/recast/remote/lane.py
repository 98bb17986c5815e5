"""Work that goes on beside other work, one thing after another; and the room that they share."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

_Job = tuple[Future[Any], Callable[[], Any]]


class Room:
    """A number of bytes that may be taken, and are given back."""

    def __init__(self, size: int) -> None:
        """Offer *size* bytes."""
        self._size, self._taken = size, 0
        self._error: BaseException | None = None
        self._changed = Condition()

    def take(self, nbytes: int) -> None:
        """Wait until so many are free, or none are taken. Raises what `close` was told."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or not self._taken or self._taken + nbytes <= self._size
            )
            if self._error is not None:
                raise self._error
            self._taken += nbytes

    def give(self, nbytes: int) -> None:
        """Give so many back."""
        with self._changed:
            self._taken -= nbytes
            self._changed.notify_all()

    def close(self, error: BaseException) -> None:
        """Let nobody wait any longer: something has failed."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class Lane:
    """A thread that does one thing after another, until one of them fails.

    A transfer cannot be called off, and an interrupt does not wait for it to end.
    """

    def __init__(self, room: Room) -> None:
        """Start; *room* is closed when something fails."""
        self._room = room
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._added: list[Future[Any]] = []
        self._thread = Thread(target=self._run, name="recast-lane", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End after the thing at hand; after an interrupt, do not wait for it."""
        if error is not None:
            self._room.close(error)
        self._jobs.put(None)
        if kind is None or issubclass(kind, Exception):
            self._thread.join()

    def add(self, work: Callable[[], Any]) -> Future[Any]:
        """Do *work* when all that was added before is done."""
        future: Future[Any] = Future()
        self._added.append(future)
        self._jobs.put((future, work))
        return future

    def finish(self) -> None:
        """Wait until all is done. Raises what the first failing work raised."""
        for future in self._added:
            future.result()

    def _run(self) -> None:
        failed: BaseException | None = None
        while (job := self._jobs.get()) is not None:
            future, work = job
            if failed is None:
                try:
                    future.set_result(work())
                    continue
                except BaseException as error:  # noqa: BLE001 - whatever it is goes to who waits
                    failed = error
                    self._room.close(error)
            future.set_exception(failed)
