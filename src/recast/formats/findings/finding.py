"""Finding: one named thing, and the table of the names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_NAMED_AT_MOST = 3  # tensors or files spelled out in one sentence


class Severity(StrEnum):
    """How much a finding matters: an ERROR stops a conversion, a WARNING is put right by one."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


# Every name that a finding may have; docs/findings.md has symptom, cause and cure of each.
SEVERITIES: Mapping[str, Severity] = {
    "ambiguous-weights": Severity.ERROR,
    "config-mismatch": Severity.WARNING,
    "empty-tensors": Severity.ERROR,
    "missing-shard": Severity.ERROR,
    "missing-tensors": Severity.ERROR,
    "mixed-dtypes": Severity.NOTE,
    "no-dtype-key": Severity.NOTE,
    "no-format-metadata": Severity.NOTE,
    "non-finite-values": Severity.WARNING,
    "oversized": Severity.WARNING,
    "quantized": Severity.ERROR,
    "trainer-state": Severity.NOTE,
    "unindexed-tensors": Severity.ERROR,
    "vanished-values": Severity.WARNING,
    "wrong-total-size": Severity.WARNING,
}
BLOCKING = tuple(name for name, each in SEVERITIES.items() if each is Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """One named thing that is wrong or surprising.

    Attributes:
        name: what it is called in the documentation and by options: ``missing-shard``.
        severity: how much it matters.
        subject: the file, or the tensor, concerned.
        problem: what is the matter, in a sentence without its subject.
        remedy: the way out.
        tensors: the tensors concerned, where it is not the file as a whole.
        command: what to type to get there, where one command does it.
    """

    name: str
    severity: Severity
    subject: str
    problem: str
    remedy: str
    tensors: tuple[str, ...] = ()
    command: str = ""

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.subject}: {self.problem}; {self.remedy}"


def listed(names: Sequence[str]) -> str:
    """Return the first few of *names*, and how many more there are."""
    some = ", ".join(repr(name) for name in names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{some} and {more} more" if more > 0 else some
