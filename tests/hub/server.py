"""A small Hub on loopback, for the unmodified huggingface_hub client.

It speaks what recast uses of the Hub's interface: accounts, repositories, branches, trees,
downloads with ranges, uploads by LFS and by xet, commits with a parent, pull requests. Faults
are injected per repository, into the n-th request that concerns it.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "s3cret" * 5
USER = "me"
ORGS = (("lab", "write"), ("museum", "read"))
LARGE = (".safetensors", ".bin", ".pt")
DROPPED = 0  # no status: the connection is cut before an answer
WRONG = -1  # the body of the answer, or of the upload, arrives damaged
LOST = -2  # what was asked is done, and the connection is cut before the answer


@dataclass(frozen=True)
class Blob:
    """One file's content; a large one lies in the server's store under its sha256."""

    size: int
    oid: str
    content: bytes | None = None
    sha256: str = ""

    @classmethod
    def small(cls, content: bytes) -> Self:
        """Return a file that git itself holds."""
        return cls(len(content), git_hash(content), content)

    @classmethod
    def large(cls, sha256: str, size: int) -> Self:
        """Return a file of which git holds a pointer only."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, git_hash(pointer.encode()), None, sha256)


def git_hash(content: bytes) -> str:
    """Return the name under which git stores *content*."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's


@dataclass(frozen=True)
class Commit:
    """One commit of a repository."""

    files: Mapping[str, Blob]
    parent: str | None
    title: str
    description: str = ""


@dataclass
class Repository:
    """One model repository."""

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, branch: str, files: Mapping[str, Blob], title: str, text: str = "") -> str:
        """Add a commit to *branch*, and return its name."""
        parent = self.branches.get(branch)
        content = sorted((name, blob.oid) for name, blob in files.items())
        key = json.dumps([self.name, branch, parent, title, len(self.commits), content])
        name = hashlib.sha1(key.encode()).hexdigest()  # noqa: S324 - git's
        self.commits[name] = Commit(files, parent, title, text)
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """Return the commit that *revision* names; None if there is none."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def open_request(self, title: str) -> int:
        """Open a pull request, and return its number."""
        number = len(self.requests) + 1
        self.requests.append({"num": number, "title": title, "status": "open"})
        self.branches[f"refs/pr/{number}"] = self.branches["main"]
        return number

    @property
    def main(self) -> Commit:
        """The last commit of the main branch."""
        return self.commits[self.branches["main"]]


@dataclass(frozen=True)
class Request:
    """One request that was received."""

    method: str
    path: str
    repository: str
    sent: int = 0


