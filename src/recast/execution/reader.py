"""inspect(): a folder, or one weights file → Checkpoint, from headers alone."""

import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from recast.errors import CheckpointError, HubError, RecastError, RefusedError, ShardError
from recast.execution.assembler import assemble
from recast.execution.storage import naming
from recast.execution.validator import header_of, opened, read_head
from recast.formats.checkpoint import Checkpoint, File, Shard, Weights
from recast.formats.header import Header
from recast.formats.hub_path import HubPath, is_uri, may_be_repository
from recast.formats.names import Role, role


def inspect(path: str | os.PathLike[str]) -> Checkpoint:
    """Return what is stored in a checkpoint, from the headers of its files.

    Args:
        path: a folder that a loader can load, or one ``.safetensors`` file; on the Hub,
            ``hf://org/name[@revision][/folder]``, or ``org/name`` when no such path exists.
            Of a remote file, only the header is fetched.

    Raises:
        CheckpointError: if there is no checkpoint, or its index or config cannot be read.
        ShardError: if safetensors rejects a weights file.
        RefusedError: if a link leads out of the folder (other than in a Hub cache).
        StorageError: if the disk fails.
        HubError: if the Hub cannot be reached, or has no such model for you.

    Example:
        >>> recast.inspect("./ckpt").dtypes  # doctest: +SKIP
        (DtypeShare(dtype=<Dtype.F32: 'F32'>, tensors=291, parameters=..., nbytes=...),)
    """
    if isinstance(place := _place(path), HubPath):
        from recast.remote.repository import inspect_remote  # noqa: PLC0415 - few need the Hub

        try:
            return inspect_remote(place)
        except HubError as error:
            if is_uri(str(path)):
                raise
            problem = f"is no path here; {place}: {error.problem}"
            raise HubError(str(path), problem, error.remedy) from error
    path = place
    with naming(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            problem = "is a link to nothing" if path.is_symlink() else "does not exist"
            raise CheckpointError(str(path), problem, "check the path") from None
        is_folder = path.is_dir()
    if is_folder:
        return assemble(Folder(path))
    if path.suffix != ".safetensors":
        raise CheckpointError(
            str(path),
            "is neither a folder nor a .safetensors file",
            "name the checkpoint's folder, or one of its weights files",
        )
    shard = replace(read_shard(path, str(path)), name=path.name)
    return Checkpoint(path, (Weights(path.name, (shard,)),), is_file=True)


def inspect_base(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the model that *checkpoint* says it was made from, if that is a folder here.

    One that cannot be read is none: it is no part of the checkpoint.
    """
    if checkpoint.base is None or is_uri(checkpoint.base):
        return None
    try:
        return inspect(checkpoint.base)
    except RecastError:
        return None


def _place(path: str | os.PathLike[str]) -> Path | HubPath:
    """Return where *path* is: here, or on the Hub if it says so, or can only be meant so."""
    text = os.fspath(path)
    if is_uri(text):
        return HubPath.parse(text)
    if isinstance(path, str) and may_be_repository(text) and not os.path.lexists(text):
        return HubPath.parse(text)
    return Path(path)


def read_header(path: Path, subject: str) -> Header:
    """Return the header of a weights file that safetensors accepts.

    Args:
        path: the file.
        subject: how to name it in an error.

    Raises ShardError, StorageError.
    """
    head, size = _head(path, subject)
    with naming(path):
        return header_of(head, size, subject)


def read_shard(path: Path, name: str) -> Shard:
    """Return the weights file *path*, which the checkpoint knows as *name*."""
    with naming(path):
        modified = path.stat().st_mtime_ns  # before its header: a change since then is noticed
    return Shard(name, read_header(path, name), modified)


@contextmanager
def validated(path: Path, subject: str) -> Iterator[tuple[Any, bytes]]:
    """Yield the weights file *path* as `validator.opened` does, and its head.

    Raises ShardError, which names *subject*, or StorageError.
    """
    head, size = _head(path, subject)
    with naming(path), opened(head, size, subject) as file:
        yield file, head


def _head(path: Path, subject: str) -> tuple[bytes, int]:
    """Return what stands before the data of a weights file, and the size of all of it."""
    with naming(path):
        # Opening a pipe would wait for somebody to write to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ShardError(subject, "is not a regular file", "replace it by one")
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            return read_head(lambda _, count: _read(file, count), size, subject), size


def _read(file: io.FileIO, size: int) -> bytes:
    """Return the next *size* bytes of a file, or all that it has left."""
    content = bytearray()
    while more := file.read(size - len(content)):
        content += more
    return bytes(content)


class Folder:
    """A folder on a disk, with a checkpoint in it."""

    def __init__(self, path: Path) -> None:
        """Look into *path*, which exists."""
        self.path = path

    def files(self) -> Iterator[File]:
        """Return the files in it and below, with "/" in their names, in a fixed order."""
        return _walk(self.path)

    def content(self, name: str) -> bytes:
        """Return the content of a small file. Raises StorageError."""
        with naming(self.path / name):
            return (self.path / name).read_bytes()

    def shards(self, names: Iterable[str]) -> Iterator[Shard]:
        """Return these weights files. Raises ShardError, StorageError."""
        return (read_shard(self.path / name, name) for name in names)


def _walk(folder: Path) -> Iterator[File]:
    """Yield the files in *folder* and below, with "/" in their names, in a fixed order."""

    def fail(error: OSError) -> None:
        with naming(Path(error.filename)):
            raise error

    with naming(folder):
        for parent, folders, names in os.walk(folder, onerror=fail):
            folders.sort()
            for name in sorted([*names, *(each for each in folders if _is_link(parent, each))]):
                path = Path(parent, name)
                yield _file(folder, path, path.relative_to(folder).as_posix())


def _is_link(parent: str, name: str) -> bool:
    """Whether a folder's entry is a link, into which `os.walk` does not go."""
    return Path(parent, name).is_symlink()


def _file(folder: Path, path: Path, name: str) -> File:
    """Return the file *name*. Raises RefusedError if it is a link out of *folder*."""
    is_link = path.is_symlink()
    kind = role(name)
    if is_link and role(f"{name}/").is_left_out:  # a folder kept elsewhere: global_step500
        kind = role(f"{name}/")
    if kind.is_left_out:
        return File(name, path.lstat().st_size, kind)
    if is_link:
        _check_link(folder, path, name)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        if kind is Role.WEIGHTS:
            raise ShardError(name, "is not a regular file", "replace it by one")
        return File(name, 0, Role.SPECIAL)
    return File(name, status.st_size, kind)


def _check_link(folder: Path, path: Path, name: str) -> None:
    """Refuse a link that is broken, or that leads out of *folder* and not into its Hub cache."""
    if not path.exists():
        raise CheckpointError(name, "is a link to nothing", "restore what it links to")
    if path.resolve().is_relative_to(folder.resolve()):
        return
    blobs = hub_blobs(folder.resolve())
    hop = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    # Only the first hop is the Hub cache's own; blobs may themselves be links into a store.
    if blobs is None or not hop.is_relative_to(blobs):
        raise RefusedError(
            name, f"is a link out of the folder, to {path.readlink()}", "replace it by a copy"
        )


def hub_blobs(path: Path) -> Path | None:
    """Return the blobs of the Hub cache in one of whose snapshots *path* is, or lies, if any."""
    for snapshot in (path, *path.parents):
        blobs = snapshot.parent.parent / "blobs"
        if snapshot.parent.name == "snapshots" and blobs.is_dir():
            return blobs
    return None
