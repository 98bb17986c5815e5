"""One whole process: how long it took, from before its start to after its end, and what it used."""

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_KIB = 1024


class BenchmarkError(Exception):
    """Something without which nothing can be measured."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took.

    Attributes:
        wall: seconds from before it was started until it had ended.
        cpu: seconds of processor time, the kernel's on its behalf included.
        peak_rss: the most bytes of memory it, or a child of its, had resident at once. The
            kernel counts what it was started from, too: this is never less than the benchmark's.
        inner: the seconds it says its work alone took; None if it says nothing.
    """

    wall: float
    cpu: float
    peak_rss: int
    inner: float | None = None


def run(command: Sequence[str], statuses: Sequence[int] = (0,)) -> Run:
    """Run *command* to its end. Raises BenchmarkError if its exit status is none of *statuses*."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaints:
        begun = time.perf_counter()
        process = None
        try:
            with _signals_put_off():
                # A session of its own: an interrupt is for the benchmark, which ends what it
                # started.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=complaints,
                    cwd=ROOT,
                    env=_environment(),
                    start_new_session=True,
                )
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            if process is not None:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            raise
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        complaints.seek(0)
        if process.returncode not in statuses:
            problem = complaints.read().decode(errors="replace").strip()
            raise BenchmarkError(f"{shlex.join(command)}: {process.returncode}\n{problem}")
        cpu = usage.ru_utime + usage.ru_stime
        return Run(wall, cpu, usage.ru_maxrss * _KIB, _seconds(said.read()))


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Let a signal wait until the block has ended, so that it knows what it has started."""
    caught: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in caught:
            signal.raise_signal(number)


def _environment() -> dict[str, str]:
    """Return the environment of what is measured: as a user's, where modules are compiled once."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return mine | {"HF_HUB_OFFLINE": "1"}


def _seconds(said: bytes) -> float | None:
    """Return the seconds in what a process printed, if that is what it printed."""
    try:
        document = json.loads(said)
    except ValueError:
        return None
    return document.get("seconds") if isinstance(document, dict) else None
