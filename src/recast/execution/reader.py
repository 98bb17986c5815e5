"""inspect(): a folder, or one weights file → Checkpoint, from headers alone."""

import io
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from math import prod
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from safetensors import SafetensorError, safe_open

from recast.dtypes import Dtype
from recast.errors import CheckpointError, RefusedError, ShardError
from recast.execution.storage import naming
from recast.formats.checkpoint import Checkpoint, File, Shard, Weights
from recast.formats.config import Config
from recast.formats.header import Header, TensorInfo
from recast.formats.index import Index
from recast.formats.names import Role, role

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LFS_POINTER = b"version "  # how one begins; as a header's length it is no length
_LARGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
_AGAIN = "download or copy it again"


def inspect(path: str | os.PathLike[str]) -> Checkpoint:
    """Return what is stored in a checkpoint, from the headers of its files.

    Args:
        path: a folder that a loader can load, or one ``.safetensors`` file.

    Raises:
        CheckpointError: if there is no checkpoint, or its index or config cannot be read.
        ShardError: if safetensors rejects a weights file.
        RefusedError: if a link leads out of the folder (other than in a Hub cache).
        StorageError: if the disk fails.

    Example:
        >>> recast.inspect("./ckpt").dtypes  # doctest: +SKIP
        (DtypeShare(dtype=<Dtype.F32: 'F32'>, tensors=291, parameters=..., nbytes=...),)
    """
    path = Path(path)
    with naming(path):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            problem = "is a link to nothing" if path.is_symlink() else "does not exist"
            raise CheckpointError(str(path), problem, "check the path") from None
        is_folder = path.is_dir()
    if is_folder:
        return _read_folder(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            str(path),
            "is neither a folder nor a .safetensors file",
            "name the checkpoint's folder, or one of its weights files",
        )
    shard = replace(read_shard(path, str(path)), name=path.name)
    return Checkpoint(path, (Weights(path.name, (shard,)),), is_file=True)


def read_header(path: Path, subject: str) -> Header:
    """Return the header of a weights file that safetensors accepts.

    Args:
        path: the file.
        subject: how to name it in an error.

    Raises ShardError, StorageError.
    """
    with validated(path, subject) as (file, head):
        metadata = file.metadata()
        tensors = dict(_tensors(file, subject))
    sorted_metadata = None if metadata is None else dict(sorted(metadata.items()))
    return Header(len(head), tensors, sorted_metadata, sha256(head).hexdigest())


def read_shard(path: Path, name: str) -> Shard:
    """Return the weights file *path*, which the checkpoint knows as *name*."""
    with naming(path):
        modified = path.stat().st_mtime_ns  # before its header: a change since then is noticed
    return Shard(name, read_header(path, name), modified)


@contextmanager
def validated(path: Path, subject: str) -> Iterator[tuple[Any, bytes]]:
    """Yield the weights file *path*, opened, and thereby checked, by safetensors, and its head.

    safetensors maps what it opens, whatever its backend, and a mapped file that is truncated
    meanwhile, or whose disk fails, would end the process. So it gets a twin with the same
    head, and a hole where the data are, of which it looks only at the size.

    Raises ShardError, which names *subject*, or StorageError.
    """
    with naming(path):
        # Opening a pipe would wait for somebody to write to it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ShardError(subject, "is not a regular file", "replace it by one")
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = _read(file, 8)
            if head == _LFS_POINTER:
                raise ShardError(
                    subject, "is a Git LFS pointer and not the weights", "fetch them: git lfs pull"
                )
            length = int.from_bytes(head, "little")
            if length <= min(_LARGEST_HEADER, size):  # or it is rejected for its length
                head += _read(file, length)
    try:
        with naming(path), _hollow(head, size) as twin, safe_open(twin, "np") as opened:
            yield opened, head
    except SafetensorError as error:
        problem = str(error).removeprefix("Error while deserializing header: ")
        raise ShardError(subject, f"is not a valid safetensors file ({problem})", _AGAIN) from None


def _read(file: io.FileIO, size: int) -> bytes:
    """Return the next *size* bytes of a file, or all that it has left."""
    content = bytearray()
    while more := file.read(size - len(content)):
        content += more
    return bytes(content)


@contextmanager
def _hollow(head: bytes, size: int) -> Iterator[str]:
    """Yield the path of a file of *size* bytes that begins with *head* and takes no more space."""
    with _nameless() as file:
        file.write(head)
        file.truncate(size)
        yield f"/dev/fd/{file.fileno()}"


