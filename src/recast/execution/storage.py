"""Reading and writing files, with errors that name the file and the way out."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from recast.errors import StorageError
from recast.execution.page_cache import fetch, forget, is_cached

_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere with -o",
    errno.EDQUOT: "your quota is used up: free some space, or write elsewhere with -o",
    errno.EROFS: "write elsewhere with -o",
    errno.EACCES: "check its permissions, and its folder's",
    errno.EPERM: "check its permissions, and its folder's",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: mend them",
    errno.EIO: "the disk or network storage is failing: copy the data to another one",
    errno.ENOENT: "it was there a moment ago: do not move files while recast runs",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}

_REMEDY = "look at the disk, or the mount, that it lies on"
_UNTOUCHED = "see that nothing writes to it while recast runs"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError about *path*."""
    try:
        yield
    except OSError as error:
        problem = error.strerror or str(error)
        raise StorageError(str(path), problem, _REMEDIES.get(error.errno or 0, _REMEDY)) from error


def changed(path: Path) -> StorageError:
    """Return the error for a file that is not as it was when recast first looked at it."""
    return StorageError(str(path), "was changed while recast ran", _UNTOUCHED)


class Source:
    """A weights file open for reading, from any thread, at any position.

    Read in windows into a caller's buffer rather than mapped: it is as fast, and a file that
    is truncated meanwhile, or a disk that fails, is an error instead of a SIGBUS.
    """

    def __init__(self, path: Path, size: int, modified: int) -> None:
        """Open *path*, which had *size* bytes and this time in ns when its header was read.

        Raises StorageError, also if that is no longer so.
        """
        self.path = path
        self._known = (size, modified)
        with naming(path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.check_unchanged()
        except StorageError:
            os.close(self._descriptor)
            raise
        self.was_cached = is_cached(self._descriptor, size)

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        with naming(self.path):
            os.close(self._descriptor)

    @property
    def mode(self) -> int:
        """The file's permission bits."""
        with naming(self.path):
            return stat.S_IMODE(os.fstat(self._descriptor).st_mode)

    def check_unchanged(self) -> None:
        """Raise StorageError if the file is no longer the one whose header was read."""
        with naming(self.path):
            opened, named = os.fstat(self._descriptor), self.path.stat()
        if not os.path.samestat(opened, named) or self._known != (
            named.st_size,
            named.st_mtime_ns,
        ):
            raise changed(self.path)

    def read(self, window: memoryview, position: int) -> None:
        """Fill *window*, flat bytes, from *position* on. Raises StorageError."""
        while window:
            with naming(self.path):
                count = os.preadv(self._descriptor, [window], position)
            if count == 0:
                raise StorageError(
                    str(self.path), f"ends at byte {position}, before its header says", _UNTOUCHED
                )
            if not self.was_cached:
                forget(self._descriptor, position, count)
            window, position = window[count:], position + count

    def expect(self, position: int, size: int) -> None:
        """Say that these bytes will be read next, so that a disk can begin to fetch them."""
        if not self.was_cached:
            fetch(self._descriptor, position, size)


class Output:
    """A file being written, from any thread, at any position."""

    def __init__(self, path: Path, size: int, mode: int) -> None:
        """Create *path*, which must not exist, to become *size* bytes with these mode bits.

        Raises StorageError.
        """
        self.path = path
        self._mode = mode
        with naming(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
            try:
                os.ftruncate(self._descriptor, size)
            except OSError:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        with naming(self.path):
            os.close(self._descriptor)

    def write(self, content: memoryview | bytes, position: int) -> None:
        """Write all of *content*, flat bytes, from *position* on. Raises StorageError."""
        content = memoryview(content)
        while content:
            with naming(self.path):
                count = os.pwrite(self._descriptor, content, position)
            content, position = content[count:], position + count

    def write_back(self, position: int, size: int) -> None:
        """Let the disk begin to write these bytes, so that little is left to do at the end."""
        forget(self._descriptor, position, size)  # what is not on the disk yet is first sent there

    def finish(self, modified: int | None = None, *, keep_cached: bool = True) -> None:
        """Give the file its permission bits and this time in ns, and make it durable.

        Unless *keep_cached*, it leaves the page cache. Raises StorageError.
        """
        with naming(self.path):
            os.fchmod(self._descriptor, self._mode)
            if modified is not None:
                os.utime(self._descriptor, ns=(modified, modified))
            os.fsync(self._descriptor)
        if not keep_cached:
            forget(self._descriptor, 0, 0)


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable. Raises StorageError."""
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
