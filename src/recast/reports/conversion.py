"""Conversion: what was done to one checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recast.formats.findings import Finding
from recast.formats.findings.values import non_finite, vanished
from recast.formats.hub_path import HubPath
from recast.planning.plan import Plan
from recast.reports.evidence import Evidence, EvidenceTotal, total


@dataclass(frozen=True, slots=True)
class ShardConversion:
    """One weights file that was written anew, and the evidence of each tensor that was cast."""

    name: str
    size: int
    evidence: tuple[Evidence, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done to one checkpoint.

    Attributes:
        plan: what was to be done.
        target: where the result lies, here or on the Hub; None if there was nothing to do.
        shards: the weights files that were written anew.
        seconds: how long it took, from the first byte to the last rename.
        resumed: how many of the shards a run that was killed had left complete.
        discarded: whether a run that was killed had left parts of another plan.
        found: whether *target* was there already, made from this very source by this plan.
    """

    plan: Plan = field(repr=False)
    target: Path | HubPath | None
    shards: tuple[ShardConversion, ...]
    seconds: float
    resumed: int = 0
    discarded: bool = False
    found: bool = False

    @property
    def evidence(self) -> Iterator[Evidence]:
        """The evidence of every tensor that was cast."""
        for shard in self.shards:
            yield from shard.evidence

    @property
    def findings(self) -> Iterator[Finding]:
        """What casting the values showed to be wrong: NaN, infinity, and tensors that are lost.

        Tensors that were not cast were not looked at.
        """
        target = self.plan.policy.target.torch_name
        seen = [(shard.name, each) for shard in self.shards for each in shard.evidence]
        yield from non_finite((shard, x.name, x.nan + x.infinite) for shard, x in seen)
        yield from non_finite(
            ((shard, each.name, each.overflowed) for shard, each in seen),
            f"finite values that became infinite in {target}",
            "convert again, and keep these tensors as they are",
        )
        yield from vanished(((shard, x.name) for shard, x in seen if x.vanished), target)

    def name_of(self, evidence: Evidence) -> str:
        """Return whose *evidence* it is: the tensor, and its file where several hold its name."""
        holders = [each for each in self.plan.shards if evidence.name in each.source.tensors]
        if len(holders) == 1:
            return evidence.name
        shard = next(x.name for x in self.shards if any(each is evidence for each in x.evidence))
        return f"{evidence.name} of {shard}"

    @property
    def total(self) -> EvidenceTotal:
        """The evidence of all tensors together."""
        return total(self.evidence)
