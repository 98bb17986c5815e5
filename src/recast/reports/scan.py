"""Scan: what the stored values are, whatever their dtype allows."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recast.dtypes import Dtype
from recast.formats.findings import Finding, Severity

_BF16_MANTISSA_BITS = 7
_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class TensorScan:
    """What the values of one floating tensor are.

    Attributes:
        shard: the weights file that holds it.
        name: the tensor.
        dtype: the dtype it is stored in.
        parameters: how many values it has.
        mantissa_bits: how many of the bits behind the leading one any value uses.
        magnitude: the largest magnitude of a finite value.
        nan: how many values are NaN.
        infinite: how many values are infinite.
    """

    shard: str
    name: str
    dtype: Dtype
    parameters: int
    mantissa_bits: int
    magnitude: float
    nan: int
    infinite: int

    @property
    def fits_bf16(self) -> bool:
        """Whether bf16 holds every value exactly.

        An fp32 or fp16 value with no more than the first 7 bits of its mantissa set is one of
        bf16's, subnormal or not. Of fp64 it cannot be told from the mantissa alone.
        """
        return self.dtype is not Dtype.F64 and self.mantissa_bits <= _BF16_MANTISSA_BITS

    @property
    def is_zero(self) -> bool:
        """Whether there are values, and each of them is zero."""
        return self.parameters > 0 and not (self.magnitude or self.nan or self.infinite)


@dataclass(frozen=True, slots=True)
class Scan:
    """What the values of all floating tensors of one checkpoint are.

    Attributes:
        path: the checkpoint.
        tensors: every floating tensor, shard by shard.
        nbytes: the bytes that were looked at.
        seconds: how long that took.
    """

    path: Path
    tensors: tuple[TensorScan, ...] = field(repr=False)
    nbytes: int
    seconds: float

    @property
    def wide(self) -> tuple[TensorScan, ...]:
        """The tensors that take more bytes than bf16 would and need none of them."""
        return tuple(each for each in self.tensors if each.dtype.bits > 16 and each.fits_bf16)

    @property
    def findings(self) -> Iterator[Finding]:
        """What the values show to be wrong or surprising."""
        wide = [each for each in self.tensors if each.dtype.bits > 16]
        if wide and len(self.wide) == len(wide):
            yield Finding(
                "oversized",
                Severity.WARNING,
                str(self.path),
                f"is stored in {wide[0].dtype.torch_name}, and bf16 holds every value exactly",
                "convert it",
                tuple(each.name for each in wide),
                shlex.join(["recast", str(self.path), "--to", "bf16", "--lossless"]),
            )
        if broken := [each for each in self.tensors if each.nan or each.infinite]:
            names = ", ".join(repr(each.name) for each in broken[:_NAMED_AT_MOST])
            more = len(broken) - _NAMED_AT_MOST
            yield Finding(
                "non-finite-values",
                Severity.WARNING,
                broken[0].shard,
                f"NaN or infinite values in {names}" + (f" and {more} more" if more > 0 else ""),
                "go back to an earlier checkpoint: the training diverged, or the save failed",
                tuple(each.name for each in broken),
            )
