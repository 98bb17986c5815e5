"""What is found out about the values of many tensors, piece by piece: a row for each tensor."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype
from recast.execution.values.cast import Array

Numbers = NDArray[np.intp]

# What the values are:
#   bits              the OR of the bits of all values that are no NaN
#   magnitude         the largest magnitude of a finite value
#   nan, infinite     how many values are that
#   lost              BF16_LOSES if bf16 does not hold every finite value, FP16_LOSES likewise
# What a cast did to them:
#   changed           how many values are not what they were; NaN stays NaN
#   largest_error     the largest absolute error of a value that stayed finite
#   overflowed        how many finite values became infinite
#   largest_overflow  the largest magnitude among these
#   underflowed       how many values other than zero became zero
FACTS = np.dtype(
    [
        ("bits", "<u8"),
        ("magnitude", "<f8"),
        ("nan", "<i8"),
        ("infinite", "<i8"),
        ("changed", "<i8"),
        ("largest_error", "<f8"),
        ("overflowed", "<i8"),
        ("largest_overflow", "<f8"),
        ("underflowed", "<i8"),
        ("lost", "<u8"),
    ]
)
_FLAGS = ("bits", "lost")
_COUNTS = ("nan", "infinite", "changed", "overflowed", "underflowed")
_MAXIMA = ("magnitude", "largest_error", "largest_overflow")
BF16_LOSES, FP16_LOSES = 1, 2
_MANTISSA = {Dtype.F16: 10, Dtype.BF16: 7, Dtype.F32: 23, Dtype.F64: 52}  # bits that are stored


def nothing_seen(tensors: int) -> Array:
    """Return the facts of *tensors* tensors before any of their values was looked at."""
    return np.zeros(tensors, FACTS)


def add(facts: Array, found: Array, tensors: Numbers | slice = np.s_[:]) -> None:
    """Take into *facts* what was *found* of these *tensors*, of which no two are alike."""
    for name in _FLAGS:
        facts[name][tensors] |= found[name]
    for name in _COUNTS:
        facts[name][tensors] += found[name]
    for name in _MAXIMA:
        facts[name][tensors] = np.maximum(facts[name][tensors], found[name])


def mantissa_bits(facts: Array, dtypes: Iterable[Dtype]) -> list[int]:
    """Return for each tensor how many bits of its *dtype*'s mantissa its values use."""
    stored = np.array([_MANTISSA.get(dtype, 0) for dtype in dtypes], np.uint64)
    used = facts["bits"] & ((np.uint64(1) << stored) - np.uint64(1))
    lowest = used & (~used + np.uint64(1))  # a power of two, or 0 if none is used
    bits = stored.astype(np.int64) + 1 - np.frexp(lowest.astype(np.float64))[1]
    listed: list[int] = np.where(lowest == 0, 0, bits).tolist()
    return listed
