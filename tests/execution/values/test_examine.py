"""What casts do to values, as numpy and as the native kernel find it, beside torch in fp64."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast import Dtype
from recast.execution.values import native
from recast.execution.values.cast import NUMPY_DTYPES, Array, kernel
from recast.execution.values.examine import compare, examine, overflow
from recast.execution.values.facts import (
    BF16_LOSES,
    FACTS,
    FP16_LOSES,
    add,
    mantissa_bits,
    nothing_seen,
)
from tests.checkpoints import TORCH_DTYPES
from tests.execution.values.test_cast import CASTS

Way = Callable[[Array, Dtype, Array], tuple[Array, Array]]

NOTABLE = [
    *(0.0, -0.0, 1.0, -1.5, float("inf"), -float("inf"), float("nan")),
    *(65504.0, 65519.0, 65520.0, -1e6, 3.4028234e38, -3.39e38, 1e300),  # about to overflow
    *(2.0**-24, 2.0**-26, 1e-40, -1e-45, 5e-324, 1 + 2.0**-8, 1 + 2.0**-9, 1 / 3),
]


@st.composite
def tensors(draw: st.DrawFn, dtype: Dtype) -> torch.Tensor:
    """Draw a flat tensor, not empty, of one character: anything, lossless, or all alike."""
    size = draw(st.integers(1, 12))
    width = dtype.bits // 8
    kind = draw(st.sampled_from(["bits", "notable", "narrow", "noise"]))
    if kind == "bits":
        content = draw(st.binary(min_size=size * width, max_size=size * width))
        bits = np.frombuffer(content, f"<i{width}").copy()
        return torch.from_numpy(bits).view(TORCH_DTYPES[dtype])
    if kind == "narrow":  # exact in any of the dtypes
        values = draw(st.lists(st.integers(-128, 128), min_size=size, max_size=size))
    elif kind == "notable":
        values = draw(st.lists(st.sampled_from(NOTABLE), min_size=size, max_size=size))
    else:
        values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(size)
    return torch.tensor(values, dtype=torch.float64).to(TORCH_DTYPES[dtype])


def bits_of(tensor: torch.Tensor) -> Array:
    """Return the bits of a tensor."""
    return tensor.contiguous().view(getattr(torch, f"int{tensor.itemsize * 8}")).numpy()


@dataclass(frozen=True)
class Found:
    """The facts of one tensor."""

    bits: int = 0
    magnitude: float = 0.0
    nan: int = 0
    infinite: int = 0
    changed: int = 0
    largest_error: float = 0.0
    overflowed: int = 0
    largest_overflow: float = 0.0
    underflowed: int = 0
    lost: int = 0


def rows(facts: Array) -> list[Found]:
    """Return the facts of each tensor."""
    return [Found(**dict(zip(FACTS.names, row, strict=True))) for row in facts.tolist()]


def largest(values: torch.Tensor) -> float:
    """Return the largest magnitude of some values; 0.0 of none."""
    return values.abs().max().item() if len(values) else 0.0


def by_torch(tensor: torch.Tensor, target: Dtype) -> Found:
    """Return what torch's arithmetic finds."""
    before, after = tensor.double(), tensor.to(TORCH_DTYPES[target]).double()
    finite = before.isfinite()
    overflowed = finite & after.isinf()
    numbers = bits_of(tensor)[~before.isnan().numpy()]
    return Found(
        bits=int(np.bitwise_or.reduce(numbers)) & ((1 << 8 * tensor.itemsize) - 1),
        magnitude=largest(before[finite]),
        nan=int(before.isnan().sum()),
        infinite=int(before.isinf().sum()),
        changed=int(((before != after) & ~before.isnan()).sum()),
        largest_error=largest((before - after)[finite & after.isfinite()]),
        overflowed=int(overflowed.sum()),
        largest_overflow=largest(before[overflowed]),
        underflowed=int(((before != 0) & (after == 0)).sum()),
    )


def seen_by_torch(tensor: torch.Tensor, dtype: Dtype) -> Found:
    """Return what torch's arithmetic finds in values that are only looked at."""
    numbers = tensor[tensor.isfinite()]
    narrow = ((BF16_LOSES, torch.bfloat16), (FP16_LOSES, torch.float16))
    lost = sum(flag for flag, kind in narrow if (numbers.to(kind).double() != numbers).any())
    return replace(by_torch(tensor, dtype), lost=lost)


