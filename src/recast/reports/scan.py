"""Scan: what the stored values are, whatever their dtype allows."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from recast.dtypes import Dtype
from recast.formats.findings import Finding, Severity
from recast.formats.findings.finding import listed
from recast.formats.findings.values import non_finite

_NAMED_AT_MOST = 3  # tensors that a command shall keep


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
        fits_bf16: whether bf16 holds every finite value exactly.
        fits_fp16: whether fp16 does.
    """

    shard: str
    name: str
    dtype: Dtype
    parameters: int
    mantissa_bits: int
    magnitude: float
    nan: int
    infinite: int
    fits_bf16: bool
    fits_fp16: bool

    @property
    def is_wide(self) -> bool:
        """Whether it takes more than 16 bits a value."""
        return self.dtype.bits > 16

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
        return tuple(each for each in self.tensors if each.is_wide and each.fits_bf16)

    @property
    def findings(self) -> Iterator[Finding]:
        """What the values show to be wrong or surprising."""
        yield from self._oversized()
        yield from non_finite((x.shard, x.name, x.nan + x.infinite) for x in self.tensors)

    def _oversized(self) -> Iterator[Finding]:
        """Find that what is stored wide takes more bytes than its values need: all, or most of it.

        What fp16 holds exactly, and bf16 does not, was fp16 once.
        """
        stored_wide = [each for each in self.tensors if each.is_wide]
        others = [each for each in stored_wide if not each.fits_bf16]
        if _nbytes(self.wide) > _nbytes(others) and len(others) <= _NAMED_AT_MOST:
            but = f", but those of {listed([each.name for each in others])}" if others else ""
            problem, concerned = f"bf16 holds every value exactly{but}", self.wide
            options = ["bf16", *(f"--keep={escape(each.name)}" for each in others)]
        elif stored_wide and all(each.fits_fp16 for each in stored_wide):
            problem, concerned = "all values look like fp16", tuple(stored_wide)
            options = ["fp16"]
        else:
            return
        yield Finding(
            "oversized",
            Severity.WARNING,
            str(self.path),
            f"is stored in {concerned[0].dtype.torch_name}, and {problem}",
            "convert it",
            tuple(each.name for each in concerned),
            shlex.join(["recast", str(self.path), "--to", *options, "--lossless"]),
        )


def _nbytes(tensors: Iterable[TensorScan]) -> int:
    """Return the bytes of *tensors*."""
    return sum(each.parameters * each.dtype.bits // 8 for each in tensors)
