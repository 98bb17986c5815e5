"""An existing Dask cluster as an executor. Nothing else of recast knows Dask."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from recast.errors import WorkerError

_PATIENCE = 10  # seconds for a scheduler to answer
_RETRIES = 2  # of a job that has failed, elsewhere if there is an elsewhere


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that answers.

    Attributes:
        executor: who takes jobs.
        workers: how many jobs it can do at once, as of now.
    """

    executor: Executor
    workers: int


@contextmanager
def connected(address: str | None = None, scheduler_file: str | None = None) -> Iterator[Cluster]:
    """Yield the Dask cluster whose scheduler is at *address*, or is named in *scheduler_file*.

    Raises WorkerError if Dask is not installed, or no scheduler answers.
    """
    subject = address or str(scheduler_file)
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, and takes half a second
    except ImportError:
        raise WorkerError(
            subject, "is a Dask scheduler, but Dask is not installed", "pip install 'recast[dask]'"
        ) from None
    try:
        client: Any = Client(  # type: ignore[no-untyped-call]
            address,
            scheduler_file=scheduler_file,
            timeout=_PATIENCE,
            set_as_default=False,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        why = str(error).partition("\n")[0]
        raise WorkerError(
            subject,
            f"no scheduler answers there ({why})",
            "start one (dask scheduler), or check the address",
        ) from None
    try:
        threads = client.nthreads()
        yield Cluster(client.get_executor(pure=False, retries=_RETRIES), sum(threads.values()))
    finally:
        client.close()
