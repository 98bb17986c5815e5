"""Which casts of a checkpoint are those of one conversion, by the headers of before and after."""

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint, Shard, most_used
from recast.formats.header import TensorInfo
from recast.planning import likeness

Pairs = Sequence[tuple[Shard, Shard]]  # shards of the source, and what they became


def odd_casts(
    before: Checkpoint, pairs: Pairs, base: Checkpoint | None
) -> dict[tuple[str, str], Dtype]:
    """Return what no one conversion has cast, by shard and name: the dtype it should have.

    A conversion casts to one dtype; but what rules keep of fp64 becomes fp32, and a base model,
    where there is one, has the word before. Folder by folder, since components may have been
    converted each by itself. Raises RefusedError if *base* is of another architecture.
    """
    alike = {} if base is None else likeness.compare(before, base).dtypes
    homes = {
        shard.name: posixpath.dirname(weights.name)
        for weights in before.weights
        for shard in weights.shards
    }
    cast: dict[str, list[tuple[str, str, TensorInfo]]] = {}
    for shard, new, name, source, tensor in _tensors(pairs):
        home = homes[shard]
        explained = (source.dtype, Dtype.F32, alike.get(home, {}).get(name))
        castable = source.dtype.is_floating and tensor.dtype.is_floating
        if castable and tensor.dtype not in explained:
            cast.setdefault(home, []).append((new, name, tensor))
    odd: dict[tuple[str, str], Dtype] = {}
    for found in cast.values():
        targets = ((each.dtype, each.parameters) for *_, each in found if each.dtype in TARGETS)
        target = most_used(targets) or Dtype.F32
        odd |= {(shard, name): target for shard, name, each in found if each.dtype is not target}
    return odd


def count_casts(pairs: Pairs) -> tuple[tuple[Dtype, int], ...]:
    """Return how many tensors have become which dtype, those that many have first."""
    counts = Counter(
        tensor.dtype for *_, source, tensor in _tensors(pairs) if tensor.dtype is not source.dtype
    )
    return tuple(counts.most_common())


def _tensors(pairs: Pairs) -> Iterator[tuple[str, str, str, TensorInfo, TensorInfo]]:
    """Yield each tensor that lies in both shards: their names, its own, as it was and as it is."""
    for old, new in pairs:
        for name, source in old.header.tensors.items():
            if name in new.header.tensors:
                yield old.name, new.name, name, source, new.header.tensors[name]
