"""Whether somebody is writing a checkpoint: a trainer, a copy, another program."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from recast.errors import BusyError, CheckpointError, RecastError, ShardError
from recast.execution.fleets.discovery import absolute
from recast.execution.storage import naming
from recast.formats.names import Role, role

_TEMPORARY = ("*.tmp", "*.temp", "*.part", "*.partial", "*.incomplete", ".tmp*", "tmp-checkpoint-*")
_FRESH = 600.0  # seconds for which a temporary file is believed to be somebody's work
RECENT = 60.0  # seconds after which a file that was written is believed to be finished
PAUSE = 2.0  # seconds between two looks at files that were written just now


@dataclass(frozen=True, slots=True)
class Glance:
    """A checkpoint's files as they are at one moment, from their names, sizes and times alone.

    Attributes:
        weights: the bytes of all weights files.
        digest: a number that changes when a file comes, goes, grows or is written.
        newest: when the last of them was written, in seconds since 1970.
        sign: what shows that somebody was writing at that moment; empty if nothing did.
        taken: when the glance was taken, in seconds on the monotonic clock.
    """

    weights: int
    digest: int
    newest: float
    sign: str
    taken: float


def glance(path: Path) -> Glance:
    """Take a look at the files of the checkpoint *path*. Raises StorageError."""
    files, weights, newest, sign = [], 0, 0.0, ""
    folder, now = absolute(path).name, time.time()  # of ".", too
    with naming(path):
        for name, status in _own_files(path):
            if status is None:
                sign = f"{name} has just gone"
                continue
            if role(name) is Role.WEIGHTS:
                weights += status.st_size
            if _is_temporary(f"{folder}/{name}") and abs(now - status.st_mtime) < _FRESH:
                sign = f"{name} is new"
            files.append((name, status.st_size, status.st_mtime_ns))
            newest = max(newest, status.st_mtime)
    return Glance(weights, hash(tuple(sorted(files))), newest, sign, time.monotonic())


def _own_files(path: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the files that belong to a checkpoint, by their names relative to it.

    What goes while it is looked at has None: a trainer makes, renames and removes temporary files.
    """
    if not path.is_dir():
        yield path.name, path.stat()
        return
    gone: list[Path] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) or Path(error.filename) == path:
            raise error
        gone.append(Path(error.filename))

    for parent, folders, names in os.walk(path, onerror=note):
        below = Path(parent).relative_to(path).as_posix()
        prefix = "" if below == "." else f"{below}/"
        folders[:] = [each for each in folders if not role(f"{prefix}{each}/").is_left_out]
        for name in names:
            status = _status(Path(parent, name))
            if status is None or stat.S_ISREG(status.st_mode):
                yield f"{prefix}{name}", status
    yield from ((folder.relative_to(path).as_posix(), None) for folder in gone)


def _status(place: Path) -> os.stat_result | None:
    """Return what the system says of a file, or of a link to nothing; None if it has just gone."""
    with suppress(FileNotFoundError):
        return place.lstat() if place.is_symlink() and not place.exists() else place.stat()
    return None


def _is_temporary(name: str) -> bool:
    """Whether one part of a file's path is named as what somebody is still writing."""
    return any(fnmatchcase(part, each) for part in name.split("/") for each in _TEMPORARY)


def judged(path: Path, error: RecastError) -> RecastError:
    """Return what *error* means for the checkpoint *path*: it is broken, or not yet whole.

    Raises StorageError if it has gone.
    """
    if type(error) in {CheckpointError, ShardError} and is_young(glance(path)):
        return busy(path, f"its files are new, and not whole yet ({error.problem})")
    return error


def busy(path: Path, sign: str) -> BusyError:
    """Return the error of a checkpoint that somebody is writing, as the *sign* says."""
    return BusyError(str(path), f"is being written: {sign}", "run again when it is finished")


def is_young(seen: Glance) -> bool:
    """Whether the newest file of a checkpoint was written so lately that more may follow."""
    return abs(time.time() - seen.newest) < RECENT


def sign_of_life(path: Path, before: Glance) -> str:
    """Return what shows that somebody is writing the checkpoint *path*; empty if nothing does.

    Compares with *before*. If the newest file was written just then, some time has to pass
    between the two looks.
    """
    if before.sign:
        return before.sign
    if is_young(before):
        time.sleep(max(0.0, before.taken + PAUSE - time.monotonic()))
    after = glance(path)
    if after.sign:
        return after.sign
    return "" if after.digest == before.digest else "its files have just changed"
