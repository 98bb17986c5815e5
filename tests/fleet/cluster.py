"""A Dask cluster as people start one by hand: `dask scheduler`, and `dask worker` as often."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distributed import Client

from tests import processes

_PATIENCE = 60  # seconds

Process = subprocess.Popen[bytes]


@contextmanager
def by_hand(folder: Path, workers: int, preload: Path | None = None) -> Iterator[Path]:
    """Start a scheduler and workers, and yield the file that names the scheduler."""
    with scheduler(folder) as (file, _), ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(worker(file, preload))
        yield file


@contextmanager
def scheduler(folder: Path, preload: Path | None = None) -> Iterator[tuple[Path, Process]]:
    """Start a scheduler, and yield the file that names it, and its process."""
    file = folder / "scheduler.json"
    with _started("scheduler", "--port", "0", *_common(file, preload)) as process:
        end = time.monotonic() + _PATIENCE
        while not _is_whole(file):
            assert process.poll() is None, "the scheduler has ended"
            assert time.monotonic() < end, "the scheduler says nothing"
            time.sleep(0.05)
        yield file, process


@contextmanager
def worker(file: Path, preload: Path | None = None, name: str = "") -> Iterator[Process]:
    """Start a worker for the scheduler that *file* names; nothing starts it again if it dies."""
    named = ("--name", name) if name else ()
    local = (*named, "--nthreads", "1", "--no-nanny", "--local-directory", str(file.parent))
    local = (*local, "--death-timeout", str(_PATIENCE))
    with _started("worker", *local, *_common(file, preload)) as process:
        yield process


def client(file: Path) -> Client:
    """Return a client of the scheduler that *file* names."""
    return Client(scheduler_file=str(file), set_as_default=False, timeout=_PATIENCE)


def wait_for_worker(file: Path) -> None:
    """Wait until the scheduler that *file* names has a worker."""
    with client(file) as asking:
        asking.wait_for_workers(1, timeout=_PATIENCE)


def _common(file: Path, preload: Path | None) -> Sequence[str]:
    """Return the options of both."""
    loaded = ("--preload", str(preload)) if preload else ()
    return ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file), *loaded)


def _is_whole(file: Path) -> bool:
    """Whether the scheduler has written all of the file that says where it is."""
    try:
        return bool(json.loads(file.read_text())["address"])
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def _started(what: str, *arguments: str) -> Iterator[Process]:
    """Start one process of the cluster, and end it."""
    with processes.watched(
        f"distributed.cli.dask_{what}",
        *arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):  # then it is killed
                process.wait(_PATIENCE)
