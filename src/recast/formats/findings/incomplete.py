"""Weights that are not all there, or on which index and shards disagree."""

from collections.abc import Collection, Iterator, Mapping

from recast.formats.checkpoint import Checkpoint, Shard, Weights
from recast.formats.findings import cures
from recast.formats.findings.finding import Finding, Severity, listed

_LEFT_WHOLE = 100_000  # parameters: DeepSpeed's stage3_param_persistence_threshold by default


def incomplete(checkpoint: Checkpoint, weights: Weights) -> Iterator[Finding]:
    """Find shards without a file."""
    places = {} if weights.index is None else weights.index.weight_map
    left_out = {file.name: file.role for file in checkpoint.left_out}
    for missing in weights.missing_shards:
        if role := left_out.get(missing):
            problem = f"is named in {weights.name}, but its folder is left out as {role.value}"
            remedy, command = "move it out of that folder, and name it there", ""
        else:
            problem = f"is named in {weights.name} but is not there"
            remedy = "download or copy it again"
            command = cures.fetching(checkpoint, missing)
        named = tuple(name for name, shard in places.items() if shard == missing)
        yield Finding("missing-shard", Severity.ERROR, missing, problem, remedy, named, command)


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
                "put the index right, or convert them where they are (--allow unindexed-tensors)",
                tuple(extra),
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
    command = cures.gathering(checkpoint)
    remedy = "gather them from the global_step folder beside it"
    if not command:
        remedy = "run DeepSpeed's zero_to_fp32.py where its global_step folder lies"
    for shard, names in hollow(checkpoint.shards).items():
        yield Finding(
            "empty-tensors",
            Severity.ERROR,
            shard,
            f"holds {listed(names)} without a value: a ZeRO-3 save that gathered nothing",
            remedy,
            names,
            command,
        )


def hollow(shards: Collection[Shard]) -> Mapping[str, tuple[str, ...]]:
    """Return, by shard, the tensors that ZeRO-3 has left without a value; nothing if it has not.

    A weight is never empty otherwise. Several buffers may be, but then beside tensors as large as
    those of which ZeRO-3 leaves none whole, unless told to.
    """
    empty = {
        shard.name: sorted(  # where nothing has a place, no order is that of the data
            name
            for name, tensor in shard.header.tensors.items()
            if tensor.shape == (0,) and tensor.dtype.is_floating
        )
        for shard in shards
    }
    names = [name for each in empty.values() for name in each]
    is_zero_3 = any(name.endswith(".weight") for name in names) or (
        len(names) > 1
        and not any(
            tensor.dtype.is_floating and tensor.parameters > _LEFT_WHOLE
            for shard in shards
            for tensor in shard.header.tensors.values()
        )
    )
    return {shard: tuple(found) for shard, found in empty.items() if found and is_zero_3}
