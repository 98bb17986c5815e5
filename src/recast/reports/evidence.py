"""Evidence: what a cast did to the values of a tensor."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from glob import escape

from recast.dtypes import Dtype
from recast.errors import LossError
from recast.planning.policy import OVERFLOW, Policy

_NAMED_AT_MOST = 3  # tensors whose --keep is spelled out


@dataclass(frozen=True, slots=True)
class Evidence:
    """What casting one tensor did to its values.

    What holds of every value is no evidence: rounding a normal number to nearest has a relative
    error of at most u / (1 + u), where u is 2**-8 in bf16 and 2**-11 in fp16.

    Attributes:
        name: the tensor.
        source: the dtype it had.
        dtype: the dtype it has now.
        changed: how many values are not what they were; a NaN is still one, and is not counted.
        largest_error: the largest absolute difference between a value and its cast, over
            the values that stayed finite; 0.0 if lossless.
        overflowed: how many finite values became infinite.
        largest_overflow: the largest magnitude among these; 0.0 if there are none.
        underflowed: how many values other than zero became zero.
        nan: how many values are NaN.
        infinite: how many values were infinite before the cast.
        magnitude: the largest magnitude of a finite value before the cast.
        mantissa_bits: how many of the bits behind the leading one any value used before it:
            23 at most in fp32, 7 in bf16. With 7 or less an fp32 tensor fits bf16 exactly.
    """

    name: str
    source: Dtype
    dtype: Dtype
    changed: int
    largest_error: float
    overflowed: int = 0
    largest_overflow: float = 0.0
    underflowed: int = 0
    nan: int = 0
    infinite: int = 0
    magnitude: float = 0.0
    mantissa_bits: int = 0

    @property
    def lossless(self) -> bool:
        """Whether every value is what it was."""
        return not self.changed

    @property
    def rounded(self) -> bool:
        """Whether any value became another finite one."""
        return self.largest_error > 0

    @property
    def vanished(self) -> bool:
        """Whether every finite value that was not zero became zero.

        They did if the largest one did, and nothing else is an error as large as that one.
        """
        return self.underflowed > 0 and self.largest_error == self.magnitude


@dataclass(frozen=True, slots=True)
class EvidenceTotal:
    """The evidence of many tensors.

    Attributes:
        tensors: how many were cast.
        lossless: how many of them lost nothing.
        rounded: how many of them hold a value that became another finite one.
        changed: how many values are not what they were, in all.
        overflowed: how many finite values became infinite, in all.
        underflowed: how many values other than zero became zero, in all.
        vanished: how many of the tensors hold zeros where there was anything else.
        nan: how many values are NaN, in all.
        infinite: how many values were infinite before the cast, in all.
        magnitude: the largest magnitude of a finite value before the cast.
        mantissa_bits: how many of the bits behind the leading one any value used before it.
        worst: the tensor with the largest error of a value that stayed finite, None if
            none was rounded.
        most_overflowed: the tensor with the most values that became infinite, None if there
            is no such value.
        most_underflowed: the tensor with the most values that became zero, likewise.
    """

    tensors: int
    lossless: int
    rounded: int
    changed: int
    overflowed: int
    underflowed: int
    vanished: int
    nan: int
    infinite: int
    magnitude: float
    mantissa_bits: int
    worst: Evidence | None
    most_overflowed: Evidence | None
    most_underflowed: Evidence | None


def total(evidence: Iterable[Evidence]) -> EvidenceTotal:
    """Return the sum of *evidence*."""
    every = list(evidence)
    return EvidenceTotal(
        tensors=len(every),
        lossless=sum(each.lossless for each in every),
        rounded=sum(each.rounded for each in every),
        changed=sum(each.changed for each in every),
        overflowed=sum(each.overflowed for each in every),
        underflowed=sum(each.underflowed for each in every),
        vanished=sum(each.vanished for each in every),
        nan=sum(each.nan for each in every),
        infinite=sum(each.infinite for each in every),
        magnitude=max((each.magnitude for each in every), default=0.0),
        mantissa_bits=max((each.mantissa_bits for each in every), default=0),
        worst=_most(every, lambda each: each.largest_error),
        most_overflowed=_most(every, lambda each: each.overflowed),
        most_underflowed=_most(every, lambda each: each.underflowed),
    )


def _most(evidence: Iterable[Evidence], measure: Callable[[Evidence], float]) -> Evidence | None:
    """Return that of which *measure* is largest; None if it is 0 of all."""
    return max(filter(measure, evidence), key=measure, default=None)


def refuse_loss(shard: str, evidence: Iterable[Evidence], policy: Policy) -> None:
    """Raise LossError, naming the worst tensor, if *policy* forbids what a cast has lost."""
    lossy = [each for each in evidence if not each.lossless]
    lossy.sort(key=lambda each: (each.overflowed, each.largest_error), reverse=True)
    overflowed = [each for each in lossy if each.overflowed]
    if overflowed and OVERFLOW not in policy.allow:
        worst = overflowed[0]
        raise LossError(
            shard,
            f"tensor {worst.name!r}: {worst.overflowed:,} finite values, the largest of them "
            f"{worst.largest_overflow:.6g}, would become infinite in {worst.dtype.torch_name}"
            f"{_and_more(overflowed)}",
            f"{_keeping(overflowed)}, or accept it (--allow {OVERFLOW})",
        )
    if lossy and policy.lossless:
        worst = lossy[0]
        raise LossError(
            shard,
            f"tensor {worst.name!r} would lose values in {worst.dtype.torch_name}: the largest "
            f"error is {worst.largest_error:.3g}{_and_more(lossy)}",
            f"{_keeping(lossy)}, or convert without --lossless",
        )


def _and_more(concerned: Sequence[Evidence]) -> str:
    """Return how many tensors are concerned besides the first."""
    more = len(concerned) - 1
    return f"; so would {more:,} more tensor{'s' * (more > 1)} of this shard" if more else ""


def _keeping(concerned: Sequence[Evidence]) -> str:
    """Return what to type to keep these tensors, or the first few of them."""
    options = [f"--keep {shlex.quote(escape(each.name))}" for each in concerned[:_NAMED_AT_MOST]]
    more = " ..." if len(concerned) > _NAMED_AT_MOST else ""
    return f"keep {'them' if len(concerned) > 1 else 'it'} ({' '.join(options)}{more})"
