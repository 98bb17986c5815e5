"""discover(): a folder of runs → the checkpoints in it; and whether one is being written."""

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from recast.errors import BusyError, CheckpointError, RecastError, ShardError, StorageError
from recast.execution.storage import naming
from recast.formats.forms import Unread, form
from recast.formats.names import Role, role

AnyPath = str | os.PathLike[str]
Report = Callable[[StorageError], None]
PassOver = Callable[[Unread], None]

# What says that a folder with weights is a model, and no mere collection of files.
_DESCRIPTIONS = frozenset(
    {"config.json", "adapter_config.json", "model_index.json", "modules.json", "params.json"}
)
_PIPELINE = "model_index.json"  # of diffusers: its components are in folders of their own
_CACHES = ("__pycache__", "models--*", "datasets--*", "spaces--*", "lost+found")
_TEMPORARY = ("*.tmp", "*.temp", "*.part", "*.partial", "*.incomplete", ".tmp*", "tmp-checkpoint-*")
_FRESH = 600.0  # seconds for which a temporary file is believed to be somebody's work
RECENT = 60.0  # seconds after which a file that was written is believed to be finished
PAUSE = 2.0  # seconds between two looks at files that were written just now


def discover(
    root: AnyPath,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    report: Report | None = None,
    unread: PassOver | None = None,
) -> Iterator[Path]:
    """Yield every checkpoint in *root* and below, each after the one in whose folder it lies.

    A run's folder, its ``checkpoint-*`` folders, adapters, and a diffusers pipeline as a whole
    are one checkpoint each; weights files that no config describes, in a folder among others,
    are one each, too. Links to folders are followed, and no folder is visited twice. Hidden
    folders, caches and trainer state are skipped. Only names are read.

    Args:
        root: the folder to search.
        include: patterns of paths below *root*, or of their last parts, each standing for all
            that lies in it, too: ``"run-7"``, ``"sweep/lr-*/checkpoint-500"``; other checkpoints
            are not yielded. ``*`` stands for any characters, "/" among them.
        exclude: patterns of what is not visited: ``"*-old"``, ``"sweep/lr-1e-3/*"``.
        report: called with the error for each folder that cannot be read; if left out, the
            first one is raised.
        unread: called for each folder that has no safetensors, but weights in another form.

    Raises:
        CheckpointError: if *root* is no folder.
        StorageError: if a folder cannot be read.

    Example:
        >>> list(recast.discover("./runs", exclude=["*/checkpoint-*"]))  # doctest: +SKIP
        [PosixPath('runs/first'), PosixPath('runs/second')]
    """
    root = Path(root)
    with naming(root):
        is_folder = root.is_dir()
    if not is_folder:
        raise CheckpointError(str(root), "is no folder", "name a folder of runs, or leave out -r")
    told = _Told(report or _fail, unread or _ignore)
    return _Search(root, _listed(include), _listed(exclude), told).checkpoints()


