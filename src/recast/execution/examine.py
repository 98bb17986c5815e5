"""What rounding did to the values of many tensors, gathered piece by piece as they are cast."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype
from recast.execution.cast import NUMPY_DTYPES, Array

Numbers = NDArray[np.intp]

# Casts that can represent every value of their source.
_EXACT = frozenset({(Dtype.BF16, Dtype.F32), (Dtype.F16, Dtype.F32)})
_LOW_HALF = np.uint32(0xFFFF)  # the bits of an fp32 value that bf16 does not have


class Examiner:
    """The evidence of some tensors, as far as their pieces were examined.

    For one thread; what several have gathered is merged at the end.

    Attributes:
        lossless: for each tensor, whether no value changed.
        largest_error: for each, the largest absolute error of a value that stayed finite.
        overflowed: for each, how many finite values became infinite.
    """

    def __init__(self, tensors: int) -> None:
        """Start with nothing seen of *tensors* tensors."""
        self.lossless: NDArray[np.bool_] = np.ones(tensors, np.bool_)
        self.largest_error: NDArray[np.float64] = np.zeros(tensors, np.float64)
        self.overflowed: NDArray[np.int64] = np.zeros(tensors, np.int64)
        self._scratch: Array = np.empty(0, np.float32)

    def examine(self, piece: Array, cast: Array, starts: Numbers, tensors: Numbers) -> None:
        """Take in one piece.

        Args:
            piece: the values as they were, flat.
            cast: the same values in their new dtype.
            starts: where in them each tensor begins; no two alike, the first one 0.
            tensors: the number of each of these tensors.
        """
        if _is_exact(piece.dtype, cast.dtype):
            return
        if cast.dtype == NUMPY_DTYPES[Dtype.BF16] and piece.dtype == NUMPY_DTYPES[Dtype.F32]:
            # Reading the bits is six times as fast as casting back, and often it is enough:
            # models that were trained in bf16 and only stored wide have none of these set.
            lossy = np.bitwise_or.reduceat(piece.view(np.uint32), starts) & _LOW_HALF != 0
            if not lossy.any():
                return
        error, overflowed = self._measure(piece, cast, starts)
        self.lossless[tensors] &= (error == 0) & (overflowed == 0)
        self.largest_error[tensors] = np.maximum(self.largest_error[tensors], error)
        self.overflowed[tensors] += overflowed

    def merge(self, other: "Examiner") -> None:
        """Take in what another thread has gathered about the same tensors."""
        self.lossless &= other.lossless
        np.maximum(self.largest_error, other.largest_error, out=self.largest_error)
        self.overflowed += other.overflowed

    def _measure(self, piece: Array, cast: Array, starts: Numbers) -> tuple[Array, Array]:
        """Return each tensor's largest absolute error, and its values that overflowed."""
        wide = np.float64 if piece.dtype == np.float64 else np.float32
        if len(self._scratch) < len(piece) or self._scratch.dtype != wide:
            self._scratch = np.empty(len(piece), wide)
        difference = self._scratch[: len(piece)]
        with np.errstate(invalid="ignore", over="ignore"):
            np.copyto(difference, cast, casting="unsafe")
            np.subtract(piece, difference, out=difference, dtype=wide, casting="unsafe")
        overflowed = np.zeros(len(starts), np.int64)
        error = _largest(difference, starts)
        if not np.isfinite(error).all():
            finite = np.isfinite(piece.astype(wide))
            infinite = finite & ~np.isfinite(cast.astype(wide))
            overflowed = np.add.reduceat(infinite, starts, dtype=np.int64)
            difference[~finite | infinite] = 0  # NaN and infinity stay what they were
            error = _largest(difference, starts)
        return error, overflowed


def _is_exact(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether every value of *source* is one of *target* too."""
    return any(
        (NUMPY_DTYPES[narrow], NUMPY_DTYPES[wide]) == (source, target) for narrow, wide in _EXACT
    )


def _largest(difference: Array, starts: Numbers) -> Array:
    """Return the largest magnitude from each of *starts* to the next; NaN if there is any."""
    highest = np.maximum.reduceat(difference, starts)
    return np.maximum(highest, -np.minimum.reduceat(difference, starts))
