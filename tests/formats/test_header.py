"""The canonical layout of a header, beside the header that safetensors writes."""

import json
from collections.abc import Mapping
from itertools import permutations
from math import prod

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from recast import Dtype
from recast.execution.reader import read_header
from recast.formats.header import Header, TensorInfo, encode, layout_key
from tests import checkpoints

DTYPES = {**checkpoints.TORCH_DTYPES, Dtype.F8_E4M3: torch.float8_e4m3fn}

# Every character that a file can hold, and often those that JSON, sorting or UTF-8 might trip on.
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    '"\\/\x00\x01\x08\t\n\x0b\x0c\r\x1f\x7f\x80\xa0\xadäß\u2028\u2029\ufeff\uffff\U00010000😀'
)
TEXTS = st.text(CHARACTERS, max_size=12)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 7]), max_size=4).map(tuple)
Kinds = dict[str, tuple[Dtype, tuple[int, ...]]]
KINDS = st.dictionaries(
    TEXTS.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(list(DTYPES)), SHAPES),
    max_size=8,
)
# More than one key, and the library leaves their order to chance.
METADATA = st.none() | st.dictionaries(TEXTS, TEXTS, max_size=1)


def saved(kinds: Kinds, metadata: Mapping[str, str] | None) -> bytes:
    """Return what safetensors writes for tensors of these dtypes and shapes."""
    tensors = {
        name: torch.zeros(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in kinds.items()
    }
    return save(tensors, None if metadata is None else dict(metadata))


def encoded(kinds: Kinds, metadata: Mapping[str, str] | None) -> bytes:
    """Return the bytes that recast writes before the data of the same tensors."""
    names = sorted(kinds, key=lambda name: layout_key(name, kinds[name][0]))
    sizes = {name: prod(shape) * dtype.bits // 8 for name, (dtype, shape) in kinds.items()}
    return encode(((name, *kinds[name], sizes[name]) for name in names), metadata)


@settings(max_examples=150)
@given(KINDS, METADATA)
def test_a_header_is_the_one_that_safetensors_writes(
    kinds: Kinds, metadata: dict[str, str] | None
) -> None:
    """Order, escapes, offsets, padding and length: byte for byte what the library would write."""
    # Of nothing at all it writes {},"__metadata__":{}}, which it then refuses to read.
    assume(kinds or metadata != {})
    reference = saved(kinds, metadata)
    begin = 8 + int.from_bytes(reference[:8], "little")
    assert encoded(kinds, metadata) == reference[:begin]


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (["b", "a", "B", "A", "aa", "", " "], Dtype.F32),
        (["layer.10", "layer.9", "layer.1"], Dtype.BF16),
        (["\uffff", "\U00010000", "\ue000", "\ud7ff"], Dtype.F16),
    ],
)
def test_names_are_sorted_by_code_point(names: list[str], dtype: Dtype) -> None:
    """Names stand in the library's order, which is neither natural nor that of UTF-16."""
    kinds: Kinds = dict.fromkeys(names, (dtype, (2,)))
    head = encoded(kinds, None)
    assert saved(kinds, None).startswith(head)
    assert list(json.loads(head[8:])) == sorted(names, key=str.encode)


def test_shapes_and_dtypes_that_are_alike_are_told_apart() -> None:
    """Tensors of one dtype and other shapes, or one shape and other dtypes, have their own."""
    shapes = [*permutations((1, 2, 3)), *permutations((2, 3)), (2,), (2, 1), (1, 2), ()]
    kinds: Kinds = {f"{dtype} {shape}": (dtype, shape) for dtype in DTYPES for shape in shapes}
    head = encoded(kinds, None)
    assert saved(kinds, None)[: len(head)] == head


def test_literal_bytes() -> None:
    """A small header, spelled out: length, compact JSON, spaces up to a multiple of eight."""
    tensors = [("é", Dtype.F32, (2, 3), 24), ("s", Dtype.BF16, (), 2), ("e", Dtype.BF16, (0,), 0)]
    expected = (
        '{"__metadata__":{"format":"pt"},'
        '"é":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
        '"s":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},'
        '"e":{"dtype":"BF16","shape":[0],"data_offsets":[26,26]}}'
    ).encode()
    head = encode(tensors, {"format": "pt"})
    assert head[:8] == (len(head) - 8).to_bytes(8, "little")
    assert head[8:].rstrip(b" ") == expected
    assert len(head) % 8 == 0
    assert len(head) - 8 - len(expected) < 8


def test_no_tensors_and_no_metadata() -> None:
    """Nothing at all is a header too, the same as the library's."""
    assert encode([], None) == save({}) == b"\x08\0\0\0\0\0\0\0{}      "


@settings(max_examples=50)
@given(KINDS.filter(bool), METADATA)
def test_values_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, kinds: Kinds, metadata: dict[str, str] | None
) -> None:
    """Sizes, counts and offsets of a header agree with torch and with the file's own length."""
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    content = saved(kinds, metadata)
    path.write_bytes(content)
    header = read_header(path, path.name)
    assert header.file_size == len(content)
    assert header.size == 8 + int.from_bytes(content[:8], "little")
    assert header.data_size == len(content) - header.size
    assert header.metadata == metadata
    stored = json.loads(content[8 : header.size])
    assert {name: list(each.data_offsets) for name, each in header.tensors.items()} == {
        name: each["data_offsets"] for name, each in stored.items() if name in kinds
    }
    for name, (dtype, shape) in kinds.items():
        reference = torch.zeros(shape, dtype=DTYPES[dtype])
        tensor = header.tensors[name]
        assert (tensor.dtype, tensor.shape) == (dtype, shape)
        assert (tensor.parameters, tensor.nbytes) == (reference.numel(), reference.nbytes)
    begins = [tensor.data_offsets for tensor in header.tensors.values()]
    assert begins == sorted(begins)


def test_a_scalar_is_one_parameter() -> None:
    """A shape of no dimensions holds one element, and one with a zero in it holds none."""
    assert TensorInfo(Dtype.F32, (), (0, 4)).parameters == 1
    assert TensorInfo(Dtype.F32, (3, 0), (4, 4)).parameters == 0


def test_a_header_of_nothing_adds_up() -> None:
    """A file without tensors is as long as its header."""
    header = Header(16, {}, None)
    assert (header.data_size, header.file_size) == (0, 16)
