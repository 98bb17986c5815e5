"""An existing Dask cluster as an executor. Nothing else of recast knows Dask."""

import json
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from recast.errors import AGAIN, WorkerError
from recast.execution.fleets import attendance
from recast.execution.fleets.attendance import Attendance, news
from recast.execution.storage import naming

_PATIENCE = 10.0  # seconds for a scheduler to answer, or to come back
_RETRIES = 2  # of a job that has failed, elsewhere if there is an elsewhere
_EVERY = 1.0  # seconds between two looks at who is there
_START_ONE = "start one (dask scheduler), or check the address and the file that names it"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that answers.

    Attributes:
        executor: who takes jobs. Once nobody is left to do them, they fail with a WorkerError.
        workers: how many jobs it can do at once, as of now.
    """

    executor: Executor
    workers: int


@contextmanager
def connected(address: str, report: Report = lambda _: None) -> Iterator[Cluster]:
    """Yield the Dask cluster whose scheduler is at *address*.

    *report* is called, from any thread, with a sentence when the last worker has gone, and when
    there are some again.

    Raises WorkerError if Dask is not installed, or no scheduler answers.
    """
    client = _client(address)
    over = Event()
    try:
        jobs = _Jobs(client, address)
        watch = _Watch(client, jobs, lambda said: report(f"{address}: {said}"))
        workers = _workers(client)
        watch.hear(workers)
        Thread(target=watch.keep, args=(over,), name="recast-cluster", daemon=True).start()
        yield Cluster(jobs, workers or 0)
    finally:
        over.set()
        client.close()


def _client(address: str) -> Any:  # noqa: ANN401 - Dask is an extra, and may not be there
    """Return a client of the scheduler at *address*. Raises WorkerError if there can be none."""
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, and takes half a second
    except ImportError:
        raise WorkerError(
            address, "is a Dask scheduler, but Dask is not installed", "pip install 'recast[dask]'"
        ) from None
    if not address.rpartition(":")[2].strip("/").isdigit():
        raise WorkerError(
            address, "is no scheduler's address", "write it like this: tcp://host:8786"
        )
    found: Future[Any] = Future()

    client = Client.__new__(Client)  # at hand also when it cannot be completed

    def connect() -> None:
        try:
            client.__init__(address, timeout=_PATIENCE, set_as_default=False)  # type: ignore[misc]
            found.set_result(client)
        except Exception as error:  # noqa: BLE001 - raised by who waits
            client.status = "closed"  # else its finalizer waits for who never was there
            found.set_exception(error)

    # Dask waits for ever where somebody answers who is no scheduler, hence the second limit.
    Thread(target=connect, name="recast-connect", daemon=True).start()
    try:
        return found.result(1.5 * _PATIENCE)
    except Exception as error:  # noqa: BLE001 - as many kinds as there are ways to connect
        why = str(error).partition("\n")[0] or "somebody else does"
        raise WorkerError(address, f"no scheduler answers there ({why})", _START_ONE) from None


def address_in(scheduler_file: Path) -> str:
    """Return the address of the scheduler that has written *scheduler_file*.

    Raises StorageError if it cannot be read, WorkerError if it names none.
    """
    with naming(scheduler_file):
        content = scheduler_file.read_bytes()
    try:
        return str(json.loads(content)["address"])
    except (ValueError, KeyError, TypeError):
        raise WorkerError(str(scheduler_file), "names no scheduler", _START_ONE) from None


class _Call:
    """A call that is made where it is unpickled.

    A scheduler that lacks recast need not understand it, and a worker that does fails in the job
    and says so; it would end itself over a message that it cannot read.
    """

    def __init__(self, call: Callable[..., Any], args: Any, kwargs: Any) -> None:  # noqa: ANN401 - as executors have it
        self._call = partial(call, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        """Let it be unpickled by calling it."""
        return self._call, ()


class _Jobs(Executor):
    """A Dask client's own executor, except that all jobs fail once nobody is left to do them."""

    def __init__(self, client: Any, address: str) -> None:  # noqa: ANN401 - a Dask client
        self._client = client
        self._address = address
        self._executor = client.get_executor(pure=False, retries=_RETRIES)
        self._lock = Lock()
        self._open: set[Future[Any]] = set()
        self._given_up: tuple[str, str] | None = None  # the problem, and the way out

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as executors have it
        """Let a worker *call* something. Raises WorkerError once all is given up."""
        job: Future[Any] = Future()
        with self._lock:
            self._check()
            self._open.add(job)
        try:
            packed = pickle.dumps(_Call(call, args, kwargs))
            sent = self._executor.submit(pickle.loads, packed)
        except Exception:
            self._take(job)
            self.check_connection()
            self._check()
            raise
        sent.add_done_callback(lambda _: self._tell(job, sent))
        job.add_done_callback(lambda _: self._call_off(job, sent))
        return job

    def give_up(self, problem: str, remedy: str) -> None:
        """Let all jobs fail, those that were submitted and those that will be."""
        with self._lock:
            self._given_up = self._given_up or (problem, f"{remedy}, then {AGAIN}")
            jobs, self._open = self._open, set()
        for job in jobs:
            if job.set_running_or_notify_cancel():
                job.set_exception(self._error(*self._given_up))

    def check_connection(self) -> bool:
        """Give up if there is no scheduler any more. Return whether there is one."""
        # While Dask is "connecting" again, it keeps the jobs that it is given.
        if connected := self._client.status in {"running", "connecting"}:
            return connected
        self.give_up("the scheduler has gone", "start another one, and workers")
        return False

    def _check(self) -> None:
        """Raise WorkerError if all is given up."""
        if self._given_up:
            raise self._error(*self._given_up)

    def _error(self, problem: str, remedy: str) -> WorkerError:
        """Return the error of a job: each has its own, as each is raised by itself."""
        return WorkerError(self._address, problem, remedy)

    def _take(self, job: Future[Any]) -> bool:
        """Return whether *job* is open, and close it."""
        with self._lock:
            if job not in self._open:
                return False
            self._open.remove(job)
        return job.set_running_or_notify_cancel()

    def _tell(self, job: Future[Any], sent: Future[Any]) -> None:
        """Let *job* end as what was *sent* for it has ended."""
        if not self.check_connection() or not self._take(job):
            return
        if sent.cancelled():  # by Dask, as it had to connect again; whoever waits may try again
            job.set_exception(ConnectionError("the scheduler was lost for a moment"))
        elif error := sent.exception():
            job.set_exception(error)
        else:
            job.set_result(sent.result())

    def _call_off(self, job: Future[Any], sent: Future[Any]) -> None:
        """Cancel what was *sent* if nobody waits for *job* any more."""
        if job.cancelled() and self.check_connection():
            sent.cancel()


