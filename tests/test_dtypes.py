"""The dtypes, their order, their sizes and their names, beside those of the libraries."""

import json
import pickle
import re
import struct

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from recast.dtypes import TARGETS, Dtype, named, target
from recast.errors import DtypeError

# Every dtype that safetensors can write for torch, in no order that means anything.
WRITABLE = {
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F16": torch.float16,
    "F32": torch.float32,
    "F4": torch.float4_e2m1fn_x2,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "U8": torch.uint8,
}

SPELLINGS = {
    Dtype.BF16: ["bf16", "bfloat16", torch.bfloat16, ml_dtypes.bfloat16, Dtype.BF16],
    Dtype.F16: ["fp16", "f16", "float16", "half", torch.float16, torch.half, np.float16, np.half],
    Dtype.F32: ["fp32", "f32", "float32", "float", "single", "full", torch.float, np.float32],
    Dtype.F64: ["fp64", "f64", "float64", "double", torch.float64, np.float64, np.double],
}
# What numpy calls a dtype rather than a type, and the tags that files hold.
SPELLINGS[Dtype.BF16] += [np.dtype(ml_dtypes.bfloat16), "BF16"]
SPELLINGS[Dtype.F16] += [np.dtype("float16"), "F16"]
SPELLINGS[Dtype.F32] += [np.dtype("float32"), torch.float32, "F32"]
SPELLINGS[Dtype.F64] += [np.dtype("float64"), "F64"]
EVERY_SPELLING = [
    pytest.param(dtype, spelling, id=f"{dtype}-{spelling}")
    for dtype, spellings in SPELLINGS.items()
    for spelling in spellings
]

UNKNOWN = ["", " ", "int8", "bf-16", "bfloat", "float8_e4m3fn", "auto", "torch", "torch.", "16"]
UNKNOWN += [None, 16, 2.0, torch.int8, torch.float8_e5m2, torch.complex64, np.int64, np.bool_, str]


