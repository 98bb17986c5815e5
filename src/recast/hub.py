"""The Hub, as the user of this machine sees it. The only module that knows huggingface_hub.

The client's own conventions hold: HF_TOKEN and `hf auth login`, HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE, its retries, its progress bars, xet. What fails is told as a HubError, in
words that hold no token.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, not in __all__
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)

from recast.errors import AGAIN, HubError, RecastError
from recast.formats.hub_path import HubFile, HubPath

_TOKEN = re.compile(r"hf_\w+")
_WHOLE = 200  # the status of an answer that is no part
_NAME = "recast"  # by which the Hub knows who asks
_WORDS = 200  # characters of what a server says that are passed on
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class Account:
    """Who the token belongs to, and in whose name that user may write."""

    name: str
    namespaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        path: what was looked up, with its commit.
        private: whether only some may see the repository.
        modified: when it was last changed, in ns since 1970.
    """

    path: HubPath
    private: bool
    modified: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A large file that the Hub has received, for a commit to come."""

    name: str
    size: int
    sha256: str


class RejectedError(HubError):
    """A commit that the Hub would not have: what was uploaded for it may be gone."""


class Hub:
    """Questions to the Hub, and uploads. Every method raises HubError."""

    def __init__(self) -> None:
        """Use the endpoint and the token that the client finds."""
        self._api = HfApi(library_name=_NAME)

    def look_up(self, path: HubPath) -> Snapshot:
        """Return the commit that *path* is now."""
        with asking(str(path)):
            found = self._api.model_info(path.repo, revision=path.commit or path.revision)
        changed = found.last_modified
        return Snapshot(
            replace(path, commit=found.sha or ""),
            bool(found.private),
            int(changed.timestamp()) * 10**9 if changed else 0,
        )

    def files(self, path: HubPath) -> tuple[HubFile, ...]:
        """Return all files of the repository at *path*'s commit, sorted by name."""
        with asking(str(path)):
            tree = self._api.list_repo_tree(
                path.repo, recursive=True, revision=path.commit or path.revision
            )
            found = [_hub_file(each) for each in tree if isinstance(each, RepoFile)]
        return tuple(sorted(found, key=lambda each: each.name))

    def read(self, path: HubPath, name: str, position: int, count: int) -> bytes:
        """Return up to *count* bytes of a file, and fetch no more than these."""
        url = hf_hub_url(path.repo, name, revision=path.commit, endpoint=self._api.endpoint)
        headers = {
            **build_hf_headers(library_name=_NAME),
            "Range": f"bytes={position}-{position + count - 1}",
            "Accept-Encoding": "identity",
        }
        with asking(f"{path}: {name}"):
            response = http_backoff("GET", url, headers=headers)
            hf_raise_for_status(response)
        # A server that knows no ranges has sent all of it.
        skip = position if response.status_code == _WHOLE else 0
        content: bytes = response.content[skip : skip + count]
        return content

    def download(self, path: HubPath, name: str, folder: Path) -> Path:
        """Fetch a file into *folder*, past the Hub's cache, and return where it lies."""
        with asking(f"{path}: {name}"):
            return Path(
                self._api.hf_hub_download(path.repo, name, revision=path.commit, local_dir=folder)
            )

    def account(self) -> Account | None:
        """Return who the user is; None without a token."""
        if get_token() is None:
            return None
        with asking("the Hub"):
            found = self._api.whoami(cache=True)
        # Who can only read in an organization asks it to pull.
        orgs = (each for each in found.get("orgs", ()) if each.get("roleInOrg") != "read")
        return Account(found["name"], frozenset({found["name"], *(org["name"] for org in orgs)}))

    def find(self, repo: str, revision: str | None = None) -> Snapshot | None:
        """Return what *repo* is now at *revision*; None if it is not there."""
        try:
            return self.look_up(HubPath(repo, revision))
        except HubError as error:
            if isinstance(error.__cause__, GatedRepoError | DisabledRepoError):
                raise
            if isinstance(error.__cause__, RepositoryNotFoundError | RevisionNotFoundError):
                return None
            raise

    def open_request(self, repo: str, author: str, title: str) -> int | None:
        """Return the number of *author*'s open pull request whose title begins like this."""
        with asking(repo):
            requests = self._api.get_repo_discussions(
                repo, author=author, discussion_type="pull_request", discussion_status="open"
            )
            return next(
                (
                    each.num
                    for each in requests
                    if each.is_pull_request
                    and each.author == author
                    and each.status in {"open", "draft"}
                    and each.title.startswith(title)
                ),
                None,
            )

    def create(self, repo: str, *, private: bool) -> None:
        """Make a repository."""
        with asking(repo):
            self._api.create_repo(repo, private=private)

    def create_branch(self, repo: str, branch: str) -> None:
        """Make a branch of the main one, unless it is there."""
        with asking(repo):
            self._api.create_branch(repo, branch=branch, exist_ok=True)

    def send(
        self, repo: str, name: str, file: Path, revision: str, *, request: bool
    ) -> Sent | None:
        """Upload a file for a commit to come; None if it is so small that it goes with that."""
        with asking(f"{repo}: {name}"):
            addition = CommitOperationAdd(name, file)
            self._api.preupload_lfs_files(repo, [addition], revision=revision, create_pr=request)
            if addition.path_or_fileobj != b"":  # which the client empties when it is uploaded
                return None
            found = addition.upload_info
            return Sent(name, found.size, found.sha256.hex())

    def commit(
        self,
        repo: str,
        files: Mapping[str, Path | bytes],
        sent: Iterable[Sent],
        deleted: Iterable[str],
        message: tuple[str, str],
        *,
        revision: str,
        parent: str | None,
        request: bool,
    ) -> str:
        """Make one commit of small *files*, of what was *sent*, and of deletions.

        Args:
            repo: the repository.
            files: what goes with the commit, by name.
            sent: what has been uploaded.
            deleted: the names of the files to delete.
            message: its title, and a description.
            revision: the branch, or the pull request, that it goes to.
            parent: the commit that must be its parent.
            request: whether to open a pull request with it.

        Returns the URL of the commit, or of the pull request that was opened.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, content) for name, content in files.items()),
            *(_addition(each) for each in sent),
            *(CommitOperationDelete(name, is_folder=False) for name in deleted),
        ]
        with asking(repo), _rejections():
            done: CommitInfo = self._api.create_commit(
                repo,
                operations,
                commit_message=message[0],
                commit_description=message[1],
                revision=revision,
                parent_commit=parent,
                create_pr=request,
            )
        return done.pr_url or str(done.commit_url)

    def url(self, repo: str, commit: str) -> str:
        """Return the page of a commit."""
        return f"{self._api.endpoint}/{repo}/commit/{commit}"

    def request_url(self, repo: str, number: int) -> str:
        """Return the page of a pull request."""
        return f"{self._api.endpoint}/{repo}/discussions/{number}"


def _hub_file(found: RepoFile) -> HubFile:
    """Return what the client says of a file."""
    if found.lfs is None:
        return HubFile(found.path, found.size, found.blob_id)
    return HubFile(found.path, found.lfs.size, found.blob_id, found.lfs.sha256)


def _addition(sent: Sent) -> CommitOperationAdd:
    """Return the operation that adds a file which was uploaded, perhaps by another process.

    The client keeps that in private attributes, and offers no other way to write it down.
    """
    addition = CommitOperationAdd(sent.name, b"")
    addition.upload_info.size = sent.size
    addition.upload_info.sha256 = bytes.fromhex(sent.sha256)
    addition._upload_mode = "lfs"  # noqa: SLF001
    addition._is_uploaded = True  # noqa: SLF001
    return addition


@contextmanager
def _rejections() -> Iterator[None]:
    """Turn the Hub's refusal of a commit's content into a RejectedError."""
    try:
        yield
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in {400, 422}:
            problem = f"the Hub rejected the commit ({error.server_message or 'it says no more'})"
            raise RejectedError("the commit", _without_tokens(problem[:_WORDS]), AGAIN) from error
        raise


@contextmanager
def asking(subject: str) -> Iterator[None]:
    """Turn whatever the client raises inside the block into a HubError about *subject*."""
    try:
        yield
    except RecastError:
        raise
    except Exception as error:  # noqa: BLE001 - hf_xet raises bare ones
        causes = tuple(_causes(error))
        cause = next((each for each in causes if isinstance(each, _HTTP)), error)
        cause = next((each for each in causes if isinstance(each, _KNOWN)), cause)
        problem, remedy = _said(cause)
        raise HubError(subject, _without_tokens(problem), remedy) from cause


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: the client wraps some twice."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


_SIMPLE: Mapping[type[BaseException], tuple[str, str]] = {
    OfflineModeIsEnabled: (
        "cannot be asked for, since the Hub's client is in offline mode",
        "unset HF_HUB_OFFLINE, or name a folder on this machine",
    ),
    LocalTokenNotFoundError: ("needs a token, and there is none", _LOG_IN),
    GatedRepoError: (
        "is gated, and your account has no access to it",
        f"ask for access on its page, and {_LOG_IN}",
    ),
    DisabledRepoError: ("is disabled on the Hub", "ask its owner"),
    RepositoryNotFoundError: (
        "is not on the Hub, or is private and not yours to see",
        f"check the name, and {_LOG_IN}",
    ),
    RevisionNotFoundError: ("has no such revision", "name a branch, a tag or a commit of it"),
    RemoteEntryNotFoundError: ("is not in the repository", AGAIN),
    HFValidationError: ("is no valid name on the Hub", "write org/name"),
}
_KNOWN = tuple(_SIMPLE)
_HTTP = HfHubHTTPError.__bases__[0]  # httpx's root, whichever of its names the client uses
_BY_STATUS: Mapping[int, tuple[str, str]] = {
    401: ("the Hub does not accept your token", f"{_LOG_IN}, with a token that is still valid"),
    403: (
        "your token does not allow that",
        "use one with the right to write, or open a pull request with --pr",
    ),
    409: ("the name is taken, by a repository you may not see", "choose another name"),
    412: (
        "somebody has committed to it meanwhile, and nothing was changed",
        "look at what is new there, then run the same command again, which sends no upload twice",
    ),
    422: ("the Hub did not accept what it received", AGAIN),
    429: ("the Hub asks to slow down (429)", f"wait some minutes, then {AGAIN}"),
}


def _said(error: BaseException) -> tuple[str, str]:
    """Return what went wrong, and the way out."""
    for kind, said in _SIMPLE.items():
        if isinstance(error, kind):
            return said
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        problem, remedy = _BY_STATUS.get(status, (f"the Hub answered {status}", AGAIN))
        words = (error.server_message or "")[:_WORDS] if status in {400, 403, 409, 422} else ""
        return (f"{problem} ({words})" if words else problem), remedy
    if isinstance(error, _HTTP):
        return (
            f"the Hub cannot be reached ({type(error).__name__})",
            f"check the network, then {AGAIN}",
        )
    words = str(error).strip().partition("\n")[0][:_WORDS]
    return f"the exchange with the Hub failed ({type(error).__name__}: {words})", AGAIN


def _without_tokens(text: str) -> str:
    """Return *text* without any token in it."""
    token = get_token()
    return _TOKEN.sub("hf_***", text.replace(token, "***") if token else text)
