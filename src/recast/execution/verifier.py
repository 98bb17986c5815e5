"""verify(): two folders → whether one is the cast of the other, and where it is not.

It starts from the files alone and shares only the cast with the converter, so that a mistake
of the converter's does not hide itself.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from recast.dtypes import Dtype
from recast.errors import CheckpointError
from recast.execution.beside import compare_files, compare_texts
from recast.execution.comparer import Comparer, Mismatch, Pair, told
from recast.execution.reader import inspect
from recast.execution.shard import Progress
from recast.execution.storage import Source
from recast.execution.workers import chosen_workers, share
from recast.formats.checkpoint import Checkpoint, Shard
from recast.planning.casts import count_casts, odd_casts
from recast.reports.verification import Difference, ShardVerdict, Verification

AnyPath = str | os.PathLike[str]
_UNLESS_LIKE = "unless a base model has it so: then name it with --like"
_Seen = tuple[Difference, Mismatch | None]  # what differs, and how the values do


def verify(
    path: AnyPath | Checkpoint,
    *,
    against: AnyPath | Checkpoint,
    like: AnyPath | Checkpoint | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Recast *against* and compare every tensor, name, shape, dtype and file of *path* with it.

    A tensor that *path* stores in the dtype of the source must be the same bit for bit. The others
    must all have been cast to one dtype, as a conversion does it, or to fp32, or as in *like*.

    Args:
        path: the checkpoint to verify, or what `inspect` returned for it.
        against: the source that it was made from, likewise.
        like: the base model whose dtypes it was given, likewise; needed if they are several.
        workers: the threads to use; by default the CPUs this process may use.
        progress: called now and then with the bytes of the source that were compared since.

    Raises:
        RecastError: if one cannot be read as a checkpoint, or *like* is of another architecture;
            a difference is no error.

    Example:
        >>> recast.verify("./ckpt-bf16", against="./ckpt").holds  # doctest: +SKIP
        True
    """
    after, before = _read(path), _read(against)
    base = None if like is None else _read(like)
    if after.is_file != before.is_file:
        raise CheckpointError(
            str(after.path),
            f"cannot be compared with {before.path}",
            "name two folders, or two files",
        )
    verdicts: list[ShardVerdict] = []
    differences: list[Difference] = []
    notes: list[Difference] = []
    seen: list[_Seen] = []
    threads = chosen_workers(workers)
    paired = tuple(_paired(before, after))
    pairs = [(old, new) for old, new in paired if new is not None]
    odd = odd_casts(before, pairs, base)
    for old, new in paired:
        if new is None:
            missing = len(old.header.tensors)
            verdicts.append(ShardVerdict(old.name, missing, missing, holds=False))
            differences.append(Difference(old.name, "", "is missing"))
            continue
        compared = _compare_shards(
            before, old, after, new, odd=odd, workers=threads, progress=progress
        )
        found: list[_Seen] = []
        for each, how in compared:
            if how is not None and how.faded:
                notes.append(each)
            else:
                found.append((each, how))
        bad = len({each.tensor for each, _ in found if each.tensor})
        verdicts.append(ShardVerdict(new.name, len(old.header.tensors), bad, holds=not found))
        seen += found
    differences += _strays(before, after)
    differences += _named(seen)
    differences += compare_texts(before, after)
    differences += compare_files(before, after)
    files = {file.name for file in before.files} & {file.name for file in after.files}
    return Verification(
        after.local_path,
        before.local_path,
        tuple(verdicts),
        len(files),
        tuple(differences),
        count_casts(pairs),
        tuple(notes),
    )


def _read(source: AnyPath | Checkpoint) -> Checkpoint:
    """Return the checkpoint at a path, or what is known of it already."""
    return source if isinstance(source, Checkpoint) else inspect(source)


