"""What rounding did to the values of many tensors, gathered piece by piece as they are cast."""

import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype
from recast.execution.cast import NUMPY_DTYPES, Array

Numbers = NDArray[np.intp]

_LOW_HALF = np.uint32(0xFFFF)  # the bits of an fp32 value that bf16 does not have


class Examiner:
    """The evidence of some tensors, as far as their pieces were examined.

    For one thread; what several have gathered is merged at the end.

    Attributes:
        lossless: for each tensor, whether no value changed.
        largest_error: for each, the largest absolute error of a value that stayed finite.
        overflowed: for each, how many finite values became infinite.
        largest_overflow: for each, the largest magnitude among these.
    """

    def __init__(self, tensors: int, *, errors: bool = True) -> None:
        """Start with nothing seen of *tensors* tensors; without *errors*, see overflow only."""
        self.lossless: NDArray[np.bool_] = np.ones(tensors, np.bool_)
        self.largest_error: NDArray[np.float64] = np.zeros(tensors, np.float64)
        self.overflowed: NDArray[np.int64] = np.zeros(tensors, np.int64)
        self.largest_overflow: NDArray[np.float64] = np.zeros(tensors, np.float64)
        self._errors = errors
        self._scratch: Array = np.empty(0, np.float32)

    def examine(self, piece: Array, cast: Array, starts: Numbers, tensors: Numbers) -> None:
        """Take in one piece.

        Args:
            piece: the values as they were, flat.
            cast: the same values in their new dtype.
            starts: where in them each tensor begins; no two alike, the first one 0.
            tensors: the number of each of these tensors.
        """
        if cast.dtype == NUMPY_DTYPES[Dtype.BF16] and piece.dtype == NUMPY_DTYPES[Dtype.F32]:
            # Reading the bits is six times as fast as casting back, and often it is enough:
            # models that were trained in bf16 and only stored wide have none of these set.
            lossy = np.bitwise_or.reduceat(piece.view(np.uint32), starts) & _LOW_HALF != 0
            if not lossy.any():
                return
        if not self._errors and not _has_infinity(cast):
            return
        error, overflowed, largest = self._measure(piece, cast, starts)
        self.lossless[tensors] &= (error == 0) & (overflowed == 0)
        self.largest_error[tensors] = np.maximum(self.largest_error[tensors], error)
        self.overflowed[tensors] += overflowed
        self.largest_overflow[tensors] = np.maximum(self.largest_overflow[tensors], largest)

    def merge(self, other: "Examiner") -> None:
        """Take in what another thread has gathered about the same tensors."""
        self.lossless &= other.lossless
        np.maximum(self.largest_error, other.largest_error, out=self.largest_error)
        self.overflowed += other.overflowed
        np.maximum(self.largest_overflow, other.largest_overflow, out=self.largest_overflow)

    def _measure(self, piece: Array, cast: Array, starts: Numbers) -> tuple[Array, Array, Array]:
        """Return each tensor's largest error, how many values overflowed, and the largest."""
        wide = np.float64 if piece.dtype == np.float64 else np.float32
        if len(self._scratch) < len(piece) or self._scratch.dtype != wide:
            self._scratch = np.empty(len(piece), wide)
        difference = self._scratch[: len(piece)]
        with np.errstate(invalid="ignore", over="ignore"):
            np.copyto(difference, cast, casting="unsafe")
            np.subtract(piece, difference, out=difference, dtype=wide, casting="unsafe")
        overflowed, largest = np.zeros(len(starts), np.int64), np.zeros(len(starts), wide)
        error = _largest(difference, starts)
        if not np.isfinite(error).all():
            finite = np.isfinite(piece.astype(wide))
            infinite = finite & ~np.isfinite(cast.astype(wide))
            overflowed = np.add.reduceat(infinite, starts, dtype=np.int64)
            difference[~finite | infinite] = 0  # NaN and infinity stay what they were
            error = _largest(difference, starts)
            largest = _largest(np.where(infinite, piece, 0).astype(wide), starts)
        return error, overflowed, largest


def _has_infinity(cast: Array) -> bool:
    """Whether any of these values is infinite or NaN, judged by their bits: it takes no time."""
    signed, unsigned = (cast.view(f"<{kind}{cast.itemsize}") for kind in "iu")
    magnitude = max(int(signed.max()), int(unsigned.max()) & int(np.iinfo(signed.dtype).max))
    infinity = np.array(np.inf, cast.dtype).view(unsigned.dtype)
    return magnitude >= int(infinity)


def _largest(difference: Array, starts: Numbers) -> Array:
    """Return the largest magnitude from each of *starts* to the next; NaN if there is any."""
    highest = np.maximum.reduceat(difference, starts)
    return np.maximum(highest, -np.minimum.reduceat(difference, starts))
