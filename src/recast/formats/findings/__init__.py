"""What is wrong or surprising in a checkpoint, each thing under a name of its own."""

from dataclasses import replace

from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import cures
from recast.formats.findings.beside import ambiguous, stray_shards, trainer_state
from recast.formats.findings.claims import claims, header_metadata, index_claims, totals
from recast.formats.findings.finding import BLOCKING, SEVERITIES, Finding, Severity
from recast.formats.findings.incomplete import empty, incomplete, misindexed
from recast.formats.findings.quantized import quantized
from recast.formats.findings.widths import mixed, oversized, wider_than

__all__ = ["BLOCKING", "SEVERITIES", "Finding", "Severity", "findings"]


def findings(checkpoint: Checkpoint, *, base: Checkpoint | None = None) -> tuple[Finding, ...]:
    """Return all that is wrong or surprising in *checkpoint*, what blocks it first.

    Args:
        checkpoint: what `inspect` returned.
        base: the model it was trained from, if known: nothing needs to be wider than there.

    Example:
        >>> checkpoint = recast.inspect("./ckpt")  # doctest: +SKIP
        >>> [finding.name for finding in recast.findings(checkpoint)]  # doctest: +SKIP
        ['config-mismatch']
    """
    codes = tuple(quantized(checkpoint))
    found = (
        *codes,
        *ambiguous(checkpoint),
        *(finding for weights in checkpoint.weights for finding in incomplete(checkpoint, weights)),
        *stray_shards(checkpoint),
        *(finding for weights in checkpoint.weights for finding in misindexed(weights)),
        *empty(checkpoint),
        *(() if codes else oversized(checkpoint)),
        *(() if base is None else wider_than(base, checkpoint)),
        # What a quantized model computes in, no header shows.
        *(() if codes else claims(checkpoint)),
        *(() if codes else index_claims(checkpoint)),
        *totals(checkpoint),
        *(() if codes else mixed(checkpoint)),
        *header_metadata(checkpoint),
    )
    errors = {finding.name for finding in found if finding.severity is Severity.ERROR}
    within_reach = (_without_refused_command(finding, errors) for finding in found)
    every = (*within_reach, *trainer_state(checkpoint, is_sound=not errors))
    order = list(Severity)
    return tuple(sorted(every, key=lambda finding: order.index(finding.severity)))


def _without_refused_command(finding: Finding, errors: set[str]) -> Finding:
    """Return *finding*; without what to type, if that would only be told of *errors*.

    Their own commands come first. Sums are put right in a quantized model too.
    """
    is_first = finding.severity is Severity.ERROR or not errors
    adds_up = errors == {"quantized"} and finding.command.endswith(cures.FIX_CONFIG)
    return finding if is_first or adds_up else replace(finding, command="")
