"""One process at a time: a lock that goes when its process does."""

import fcntl
import os
import socket
from pathlib import Path
from typing import Self

from recast.errors import RecastError, TargetError
from recast.execution.storage import naming

_WHO_BYTES = 1000
_HELD = "is being written by"
_DONE = "has just been written by another process"


class Lock:
    """A file that this process holds locked, and that says so to others."""

    def __init__(self, path: Path, subject: Path) -> None:
        """Make the file *path*, or find it, and lock it.

        Raises TargetError, about *subject*, while another process holds it, and StorageError
        where there are no locks.
        """
        self.path = path
        with naming(path):
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # its folder was there just now, and went with its owner
                raise TargetError(str(subject), _DONE, "look at it") from None
            try:
                self._take(subject)
            except BaseException as error:
                os.close(self._descriptor)
                if isinstance(error, OSError):  # there are no locks here, or no space
                    path.unlink()
                raise

    def _take(self, subject: Path) -> None:
        """Lock the open file, and write into it who holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(self._descriptor, _WHO_BYTES, 0).decode(errors="replace")
            raise TargetError(
                str(subject),
                f"{_HELD} {who or 'another process'}",
                "wait until it is done",
            ) from None
        if not os.fstat(self._descriptor).st_nlink:  # opened before, locked after it was done
            raise TargetError(str(subject), _DONE, "look at it")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def __enter__(self) -> Self:
        """Return the lock, which is held."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go. The file stays."""
        with naming(self.path):
            os.close(self._descriptor)


def is_held(error: RecastError) -> bool:
    """Whether *error* says that another process is at work here, or was a moment ago."""
    return isinstance(error, TargetError) and error.problem.startswith((_HELD, _DONE))
