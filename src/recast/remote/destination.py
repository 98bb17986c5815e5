"""Where a push goes, as it is now; and what of it is there already."""

from collections.abc import Callable, Mapping
from hashlib import sha1, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from recast.errors import AGAIN, HubError
from recast.execution.storage import naming
from recast.formats.hub_path import HubFile
from recast.hub import Hub
from recast.planning.publication import MAIN, Destination, Publication, make_publication
from recast.reports.publication import TITLE

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 1 << 20  # bytes
SameAs = Callable[[str, HubFile], bool]


def look_up(
    hub: Hub, repo: str, *, public: bool, pr: bool | None, revision: str | None
) -> Destination:
    """Return what *repo* is now, and how a push would go there. Raises HubError."""
    account = hub.account()
    if "/" not in repo and account is not None:
        repo = f"{account.name}/{repo}"
    found = hub.find(repo) if "/" in repo else None
    owned = None if account is None else repo.partition("/")[0] in account.namespaces
    request = (found is not None and owned is False) if pr is None else pr
    if found is None:
        where = revision or MAIN
        return Destination(
            repo, exists=False, private=not public, owned=owned, revision=where, request=request
        )
    branch = revision or MAIN
    if request and account is not None:
        number = hub.open_request(repo, account.name, TITLE)
        branch = branch if number is None else f"refs/pr/{number}"
    at = found if branch == MAIN else hub.find(repo, branch)
    base = found if at is None else at
    return Destination(
        repo,
        exists=True,
        private=found.private,
        owned=owned,
        revision=branch,
        has_revision=at is not None,
        request=request,
        parent=base.path.commit,
        files={file.name: file for file in hub.files(base.path)},
    )


def expect(destination: Destination, parent: str | None) -> None:
    """Raise HubError unless *destination* is still what somebody was shown."""
    if parent is not None and destination.parent != parent:
        raise HubError(
            destination.repo,
            "somebody has committed to it meanwhile, and nothing was changed",
            f"look at what is new there, then {AGAIN}",
        )


def publication(destination: Destination, sizes: Mapping[str, int], is_same: SameAs) -> Publication:
    """Return what a commit of files of these *sizes* would do, asking of some what they hold."""
    there = destination.files
    same = frozenset(
        name
        for name, size in sizes.items()
        if name in there and there[name].size == size and is_same(name, there[name])
    )
    return make_publication(destination, sizes, same)


def holds(path: Path, file: HubFile) -> bool:
    """Whether the file at *path*, as large as *file*, has its content. Raises StorageError."""
    digest = sha256() if file.sha256 else _git_hash(file.size)
    with naming(path), path.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest() == file.digest


def holds_text(text: str, file: HubFile) -> bool:
    """Whether *text*, of the same size, is the content of *file*."""
    digest = sha256() if file.sha256 else _git_hash(file.size)
    digest.update(text.encode())
    return digest.hexdigest() == file.digest


def _git_hash(size: int) -> "_Hash":
    """Return the hash by which git names a file of *size* bytes, before its content."""
    return sha1(b"blob %d\0" % size, usedforsecurity=False)