class _Watch:
    """Looks who is there, tells whoever waits for jobs, and gives up for them in the end."""

    def __init__(self, client: Any, jobs: _Jobs, report: Report) -> None:  # noqa: ANN401 - a Dask client
        self._client = client
        self._jobs = jobs
        self._report = report
        self._seen: Attendance | None = None

    def keep(self, over: Event) -> None:
        """Look again and again until it is *over*, or given up."""
        while not over.wait(_EVERY) and self._jobs.check_connection():
            workers = _workers(self._client)
            if not over.is_set():  # or it is the end that nobody has answered to
                self.hear(workers)

    def hear(self, workers: int | None) -> None:
        """Take in how many jobs the workers can do at once; None if nobody knows."""
        before, now = self._seen, time.monotonic()
        self._seen = before.then(workers, now) if before else Attendance(workers, now, now)
        if said := news(before, self._seen):
            self._report(said)
        if self._seen.is_hopeless:
            waited = f"{attendance.PATIENCE / 60:.0f} minutes"
            self._jobs.give_up(f"has had no workers for {waited}", "start some (dask worker)")


def _workers(client: Any) -> int | None:  # noqa: ANN401 - a Dask client
    """Return how many jobs the workers can do at once; None if the scheduler does not answer."""
    if client.status != "running":
        return None
    try:
        answer = client.sync(client.scheduler.ncores_running, callback_timeout=_PATIENCE)
    except Exception:  # noqa: BLE001 - whatever a connection raises that ends meanwhile
        return None
    threads: dict[str, int] = answer
    return sum(threads.values())
