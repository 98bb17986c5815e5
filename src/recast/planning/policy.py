"""Policy: which tensor gets which dtype, and the reason when it is kept."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from recast.dtypes import Dtype
from recast.formats.checkpoint import Checkpoint
from recast.formats.header import TensorInfo
from recast.planning import likeness
from recast.planning.keep_rules import Rule, keeps_nothing

OVERFLOW = "overflow"  # the name by which finite values that become infinite are allowed


class Kind(StrEnum):
    """The kinds of reason for a tensor's dtype."""

    CAST = "cast"
    ALREADY = "already"
    NOT_FLOATING = "not floating"
    RULE = "rule"
    KEEP = "keep"
    LIKE = "like"


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
        """Whether somebody decided on a dtype that need not be the target's."""
        return self.kind in (Kind.RULE, Kind.KEEP, Kind.LIKE)

    def __str__(self) -> str:
        """Return the reason as one would say it."""
        return self.detail or self.kind.value


AS_STORED = Reason(Kind.ALREADY, "as it is stored")
_CAST = Reason(Kind.CAST)
_ALREADY = Reason(Kind.ALREADY)
_NOT_FLOATING = Reason(Kind.NOT_FLOATING)
_LIKE = Reason(Kind.LIKE, "as in the base model")

Decide = Callable[[str, TensorInfo], tuple[Dtype, Reason]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user wants of a conversion.

    Attributes:
        target: the dtype of every floating tensor for which there is no reason to differ.
        keep: patterns (``*.norm.weight``) of tensor names to leave as they are.
        keep_rules: whether tensors known to need fp32 stay as they are.
        lossless: whether to refuse if any value would change.
        allow: what does not stop the conversion: names of findings, or "overflow".
        cast: patterns of tensor names to cast whatever rules and the base model say.
        base: the checkpoint whose dtypes are followed; None to follow none.
    """

    target: Dtype
    keep: tuple[str, ...] = ()
    keep_rules: bool = True
    lossless: bool = False
    allow: frozenset[str] = frozenset()
    cast: tuple[str, ...] = ()
    base: Checkpoint | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """A short text that differs for policies that may decide differently."""
        like = "" if self.base is None else likeness.digest(self.base)
        return f"{self.target} {self.keep} {self.keep_rules} {self.cast} {like}"

    def decider(self, needs_fp32: Rule, like: Mapping[str, Dtype] | None = None) -> Decide:
        """Return the function that decides for each tensor of a model.

        The last word is the user's; then comes the base model; then comes the rule.

        Args:
            needs_fp32: the rule of this model.
            like: the dtypes that tensors have in the base model.
        """
        rule = needs_fp32 if self.keep_rules else keeps_nothing
        alike = like or {}
        has_patterns = bool(self.cast or self.keep)

        def decide(name: str, tensor: TensorInfo) -> tuple[Dtype, Reason]:
            stored = tensor.dtype
            if not stored.is_floating:
                return stored, _NOT_FLOATING
            if has_patterns and (wished := self._wished(name, stored)) is not None:
                dtype, reason = wished
            elif name in alike:
                return alike[name], _LIKE
            elif stored is not self.target and (needed := rule(name)) is not None:
                # Never wider than fp32, and a tensor stored narrower has nothing to lose.
                dtype = Dtype.F32 if stored is Dtype.F64 else stored
                reason = Reason(Kind.RULE, needed)
            else:
                dtype, reason = self.target, _CAST
            return dtype, _ALREADY if stored is self.target else reason

        return decide

    def _wished(self, name: str, stored: Dtype) -> tuple[Dtype, Reason] | None:
        """Return what a pattern of the user's says of a tensor; None if none matches."""
        if (pattern := matching(name, self.cast)) is not None:
            return self.target, Reason(Kind.CAST, f"--cast {pattern}")
        if (pattern := matching(name, self.keep)) is not None:
            return stored, Reason(Kind.KEEP, f"--keep {pattern}")
        return None


def matching(name: str, patterns: Iterable[str]) -> str | None:
    """Return the first of *patterns* that matches the whole of *name*, if any."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)