def in_numpy(values: Array, dtype: Dtype, starts: Array) -> tuple[Array, Array]:
    """Cast as where there is no native kernel."""
    out = np.empty(len(values), NUMPY_DTYPES[dtype])
    kernel(source_of(values), dtype)(values, out)
    return out, compare(values, out, starts)


def in_c(values: Array, _dtype: Dtype, starts: Array) -> tuple[Array, Array]:
    """Cast by the native kernel, which knows one cast only."""
    out = np.empty(len(values), NUMPY_DTYPES[Dtype.BF16])
    return out, native.cast(values, out, starts)


def source_of(values: Array) -> Dtype:
    """Return the dtype of an array."""
    return next(each for each, dtype in NUMPY_DTYPES.items() if dtype == values.dtype)


WAYS = [
    *((in_numpy, source, target) for source, target in CASTS if not target.holds(source)),
    (in_c, Dtype.F32, Dtype.BF16),
]


@pytest.mark.parametrize(("way", "source", "target"), WAYS)
@settings(max_examples=60)
@given(data=st.data())
def test_facts_are_what_torch_finds(
    way: Way, source: Dtype, target: Dtype, data: st.DataObject
) -> None:
    """However the values are cut into pieces and shared among threads, the facts are torch's."""
    drawn = data.draw(st.lists(tensors(source), min_size=1, max_size=5))
    whole = torch.cat(drawn)
    values = bits_of(whole).view(NUMPY_DTYPES[source])
    expected = bits_of(whole.to(TORCH_DTYPES[target]))
    begins = np.cumsum([0, *map(len, drawn[:-1])])
    cuts = data.draw(st.sets(st.integers(1, len(values)), max_size=6))
    edges = sorted({0, len(values)} | cuts)
    # One tensor more than there are: nothing is ever said about it.
    gathered = [nothing_seen(len(drawn) + 1) for _ in range(data.draw(st.integers(1, 3)))]
    for begin, end in pairwise(edges):
        held = [
            number
            for number, at in enumerate(begins)
            if at < end and at + len(drawn[number]) > begin
        ]
        starts = np.array([max(begins[number] - begin, 0) for number in held])
        cast, facts = way(values[begin:end], target, starts)
        assert_same(cast, expected[begin:end], target)
        add(data.draw(st.sampled_from(gathered)), facts, np.array(held))
    total, *others = gathered
    for other in others:
        add(total, other)
    assert rows(total) == [*(by_torch(tensor, target) for tensor in drawn), Found()]


def assert_same(cast: Array, expected: Array, dtype: Dtype) -> None:
    """Assert that two casts have the same bits, or are NaN both."""
    expected = expected.view(cast.dtype)
    same = cast.view(f"u{cast.itemsize}") == expected.view(f"u{cast.itemsize}")
    assert (same | (np.isnan(cast) & np.isnan(expected))).all(), dtype


def test_the_native_kernel_is_there() -> None:
    """It was built when recast was installed here, so that these tests mean something."""
    assert native.library() is not None


