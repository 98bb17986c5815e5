"""scan(): one pass over every floating value of a checkpoint."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from recast.execution.reader import inspect
from recast.execution.shard import Progress, contents
from recast.execution.storage import Source
from recast.execution.values import examine, native
from recast.execution.values.cast import NUMPY_DTYPES, Array
from recast.execution.values.facts import (
    BF16_LOSES,
    FP16_LOSES,
    add,
    mantissa_bits,
    nothing_seen,
)
from recast.execution.values.pieces import Piece, batches, window
from recast.execution.workers import chosen_workers, share
from recast.formats.checkpoint import Checkpoint, Shard
from recast.planning.plan import TensorPlan
from recast.planning.policy import Kind, Reason
from recast.reports.scan import Scan, TensorScan

_UNCHANGED = Reason(Kind.ALREADY)


def scan(
    source: str | os.PathLike[str] | Checkpoint,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Look at every floating value that is stored, and say what they are.

    Args:
        source: a checkpoint's folder, a weights file, or what `inspect` returned for it.
        workers: the threads to use; by default the CPUs this process may use.
        progress: called now and then with the bytes that were read since.

    Raises:
        RecastError: what `inspect` raises; StorageError if the disk fails, or the source
            changes meanwhile.

    Example:
        >>> [each.name for each in recast.scan("./ckpt").wide]  # doctest: +SKIP
        ['model.embed_tokens.weight', 'model.norm.weight']
    """
    checkpoint = source if isinstance(source, Checkpoint) else inspect(source)
    begun = time.monotonic()
    found: list[TensorScan] = []
    nbytes = 0
    for shard in checkpoint.shards:
        path = checkpoint.place_of(shard.name)
        tensors = _floating(shard)
        nbytes += sum(each.nbytes for each in tensors)
        found += _scan_shard(shard, path, tensors, chosen_workers(workers), progress)
    return Scan(checkpoint, tuple(found), nbytes, time.monotonic() - begun)


def _floating(shard: Shard) -> list[TensorPlan]:
    """Return the tensors to look at, in the order in which they are stored."""
    tensors = [
        TensorPlan(name, tensor, tensor.dtype, _UNCHANGED)
        for name, tensor in shard.header.tensors.items()
        if tensor.dtype in NUMPY_DTYPES
    ]
    return sorted(tensors, key=lambda each: each.source.data_offsets)


def _scan_shard(
    shard: Shard,
    path: Path,
    tensors: list[TensorPlan],
    workers: int,
    progress: Progress | None,
) -> list[TensorScan]:
    """Return what the values of *tensors* are, which the shard at *path* holds."""
    look_at = examine.examine if native.library() is None else native.look
    with Source(path, shard.size, shard.modified) as source:

        def look(mine: Iterable[list[Piece]]) -> Array:
            facts, room = nothing_seen(len(tensors)), window()
            for batch in mine:
                for piece, content in contents(source, shard.header.size, batch, room):
                    starts, numbers = piece.tensors()
                    values = content.view(NUMPY_DTYPES[piece.run.source])
                    add(facts, look_at(values, starts), numbers)
                    if progress is not None:
                        progress(piece.source_bytes)
            return facts

        whole, *others = share(batches(tensors), look, workers)
        source.check_unchanged()
    for other in others:
        add(whole, other)
    columns = [whole[name].tolist() for name in ("magnitude", "nan", "infinite")]
    columns += [(whole["lost"] & loses == 0).tolist() for loses in (BF16_LOSES, FP16_LOSES)]
    bits = mantissa_bits(whole, (each.dtype for each in tensors))
    return [
        TensorScan(shard.name, each.name, each.dtype, each.source.parameters, used, *rest)
        for each, used, *rest in zip(tensors, bits, *columns, strict=True)
    ]
