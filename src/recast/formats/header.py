"""The header of a safetensors file: its tensors, its header metadata, its canonical layout."""

import json.encoder
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from recast.dtypes import Dtype

_ALIGNMENT = 8  # the header is padded with spaces to a multiple of this many bytes
_ORDER = {dtype: -position for position, dtype in enumerate(Dtype)}
_quote = json.encoder.encode_basestring  # without escapes for what UTF-8 can hold


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its header describes it.

    Attributes:
        dtype: the stored dtype.
        shape: the number of elements along each dimension; () is a scalar, one element.
        data_offsets: begin and end in bytes, counted from the end of the header.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def parameters(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor's data."""
        return self.data_offsets[1] - self.data_offsets[0]


@dataclass(frozen=True, slots=True)
class Header:
    """A header that safetensors has accepted.

    Attributes:
        size: the bytes before the first tensor's data, length prefix included.
        tensors: by name, in the order of their data.
        metadata: the strings under ``__metadata__``, sorted by key; None if absent.
        digest: of the header's bytes, as they stand in the file.
    """

    size: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] | None
    digest: str = ""

    @property
    def data_size(self) -> int:
        """The bytes of all tensors."""
        return max((tensor.data_offsets[1] for tensor in self.tensors.values()), default=0)

    @property
    def file_size(self) -> int:
        """The bytes of the whole file."""
        return self.size + self.data_size


def layout_key(name: str, dtype: Dtype) -> tuple[int, str]:
    """Return the key by which safetensors orders tensors: dtype descending, then name."""
    return _ORDER[dtype], name


def encode(
    tensors: Iterable[tuple[str, Dtype, tuple[int, ...], int]], metadata: Mapping[str, str] | None
) -> bytes:
    """Return the bytes that stand before the data of *tensors*, laid out one after another.

    Each tensor is its name, dtype, shape and bytes; they are already in `layout_key` order.
    The result is what safetensors writes: the length as 8 little-endian bytes, compact
    UTF-8 JSON, and spaces up to a multiple of 8.
    """
    members = []
    if metadata is not None:
        strings = ",".join(f"{_quote(key)}:{_quote(text)}" for key, text in metadata.items())
        members.append(f'"__metadata__":{{{strings}}}')
    end = 0
    # Tensors by the hundred thousand have few kinds: each is spelled once.
    kinds: dict[tuple[Dtype, tuple[int, ...]], str] = {}
    for name, dtype, shape, nbytes in tensors:
        begin, end = end, end + nbytes
        kind = kinds.get((dtype, shape))
        if kind is None:
            kind = f'"dtype":"{dtype}","shape":[{",".join(map(str, shape))}]'
            kinds[dtype, shape] = kind
        members.append(f'{_quote(name)}:{{{kind},"data_offsets":[{begin},{end}]}}')
    text = f"{{{','.join(members)}}}".encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