def test_the_native_kernel_casts_every_pattern_as_numpy_does() -> None:
    """All upper halves with the lower halves around a tie: the bits are ml_dtypes', NaN too."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | np.uint32(lower)).view(np.float32)
        starts = np.arange(0, len(values), 1000)
        (numpy, by_numpy), (c, by_c) = (way(values, Dtype.BF16, starts) for way in (in_numpy, in_c))
        assert numpy.tobytes() == c.tobytes()
        assert rows(by_numpy) == rows(by_c)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@settings(max_examples=60)
@given(data=st.data())
def test_the_native_kernel_sees_what_numpy_sees(dtype: Dtype, data: st.DataObject) -> None:
    """Of tensors of any bits and of any length, blocks and what is left of one: the same facts."""
    drawn = data.draw(st.lists(tensors(dtype), min_size=1, max_size=5))
    long = data.draw(st.sampled_from([0, 1017, 1024, 1025, 5000]))
    drawn.insert(data.draw(st.integers(0, len(drawn))), torch.ones(long, dtype=drawn[0].dtype))
    values = bits_of(torch.cat(drawn)).view(NUMPY_DTYPES[dtype])
    starts = np.cumsum([0, *(len(each) for each in drawn if len(each))][:-1])
    assert rows(native.look(values, starts)) == rows(examine(values, starts))


@pytest.mark.parametrize("dtype", [Dtype.F16, Dtype.BF16])
def test_the_native_kernel_sees_every_pattern_as_torch_does(dtype: Dtype) -> None:
    """Each of the 65,536 values there are, in a block with its like: finite, infinite, or NaN."""
    values = np.repeat(np.arange(1 << 16, dtype=np.uint16), 3)
    floats = torch.from_numpy(values[::3].view(np.int16)).view(TORCH_DTYPES[dtype]).double()
    facts = native.look(values.view(NUMPY_DTYPES[dtype]), np.arange(0, len(values), 3))
    assert np.array_equal(facts["nan"], 3 * floats.isnan().numpy())
    assert np.array_equal(facts["infinite"], 3 * floats.isinf().numpy())
    finite = floats.isfinite().numpy()
    assert np.array_equal(facts["magnitude"], np.where(finite, floats.abs().numpy(), 0))
    assert np.array_equal(facts["bits"], np.where(facts["nan"], 0, values[::3]))
    assert np.array_equal(facts["lost"], lost_by_torch(floats))


def lost_by_torch(values: torch.Tensor) -> Array:
    """Return of each value by which of the narrow dtypes it is lost; none loses NaN or infinity."""
    bf16, fp16 = (
        (values.to(kind).double() != values.double()) & values.isfinite()
        for kind in (torch.bfloat16, torch.float16)
    )
    return (BF16_LOSES * bf16 + FP16_LOSES * fp16).numpy()


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.F64])
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", [native.look, examine])
def test_what_a_narrow_dtype_holds_is_told_from_what_lies_beside_it(
    way: Callable[[Array, Array], Array], narrow: torch.dtype, dtype: Dtype
) -> None:
    """Every value of bf16 and fp16, subnormal too, and the next ones and the middle above it."""
    held = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(narrow)
    bits = held.to(TORCH_DTYPES[dtype]).view(getattr(torch, f"int{dtype.bits}"))
    stored = 7 if narrow is torch.bfloat16 else 10
    middle = 1 << {Dtype.F32: 22, Dtype.F64: 51}[dtype] - stored
    whole = torch.cat([bits, bits + 1, bits - 1, bits + middle]).view(TORCH_DTYPES[dtype])
    facts = way(whole.numpy(), np.arange(len(whole)))
    assert np.array_equal(facts["lost"], lost_by_torch(whole))


@pytest.mark.parametrize("length", [1, 7, 1023, 1024, 1025, 5000])
def test_the_native_kernel_casts_blocks_of_any_length(length: int) -> None:
    """Whole blocks, and what is left of one, hold what a pass over everything finds."""
    values = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    values[-1] = 3.4e38  # overflows, in the last block only
    (numpy, by_numpy), (c, by_c) = (
        way(values, Dtype.BF16, np.array([0])) for way in (in_numpy, in_c)
    )
    assert numpy.tobytes() == c.tobytes()
    assert rows(by_numpy) == rows(by_c)


def test_a_library_of_another_day_is_not_called(monkeypatch, tmp_path) -> None:
    """One that states another interface, or that is none, is as good as none."""
    native.library.cache_clear()
    monkeypatch.setattr(native, "_INTERFACE", -1)
    assert native.library() is None
    native.library.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    assert native.library() is None
    (tmp_path / "libnative.so").write_bytes(b"not a library")
    assert native.library() is None
    native.library.cache_clear()


MAX = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("values", "changed", "error", "overflowed", "underflowed"),
    [
        ([1.0, -2.5, torch.inf, torch.nan], 0, 0.0, 0, 0),
        ([1 + 2**-9, 1.0], 1, 2**-9, 0, 0),
        ([1.0, 1 + 2**-8], 1, 2**-8, 0, 0),
        ([3.4e38, -MAX, 1.0], 2, 0.0, 2, 0),
        ([MAX, 1 + 2**-9, torch.nan, -torch.inf], 2, 2**-9, 1, 0),
        ([2.0**-149, -0.0, 0.0], 1, 2.0**-149, 0, 1),
    ],
)
@pytest.mark.parametrize("way", [in_numpy, in_c])
def test_facts_in_numbers(
    way: Way, values: list[float], changed: int, error: float, overflowed: int, underflowed: int
) -> None:
    """NaN and infinity are no error, an overflow is none of size, and a subnormal is one."""
    tensor = torch.tensor(values)
    _, facts = way(tensor.numpy(), Dtype.BF16, np.array([0]))
    (found,) = rows(facts)
    assert (found.changed, found.largest_error) == (changed, error)
    assert (found.overflowed, found.underflowed) == (overflowed, underflowed)
    assert found == by_torch(tensor, Dtype.BF16)


@pytest.mark.parametrize("target", [Dtype.BF16, Dtype.F16])
def test_the_relative_error_is_bounded_beforehand(target: Dtype) -> None:
    """Of no normal number is the error as large as 2**-8 of it in bf16, or 2**-11 in fp16."""
    bound = {Dtype.BF16: 2.0**-8, Dtype.F16: 2.0**-11}[target]
    tensor = 1 + torch.arange(1 << 20, dtype=torch.float64) / (1 << 20)  # one binade
    tensor = tensor.float().double()
    error = (tensor - tensor.to(TORCH_DTYPES[target]).double()).abs() / tensor
    assert bound / 1.01 < error.max().item() < bound


@pytest.mark.parametrize(("source", "target"), CASTS)
@settings(max_examples=30)
@given(data=st.data())
def test_looking_for_overflow_only(source: Dtype, target: Dtype, data: st.DataObject) -> None:
    """Without evidence, it is still seen of every tensor what overflowed, and how large it was."""
    tensor = data.draw(tensors(source))
    values = bits_of(tensor).view(NUMPY_DTYPES[source])
    cast = bits_of(tensor.to(TORCH_DTYPES[target])).view(NUMPY_DTYPES[target])
    (found,) = rows(overflow(values, cast, np.array([0])))
    expected = by_torch(tensor, target)
    assert found.overflowed == expected.overflowed == found.changed
    assert found.largest_overflow == expected.largest_overflow


@pytest.mark.parametrize("dtype", list(NUMPY_DTYPES))
@settings(max_examples=30)
@given(data=st.data())
def test_values_are_looked_at_in_every_dtype(dtype: Dtype, data: st.DataObject) -> None:
    """Bits, magnitude, NaN, infinity, and what narrow dtypes would lose, are torch's."""
    tensor = data.draw(tensors(dtype))
    (found,) = rows(examine(bits_of(tensor).view(NUMPY_DTYPES[dtype]), np.array([0])))
    assert found == seen_by_torch(tensor, dtype)


