"""A piece of some tensors → the facts of each: what its values are, what a cast did to them."""

import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype
from recast.execution.values.cast import NUMPY_DTYPES, Array
from recast.execution.values.facts import BF16_LOSES, FP16_LOSES, Numbers, nothing_seen

# Infinity less infinity, and what a signalling NaN signals, is looked for and no surprise.
_QUIET = np.errstate(invalid="ignore", over="ignore", under="ignore")
_NARROW = {NUMPY_DTYPES[Dtype.BF16]: BF16_LOSES, NUMPY_DTYPES[Dtype.F16]: FP16_LOSES}


@_QUIET
def examine(values: Array, starts: Numbers) -> Array:
    """Return what the values of each tensor are.

    Args:
        values: flat.
        starts: where in them each tensor begins; no two alike, the first one 0.
    """
    facts = _look(values, starts)
    finite = np.isfinite(values)
    for dtype, flag in _NARROW.items():
        if values.dtype != dtype:
            lost = (values.astype(dtype).astype(values.dtype) != values) & finite
            facts["lost"] |= np.where(_counts(lost, starts) > 0, flag, 0).astype(np.uint64)
    return facts


def _look(values: Array, starts: Numbers) -> Array:
    """Return what the values of each tensor are, but for what narrower dtypes would lose."""
    facts = nothing_seen(len(starts))
    magnitude = _magnitudes(values, starts)
    if not np.isfinite(magnitude).all():
        nan, infinite = np.isnan(values), np.isinf(values)
        facts["nan"], facts["infinite"] = _counts(nan, starts), _counts(infinite, starts)
        zero = values.dtype.type(0)
        magnitude = _magnitudes(np.where(nan | infinite, zero, values), starts)
        values = np.where(nan, zero, values)
    facts["magnitude"] = magnitude
    facts["bits"] = np.bitwise_or.reduceat(values.view(f"u{values.itemsize}"), starts)
    return facts


@_QUIET
def compare(values: Array, cast: Array, starts: Numbers) -> Array:
    """Return what the values are, save `lost`, and what casting them to *cast* did to them."""
    facts = _look(values, starts)
    wide = np.float64 if values.dtype == np.float64 else np.float32
    difference = cast.astype(wide)
    np.subtract(values, difference, out=difference, dtype=wide, casting="unsafe")
    error = _largest(difference, starts)
    if not np.isfinite(error).all():
        _note_overflow(facts, values, cast, starts)
        # NaN and infinity stay what they were.
        difference[~(np.isfinite(values) & np.isfinite(cast))] = 0
        error = _largest(difference, starts)
    facts["largest_error"] = error
    changed = difference != 0
    facts["changed"] += _counts(changed, starts)
    zero = cast.view(f"u{cast.itemsize}") << 1 == 0  # of either sign
    facts["underflowed"] = _counts(zero & changed, starts)
    return facts


@_QUIET
def overflow(values: Array, cast: Array, starts: Numbers) -> Array:
    """Return only what became infinite, which is seen in no time if nothing has."""
    facts = nothing_seen(len(starts))
    if not np.isfinite(_magnitudes(cast, np.zeros(1, np.intp))).all():
        _note_overflow(facts, values, cast, starts)
    return facts


def _note_overflow(facts: Array, values: Array, cast: Array, starts: Numbers) -> None:
    """Put down in *facts* what became infinite."""
    overflowed = np.isfinite(values) & ~np.isfinite(cast)
    facts["overflowed"] = facts["changed"] = _counts(overflowed, starts)
    lost = np.where(overflowed, values, values.dtype.type(0))
    facts["largest_overflow"] = _magnitudes(lost, starts)


def _magnitudes(values: Array, starts: Numbers) -> Array:
    """Return the largest magnitude from each of *starts* to the next; NaN or inf if there is any.

    Judged by the bits, in which numbers of one sign are ordered as they are: much faster than
    arithmetic in a dtype that the processor does not know.
    """
    signed = np.maximum.reduceat(values.view(f"i{values.itemsize}"), starts)
    unsigned = np.maximum.reduceat(values.view(f"u{values.itemsize}"), starts)
    mask = np.array(np.iinfo(signed.dtype).max, signed.dtype)  # every bit but the sign
    largest = np.maximum(np.maximum(signed, 0), unsigned.view(signed.dtype) & mask)
    magnitudes: Array = largest.view(values.dtype).astype(np.float64)
    return magnitudes


def _largest(difference: Array, starts: Numbers) -> Array:
    """Return the largest magnitude from each of *starts* to the next; NaN if there is any."""
    highest = np.maximum.reduceat(difference, starts)
    largest = np.maximum(highest, -np.minimum.reduceat(difference, starts))
    return np.abs(largest)  # of 0 and -0 either may be the larger


def _counts(flags: NDArray[np.bool_], starts: Numbers) -> NDArray[np.int64]:
    """Return how many of *flags* are set from each of *starts* to the next."""
    if len(starts) == 1:  # several times as fast
        return np.array([np.count_nonzero(flags)], np.int64)
    return np.add.reduceat(flags, starts, dtype=np.int64)
