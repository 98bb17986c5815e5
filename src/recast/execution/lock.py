"""One process at a time: a lock that goes when its process does."""

import fcntl
import os
import socket
from pathlib import Path
from typing import Self

from recast.errors import BusyError
from recast.execution.storage import naming

_WHO_BYTES = 1000


class Lock:
    """A file that this process holds locked, and that says so to others."""

    def __init__(self, path: Path, subject: Path) -> None:
        """Make the file *path*, or find it, and lock it.

        Raises BusyError, about *subject*, while another process holds it, and StorageError
        where there are no locks.
        """
        self.path = path
        with naming(path):
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # its folder was there just now, and went with its owner
                raise _done(subject) from None
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
            raise BusyError(
                str(subject),
                f"is being written by {who or 'another process'}",
                "wait until it is done",
            ) from None
        if not os.fstat(self._descriptor).st_nlink:  # opened before, locked after it was done
            raise _done(subject)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def __enter__(self) -> Self:
        """Return the lock, which is held."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go. The file stays."""
        with naming(self.path):
            os.close(self._descriptor)


def _done(subject: Path) -> BusyError:
    """Return the error of who comes when another process has just finished."""
    return BusyError(str(subject), "has just been written by another process", "look at it")
