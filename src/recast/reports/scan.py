"""Scan: what the stored values are, whatever their dtype allows."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import BLOCKING, Finding, Severity, findings
from recast.formats.findings.finding import listed
from recast.formats.findings.values import non_finite
from recast.planning.planner import make_plan
from recast.planning.policy import Policy, matching

_NAMED_AT_MOST = 3  # tensors, or kinds of them, that a command shall keep
_NUMBER = re.compile(r"\d+")


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

    def fits(self, dtype: Dtype) -> bool:
        """Whether *dtype* is known to hold every finite value exactly."""
        fitting = {Dtype.BF16: self.fits_bf16, Dtype.F16: self.fits_fp16}
        return fitting.get(dtype, self.fits_bf16 or self.fits_fp16 or dtype.holds(self.dtype))

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
        checkpoint: where they are stored.
        tensors: every floating tensor, shard by shard.
        nbytes: the bytes that were looked at.
        seconds: how long that took.
    """

    checkpoint: Checkpoint = field(repr=False)
    tensors: tuple[TensorScan, ...] = field(repr=False)
    nbytes: int
    seconds: float

    @property
    def path(self) -> Path:
        """The checkpoint's place."""
        return self.checkpoint.local_path

    @property
    def wide(self) -> tuple[TensorScan, ...]:
        """The tensors that take more bytes than bf16 would and need none of them."""
        return tuple(each for each in self.tensors if each.is_wide and each.fits_bf16)

    @property
    def skipped(self) -> tuple[tuple[Dtype, int], ...]:
        """The dtypes, neither integers nor looked at, with how many tensors have them."""
        stored = (
            tensor.dtype
            for shard in self.checkpoint.shards
            for tensor in shard.header.tensors.values()
        )
        return tuple(
            Counter(each for each in stored if each.is_packed or each is Dtype.C64).items()
        )

    @property
    def findings(self) -> Iterator[Finding]:
        """What blocks a conversion, and what the values show to be wrong or surprising."""
        errors = [x for x in findings(self.checkpoint) if x.severity is Severity.ERROR]
        yield from errors
        for target in (Dtype.BF16, Dtype.F16):
            if (found := self._oversized(target, is_sound=not errors)) is not None:
                yield found
                break
        yield from non_finite((x.shard, x.name, x.nan + x.infinite) for x in self.tensors)

    def _oversized(self, target: Dtype, *, is_sound: bool) -> Finding | None:
        """Find that most of what a conversion to *target* would cast loses nothing by it.

        What rules keep is none of it. There is a command if it is a short one, that does it.
        """
        try:  # the shards that are there tell also of a broken checkpoint what would be cast
            plan = make_plan(self.checkpoint, Policy(target, allow=frozenset(BLOCKING)))
        except RecastError:
            return None
        cast = {
            (shard.name, x.name): x for shard in plan.shards for x in shard.tensors if x.changes
        }
        seen = [
            each for each in self.tensors if each.parameters and (each.shard, each.name) in cast
        ]
        exact: list[TensorScan] = []
        others: list[TensorScan] = []
        for each in seen:
            (exact if each.fits(cast[each.shard, each.name].dtype) else others).append(each)
        fit = [each for each in exact if each.is_wide]
        if _nbytes(fit) <= _nbytes(others):
            return None
        keep = _keeping(fit, others)
        command = ["recast", str(self.path), "--to", target.short_name, *(keep or ()), "--lossless"]
        but = f", but those of {listed([each.name for each in others])}" if others else ""
        return Finding(
            "oversized",
            Severity.WARNING,
            str(self.path),
            f"{self._stored(fit)}, and {target.short_name} holds every value exactly{but}",
            "convert it" if not others else "convert it, and keep those",
            tuple(each.name for each in fit),
            shlex.join(command) if is_sound and keep is not None else "",
        )

    def _stored(self, fit: Sequence[TensorScan]) -> str:
        """Say how these tensors are stored, and how many they are unless all are stored so."""
        dtypes = dict.fromkeys(each.dtype for each in fit)
        named = " and ".join(dtype.torch_name for dtype in dtypes)
        filled = [each for each in self.tensors if each.parameters]
        if all(each.dtype in dtypes for each in filled):
            return f"is stored in {named}"
        return f"stores {len(fit):,} of {len(filled):,} floating tensors in {named}"


def _keeping(fit: Iterable[TensorScan], others: Sequence[TensorScan]) -> list[str] | None:
    """Return the options that keep *others*: by name, or by kind; None if these are not few.

    Nor may a kind keep most of what would *fit*.
    """
    patterns = [escape(each.name) for each in others]
    if len(patterns) > _NAMED_AT_MOST:
        patterns = list(dict.fromkeys(_NUMBER.sub("*", each) for each in patterns))
    kept = [each for each in fit if matching(each.name, patterns) is not None]
    if len(patterns) > _NAMED_AT_MOST or 2 * _nbytes(kept) > _nbytes(fit):
        return None
    return [f"--keep={each}" for each in patterns]


def _nbytes(tensors: Iterable[TensorScan]) -> int:
    """Return the bytes of *tensors*."""
    return sum(each.parameters * each.dtype.bits // 8 for each in tensors)