def _listed(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return *patterns*, as paths below the root are written; a string is one pattern."""
    every = (patterns,) if isinstance(patterns, str) else patterns
    # As people and their shells write them: ./run-7/, and **/ for any number of folders.
    plain = [each.removeprefix("./").rstrip("/") for each in every]
    return tuple(dict.fromkeys([*plain, *(each.replace("**/", "") for each in plain)]))


def _fail(error: StorageError) -> None:
    """Raise *error*."""
    raise error


def _ignore(_: Unread) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class _Told:
    """Who is told of folders that cannot be read, and of weights that recast does not read."""

    report: Report
    unread: PassOver


@dataclass(frozen=True, slots=True)
class _Listing:
    """What lies in one folder: names of files, of folders, and of links to folders."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def names(self) -> Iterator[str]:
        """All of them, those of folders with a "/" at the end."""
        yield from self.files
        yield from (f"{name}/" for name in self.folders)

    @property
    def weights(self) -> list[str]:
        """The weights files and indexes."""
        return [name for name in self.files if role(name) in (Role.WEIGHTS, Role.INDEX)]

    @property
    def is_described(self) -> bool:
        """Whether something says that the weights are a model's."""
        return not _DESCRIPTIONS.isdisjoint(self.files) or any(
            role(name) is Role.INDEX for name in self.files
        )


_Steps = Iterator["Path | _Below"]


@dataclass(frozen=True, slots=True)
class _Below:
    """A part of a search, to be done where it stands among the checkpoints that are found.

    Attributes:
        steps: the checkpoints, and the parts that this one has itself.
        held: who takes the checkpoints, if they are not to be yielded yet.
    """

    steps: _Steps
    held: list[Path] | None = None


def _flat(steps: _Steps) -> Iterator[Path]:
    """Yield the checkpoints among *steps*, those of each part in its place.

    The stack is a list, since folders may lie in each other deeper than calls can.
    """
    stack = [_Below(steps)]
    while stack:
        part = stack[-1]
        step = next(part.steps, None)
        if step is None:
            stack.pop()
        elif isinstance(step, _Below):
            stack.append(_Below(step.steps, part.held if step.held is None else step.held))
        elif part.held is None:
            yield step
        else:
            part.held.append(step)


class _Search:
    """One walk through a folder of runs."""

    def __init__(
        self, root: Path, include: tuple[str, ...], exclude: tuple[str, ...], told: _Told
    ) -> None:
        self.root = root
        self.include = include
        self.exclude = exclude
        self.told = told
        self.seen: set[tuple[int, int]] = set()
        # Links come last: a checkpoint is known by the path that leads through none.
        self.links: deque[Path] = deque()

    def checkpoints(self) -> Iterator[Path]:
        """Yield what is found."""
        yield from filter(self._is_wanted, _flat(self._visit(self.root)))
        while self.links:
            yield from filter(self._is_wanted, _flat(self._visit(self.links.popleft())))

    def _visit(self, folder: Path) -> _Steps:
        """Yield the checkpoints in *folder* and below."""
        listing = self._list(folder)
        if listing is None:
            return
        if not listing.weights and _PIPELINE not in listing.files:
            if (other := form(listing.names)) and self._is_wanted(folder):
                self.told.unread(Unread(folder, *other))
            yield _Below(self._descend(folder, listing, listing.folders))
            return
        # The folders of a checkpoint belong to it, save those that are checkpoints themselves.
        nested = [name for name in listing.folders if _is_nested(name)]
        if listing.is_described:
            yield folder
            yield _Below(self._descend(folder, listing, nested))
            return
        found: list[Path] = []
        yield _Below(self._descend(folder, listing, listing.folders), found)
        if all(_is_nested(path.relative_to(folder).parts[0]) for path in found):
            yield folder
        else:
            yield from (folder / name for name in listing.weights)
        yield from found

    def _descend(self, folder: Path, listing: _Listing, names: Iterable[str]) -> _Steps:
        """Yield the checkpoints in these folders in *folder*; its links wait."""
        self.links += [folder / name for name in listing.links if self._may_enter(folder / name)]
        for name in names:
            if self._may_enter(folder / name):
                yield _Below(self._visit(folder / name))

    def _list(self, folder: Path) -> _Listing | None:
        """Return what lies in *folder*; None if that was seen before, cannot be, or has gone."""
        files, folders, links = [], [], []
        try:
            with naming(folder):
                status = folder.stat()
                if (status.st_dev, status.st_ino) in self.seen:
                    return None
                self.seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.name)
                        elif entry.is_symlink() and self._leads_to_folder(entry):
                            links.append(entry.name)
                        else:
                            files.append(entry.name)
        except StorageError as error:
            # A trainer that keeps only its latest checkpoints deletes the others meanwhile.
            if folder == self.root or not isinstance(error.__cause__, FileNotFoundError):
                self.told.report(error)
            return None
        return _Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(links)))

    def _leads_to_folder(self, link: "os.DirEntry[str]") -> bool:
        """Whether *link* leads to a folder. One that cannot be followed hides nothing else."""
        try:
            with naming(Path(link.path)):
                return link.is_dir()
        except StorageError as error:
            if not _leads_to_itself(error):
                self.told.report(error)
            return False

    def _may_enter(self, path: Path) -> bool:
        """Whether a folder is neither hidden, nor a cache, nor trainer state, nor excluded."""
        name = path.name
        return not (
            name.startswith(".")
            or any(fnmatchcase(name, cache) for cache in _CACHES)
            or role(f"{name}/") is Role.TRAINER_STATE
            or self._matches(path, self.exclude)
        )

    def _is_wanted(self, path: Path) -> bool:
        """Whether a checkpoint is to be yielded."""
        if self._matches(path, self.exclude):
            return False
        within = [path, *path.parents]
        places = within[: within.index(self.root)] or [path]
        return not self.include or any(self._matches(each, self.include) for each in places)

    def _matches(self, path: Path, patterns: tuple[str, ...]) -> bool:
        """Whether one of *patterns* is that of a path below the root, or of its last part."""
        below = path.relative_to(self.root).as_posix()
        return any(fnmatchcase(below, each) or fnmatchcase(path.name, each) for each in patterns)


def _leads_to_itself(error: StorageError) -> bool:
    """Whether a link leads to itself, and so to nothing."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.ELOOP


def _is_nested(name: str) -> bool:
    """Whether a folder of this name in a checkpoint's folder is a checkpoint of its own."""
    return role(f"{name}/") is Role.NESTED_CHECKPOINT


def absolute(path: Path) -> Path:
    """Return *path* as others are compared with it, however it was written. Raises StorageError."""
    with naming(path):
        return Path(os.path.abspath(path))  # noqa: PTH100 - without "..", and links as they are


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