@pytest.mark.parametrize(
    ("dtype", "values", "bits"),
    [
        (Dtype.F32, [0.0, 1.0, -4.0], 0),
        (Dtype.F32, [1.5], 1),
        (Dtype.F32, [1 + 2**-7, 1.5], 7),
        (Dtype.F32, [1 + 2**-23], 23),
        (Dtype.F16, [1 + 2**-10], 10),
        (Dtype.F64, [1 + 2**-52], 52),
        (Dtype.F32, [float("nan"), 1.0], 0),
    ],
)
def test_mantissa_bits_in_use(dtype: Dtype, values: list[float], bits: int) -> None:
    """They are counted from the leading one to the lowest that any value has set."""
    tensor = torch.tensor(values, dtype=TORCH_DTYPES[dtype])
    facts = examine(bits_of(tensor).view(NUMPY_DTYPES[dtype]), np.array([0]))
    assert mantissa_bits(facts, [dtype]) == [bits]


def test_pieces_are_left_as_they_were() -> None:
    """Looking at values changes none of them."""
    tensor = torch.tensor(NOTABLE).repeat(3)
    piece, cast = tensor.numpy(), bits_of(tensor.half()).view(np.float16)
    before = piece.tobytes(), cast.tobytes()
    compare(piece, cast, np.array([0]))
    assert (piece.tobytes(), cast.tobytes()) == before
