"""What lies beside the weights and does not belong to them."""

from collections.abc import Iterator

from recast.formats.checkpoint import Checkpoint
from recast.formats.findings.finding import Finding, Severity
from recast.formats.names import Role


def ambiguous(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find a single file that loaders prefer to the index beside it."""
    names = {weights.name for weights in checkpoint.weights}
    for weights in checkpoint.weights:
        single = _single_twin(weights.name)
        if weights.index is not None and single in names:
            yield Finding(
                "ambiguous-weights",
                Severity.ERROR,
                single,
                f"lies beside {weights.name}, and transformers loads it instead of the shards",
                "delete or move away the stale one, or convert both: --allow ambiguous-weights",
            )


def _single_twin(index: str) -> str:
    """Return the name under which *index*'s tensors would lie in one file."""
    stem, _, variant = index.removesuffix(".json").partition(".safetensors.index")
    return f"{stem}{variant}.safetensors"


def trainer_state(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find what only a trainer that goes on needs."""
    files = [each for each in checkpoint.left_out if each.role is Role.TRAINER_STATE]
    if files:
        size = sum(each.size for each in files)
        together = f"and {len(files) - 1:,} more are" if len(files) > 1 else "is"
        yield Finding(
            "trainer-state",
            Severity.NOTE,
            files[0].name,
            f"{together} trainer state: {size:,} bytes that no loader reads",
            "conversions leave it out; delete it when training is done",
        )
