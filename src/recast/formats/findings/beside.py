"""What lies beside the weights and does not belong to them."""

from collections.abc import Iterator

from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import cures
from recast.formats.findings.finding import Finding, Severity
from recast.formats.forms import is_weights
from recast.formats.names import Role, family, is_shard


def ambiguous(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find a single file that loaders prefer to the index beside it."""
    singles = {each.name: each.shards[0] for each in checkpoint.weights if each.index is None}
    for weights in checkpoint.weights:
        single = singles.get(f"{family(weights.name)}.safetensors")
        if weights.index is None or single is None:
            continue
        newest = max((shard.modified for shard in weights.shards), default=0)
        older = single.modified < newest  # on the Hub, nothing has a time
        which = "this file, which is older than they are" if older else "the stale one"
        yield Finding(
            "ambiguous-weights",
            Severity.ERROR,
            single.name,
            f"lies beside {weights.name}, and transformers loads it instead of the shards",
            f"convert both (--allow ambiguous-weights), or move away {which}",
            command=cures.removal(checkpoint, single.name) if older else "",
        )


def stray_shards(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find files numbered as shards that no index names."""
    if checkpoint.is_file:  # who names one shard alone means that one
        return
    indexes = {
        family(weights.name): weights.name
        for weights in checkpoint.weights
        if weights.index is not None
    }
    for weights in checkpoint.weights:
        if weights.index is not None or not is_shard(weights.name):
            continue
        if index := indexes.get(family(weights.name)):
            problem = f"is numbered as a shard, but {index} does not name it"
            remedy = "convert it too (--allow unindexed-tensors), or move it away"
            command = cures.removal(checkpoint, weights.name)
        else:
            problem = "is numbered as a shard, but there is no index"
            remedy = "restore the index, or convert all shards (--allow unindexed-tensors)"
            command = ""
        yield Finding(
            "unindexed-tensors",
            Severity.ERROR,
            weights.name,
            problem,
            remedy,
            tuple(name for name, _ in weights.tensors),
            command,
        )


def unread(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights in other forms, which are copied whatever becomes of those beside them."""
    files = [each for each in checkpoint.files if is_weights(each.name)]
    if files:
        size = sum(each.size for each in files)
        together = f"and {len(files) - 1:,} more hold" if len(files) > 1 else "holds"
        yield Finding(
            "unread-weights",
            Severity.NOTE,
            files[0].name,
            f"{together} weights too, in a form that recast does not read: {size:,} bytes",
            "a conversion copies it as it is; delete it if no loader needs it",
        )


def trainer_state(checkpoint: Checkpoint, *, is_sound: bool) -> Iterator[Finding]:
    """Find what only a trainer that goes on needs; and who has weights that are not *is_sound*."""
    files = [each for each in checkpoint.left_out if each.role is Role.TRAINER_STATE]
    if files:
        size = sum(each.size for each in files)
        together = f"and {len(files) - 1:,} more are" if len(files) > 1 else "is"
        yield Finding(
            "trainer-state",
            Severity.NOTE,
            files[0].name,
            f"{together} trainer state: {size:,} bytes that no loader reads",
            "a conversion leaves it out; delete it when training is done"
            if is_sound
            else "keep it: while anything blocks a conversion, it may be all there is",
            command=cures.deletion(checkpoint) if is_sound else "",
        )
