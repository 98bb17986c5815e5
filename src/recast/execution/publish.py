"""Making files appear only when they are complete: temporary names, staging folders, locks."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from recast.errors import TargetError
from recast.execution.reader import hub_blobs
from recast.execution.storage import Output, naming, sync_folder
from recast.planning.planner import Plan

_OWNER = "owner.json"


@contextmanager
def replacing(path: Path, size: int, mode: int) -> Iterator[Output]:
    """Yield a new file of *size* bytes that takes the name *path* if the block succeeds.

    The block writes it; here it is made durable before it is renamed, and its folder after.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Unique: a job that was submitted again may overlap the one it replaces.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with Output(temporary, size, mode) as output:
            yield output
        with naming(path):
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, like: Path) -> None:
    """Write *content* to *path*, durably, with the permission bits of the file *like*."""
    with naming(like):
        mode = like.stat().st_mode & 0o7777
    with replacing(path, len(content), mode) as output:
        output.write(content, 0)
        output.finish()


def copy_file(source: Path, path: Path) -> None:
    """Copy a file byte for byte, durably, with its permission bits and times."""
    with naming(source):
        source.open("rb").close()  # so that what cannot be read is not blamed on the copy
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path)
        with path.open("rb") as copy:
            os.fsync(copy.fileno())


@contextmanager
def staging(target: Path, *, is_file: bool = False) -> Iterator[Path]:
    """Yield a new folder beside *target* to build it in; it takes that name at the end.

    The folder that is yielded holds the result: it is the folder to be or, if *is_file*,
    holds the one file to be, under the name of *target*. If the block fails, all of it is
    removed.

    Raises TargetError if another process is building the same target.
    """
    target = target.resolve()  # of a link to an empty folder, that folder is filled
    staged = target.with_name(f".{target.name}.recast")
    with _folder(target.parent):
        with naming(target):
            staged.mkdir(exist_ok=True)
        with _lock(staged / _OWNER, target):
            try:
                result = staged / "result"
                with naming(staged):
                    shutil.rmtree(result, ignore_errors=True)  # what a killed run has left
                    result.mkdir()
                yield result
                _publish(result, target, is_file=is_file)
            finally:
                shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make the folder *path* and those it lies in; what stays empty is removed again."""
    with naming(path):
        made = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            for folder in made:
                folder.rmdir()


def _publish(result: Path, target: Path, *, is_file: bool) -> None:
    """Give *result*, or the file in it that is named like *target*, its final name."""
    with naming(target):
        if is_file:
            (result / target.name).rename(target)
        else:
            for folder, _, _ in os.walk(result):
                sync_folder(Path(folder))
            result.rename(target)
    sync_folder(target.parent)


@contextmanager
def _lock(owner: Path, target: Path) -> Iterator[None]:
    """Hold *owner* locked, so that nobody else builds *target*. A dead process holds nothing."""
    with naming(owner), owner.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise TargetError(
                str(target), f"is being written by {_whom(file.read())}", "wait until it is done"
            ) from None
        if not os.fstat(file.fileno()).st_nlink:  # opened before, locked after it was done
            raise TargetError(str(target), "has just been written by another process", "look at it")
        file.truncate(0)
        json.dump({"process": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        yield


def _whom(owner: str) -> str:
    """Return who holds a lock, in words, from what its file says."""
    try:
        return "process {process} on {host}".format(**json.loads(owner))
    except (ValueError, KeyError, TypeError):  # it has not been written yet
        return "another process"


def check_target(plan: Plan, target: Path) -> None:
    """Refuse a target that is taken, in the way, or too small, before a byte is written.

    Raises TargetError.
    """
    other = "choose another folder with -o"
    try:
        source, path = plan.checkpoint.path.resolve(), target.resolve()
    except RuntimeError:  # as Python up to 3.12 calls it
        raise TargetError(str(target), "is a link to itself", other) from None
    if path == source:
        raise TargetError(str(target), "is the source itself", other)
    if path.is_relative_to(source):
        raise TargetError(str(target), "lies inside the source", other)
    if source.is_relative_to(path):
        raise TargetError(str(target), "holds the source", other)
    if hub_blobs(path) is not None:
        raise TargetError(str(target), "lies in a Hub cache, which recast only reads", other)
    if plan.checkpoint.is_file and target.suffix != ".safetensors":
        raise TargetError(
            str(target), "is no name for one weights file", "let it end in .safetensors"
        )
    with naming(target):
        if os.path.lexists(target):
            if plan.checkpoint.is_file or not target.is_dir() or any(target.iterdir()):
                raise TargetError(str(target), "is there already", f"delete it, or {other}")
            if target.is_mount() or target.samefile(Path.cwd()):
                raise TargetError(
                    str(target),
                    "is a mount point or the current folder, which the result cannot replace",
                    "name a new folder in it",
                )
    _check_space(plan.size, target)


def _check_space(needed: int, target: Path) -> None:
    """Raise TargetError unless *needed* bytes are free where *target* will lie."""
    with naming(target):
        folder = next(parent for parent in target.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise TargetError(str(folder), "is not a folder", "choose another place with -o")
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise TargetError(
            str(target),
            f"needs {needed:,} bytes, but only {free:,} are free there",
            "free some space, or write elsewhere with -o",
        )
