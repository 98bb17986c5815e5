"""HubPath: where a checkpoint lies on the Hub, and the ways in which people write that."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from recast.errors import CheckpointError

_PREFIX = "hf://"
_NAME = r"[A-Za-z0-9][\w.-]*"
_URI = re.compile(
    rf"(?:models/)?(?P<repo>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/@]+))?"
    r"(?:/(?P<folder>.*))?"
)
_SHORT = re.compile(rf"{_NAME}/{_NAME}")


@dataclass(frozen=True, slots=True)
class HubPath:
    """A place in a model repository on the Hub.

    Attributes:
        repo: the repository: ``org/name``.
        revision: the branch, tag or commit asked for; None for the main branch.
        folder: the folder, or the one weights file, in it; empty for all of it.
        commit: the commit that *revision* was when it was looked up; empty before.
    """

    repo: str
    revision: str | None = None
    folder: str = ""
    commit: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubPath":
        """Read ``hf://org/name[@revision][/folder]``. Raises CheckpointError."""
        match = _URI.fullmatch(text.removeprefix(_PREFIX))
        if match is None or match["repo"].startswith(("datasets/", "spaces/", "buckets/")):
            raise CheckpointError(
                text, "names no model on the Hub", "write hf://org/name or hf://org/name@revision"
            )
        folder = (match["folder"] or "").strip("/")
        if ".." in PurePosixPath(folder).parts:
            raise CheckpointError(text, "leaves its repository", "name a folder in it")
        return cls(match["repo"], match["revision"], folder)

    @property
    def name(self) -> str:
        """The last part of the path: what a copy of it would be called."""
        return PurePosixPath(self.folder or self.repo).name

    def __str__(self) -> str:
        """Return the path as one would write it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{_PREFIX}{self.repo}{revision}" + (f"/{self.folder}" if self.folder else "")


def is_uri(text: str) -> bool:
    """Whether *text* says that it is a path on the Hub."""
    return text.startswith(_PREFIX)


def may_be_repository(text: str) -> bool:
    """Whether *text* could be a repository's short name: ``org/name``."""
    return _SHORT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository, at some commit.

    Attributes:
        name: its path in the repository, with "/".
        size: its bytes.
        oid: the git hash of what git stores for it.
        sha256: the hash of its content if it is stored as a large file; else empty.
    """

    name: str
    size: int
    oid: str
    sha256: str = ""

    @property
    def digest(self) -> str:
        """What tells its content: two files with the same one hold the same bytes."""
        return self.sha256 or self.oid