def _paired(before: Checkpoint, after: Checkpoint) -> Iterator[tuple[Shard, Shard | None]]:
    """Yield the source's shards, each with the one that it should have become, if that is there."""
    if before.is_file:  # one file each, whatever their names
        yield before.shards[0], after.shards[0]
        return
    new = {shard.name: shard for shard in after.shards}
    yield from ((shard, new.get(shard.name)) for shard in before.shards)


def _strays(before: Checkpoint, after: Checkpoint) -> Iterator[Difference]:
    """Yield the shards that the source does not have."""
    if not before.is_file:
        old = {shard.name for shard in before.shards}
        for shard in after.shards:
            if shard.name not in old:
                yield Difference(shard.name, "", "is not in the source")


def _compare_shards(
    before: Checkpoint,
    old: Shard,
    after: Checkpoint,
    new: Shard,
    *,
    odd: Mapping[tuple[str, str], Dtype],
    workers: int,
    progress: Progress | None,
) -> Iterator[_Seen]:
    """Yield what differs between a shard and the one it should have become."""
    for name in sorted(old.header.tensors.keys() - new.header.tensors.keys()):
        yield Difference(new.name, name, _absence(name, after, "is missing", "lies in {}")), None
    for name in sorted(new.header.tensors.keys() - old.header.tensors.keys()):
        stray = _absence(name, before, "is not in the source", "belongs in {}, not here")
        yield Difference(new.name, name, stray), None
    metadata = {"format": "pt"} | dict(old.header.metadata or {})
    if dict(new.header.metadata or {}) != metadata:
        yield Difference(new.name, "", f"header metadata is not {metadata}"), None
    pairs = []
    for name, tensor in old.header.tensors.items():
        if name not in new.header.tensors:
            continue
        pair = Pair(name, tensor, new.header.tensors[name])
        if problem := _described_otherwise(pair):
            yield Difference(new.name, name, problem), None
        elif (target := odd.get((new.name, name))) is not None:
            problem = f"is {pair.after.dtype} instead of {target}, {_UNLESS_LIKE}"
            yield Difference(new.name, name, problem), None
        else:
            pairs.append(pair)
    with _opened(before, old) as source, _opened(after, new) as output:
        worker = Comparer(old, source, new, output, progress)
        results = share(pairs, worker, workers)
    for result in results:
        for name, mismatch in result.items():
            total = new.header.tensors[name].parameters
            yield Difference(new.name, name, told(mismatch, total)), mismatch


def _absence(name: str, elsewhere: Checkpoint, nowhere: str, there: str) -> str:
    """Return that a tensor is nowhere in a checkpoint, or in which of its shards it lies."""
    homes = [each.name for each in elsewhere.shards if name in each.header.tensors]
    return there.format(homes[0]) if homes else nowhere


def _named(seen: list[_Seen]) -> Iterator[Difference]:
    """Yield what differs; of a tensor that holds the values of another, that it does."""
    tensors = {mismatch.expected: each for each, mismatch in seen if mismatch is not None}
    for each, mismatch in seen:
        other = None if mismatch is None else tensors.get(mismatch.stored)
        if other is None:
            yield each
        else:
            home = "" if other.file == each.file else f" of {other.file}"
            yield replace(each, problem=f"holds the values of tensor {other.tensor!r}{home}")


def _described_otherwise(pair: Pair) -> str:
    """Return in what the tensor's description is not that of a cast; "" if it is one."""
    if pair.before.shape != pair.after.shape:
        return f"has shape {list(pair.after.shape)} instead of {list(pair.before.shape)}"
    castable = pair.before.dtype.is_floating and pair.after.dtype.is_floating
    if pair.before.dtype is not pair.after.dtype and not castable:
        return f"is {pair.after.dtype} instead of {pair.before.dtype}"
    return ""


def _opened(checkpoint: Checkpoint, shard: Shard) -> Source:
    """Return a shard, open for reading."""
    return Source(checkpoint.place_of(shard.name), shard.size, shard.modified)
