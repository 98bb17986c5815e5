"""What configs, indexes and headers say of themselves, and what is so."""

from collections.abc import Iterable, Iterator
from json import dumps

from recast.dtypes import Dtype
from recast.formats.checkpoint import Checkpoint, main_dtype
from recast.formats.config import DtypeClaim
from recast.formats.findings import cures
from recast.formats.findings.finding import Finding, Severity
from recast.formats.findings.widths import narrower


def claims(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find dtype keys that say something else than what is stored."""
    for config in checkpoint.configs.values():
        stored = main_dtype(checkpoint.shards_of(config))
        if stored is None:
            continue
        # What is narrower than the weights may be what is wanted: then they are oversized.
        wide = narrower(config, stored) is not stored
        remedy = "if the weights shall stay as they are, make it true" if wide else "make it true"
        cure = (remedy, cures.truth(checkpoint, stored))
        yield from _mismatches(config.name, config.claims, stored, cure)
        if config.lacks_dtype:
            yield Finding(
                "no-dtype-key",
                Severity.NOTE,
                config.name,
                "says no dtype, so that loaders guess",
                "add torch_dtype",
                command=cures.truth(checkpoint, stored),
            )


def _mismatches(
    subject: str, claims: Iterable[DtypeClaim], stored: Dtype, cure: tuple[str, str]
) -> Iterator[Finding]:
    """Find claims of another dtype; and words that no loader takes for the right one."""
    wrong = [claim for claim in claims if claim.value != stored.torch_name]
    if not wrong:
        return
    listed = ", ".join(map(str, wrong))
    if any(claim.dtype not in {None, stored} for claim in wrong):
        problem = f"says {listed}, but most of what is stored is {stored.torch_name}"
    else:
        problem = f"says {listed}, where loaders expect {stored.torch_name}"
    remedy, command = cure
    yield Finding("config-mismatch", Severity.WARNING, subject, problem, remedy, command=command)


def index_claims(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find index metadata that says another dtype than what is stored."""
    for weights in checkpoint.weights:
        stored = main_dtype(weights.shards)
        claim = None if weights.index is None else weights.index.claim
        if claim is not None and stored is not None:
            cure = ("make it true", cures.truth(checkpoint, stored))
            yield from _mismatches(weights.name, (claim,), stored, cure)


def totals(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find index metadata that does not add up."""
    for weights in checkpoint.weights:
        if weights.index is None or weights.missing_shards:
            continue
        claimed, stored = weights.index.total_size, weights.data_size
        if weights.index.metadata is None:
            problem = "has no metadata, which transformers requires"
        elif "total_size" not in weights.index.metadata:
            problem = f"says no total_size; the tensors take {stored} bytes"
        elif claimed != stored:
            problem = f"says total_size = {dumps(claimed)}, but the tensors take {stored} bytes"
        else:
            continue
        yield Finding(
            "wrong-total-size",
            Severity.WARNING,
            weights.name,
            problem,
            "make it true",
            command=cures.truth(checkpoint, main_dtype(weights.shards)),
        )


def header_metadata(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find shards that transformers 4 refuses for want of one string."""
    for shard in checkpoint.shards:
        if "format" not in (shard.header.metadata or {}):
            yield Finding(
                "no-format-metadata",
                Severity.NOTE,
                shard.name,
                "has no format in its header metadata, without which transformers 4 fails",
                "converting adds it",
                command=cures.conversion(checkpoint, main_dtype(checkpoint.shards)),
            )
