"""Policy: which tensor gets which dtype, and the reason when it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from recast.dtypes import Dtype
from recast.formats.header import TensorInfo
from recast.planning.keep_rules import Rule, keeps_nothing

OVERFLOW = "overflow"  # the name by which finite values that become infinite are allowed


class Kind(StrEnum):
    """The kinds of reason for a tensor's dtype."""

    CAST = "cast"
    ALREADY = "already"
    NOT_FLOATING = "not floating"
    RULE = "rule"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a tensor gets the dtype that it gets.

    Attributes:
        kind: the kind of reason.
        detail: which rule or which pattern, where that is not plain from the kind.
    """

    kind: Kind
    detail: str = ""

    @property
    def keeps(self) -> bool:
        """Whether somebody decided to leave a floating tensor in another dtype."""
        return self.kind in (Kind.RULE, Kind.KEEP)

    def __str__(self) -> str:
        """Return the reason as one would say it."""
        return self.detail or self.kind.value


_CAST = Reason(Kind.CAST)
_ALREADY = Reason(Kind.ALREADY)
_NOT_FLOATING = Reason(Kind.NOT_FLOATING)

Decide = Callable[[str, TensorInfo], tuple[Dtype, Reason]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants of a conversion.

    Attributes:
        target: the dtype of every floating tensor that is not kept.
        keep: patterns (``*.norm.weight``) of tensor names to leave as they are.
        keep_rules: whether tensors known to need fp32 stay as they are.
        lossless: whether to refuse if any value would change.
        allow: what does not stop the conversion: names of findings, or "overflow".
    """

    target: Dtype
    keep: tuple[str, ...] = ()
    keep_rules: bool = True
    lossless: bool = False
    allow: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """A short text that differs for policies that may decide differently."""
        return f"{self.target} {self.keep} {self.keep_rules}"

    def decider(self, needs_fp32: Rule) -> Decide:
        """Return the function that decides for each tensor of a model with this rule."""
        rule = needs_fp32 if self.keep_rules else keeps_nothing

        def decide(name: str, tensor: TensorInfo) -> tuple[Dtype, Reason]:
            if not tensor.dtype.is_floating:
                return tensor.dtype, _NOT_FLOATING
            if tensor.dtype is self.target:
                return tensor.dtype, _ALREADY
            for pattern in self.keep:
                if fnmatchcase(name, pattern):
                    return tensor.dtype, Reason(Kind.KEEP, f"--keep {pattern}")
            if (needed := rule(name)) is not None:
                # Never wider than fp32, and a tensor stored narrower has nothing to lose.
                dtype = Dtype.F32 if tensor.dtype is Dtype.F64 else tensor.dtype
                return dtype, Reason(Kind.RULE, needed)
            return self.target, _CAST

        return decide