class _RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class HubServer:
    """The server. Repositories, requests and faults can be looked at and set while it runs."""

    def __init__(self, store: Path, *, xet: bool = False) -> None:
        """Listen on loopback; large files lie in *store*, by LFS or in a *xet* store."""
        self.store = store
        self.store.mkdir(parents=True, exist_ok=True)
        self.xet = f"local://{store}/xet" if xet else None
        self.xet_hashes: dict[str, str] = {}
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: dict[tuple[str, int], int] = {}
        self.received: set[tuple[str, str]] = set()  # large files, by repository
        self.echo = False  # whether refusals repeat the token, as no server should
        self.pace = 0.0  # seconds that an upload takes
        self.before_put: Callable[[], object] | None = None  # an upload waits until it returns
        self.before_commit: Callable[[Repository], None] | None = None
        self.lock = threading.RLock()
        self._seen: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, folder: Path, *, private: bool = False, gated: bool = False) -> None:
        """Put a folder's files into a new repository."""
        repository = Repository(name, private, gated)
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                blob = self.blob(path.name, path.read_bytes())
                files[path.relative_to(folder).as_posix()] = blob
                self.received.add((name, blob.sha256))
        self.repositories[name] = repository
        repository.commit("main", files, "initial commit")

    def blob(self, name: str, content: bytes) -> Blob:
        """Store *content* as the Hub would for a file of this name."""
        if not name.endswith(LARGE):
            return Blob.small(content)
        sha256 = hashlib.sha256(content).hexdigest()
        (self.store / sha256).write_bytes(content)
        return Blob.large(sha256, len(content))

    def content(self, blob: Blob) -> bytes:
        """Return what a file holds."""
        if blob.content is not None:
            return blob.content
        self.fetch_from_xet(blob)
        return (self.store / blob.sha256).read_bytes()

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """Return every file of a branch."""
        repository = self.repositories[name]
        files = repository.commits[repository.branches[branch]].files
        return {each: self.content(blob) for each, blob in files.items()}

    def count(self, repository: str) -> int:
        """Return how many requests have concerned *repository*."""
        return self._seen[repository]

    def sent(self, repository: str) -> int:
        """Return how many bytes of answers' bodies have concerned *repository*."""
        return sum(each.sent for each in self.requests if each.repository == repository)

    def fault(self, repository: str) -> int | None:
        """Count a request that concerns *repository*; return the fault set for it, if any."""
        with self.lock:
            self._seen[repository] += 1
            return self.faults.pop((repository, self._seen[repository]), None)

    def has(self, repository: str, sha256: str) -> bool:
        """Whether a large file has been uploaded for a repository."""
        if (repository, sha256) in self.received:
            return True
        self._read_xet()
        return sha256 in self.xet_hashes

    def fetch_from_xet(self, blob: Blob) -> None:
        """Put a file that was uploaded by xet into the store, for plain downloads."""
        if (self.store / blob.sha256).exists() or self.xet is None:
            return
        import hf_xet  # noqa: PLC0415 - takes a while, and only xet needs it

        self._read_xet()
        file = hf_xet.XetFileInfo(self.xet_hashes[blob.sha256], blob.size)
        with hf_xet.XetSession().new_file_download_group(endpoint=self.xet) as group:
            group.start_download_file(file, str(self.store / blob.sha256))

    def _read_xet(self) -> None:
        """Learn which files the xet store holds, from the shards that hf_xet has uploaded there.

        Only those: what clients are still at (`shard-session`) comes and goes while it is read.
        A shard is rows of 48 bytes: after the header, per file its hash, flags and number of
        segments; the segments; their verification if bit 31 is set; its sha256 if bit 30 is.
        """
        if self.xet is None:
            return
        for path in (self.store / "xet" / "xet" / "xorbs" / "shards").glob("*.mdb"):
            rows = path.read_bytes()
            at = 48
            while at + 48 <= len(rows) and rows[at : at + 32] != b"\xff" * 32:
                xet_hash = _hex(rows[at : at + 32])
                flags, segments = (
                    int.from_bytes(rows[at + i : at + i + 4], "little") for i in (32, 36)
                )
                at += 48 * (1 + segments) + (48 * segments if flags >> 31 & 1 else 0)
                if flags >> 30 & 1:
                    self.xet_hashes[_hex(rows[at : at + 32])] = xet_hash
                    at += 48


def _hex(content: bytes) -> str:
    """Return a hash as xet spells it: four little-endian words."""
    words = (int.from_bytes(content[i : i + 8], "little") for i in range(0, 32, 8))
    return "".join(f"{word:016x}" for word in words)


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    """Return the class whose instances answer the requests to *hub*."""

    class Handler(_Exchange):
        server_hub = hub

    return Handler


