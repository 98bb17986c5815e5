"""Weights that are not all there, or on which index and shards disagree."""

from collections.abc import Iterator

from recast.formats.checkpoint import Checkpoint, Weights
from recast.formats.findings import cures
from recast.formats.findings.finding import Finding, Severity, listed
from recast.formats.names import is_shard


def incomplete(checkpoint: Checkpoint, weights: Weights) -> Iterator[Finding]:
    """Find shards without a file, and shards without an index."""
    left_out = {file.name: file.role for file in checkpoint.left_out}
    for missing in weights.missing_shards:
        if role := left_out.get(missing):
            problem = f"is named in {weights.name}, but its folder is left out as {role.value}"
            remedy = "move it out of that folder, and name it there"
        else:
            problem = f"is named in {weights.name} but is not there"
            remedy = "download or copy it again"
        yield Finding("missing-shard", Severity.ERROR, missing, problem, remedy)
    # Who names one shard alone means that one, and no index beside it is looked at.
    if weights.index is None and is_shard(weights.name) and not checkpoint.is_file:
        yield Finding(
            "unindexed-tensors",
            Severity.ERROR,
            weights.name,
            "is numbered as a shard, but no index names it",
            "restore the index, move a stale shard away, or --allow unindexed-tensors "
            "to convert it too",
        )


def misindexed(weights: Weights) -> Iterator[Finding]:
    """Find tensors on which the index and the shards disagree."""
    if weights.index is None:
        return
    weight_map = weights.index.weight_map
    for shard in weights.shards:
        stored = shard.header.tensors.keys()
        if extra := [name for name in stored if weight_map.get(name) != shard.name]:
            yield Finding(
                "unindexed-tensors",
                Severity.ERROR,
                shard.name,
                f"holds {listed(extra)}, which {weights.name} does not place there",
                "put the index right, or --allow unindexed-tensors to convert them where they are",
            )
    present = {shard.name: shard.header.tensors.keys() for shard in weights.shards}
    absent = [
        name
        for name, shard in weight_map.items()
        if shard in present and name not in present[shard]
    ]
    if absent:
        yield Finding(
            "missing-tensors",
            Severity.ERROR,
            weights.name,
            f"places {listed(absent)} in {weight_map[absent[0]]}, which does not hold it",
            "download or copy that shard again",
            tuple(absent),
        )


def empty(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights without a value: what a ZeRO-3 rank holds when nothing was gathered."""
    for shard in checkpoint.shards:
        empty = [
            name
            for name, tensor in shard.header.tensors.items()
            if tensor.dtype.is_floating and tensor.shape == (0,) and name.endswith(".weight")
        ]
        if empty:
            yield Finding(
                "empty-tensors",
                Severity.ERROR,
                shard.name,
                f"holds {listed(empty)} without a value: a ZeRO-3 save that gathered nothing",
                "gather them from the global_step folder beside it",
                tuple(empty),
                cures.gathering(checkpoint),
            )
