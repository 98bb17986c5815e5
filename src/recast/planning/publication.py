"""What one commit on the Hub will do: which files it adds, replaces and deletes, and where."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recast.errors import RefusedError
from recast.formats.hub_path import HubFile
from recast.formats.names import Role, family, role

MAIN = "main"
# Who publishes weights does not thereby rewrite what a repository says of itself.
_THEIRS = frozenset({"README.md", ".gitattributes"})
_WEIGHTS = (Role.WEIGHTS, Role.INDEX)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where on the Hub something shall go, as it is now.

    Attributes:
        repo: the repository.
        exists: whether it is there.
        private: whether only some may see it, or will once it is made.
        owned: whether the user may write to it; None without a token.
        revision: the branch, or the pull request, that the commit goes to.
        has_revision: whether that is there.
        request: whether a pull request is opened or updated.
        parent: the commit that is there now.
        files: what lies there, by name.
    """

    repo: str
    exists: bool
    private: bool
    owned: bool | None = None
    revision: str = MAIN
    has_revision: bool = True
    request: bool = False
    parent: str | None = None
    files: Mapping[str, HubFile] = field(default_factory=dict, repr=False)

    @property
    def request_number(self) -> int | None:
        """The number of the pull request that is updated; None if none is."""
        prefix, _, number = self.revision.rpartition("/")
        return int(number) if prefix == "refs/pr" and number.isdigit() else None


@dataclass(frozen=True, slots=True)
class Publication:
    """One commit to a repository on the Hub, before it is made.

    Attributes:
        destination: where it goes.
        added: the files that are new there, with their bytes.
        replaced: the files that are there with other content, with the bytes they will have.
        deleted: the weights that these replace under other names, with their bytes.
        unchanged: the files that are there already, byte for byte.
        kept: the files of ours that do not go there, since the repository has its own.
    """

    destination: Destination
    added: Mapping[str, int]
    replaced: Mapping[str, int]
    deleted: Mapping[str, int]
    unchanged: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether the commit would change anything."""
        return bool(self.added or self.replaced or self.deleted)

    @property
    def sent(self) -> frozenset[str]:
        """The names of the files that the commit holds."""
        return frozenset({*self.added, *self.replaced})

    @property
    def is_grave(self) -> bool:
        """Whether others will see it at once: a new public repository, or a changed branch."""
        where = self.destination
        return not where.request and (not where.private if not where.exists else self.changes)


def make_publication(
    destination: Destination, sizes: Mapping[str, int], same: frozenset[str]
) -> Publication:
    """Decide what a commit of these files does.

    Args:
        destination: where it goes.
        sizes: every file that shall be there, with its bytes.
        same: the names of those that are known to be there already, byte for byte.
    """
    there = destination.files
    kept = tuple(name for name in sizes if name in there and name in _THEIRS)
    new = {name: size for name, size in sizes.items() if name not in kept}
    families = {family(name) for name in new if role(name) in _WEIGHTS}
    return Publication(
        destination,
        added={name: size for name, size in new.items() if name not in there},
        replaced={n: size for n, size in new.items() if n in there and n not in same},
        deleted={
            name: file.size
            for name, file in there.items()
            if name not in sizes and role(name) in _WEIGHTS and family(name) in families
        },
        unchanged=tuple(name for name in new if name in there and name in same),
        kept=kept,
    )


def check_wish(destination: Destination, *, public: bool) -> None:
    """Raise RefusedError for what cannot be had of this repository."""
    if not destination.exists and destination.request:
        raise RefusedError(
            destination.repo,
            "is not there yet, so that nothing can be pulled into it",
            "push without --pr, which makes it",
        )
    if destination.exists and destination.private and public:
        raise RefusedError(
            destination.repo,
            "is there, and private, which recast leaves as it is",
            "push without --public, and change it in the repository's settings",
        )
