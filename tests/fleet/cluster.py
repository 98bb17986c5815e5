"""A Dask cluster as people start one by hand: `dask scheduler`, and `dask worker` as often."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 60  # seconds


@contextmanager
def by_hand(folder: Path, workers: int, preload: Path | None = None) -> Iterator[Path]:
    """Start a scheduler and workers, and yield the file that names the scheduler."""
    file = folder / "scheduler.json"
    on = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file))
    loaded = ("--preload", str(preload)) if preload else ()
    processes = [_start("scheduler", ("--port", "0", *on))]
    try:
        _wait_for(file, processes[0])
        for _ in range(workers):
            local = ("--nthreads", "1", "--local-directory", str(folder), *on, *loaded)
            processes.append(_start("worker", local))
        yield file
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(_PATIENCE)


def _start(what: str, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start one process of the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def _wait_for(file: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the scheduler has written where it is."""
    end = time.monotonic() + _PATIENCE
    while not file.exists():
        assert process.poll() is None, "the scheduler has ended"
        assert time.monotonic() < end, "the scheduler says nothing"
        time.sleep(0.05)