class _Exchange(BaseHTTPRequestHandler):
    """One connection: requests come in, `_ROUTES` says what answers them."""

    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read()
        self.repository_name, self.sent_bytes, self.damaged, self.lost = "", 0, False, False
        route = next(
            (
                (match, answer)
                for method, pattern, answer in _ROUTES
                if self.command in method.split("|") and (match := re.fullmatch(pattern, url.path))
            ),
            None,
        )
        if route is None:
            self.reply(404, {"error": f"{self.command} {url.path} is not served here"})
            return
        match, answer = route
        parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
        if url.path == _CREATE:
            asked = json.loads(self.body)
            parts["id"] = f"{asked.get('organization') or USER}/{asked['name']}"
        self.repository_name = parts.get("id", "")
        fault = self.server_hub.fault(self.repository_name)
        self.lost = fault == LOST
        if fault == DROPPED:
            self._hang_up()
            return
        try:
            if fault == WRONG:
                self.damaged = True
                self.body = _damaged(self.body) if self.command == "PUT" else self.body
            self._authorize(url.path, fault)
            answer(self, **parts)
        except _RefusedError as refused:
            if self.server_hub.echo:
                refused.message += f" ({self.headers.get('Authorization')})"
            said = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.reply(
                refused.status,
                {"error": refused.message},
                {key: value for key, value in said.items() if value},
            )
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server_hub.lock:
                self.server_hub.requests.append(
                    Request(self.command, self.path, self.repository_name, self.sent_bytes)
                )

    def _hang_up(self) -> None:
        """Cut the connection."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - likewise

    def _read(self) -> bytes:
        """Return the body of the request."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _authorize(self, path: str, fault: int | None) -> None:
        """Refuse a wrong token, whoever may not do that, and what is to fail."""
        if fault is not None and fault > DROPPED:
            raise _RefusedError(fault, message="injected")
        given = self.headers.get("Authorization")
        if path.startswith("/_lfs/"):
            assert given is None or "/verify" in path, "a token went to the storage"
            return
        if given is not None and given != f"Bearer {TOKEN}":
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        self.user = USER if given else None
        repository = self.server_hub.repositories.get(self.repository_name)
        if repository is None or path == _CREATE:
            return
        owner = repository.name.partition("/")[0]
        mine = self.user and owner in {USER, *(org for org, _ in ORGS)}
        if repository.private and not mine:
            raise _RefusedError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if repository.gated and not mine and self.command == "GET" and "/resolve/" in path:
            raise _RefusedError(403, "GatedRepo", "Access to this model is restricted")

    def reply(
        self,
        status: int,
        document: object = None,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> None:
        """Send an answer."""
        if document is not None:
            content = json.dumps(document).encode()
        if self.damaged and self.command == "GET":
            content = _damaged(content) if "/_lfs/" in self.path else content
        if self.lost:
            self._hang_up()
            return
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.sent_bytes = len(content)

    def repository(self, name: str) -> Repository:
        """Return a repository that exists."""
        found = self.server_hub.repositories.get(name)
        if found is None:
            raise _RefusedError(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return found

    def at(self, name: str, revision: str) -> tuple[Repository, str]:
        """Return a repository and the commit of it that *revision* names."""
        repository = self.repository(name)
        commit = repository.resolve(revision or "main")
        if commit is None:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def writable(self, name: str, *, request: bool = False) -> Repository:
        """Return a repository that the user may write to, or open a pull request against."""
        repository = self.repository(name)
        if not self.user:
            raise _RefusedError(401, message="Invalid username or password.")
        owner = name.partition("/")[0]
        may = owner == USER or (owner, "write") in ORGS
        if not may and not request:
            raise _RefusedError(403, message="You have no write access to this repository")
        return repository

    # What is served

    def whoami(self) -> None:
        if not self.user:
            raise _RefusedError(401, message="Invalid username or password.")
        orgs = [{"name": name, "roleInOrg": role} for name, role in ORGS]
        self.reply(200, {"type": "user", "name": USER, "fullname": USER, "orgs": orgs})

    def create(self, id: str) -> None:  # noqa: A002 - what the Hub calls it
        if not self.user:
            raise _RefusedError(401, message="Invalid username or password.")
        owner = id.partition("/")[0]
        if owner != USER and (owner, "write") not in ORGS:
            raise _RefusedError(403, message=f"You cannot create a repository in {owner}")
        if id in self.server_hub.repositories:
            raise _RefusedError(409, message="You already created this model repo")
        asked = json.loads(self.body)
        repository = Repository(id, private=asked.get("visibility") == "private")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repository.commit("main", {".gitattributes": Blob.small(attributes)}, "initial commit")
        self.server_hub.repositories[id] = repository
        self.reply(200, {"url": f"{self.server_hub.url}/{id}", "name": id, "id": "0" * 24})

    def validate(self) -> None:
        self.reply(200, {"errors": [], "warnings": []})

    def info(self, id: str, revision: str = "") -> None:  # noqa: A002
        repository, commit = self.at(id, revision)
        self.reply(
            200,
            {
                "id": id,
                "sha": commit,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [],
                "siblings": [],
                "lastModified": "2026-03-01T12:00:00.000Z",
            },
        )

    def tree(self, id: str, revision: str) -> None:  # noqa: A002
        repository, commit = self.at(id, revision)
        self.server_hub._read_xet()  # noqa: SLF001 - the two are one
        files = repository.commits[commit].files
        self.reply(200, [self._entry(name, files[name]) for name in sorted(files)])

    def paths(self, id: str, revision: str) -> None:  # noqa: A002
        repository, commit = self.at(id, revision)
        files = repository.commits[commit].files
        asked = parse_qs(self.body.decode()).get("paths", [])
        self.reply(200, [self._entry(name, files[name]) for name in asked if name in files])

    def _entry(self, name: str, blob: Blob) -> dict[str, Any]:
        """Return a file as a list of files has it."""
        entry = {"type": "file", "path": name, "size": blob.size, "oid": blob.oid}
        if blob.sha256:
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
            if blob.sha256 in self.server_hub.xet_hashes:
                entry["xetHash"] = self.server_hub.xet_hashes[blob.sha256]
        return entry

    def resolve(self, id: str, revision: str, path: str) -> None:  # noqa: A002
        repository, commit = self.at(id, revision)
        blob = repository.commits[commit].files.get(path)
        if blob is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob.sha256 or blob.oid}"'}
        if blob.content is not None:
            self.send_part(blob.content, headers)
            return
        hub = self.server_hub
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if blob.sha256 in hub.xet_hashes:
            route = f"{hub.url}/api/models/{id}/xet-read-token/{commit}"
            headers |= {
                "X-Xet-Hash": hub.xet_hashes[blob.sha256],
                "X-Xet-Refresh-Route": route,
                "Link": f'<{route}>; rel="xet-auth"',
            }
        # To another host, as the Hub does, or the client would follow it with its token.
        headers["Location"] = f"http://localhost:{hub.port}/_lfs/{id}/{blob.sha256}"
        self.reply(302, headers=headers)

    def stored(self, id: str, oid: str) -> None:  # noqa: A002
        blobs = (
            blob
            for commit in self.repository_commits(id)
            for blob in commit.files.values()
            if blob.sha256 == oid
        )
        with self.server_hub.lock:
            content = self.server_hub.content(next(blobs))
        self.send_part(content, {"ETag": f'"{oid}"'})

    def repository_commits(self, name: str) -> list[Commit]:
        """Return all commits of a repository."""
        return list(self.server_hub.repositories[name].commits.values())

    def send_part(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send *content*, or the range of it that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if match is None:
            self.reply(200, headers=headers, content=content)
            return
        begin, end = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
        if begin >= len(content):
            self.reply(416, headers={"Content-Range": f"bytes */{len(content)}"})
            return
        whole = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}", **headers}
        self.reply(206, headers=whole, content=content[begin:end])

    def preupload(self, id: str, revision: str) -> None:  # noqa: A002
        self.writable(id, request="create_pr" in self.query or revision.startswith("refs/pr/"))
        repository, commit = self.at(id, revision)
        files = []
        for file in json.loads(self.body)["files"]:
            there = repository.commits[commit].files.get(file["path"])
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(answer | ({"oid": there.sha256 or there.oid} if there else {}))
        self.reply(200, {"files": files})

    def batch(self, id: str) -> None:  # noqa: A002
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if (id, asked["oid"]) not in self.server_hub.received:
                href = f"{self.server_hub.url}/_lfs/{id}/{asked['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(answer)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def put(self, id: str, oid: str) -> None:  # noqa: A002
        if self.server_hub.before_put is not None:
            self.server_hub.before_put()
        time.sleep(self.server_hub.pace)
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(422, message="the content does not match its sha256")
        (self.server_hub.store / oid).write_bytes(self.body)
        self.server_hub.received.add((id, oid))
        self.reply(200)

    def verify(self, id: str, oid: str) -> None:  # noqa: A002
        if (id, oid) not in self.server_hub.received:
            raise _RefusedError(404, message="not uploaded")
        self.reply(200, {})

    def xet_token(self, id: str, operation: str, revision: str) -> None:  # noqa: A002
        del id, revision, operation
        expires = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": self.server_hub.xet or "",
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expires),
        }
        document = {"casUrl": self.server_hub.xet, "exp": expires, "accessToken": "xet"}
        self.reply(200, document, headers)

    def commit(self, id: str, revision: str) -> None:  # noqa: A002
        request = self.query.get("create_pr") == ["1"]
        with self.server_hub.lock:
            repository = self.writable(id, request=request or revision.startswith("refs/pr/"))
            if self.server_hub.before_commit is not None:
                self.server_hub.before_commit(repository)
            _, parent = self.at(id, revision)
            lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
            header = lines[0]["value"]
            if header.get("parentCommit") not in {None, parent}:
                raise _RefusedError(412, message="A commit has happened since. Please refresh.")
            files = dict(repository.commits[parent].files)
            for line in lines[1:]:
                self._apply(id, line["key"], line["value"], files)
            branch, answer = revision, {}
            if request:
                number = repository.open_request(header["summary"])
                branch = f"refs/pr/{number}"
                page = f"{self.server_hub.url}/{id}/discussions/{number}"
                answer = {"pullRequestUrl": page}
            done = repository.commit(branch, files, header["summary"], header["description"])
        page = f"{self.server_hub.url}/{id}/commit/{done}"
        self.reply(200, {"success": True, "commitOid": done, "commitUrl": page, **answer})

    def _apply(self, name: str, key: str, value: Mapping[str, Any], files: dict[str, Blob]) -> None:
        """Do one operation of a commit to the repository *name*."""
        if key == "file":
            files[value["path"]] = Blob.small(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if not self.server_hub.has(name, value["oid"]):
                raise _RefusedError(400, message=f"LFS object {value['oid']} was not uploaded")
            files[value["path"]] = Blob.large(value["oid"], value["size"])
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise _RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")
        else:
            raise _RefusedError(400, message=f"no operation {key} here")

    def discussions(self, id: str) -> None:  # noqa: A002
        repository = self.repository(id)
        found = [
            {
                **each,
                "isPullRequest": True,
                "author": {"name": USER},
                "createdAt": "2026-03-01T12:00:00.000Z",
                "repo": {"name": id, "type": "model"},
            }
            for each in repository.requests
            if each["status"] == "open"
        ]
        self.reply(200, {"discussions": found, "count": len(found), "start": 0})

    def branch(self, id: str, revision: str) -> None:  # noqa: A002
        repository = self.writable(id)
        if revision in repository.branches:
            raise _RefusedError(409, message="Reference already exists")
        repository.branches[revision] = repository.branches["main"]
        self.reply(200, {})


def _damaged(content: bytes) -> bytes:
    """Return *content* with its last byte changed."""
    return content[:-1] + bytes([content[-1] ^ 1]) if content else content


_CREATE = "/api/repos/create"
_MODEL = r"/api/models/(?P<id>[^/]+/[^/]+)"
_REVISION = r"/(?P<revision>[^/]+)"
_OBJECT = r"/_lfs/(?P<id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"
_ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", "/api/whoami-v2", _Exchange.whoami),
    ("POST", _CREATE, _Exchange.create),
    ("POST", "/api/validate-yaml", _Exchange.validate),
    ("GET", f"{_MODEL}/tree{_REVISION}", _Exchange.tree),
    ("POST", f"{_MODEL}/paths-info{_REVISION}", _Exchange.paths),
    ("POST", f"{_MODEL}/preupload{_REVISION}", _Exchange.preupload),
    ("POST", f"{_MODEL}/commit{_REVISION}", _Exchange.commit),
    ("GET", f"{_MODEL}/discussions", _Exchange.discussions),
    ("POST", f"{_MODEL}/branch{_REVISION}", _Exchange.branch),
    ("GET", rf"{_MODEL}/xet-(?P<operation>\w+)-token{_REVISION}", _Exchange.xet_token),
    ("GET", f"{_MODEL}/revision{_REVISION}", _Exchange.info),
    ("GET", _MODEL, _Exchange.info),
    ("POST", r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Exchange.batch),
    ("PUT", _OBJECT, _Exchange.put),
    ("POST", f"{_OBJECT}/verify", _Exchange.verify),
    ("GET|HEAD", _OBJECT, _Exchange.stored),
    ("GET|HEAD", rf"/(?P<id>[^/]+/[^/]+)/resolve{_REVISION}/(?P<path>.+)", _Exchange.resolve),
)
