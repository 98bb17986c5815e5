"""discover(): a folder of runs → the checkpoints in it."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from recast.errors import CheckpointError, StorageError
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
