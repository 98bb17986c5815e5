"""Making files and folders appear only when they are complete."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from recast.errors import StorageError, TargetError
from recast.execution.storage import Output, changed, naming, sync_folder

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})  # as on FAT
# ns in which time is counted by ext4 and xfs, NTFS and SMB, some network disks, exFAT, ext3, FAT.
_GRAINS = (1, 100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
_NAME_LENGTH = 48  # in characters of up to 4 bytes; file systems allow 255 bytes
_DELAYS = (0.1, 0.4, 1.5, 5.0, 15.0, 40.0)  # seconds: a minute is the longest that NFS remembers


@contextmanager
def replacing(path: Path, size: int, mode: int, scratch: Path | None = None) -> Iterator[Output]:
    """Yield a new file of *size* bytes that takes the name *path* if the block succeeds.

    The block writes it and makes it durable; here it is renamed, and its folder made durable.
    Until then it lies in *scratch*, a folder on the same file system, or beside *path*.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (scratch or path.parent) / _unfinished(path)
    try:
        with Output(temporary, size, mode) as output:
            yield output
        with naming(path):
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # whatever is the matter has been raised
            temporary.unlink(missing_ok=True)


def _unfinished(path: Path) -> str:
    """Return a name for what will be *path*.

    Unique, since a job that was submitted again may overlap the one it replaces; and never too
    long, however long the name of *path* is.
    """
    return f".{path.name[:_NAME_LENGTH]}.{uuid4().hex}.partial"


def write_file(
    path: Path,
    content: bytes,
    mode: int,
    scratch: Path | None = None,
    owner: os.stat_result | None = None,
) -> None:
    """Write *content* to *path*, durably, with these permission bits, and the *owner* of a file."""
    with replacing(path, len(content), mode, scratch) as output:
        output.write(content, 0)
        if owner is not None:
            with naming(path):
                give(output.path, owner)
        output.finish()


def take_over(staged: Path, path: Path, size: int) -> None:
    """Give *staged*, a complete and durable file of *size* bytes, the name *path*, durably.

    Raises StorageError, also if whoever has written it wrote it elsewhere.
    """
    _await(staged, size)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)
    sync_folder(path.parent)


def take_place(staged: Path, path: Path, size: int, before: tuple[int, int]) -> None:
    """Do the same where *path* is a file already: *staged* gets its owner, and the time of now.

    Raises StorageError, also if that file has no longer the size and time that it had *before*.
    """
    _await(staged, size)
    with naming(path):
        give(staged, path.stat())
        os.utime(staged)
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        if not is_copied(path, *before):  # last, so that hardly anything can happen in between
            raise changed(path)
        staged.replace(path)
    sync_folder(path.parent)


def give(path: Path, to: os.stat_result) -> None:
    """Give the file *path* the owner and the group of *to*, as far as this user may."""
    for owner in (to.st_uid, -1):  # for others' files, root may do all, members of a group a part
        try:
            os.chown(path, owner, to.st_gid)
        except PermissionError:
            continue
        return


def _await(path: Path, size: int) -> None:
    """Wait until *path*, which another machine may have written, can be seen on this one.

    Network file systems remember for a while what was there; to list a folder makes them look.
    """
    for delay in (0.0, *_DELAYS):
        with naming(path):
            if delay:
                time.sleep(delay)
                any(path.parent.iterdir())
            if path.exists() and path.stat().st_size == size:
                return
    raise StorageError(
        str(path),
        "was written by a worker, but cannot be seen here",
        "let every worker have the same disk under the same path",
    )


def copy_file(source: Path, path: Path, scratch: Path) -> None:
    """Copy a file byte for byte, durably, with its permission bits and times.

    A copy that is there already, of the same size and time, is left alone.
    """
    with naming(source):
        source.open("rb").close()  # so that what cannot be read is not blamed on the copy
    before = _look(source)
    if is_copied(path, *before):
        return
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = scratch / _unfinished(path)
        try:
            shutil.copy2(source, temporary)
            with temporary.open("rb") as copy:
                os.fsync(copy.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    if _look(source) != before:
        raise changed(source)


def _look(path: Path) -> tuple[int, int]:
    """Return the size of a file in bytes, and its time in ns."""
    with naming(path):
        status = path.stat()
    return status.st_size, status.st_mtime_ns


def is_copied(path: Path, size: int, modified: int) -> bool:
    """Whether *path* is a regular file of this size in bytes and this time in ns.

    A file gets its final name and its source's time only when it is complete, so this is the
    quick check of rsync. The time is as exact as the file system under *path* keeps it.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    kept = (modified // grain * grain for grain in _GRAINS)
    return stat.S_ISREG(status.st_mode) and status.st_size == size and status.st_mtime_ns in kept


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Make the folder *path* and those it lies in; what stays empty is removed again."""
    with naming(path):
        made = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
    try:
        for folder in made:
            sync_folder(folder.parent)
        yield
    finally:
        with suppress(OSError):  # it holds something
            for folder in made:
                folder.rmdir()


def publish(result: Path, target: Path, *, is_file: bool) -> None:
    """Give *result*, or the file in it that is named like *target*, its final name."""
    with naming(target):
        if is_file:
            _publish_file(result / target.name, target)
        else:
            for folder, _, _ in os.walk(result, onerror=_fail):
                sync_folder(Path(folder))
            result.rename(target)
    sync_folder(target.parent)


def _publish_file(result: Path, target: Path) -> None:
    """Give *result* the name *target*, unless something has taken that name meanwhile."""
    try:
        target.hardlink_to(result)  # which, unlike renaming, replaces nothing
    except FileExistsError:
        raise TargetError(
            str(target), "appeared while recast ran", "choose another name with -o"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        result.rename(target)
    else:
        result.unlink()


def _fail(error: OSError) -> None:
    """Raise what `os.walk` would pass over."""
    raise error
