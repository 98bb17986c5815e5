"""An existing Dask cluster as an executor. Nothing else of recast knows Dask."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recast.errors import WorkerError
from recast.execution.storage import naming

_PATIENCE = 10  # seconds for a scheduler to answer
_RETRIES = 2  # of a job that has failed, elsewhere if there is an elsewhere
_START_ONE = "start one (dask scheduler), or check the address"


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
def connected(address: str) -> Iterator[Cluster]:
    """Yield the Dask cluster whose scheduler is at *address*.

    Raises WorkerError if Dask is not installed, or no scheduler answers.
    """
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
    try:
        client: Any = Client(address, timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, ImportError) as error:
        why = str(error).partition("\n")[0]
        raise WorkerError(address, f"no scheduler answers there ({why})", _START_ONE) from None
    try:
        threads = client.nthreads()
        yield Cluster(client.get_executor(pure=False, retries=_RETRIES), sum(threads.values()))
    finally:
        client.close()


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