def _nameless() -> io.FileIO:
    """Return a new file that goes when it is closed: in memory, where the system can do that."""
    if hasattr(os, "memfd_create"):
        return io.FileIO(os.memfd_create("header"), "r+")
    descriptor, name = mkstemp()
    Path(name).unlink()
    return io.FileIO(descriptor, "r+")


def _tensors(file: Any, subject: str) -> Iterator[tuple[str, TensorInfo]]:  # noqa: ANN401 - safetensors types only its name
    """Yield the tensors of an open file in the order of their data."""
    begin = 0
    # Tensors by the hundred thousand have few kinds: each is worked out, and stored, once.
    kinds: dict[tuple[str, tuple[int, ...]], tuple[Dtype, tuple[int, ...], int]] = {}
    for name in file.offset_keys():
        tensor = file.get_slice(name)
        kind = (tensor.get_dtype(), tuple(tensor.get_shape()))
        if kind not in kinds:
            kinds[kind] = _kind(*kind, name, subject)
        dtype, shape, nbytes = kinds[kind]
        # safetensors has made sure that the data are contiguous.
        end = begin + nbytes
        yield name, TensorInfo(dtype, shape, (begin, end))
        begin = end


def _kind(
    tag: str, shape: tuple[int, ...], name: str, subject: str
) -> tuple[Dtype, tuple[int, ...], int]:
    """Return the dtype of *tag*, *shape*, and the bytes of a tensor that has both."""
    try:
        dtype = Dtype.of_tag(tag)
    except KeyError:
        raise ShardError(
            subject, f"tensor {name!r} has the unknown dtype {tag}", "update recast"
        ) from None
    return dtype, shape, prod(shape) * dtype.bits // 8


def _read_folder(folder: Path) -> Checkpoint:
    """Return the checkpoint that lies in *folder*."""
    found = {file.name: file for file in _walk(folder)}
    files = {name: file for name, file in found.items() if not file.role.is_left_out}
    indexes = [
        Index.parse(name, _content(folder, name))
        for name, file in files.items()
        if file.role is Role.INDEX
    ]
    weights = tuple(_read_weights(folder, files, indexes))
    if not weights:
        raise CheckpointError(str(folder), "holds no safetensors weights", _hint(found))
    homes = {posixpath.dirname(shard.name) for each in weights for shard in each.shards}
    configs = {
        name: Config.parse(name, _content(folder, name))
        for name, file in files.items()
        if file.role is Role.CONFIG and posixpath.dirname(name) in homes
    }
    named = {shard.name for each in weights for shard in each.shards}
    named |= {index.name for index in indexes} | configs.keys()
    return Checkpoint(
        folder,
        weights,
        configs,
        files=tuple(file for name, file in files.items() if name not in named),
        left_out=tuple(file for file in found.values() if file.role.is_left_out),
    )


def _read_weights(
    folder: Path, files: Mapping[str, File], indexes: list[Index]
) -> Iterator[Weights]:
    """Yield each loadable set of tensors: first the indexes', then the single files."""
    shards: dict[str, Shard] = {}
    for index in indexes:
        for name in index.shards:
            if name in files and name not in shards:
                shards[name] = read_shard(folder / name, name)
        yield Weights(
            index.name,
            tuple(shards[name] for name in index.shards if name in shards),
            index,
            tuple(name for name in index.shards if name not in shards),
        )
    for name, file in files.items():
        if file.role is Role.WEIGHTS and name not in shards:
            yield Weights(name, (read_shard(folder / name, name),))


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
    kind = role(name)
    if kind.is_left_out:
        return File(name, path.lstat().st_size, kind)
    if path.is_symlink():
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


def _content(folder: Path, name: str) -> bytes:
    """Return the content of a small file."""
    with naming(folder / name):
        return (folder / name).read_bytes()


def _hint(found: Mapping[str, File]) -> str:
    """Return what may help somebody whose folder holds no weights."""
    nested = sorted(
        {
            name.partition("/")[0]
            for name, file in found.items()
            if file.role is Role.NESTED_CHECKPOINT
        }
    )
    if nested:
        return f"name one of the checkpoints in it: {', '.join(nested[:3])}"
    if pickled := [name for name in found if name.endswith(_PICKLES)]:
        return f"save {pickled[0]} as safetensors first"
    return "name the folder that holds model.safetensors or model.safetensors.index.json"
