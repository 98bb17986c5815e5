"""inspect() of a checkpoint on the Hub: its lists, its small files, and the heads of its shards."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from recast.errors import CheckpointError
from recast.execution.assembler import assemble
from recast.execution.validator import header_of, read_head
from recast.formats.checkpoint import Checkpoint, File, Shard, Weights
from recast.formats.hub_path import HubFile, HubPath
from recast.formats.names import role
from recast.hub import Hub

_AT_ONCE = 8  # headers that are fetched at a time
_WINDOW = 32 << 10  # bytes, in which most headers fit


class Repository:
    """A checkpoint in a repository on the Hub, at one commit."""

    def __init__(self, hub: Hub, path: HubPath) -> None:
        """Look up what *path* is now, and what lies there. Raises HubError."""
        self.hub = hub
        found = hub.look_up(path)
        self.path, self.modified = found.path, found.modified
        before = f"{path.folder}/" if path.folder else ""
        every = {file.name: file for file in hub.files(self.path)}
        self.is_file = path.folder.endswith(".safetensors") and path.folder in every
        if self.is_file:
            before = path.folder.rpartition("/")[0] + "/" if "/" in path.folder else ""
            every = {path.folder: every[path.folder]}
        self.entries = {
            name.removeprefix(before): file
            for name, file in every.items()
            if name.startswith(before)
        }
        if not self.entries:
            raise CheckpointError(str(path), "holds no files", "check the folder's name")

    @classmethod
    def of(cls, hub: Hub, checkpoint: Checkpoint) -> "Repository":
        """Return where *checkpoint* lies, at its commit. Raises HubError."""
        if not isinstance(checkpoint.path, HubPath):
            raise TypeError(f"{checkpoint.path} is not on the Hub")
        return cls(hub, checkpoint.path)

    def files(self) -> Iterator[File]:
        """Return the files, with names relative to the checkpoint."""
        return (File(name, file.size, role(name)) for name, file in self.entries.items())

    def content(self, name: str) -> bytes:
        """Return the content of a small file. Raises HubError."""
        file = self.entries[name]
        return self.hub.read(self.path, file.name, 0, file.size) if file.size else b""

    def shards(self, names: Iterable[str]) -> Iterable[Shard]:
        """Return these weights files, from their heads alone. Raises ShardError, HubError."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._shard, names))

    def _shard(self, name: str) -> Shard:
        """Return one weights file."""
        file = self.entries[name]
        head = read_head(_Window(self, file).read, file.size, name)
        return Shard(name, header_of(head, file.size, name), self.modified)


class _Window:
    """The beginning of a remote file, fetched in one request, or in two if that was too little."""

    def __init__(self, repository: Repository, file: HubFile) -> None:
        self._repository = repository
        self._file = file
        self._content = self._fetch(0, min(_WINDOW, file.size))

    def read(self, position: int, count: int) -> bytes:
        """Return up to *count* bytes from *position* on."""
        missing = min(position + count, self._file.size) - len(self._content)
        if missing > 0:
            self._content += self._fetch(len(self._content), missing)
        return self._content[position : position + count]

    def _fetch(self, position: int, count: int) -> bytes:
        if not count:
            return b""
        hub, path = self._repository.hub, self._repository.path
        return hub.read(path, self._file.name, position, count)


def inspect_remote(path: HubPath) -> Checkpoint:
    """Return what is stored in a checkpoint on the Hub.

    Raises HubError, and what `recast.inspect` raises for a folder.
    """
    repository = Repository(Hub(), path)
    if repository.is_file:
        [shard] = repository.shards(repository.entries)
        whole = replace(shard, name=repository.path.name)
        return Checkpoint(repository.path, (Weights(whole.name, (whole,)),), is_file=True)
    return assemble(repository)