def file_of(tag: str, elements: int, nbytes: int) -> bytes:
    """Return a file of one tensor, spelled out."""
    tensor = {"dtype": tag, "shape": [elements], "data_offsets": [0, nbytes]}
    header = json.dumps({"tensor": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(nbytes)


def test_safetensors_knows_the_same_dtypes_in_the_same_order() -> None:
    """The tags are those that safetensors accepts, in the order in which it declares them."""
    with pytest.raises(SafetensorError) as refusal:
        deserialize(file_of("F1", 8, 1))
    declared = re.findall("`([^`]*)`", str(refusal.value).partition("expected")[2])
    assert [dtype.value for dtype in Dtype] == declared


def test_order_is_that_of_the_tensors_in_a_file() -> None:
    """Of one tensor of each dtype, safetensors writes the last member's first."""
    content = torch.zeros(16, dtype=torch.uint8)
    tensors = {f"name {tag}": content.clone().view(dtype) for tag, dtype in WRITABLE.items()}
    saved = save(tensors)
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    by_place = sorted(header.values(), key=lambda tensor: tensor["data_offsets"])
    written = [tensor["dtype"] for tensor in by_place]
    assert written == [dtype.value for dtype in reversed(Dtype) if dtype.value in WRITABLE]
    assert set(WRITABLE) == set(Dtype) - {"F6_E2M3", "F6_E3M2"}  # for which torch has no dtype


@pytest.mark.parametrize("dtype", Dtype)
def test_bits_are_what_safetensors_counts(dtype: Dtype) -> None:
    """Eight elements take as many bytes as one has bits, and not one more or less."""
    [(_, tensor)] = deserialize(file_of(dtype.value, 8, dtype.bits))
    assert len(tensor["data"]) == dtype.bits
    for wrong in (dtype.bits - 1, dtype.bits + 1):
        with pytest.raises(SafetensorError, match="offset"):
            deserialize(file_of(dtype.value, 8, wrong))


@pytest.mark.parametrize("dtype", Dtype)
def test_tags_name_their_dtype(dtype: Dtype) -> None:
    """A member is its tag, can be had by its tag, and survives pickling as itself."""
    assert dtype == dtype.value == str(dtype)
    assert Dtype.of_tag(dtype.value) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype  # noqa: S301 - what was pickled here


@pytest.mark.parametrize("tag", ["", "f32", "F31", "bits", "of_tag", "__members__"])
def test_what_is_no_tag_names_no_dtype(tag: str) -> None:
    """Only the tags themselves are tags: no attribute and no other spelling."""
    with pytest.raises(KeyError):
        Dtype.of_tag(tag)


@pytest.mark.parametrize("dtype", Dtype)
def test_kinds_are_torchs(dtype: Dtype) -> None:
    """The dtypes recast casts are torch's floats of 16 bits and more; its smaller ones are packed.

    The two six-bit floats, which torch does not have, are packed too.
    """
    known = WRITABLE.get(dtype.value)
    floating = dtype.value.startswith("F6") if known is None else known.is_floating_point
    assert dtype.is_floating == (floating and dtype.bits >= 16)
    assert dtype.is_packed == (floating and dtype.bits <= 8)


@pytest.mark.parametrize("wide", SPELLINGS)
@pytest.mark.parametrize("narrow", SPELLINGS)
def test_a_dtype_holds_another_if_casting_to_it_loses_nothing(narrow: Dtype, wide: Dtype) -> None:
    """Every value, cast by torch and back, has the bits it had; or else some value has not."""
    dtype = WRITABLE[narrow.value]
    if narrow.bits == 16:
        values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    else:
        edges = torch.finfo(dtype)
        values = torch.tensor(
            [edges.max, edges.tiny, edges.smallest_normal, 1 + edges.eps], dtype=dtype
        )
    values = values[~values.isnan()]
    back = values.to(WRITABLE[wide.value]).to(dtype)
    assert wide.holds(narrow) == torch.equal(back, values)


@pytest.mark.parametrize("dtype", SPELLINGS)
def test_names_are_torchs(dtype: Dtype) -> None:
    """The torch name is torch's, and both it and the short name lead back to the dtype."""
    assert getattr(torch, dtype.torch_name) is WRITABLE[dtype.value]
    assert named(dtype.torch_name) is named(dtype.short_name) is dtype


def test_dtypes_without_a_name_go_by_their_tag() -> None:
    """What people never type is shown as the file has it."""
    assert Dtype.I64.torch_name == "I64"
    assert Dtype.F8_E4M3.short_name == "f8_e4m3"


@pytest.mark.parametrize(("dtype", "spelling"), EVERY_SPELLING)
def test_every_spelling_is_understood(dtype: Dtype, spelling: object) -> None:
    """People's and libraries' names for a dtype are understood, whatever their type."""
    assert named(spelling) is dtype


@pytest.mark.parametrize("dtype", SPELLINGS)
def test_case_prefix_and_white_space_do_not_matter(dtype: Dtype) -> None:
    """A string is understood in any case, with or without ``torch.`` and space around it."""
    strings = [spelling for spelling in SPELLINGS[dtype] if isinstance(spelling, str)]
    for spelling in strings:
        for variant in (spelling, f"torch.{spelling}", f"  {spelling}\n"):
            for text in (variant.lower(), variant.upper(), variant.title()):
                assert named(text) is dtype, text


@pytest.mark.parametrize("dtype", UNKNOWN, ids=repr)
def test_what_names_no_float_dtype_is_none(dtype: object) -> None:
    """No other dtype, and nothing else, is taken for one that can be cast to."""
    assert named(dtype) is None


@pytest.mark.parametrize("dtype", TARGETS)
def test_targets_are_returned(dtype: Dtype) -> None:
    """Whatever can be converted to is, under either of its names."""
    assert target(dtype.torch_name) is target(dtype.short_name) is dtype


@pytest.mark.parametrize("dtype", [*UNKNOWN, *SPELLINGS[Dtype.F64]], ids=repr)
def test_unknown_targets_list_the_known(dtype: object) -> None:
    """An error about a dtype says which one and lists names, each of which would have worked."""
    with pytest.raises(DtypeError) as error:
        target(dtype)
    assert error.value.subject == str(dtype)
    listed = re.findall(r"(\w+) \((\w+)\)", error.value.remedy)
    found = [target(short) for short, _ in listed]
    assert found == [target(long) for _, long in listed] == list(TARGETS)
    assert found == [Dtype.BF16, Dtype.F16, Dtype.F32]
