"""A shard's conversion as a job for any worker: a few kilobytes there, a few kilobytes back."""

import os
import pickle
import socket
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Self
from uuid import uuid4

from recast.errors import WorkerError
from recast.execution.shard import Effort, convert_shard, scan_shard
from recast.execution.workplace import LOCK
from recast.planning.plan import ShardPlan
from recast.reports.conversion import ShardConversion

_EVERY = 0.5  # seconds between two notes of how far a job has come


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to be converted, or only looked at.

    The result lies in the checkpoint's workplace, under a name that no other job uses, until
    whoever gave the job out publishes it. So a job may be run again, or twice at once, and one
    that is run when everybody has forgotten it harms nobody.

    Attributes:
        number: the shard's number in the plan.
        plan: what to write.
        source: the weights file.
        scratch: the checkpoint's workplace.
        scans: whether the values are looked at only, and nothing is written.
        token: what this job's files in the workplace are named by.
    """

    number: int
    plan: ShardPlan
    source: Path
    scratch: Path
    scans: bool = False
    token: str = field(default_factory=lambda: uuid4().hex)

    def run(self, effort: Effort) -> ShardConversion:
        """Do it, and return the evidence. Raises what `convert_shard` raises."""
        if not self.scans:
            return convert_shard(self.plan, self.source, self.staged, self.scratch, effort)
        evidence = scan_shard(self.plan, self.source, effort)
        return ShardConversion(self.plan.name, self.plan.size_before, evidence)

    @property
    def staged(self) -> Path:
        """Where the result waits to be published."""
        return self.scratch / f".{self.token}.partial"

    @property
    def notes(self) -> Path:
        """Where a worker notes how many bytes it has done, for whoever waits."""
        return self.scratch / f".{self.token}.notes.partial"


def own_version() -> str:
    """Return the version of recast that runs here."""
    try:
        return version("recast")
    except PackageNotFoundError:  # it was not installed, but put in the path
        return "of unknown version"


def pack(job: ShardJob) -> bytes:
    """Return *job* as it is sent: its plan is text that repeats itself, so it is compressed.

    Its paths no longer depend on the folder in which this process happens to be.
    """
    there = replace(job, source=job.source.absolute(), scratch=job.scratch.absolute())
    return zlib.compress(pickle.dumps(there))


def carry_out(sender: str, content: bytes, *, evidence: bool) -> ShardConversion:
    """Do a job that was packed by the version *sender*: what executors call, in a worker.

    Raises WorkerError if this worker cannot do it, and what `convert_shard` raises.
    """
    here = f"worker {os.getpid()} on {socket.gethostname()}"
    if sender != own_version():  # whose jobs may have another form
        raise WorkerError(
            here,
            f"has recast {own_version()}, but was sent a job by recast {sender}",
            "install the same version on both sides",
        )
    # The executor has unpickled this very call, so there is nobody new to trust.
    job: ShardJob = pickle.loads(zlib.decompress(content))  # noqa: S301
    for path in (job.source, job.scratch):
        if not path.exists():
            raise WorkerError(
                here,
                f"does not see {path}",
                "let every worker have the same disk under the same path",
            )
    try:
        with _Notes(job.notes) as notes:
            return job.run(Effort(1, evidence, notes.add))
    finally:
        _leave(job)


def _leave(job: ShardJob) -> None:
    """Take away what *job* has made, if its workplace was removed meanwhile: nobody else will."""
    with suppress(OSError):
        if not (job.scratch / LOCK).exists():
            job.staged.unlink(missing_ok=True)
            job.scratch.rmdir()


class _Notes:
    """A small file that says how far a job has come. It is written now and then, or never."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._done = 0
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def add(self, count: int) -> None:
        """Take in that *count* more bytes were done."""
        with self._lock:
            self._done += count
            if time.monotonic() - self._noted > _EVERY:
                self._noted = time.monotonic()
                with suppress(OSError):  # nothing depends on it
                    self._path.write_text(str(self._done))


def noted(job: ShardJob) -> int:
    """Return how many bytes of *job* a worker says it has done; 0 if it has said nothing yet."""
    try:
        return int(job.notes.read_text())
    except (OSError, ValueError):  # not there, or just being written
        return 0
