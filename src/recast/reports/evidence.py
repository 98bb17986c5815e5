"""Evidence: what a cast did to the values of a tensor."""

from collections.abc import Iterable
from dataclasses import dataclass

from recast.dtypes import Dtype
from recast.errors import LossError
from recast.planning.policy import OVERFLOW, Policy


@dataclass(frozen=True, slots=True)
class Evidence:
    """What casting one tensor did to its values.

    Attributes:
        name: the tensor.
        source: the dtype it had.
        dtype: the dtype it has now.
        lossless: whether every value, cast back, has the bits that it had.
        largest_error: the largest absolute difference between a value and its cast, over
            the values that stayed finite; 0.0 if lossless.
        overflowed: how many finite values became infinite.
        largest_overflow: the largest magnitude among these; 0.0 if there are none.
    """

    name: str
    source: Dtype
    dtype: Dtype
    lossless: bool
    largest_error: float
    overflowed: int
    largest_overflow: float = 0.0


@dataclass(frozen=True, slots=True)
class EvidenceTotal:
    """The evidence of many tensors.

    Attributes:
        tensors: how many were cast.
        lossless: how many of them lost nothing.
        overflowed: how many finite values became infinite, in all.
        worst: the tensor with the largest error of a value that stayed finite, None if
            nothing was lost.
        most_overflowed: the tensor with the most values that became infinite, None if there
            is no such value.
    """

    tensors: int
    lossless: int
    overflowed: int
    worst: Evidence | None
    most_overflowed: Evidence | None


def total(evidence: Iterable[Evidence]) -> EvidenceTotal:
    """Return the sum of *evidence*."""
    every = list(evidence)
    lossy = [each for each in every if not each.lossless]
    return EvidenceTotal(
        tensors=len(every),
        lossless=len(every) - len(lossy),
        overflowed=sum(each.overflowed for each in every),
        worst=max(lossy, key=lambda each: each.largest_error, default=None),
        most_overflowed=max(
            (each for each in lossy if each.overflowed),
            key=lambda each: each.overflowed,
            default=None,
        ),
    )


def refuse_loss(shard: str, evidence: Iterable[Evidence], policy: Policy) -> None:
    """Raise LossError, naming the worst tensor, if *policy* forbids what a cast has lost."""
    for each in sorted(evidence, key=lambda each: -each.overflowed):
        name = f"tensor {each.name!r}"
        if each.overflowed and OVERFLOW not in policy.allow:
            raise LossError(
                shard,
                f"{name}: {each.overflowed:,} finite values, the largest of them "
                f"{each.largest_overflow:.6g}, would become infinite in {each.dtype.torch_name}",
                f"keep it (--keep {each.name}), or accept it (--allow {OVERFLOW})",
            )
        if not each.lossless and policy.lossless:
            raise LossError(
                shard,
                f"{name} would lose values in {each.dtype.torch_name}: the largest error "
                f"is {each.largest_error:.3g}",
                f"keep it (--keep {each.name}), or convert without --lossless",
            )
