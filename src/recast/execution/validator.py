"""What safetensors says of a weights file, from the bytes before its data and its size alone."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from safetensors import SafetensorError, safe_open

from recast.dtypes import Dtype
from recast.errors import ShardError
from recast.formats.header import Header, TensorInfo

_LFS_POINTER = b"version "  # how one begins; as a header's length it is no length
_LARGEST_HEADER = 100_000_000  # bytes, safetensors' own limit
_AGAIN = "download or copy it again"


def read_head(read: Callable[[int, int], bytes], size: int, subject: str) -> bytes:
    """Return the length prefix of a weights file, and the header unless it cannot be valid.

    Args:
        read: returns up to so many bytes of the file (the second) from a position (the first).
        size: the bytes of the whole file.
        subject: how to name it in an error.
    """
    head = read(0, 8)
    if head == _LFS_POINTER:
        raise ShardError(
            subject, "is a Git LFS pointer and not the weights", "fetch them: git lfs pull"
        )
    length = int.from_bytes(head, "little")
    if length <= min(_LARGEST_HEADER, size):  # or it is rejected for its length
        head += read(8, length)
    return head


def header_of(head: bytes, size: int, subject: str) -> Header:
    """Return the header of a weights file of *size* bytes that begins with *head*.

    Raises ShardError, which names *subject*, unless safetensors accepts it.
    """
    with opened(head, size, subject) as file:
        metadata = file.metadata()
        tensors = dict(_tensors(file, subject))
    sorted_metadata = None if metadata is None else dict(sorted(metadata.items()))
    return Header(len(head), tensors, sorted_metadata, sha256(head).hexdigest())


@contextmanager
def opened(head: bytes, size: int, subject: str) -> Iterator[Any]:
    """Yield a weights file, opened, and thereby checked, by safetensors.

    safetensors maps what it opens, whatever its backend, and a mapped file that is truncated
    meanwhile, or whose disk fails, would end the process. So it gets a twin with the same
    head, and a hole where the data are, of which it looks only at the size.

    Raises ShardError, which names *subject*.
    """
    try:
        with _hollow(head, size) as twin, safe_open(twin, "np") as file:
            yield file
    except SafetensorError as error:
        problem = str(error).removeprefix("Error while deserializing header: ")
        raise ShardError(subject, f"is not a valid safetensors file ({problem})", _AGAIN) from None


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
