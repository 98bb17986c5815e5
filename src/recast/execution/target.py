"""Whether a place can take the output, before a byte is written."""

import errno
import os
import shutil
from pathlib import Path

from recast.errors import RecastError, TargetError
from recast.execution.publish import is_copied
from recast.execution.reader import hub_blobs
from recast.execution.storage import naming
from recast.formats.checkpoint import File
from recast.formats.hub_path import HubPath
from recast.formats.names import Role, role
from recast.planning.plan import Plan, ShardPlan

_NO_ROOM = "are free there"
_OF_OTHERS = (Role.NESTED_CHECKPOINT, Role.UNFINISHED)


def check_target(plan: Plan, target: Path) -> None:
    """Refuse a target that is taken or in the way, before a byte is written.

    Raises TargetError.
    """
    other = "choose another folder with -o"
    try:
        path = target.resolve()
        # Of what comes from the Hub, nothing is in the way.
        at = plan.checkpoint.path
        source = None if isinstance(at, HubPath) else at.resolve()
    except RuntimeError:  # as Python up to 3.12 calls it
        raise TargetError(str(target), "is a link to itself", other) from None
    if path == source:
        raise TargetError(str(target), "is the source itself", other)
    if source is not None and path.is_relative_to(source):
        raise TargetError(str(target), "lies inside the source", other)
    if source is not None and source.is_relative_to(path):
        raise TargetError(str(target), "holds the source", other)
    if hub_blobs(path) is not None:
        raise TargetError(str(target), "lies in a Hub cache, which recast only reads", other)
    if plan.checkpoint.is_file and target.suffix != ".safetensors":
        raise TargetError(
            str(target), "is no name for one weights file", "let it end in .safetensors"
        )
    _check_vacant(plan, target)


def _check_vacant(plan: Plan, target: Path) -> None:
    """Refuse a target where something is, or where nothing can be made."""
    other = "choose another folder with -o"
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
        folder = _existing(target)
        if not folder.is_dir():
            raise TargetError(str(folder), "is not a folder", other)


def is_finished(plan: Plan, target: Path) -> bool:
    """Whether *target* is what *plan* makes already, judged by names, headers, sizes and times.

    Files have the time of their source, converted ones too, so that a source that was trained
    further is not mistaken for the one that *target* was made from.
    """
    if plan.checkpoint.is_file:
        return _is_shard(target, plan.shards[0])
    # The names last: any other folder, however much lies in it, is told by its first shard.
    return (
        all(_is_shard(target / shard.name, shard) for shard in plan.shards)
        and all(_holds(target / each.name, each.text.encode()) for each in plan.documents)
        and all(_is_copy(plan, file, target / file.name) for file in plan.copies)
        and _names(target) == {file.name for file in plan.files}
    )


def _names(folder: Path) -> set[str]:
    """Return the names of all files in *folder* and below, save those of other checkpoints.

    In a fleet's output, the checkpoints of a run lie in its folder, as they do in the source.
    """
    with naming(folder):
        names = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
        }
    return {name for name in names if role(name) not in _OF_OTHERS}


def _is_shard(path: Path, shard: ShardPlan) -> bool:
    """Whether *path* is what *shard* becomes, judged by its size, its time and its header."""
    return is_copied(path, shard.size, shard.modified) and _begins_with(path, shard.head)


def _is_copy(plan: Plan, file: File, path: Path) -> bool:
    """Whether *path* is a copy of *file*, judged by its size and its time."""
    if isinstance(plan.checkpoint.path, HubPath):  # where all files are of one time
        return is_copied(path, file.size, plan.shards[0].modified)
    source = plan.source_of(file.name)
    with naming(source):
        status = source.stat()
    return is_copied(path, status.st_size, status.st_mtime_ns)


def _holds(path: Path, content: bytes) -> bool:
    """Whether *path* is a file of this content."""
    with naming(path):
        is_as_long = path.is_file() and path.stat().st_size == len(content)
        return is_as_long and _begins_with(path, content)


def _begins_with(path: Path, content: bytes) -> bool:
    """Whether the first bytes of a file are *content*."""
    with naming(path), path.open("rb") as file:
        return file.read(len(content)) == content


def check_space(needed: int, target: Path) -> None:
    """Raise TargetError unless *needed* bytes are free where *target* will lie."""
    free = free_space(target)
    if free < needed:
        raise TargetError(
            str(target),
            f"needs {needed:,} bytes, but only {free:,} {_NO_ROOM}",
            "free some space, or write elsewhere with -o",
        )


def lacks_room(error: RecastError) -> bool:
    """Whether *error* says that there was not enough space."""
    full = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}
    return error.problem in full or error.problem.endswith(_NO_ROOM)


def free_space(target: Path) -> int:
    """Return the bytes that are free where *target* lies, or will lie."""
    with naming(target):
        place = target.resolve()  # a link may lead to another disk
        # A folder that is there may be one, too, as a mount point.
        return shutil.disk_usage(place if place.is_dir() else _existing(place)).free


def _existing(target: Path) -> Path:
    """Return the nearest of the folders in which *target* will lie that is there already."""
    return next(parent for parent in target.absolute().parents if parent.exists())
