"""Every cast, beside torch's ``tensor.to(dtype)``."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast import Dtype
from recast.execution.values.cast import NUMPY_DTYPES, Array, kernel
from tests.checkpoints import TORCH_DTYPES

CASTS = [
    (source, target)
    for source in (Dtype.F64, Dtype.F32, Dtype.F16, Dtype.BF16)
    for target in (Dtype.F32, Dtype.F16, Dtype.BF16)
    if source is not target
]
EVERY_16_BITS = np.arange(1 << 16, dtype=np.uint16)
# The bits that bf16 has not: none, the tie, everything, what lies beside them, and the ties
# of fp16, which keeps three of them, with what lies beside those.
LOW_HALVES = sorted(
    {
        (tie + step) % (1 << 16)
        for tie in (0, 0x1000, 0x2000, 0x3000, 0x5000, 0x7000, 0x8000, 0x9000, 0xB000, 0xF000)
        for step in (-1, 0, 1)
    }
)


def unsigned(dtype: Dtype) -> np.dtype:
    """Return the dtype of the bits of *dtype*."""
    return np.dtype(f"<u{dtype.bits // 8}")


def by_torch(bits: Array, source: Dtype, target: Dtype) -> torch.Tensor:
    """Return what torch makes of the values with these *bits*."""
    signed = torch.from_numpy(bits.view(f"<i{source.bits // 8}").copy())
    return signed.view(TORCH_DTYPES[source]).to(TORCH_DTYPES[target])


def by_recast(bits: Array, source: Dtype, target: Dtype) -> Array:
    """Return the bits that recast makes of the values with these *bits*."""
    out = np.empty(len(bits), NUMPY_DTYPES[target])
    kernel(source, target)(bits.view(NUMPY_DTYPES[source]), out)
    return out.view(unsigned(target))


def assert_like_torch(bits: Array, source: Dtype, target: Dtype) -> None:
    """Fail unless recast and torch agree on every value, and on which are NaN."""
    oracle = by_torch(bits, source, target)
    expected = oracle.view(getattr(torch, f"int{target.bits}")).numpy().view(unsigned(target))
    found = by_recast(bits, source, target)
    is_nan = by_torch(bits, source, source).isnan().numpy()
    assert np.array_equal(np.isnan(found.view(NUMPY_DTYPES[target])), is_nan)
    different = np.flatnonzero((found != expected) & ~is_nan)
    assert not [
        f"{bits[at]:#x}: {found[at]:#x} instead of {expected[at]:#x}" for at in different[:5]
    ]


@pytest.mark.parametrize("target", [Dtype.BF16, Dtype.F16])
def test_every_fp32_of_interest(target: Dtype) -> None:
    """All upper halves of an fp32 value, with every tie and its neighbours, round as in torch."""
    low = np.array(LOW_HALVES, np.uint32)
    bits = ((EVERY_16_BITS.astype(np.uint32) << 16)[:, None] | low).ravel()
    assert_like_torch(bits, Dtype.F32, target)


@pytest.mark.parametrize(
    ("source", "target"), [(source, target) for source, target in CASTS if source.bits == 16]
)
def test_every_16_bit_value(source: Dtype, target: Dtype) -> None:
    """All 65,536 values of a 16-bit dtype become what they become in torch."""
    assert_like_torch(EVERY_16_BITS, source, target)


@pytest.mark.parametrize("target", [Dtype.F32, Dtype.BF16, Dtype.F16])
def test_every_fp64_of_interest(target: Dtype) -> None:
    """Fp64 values on and beside a tie of fp32, bf16 or fp16 round as in torch: twice, if it does.

    A value a hair's breadth above a tie of bf16 is that tie once it is an fp32.
    """
    low = np.array([0, 0x1000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    narrow = ((EVERY_16_BITS.astype(np.uint32) << 16)[:, None] | low).ravel()
    with np.errstate(invalid="ignore"):
        wide = narrow.view(np.float32).astype(np.float64).view(np.uint64)
    half_ulp = 1 << 28  # fp32 has 29 bits of the fraction fewer
    steps = np.array([0, 1, half_ulp - 1, half_ulp, half_ulp + 1, 2 * half_ulp - 1], np.uint64)
    for step in steps:
        assert_like_torch(wide + step, Dtype.F64, target)


def test_fp64_is_rounded_twice_on_its_way_to_bf16() -> None:
    """The fp64 cases above hold one on which rounding once and rounding twice differ."""
    just_above_a_tie = np.array([1 + 2**-8 + 2**-40])
    assert_like_torch(just_above_a_tie.view(np.uint64), Dtype.F64, Dtype.BF16)
    assert by_torch(just_above_a_tie.view(np.uint64), Dtype.F64, Dtype.BF16).item() == 1.0


def test_what_rounding_is() -> None:
    """Ties go to even, FLT_MAX overflows in bf16, 65520 in fp16, and subnormals stay."""
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4028235e38, -1e-40], np.float32)
    assert by_recast(values, Dtype.F32, Dtype.BF16).tolist() == [0x3F80, 0x3F82, 0x7F80, 0x8001]
    values = np.array([65519.996, 65520, 2**-24, -(2.0**-25)], np.float32)
    assert by_recast(values, Dtype.F32, Dtype.F16).tolist() == [0x7BFF, 0x7C00, 0x0001, 0x8000]


@pytest.mark.parametrize(("source", "target"), CASTS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_values(source: Dtype, target: Dtype, data: st.DataObject) -> None:
    """Any number of any values, none and odd numbers among them, become what torch makes of them.

    They may begin at any byte of a buffer, and end up at any.
    """
    width = source.bits // 8
    content = data.draw(st.lists(st.binary(min_size=width, max_size=width), max_size=70))
    bits = np.frombuffer(b"".join(content), unsigned(source)).copy()
    assert_like_torch(bits, source, target)
    shift, out_shift = data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    buffer = np.zeros(shift + bits.nbytes, np.uint8)
    buffer[shift:] = bits.view(np.uint8)
    room = np.zeros(out_shift + len(bits) * target.bits // 8, np.uint8)
    cast = room[out_shift:].view(NUMPY_DTYPES[target])
    kernel(source, target)(buffer[shift:].view(NUMPY_DTYPES[source]), cast)
    assert cast.tobytes() == by_recast(bits, source, target).tobytes()
    assert not room[:out_shift].any()


@pytest.mark.parametrize(("source", "target"), CASTS)
@pytest.mark.parametrize("size", [1, 31, 33, 32_769, 262_145])
def test_odd_lengths(source: Dtype, target: Dtype, size: int) -> None:
    """Values at the ends of vectors, and of what torch gives to one thread, are cast as well."""
    noise = np.random.default_rng(size).integers(0, 256, size * source.bits // 8, np.uint8)
    assert_like_torch(noise.view(unsigned(source)), source, target)


@pytest.mark.parametrize(("source", "target"), CASTS)
def test_settings_of_the_caller(source: Dtype, target: Dtype) -> None:
    """No floating-point error or warning reaches the caller, whose settings remain his own."""
    values = np.array([np.nan, np.inf, -np.inf, 1e-45, 3e38, -0.0]).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        values = values.astype(NUMPY_DTYPES[source])
    with np.errstate(all="raise"):
        by_recast(values.view(unsigned(source)), source, target)
        assert np.geterr() == dict.fromkeys(np.geterr(), "raise")
