"""verify(): two folders → whether one is the cast of the other, and where it is not.

It starts from the files alone and shares only the cast with the converter, so that a mistake
of the converter's does not hide itself.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recast.dtypes import Dtype
from recast.errors import CheckpointError
from recast.execution.cast import NUMPY_DTYPES, Array, kernel
from recast.execution.reader import inspect
from recast.execution.shard import Progress
from recast.execution.storage import Source, naming
from recast.execution.workers import chosen_workers, share
from recast.formats.checkpoint import Checkpoint, Shard, main_dtype
from recast.formats.header import TensorInfo
from recast.reports.verification import Difference, ShardVerdict, Verification

_PIECE = 1 << 18  # elements compared at a time, and bytes of other files

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor of the source and the one it should have become."""

    name: str
    before: TensorInfo
    after: TensorInfo


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """Values of one tensor that are not the cast of the source's.

    Attributes:
        count: how many.
        first: which element is the first of them.
        bits: how many bits of the first differ.
        zeroed: how many of them are zero, where the source's are not.
        live: how many values of the source become something else than zero.
        toward_zero: how many of them are what cutting the mantissa off would give.
    """

    count: int
    first: int
    bits: int
    zeroed: int
    live: int
    toward_zero: int


def verify(
    path: AnyPath | Checkpoint,
    *,
    against: AnyPath | Checkpoint,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Recast *against* and compare every tensor, name, shape, dtype and file of *path* with it.

    A tensor that *path* stores in the dtype of the source must be the same bit for bit.

    Args:
        path: the checkpoint to verify, or what `inspect` returned for it.
        against: the source that it was made from, likewise.
        workers: the threads to use; by default the CPUs this process may use.
        progress: called now and then with the bytes of the source that were compared since.

    Raises:
        RecastError: if either cannot be read as a checkpoint; a difference is no error.

    Example:
        >>> recast.verify("./ckpt-bf16", against="./ckpt").holds  # doctest: +SKIP
        True
    """
    after, before = (
        each if isinstance(each, Checkpoint) else inspect(each) for each in (path, against)
    )
    if after.is_file != before.is_file:
        raise CheckpointError(
            str(after.path),
            f"cannot be compared with {before.path}",
            "name two folders, or two files",
        )
    verdicts: list[ShardVerdict] = []
    differences: list[Difference] = []
    for old, new in _paired(before, after, differences):
        threads = chosen_workers(workers)
        found = list(_compare_shards(before, old, after, new, workers=threads, progress=progress))
        bad = len({each.tensor for each in found if each.tensor})
        verdicts.append(ShardVerdict(new.name, len(old.header.tensors), bad, holds=not found))
        differences += found
    differences += _compare_texts(before, after)
    files = [file for file in before.files if file.name in {each.name for each in after.files}]
    differences += _compare_files(before, after)
    return Verification(
        after.local_path, before.local_path, tuple(verdicts), len(files), tuple(differences)
    )


def _paired(
    before: Checkpoint, after: Checkpoint, differences: list[Difference]
) -> Iterator[tuple[Shard, Shard]]:
    """Yield the shards to compare; what has no counterpart is a difference."""
    if before.is_file:  # one file each, whatever their names
        yield before.shards[0], after.shards[0]
        return
    old = {shard.name: shard for shard in before.shards}
    new = {shard.name: shard for shard in after.shards}
    differences += [Difference(name, "", "is missing") for name in old if name not in new]
    differences += [Difference(name, "", "is not in the source") for name in new if name not in old]
    yield from ((old[name], new[name]) for name in old if name in new)


def _compare_shards(
    before: Checkpoint,
    old: Shard,
    after: Checkpoint,
    new: Shard,
    *,
    workers: int,
    progress: Progress | None,
) -> Iterator[Difference]:
    """Yield what differs between a shard and the one it should have become."""
    for name in sorted(old.header.tensors.keys() - new.header.tensors.keys()):
        yield Difference(new.name, name, "is missing")
    for name in sorted(new.header.tensors.keys() - old.header.tensors.keys()):
        yield Difference(new.name, name, "is not in the source")
    metadata = {"format": "pt"} | dict(old.header.metadata or {})
    if dict(new.header.metadata or {}) != metadata:
        yield Difference(new.name, "", f"header metadata is not {metadata}")
    pairs = []
    for name, tensor in old.header.tensors.items():
        if name not in new.header.tensors:
            continue
        pair = _Pair(name, tensor, new.header.tensors[name])
        if problem := _described_otherwise(pair):
            yield Difference(new.name, name, problem)
        else:
            pairs.append(pair)
    with _opened(before, old) as source, _opened(after, new) as output:
        worker = _Comparer(old, source, new, output, progress)
        results = share(pairs, worker, workers)
    for result in results:
        for name, mismatch in result.items():
            total = new.header.tensors[name].parameters
            yield Difference(new.name, name, _told(mismatch, total))


def _described_otherwise(pair: _Pair) -> str:
    """Return in what the tensor's description is not that of a cast; "" if it is one."""
    if pair.before.shape != pair.after.shape:
        return f"has shape {list(pair.after.shape)} instead of {list(pair.before.shape)}"
    castable = pair.before.dtype.is_floating and pair.after.dtype.is_floating
    if pair.before.dtype is not pair.after.dtype and not castable:
        return f"is {pair.after.dtype} instead of {pair.before.dtype}"
    return ""


def _told(mismatch: _Mismatch, total: int) -> str:
    """Return what happened to a tensor of *total* values, as far as they show it."""
    if mismatch.zeroed == mismatch.count == mismatch.live:
        return f"all of its {total:,} values are zero, and the source's are not"
    said = (
        f"{mismatch.count:,} of {total:,} values are not the cast of the source's, "
        f"the first at element {mismatch.first:,}"
    )
    if mismatch.count == 1 and mismatch.bits == 1:
        return f"{said}: one flipped bit"
    if mismatch.toward_zero == mismatch.count > 1:
        return f"{said}: they were cut off instead of rounded"
    return said


class _Comparer:
    """Compares tensors of one shard, in one thread or several."""

    def __init__(
        self, old: Shard, source: Source, new: Shard, output: Source, progress: Progress | None
    ) -> None:
        self.old, self.source = old, source
        self.new, self.output = new, output
        self.progress = progress

    def __call__(self, pairs: Iterable[_Pair]) -> Mapping[str, _Mismatch]:
        """Return the tensors among *pairs* that are not the cast of the source's."""
        found: dict[str, _Mismatch] = {}
        for pair in pairs:
            seen = list(self._compare(pair))
            if wrong := [each for each in seen if each.count]:
                found[pair.name] = _Mismatch(
                    count=sum(each.count for each in wrong),
                    first=wrong[0].first,
                    bits=wrong[0].bits,
                    zeroed=sum(each.zeroed for each in wrong),
                    live=sum(each.live for each in seen),
                    toward_zero=sum(each.toward_zero for each in wrong),
                )
            if self.progress is not None:
                self.progress(pair.before.nbytes)
        return found

    def _compare(self, pair: _Pair) -> Iterator[_Mismatch]:
        """Compare one tensor piece by piece."""
        size = pair.before.parameters
        for begin in range(0, size, _PIECE):
            count = min(_PIECE, size - begin)
            expected = _read(self.source, self.old, pair.before, begin, count)
            original = expected
            if pair.before.dtype is not pair.after.dtype:
                values = expected.view(NUMPY_DTYPES[pair.before.dtype])
                cast = np.empty(count, NUMPY_DTYPES[pair.after.dtype])
                kernel(pair.before.dtype, pair.after.dtype)(values, cast)
                expected = cast.view(np.uint8)
            stored = _read(self.output, self.new, pair.after, begin, count)
            if not np.array_equal(expected, stored):
                yield _mismatch(original, expected, stored, pair, begin)
            elif expected.any():  # or the tensor is not all zero, however zero the rest is
                yield _Mismatch(0, 0, 0, 0, 1, 0)


def _read(source: Source, shard: Shard, tensor: TensorInfo, begin: int, count: int) -> Array:
    """Return the bytes of *count* elements of a tensor from the *begin*-th on."""
    content = np.empty(count * tensor.dtype.bits // 8, np.uint8)
    position = shard.header.size + tensor.data_offsets[0] + begin * tensor.dtype.bits // 8
    source.read(content.data, position)
    return content


def _mismatch(
    original: Array, expected: Array, stored: Array, pair: _Pair, begin: int
) -> _Mismatch:
    """Return how a piece that begins at element *begin* differs from what it should be."""
    wrong = _differing(expected, stored, pair)
    if not len(wrong):
        return _Mismatch(0, 0, 0, 0, 1, 0)
    width = max(1, pair.after.dtype.bits // 8)
    should, found = expected.reshape(-1, width), stored.reshape(-1, width)
    cut = 0
    if (pair.before.dtype, pair.after.dtype) == (Dtype.F32, Dtype.BF16):
        cut = int((original.reshape(-1, 4)[wrong, 2:] == found[wrong]).all(axis=1).sum())
    return _Mismatch(
        count=len(wrong),
        first=begin + int(wrong[0]),
        bits=int(np.unpackbits(should[wrong[0]] ^ found[wrong[0]]).sum()),
        zeroed=int((~found[wrong].any(axis=1)).sum()),
        live=int(should.any(axis=1).sum()),
        toward_zero=cut,
    )


def _differing(expected: Array, stored: Array, pair: _Pair) -> Array:
    """Return which elements differ; a NaN that was cast may have any payload."""
    dtype = pair.after.dtype
    width = max(1, dtype.bits // 8)  # of elements smaller than a byte, bytes are compared
    unlike = (expected.reshape(-1, width) != stored.reshape(-1, width)).any(axis=1)
    if dtype is not pair.before.dtype:
        values = NUMPY_DTYPES[dtype]
        with np.errstate(invalid="ignore"):  # a signalling NaN would make ml_dtypes warn
            unlike &= ~(np.isnan(expected.view(values)) & np.isnan(stored.view(values)))
    return np.flatnonzero(unlike)


def _opened(checkpoint: Checkpoint, shard: Shard) -> Source:
    """Return a shard, open for reading."""
    return Source(checkpoint.place_of(shard.name), shard.size, shard.modified)


def _compare_texts(before: Checkpoint, after: Checkpoint) -> Iterator[Difference]:
    """Yield the configs and indexes that do not say what is stored, or anything else new."""
    expected = dict(_retold(before, after))
    found = {name: config.text for name, config in after.configs.items()}
    found |= {each.name: each.index.text for each in after.weights if each.index is not None}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield Difference(name, "", "is missing")
        elif name not in expected:
            yield Difference(name, "", "is not in the source")
        elif expected[name] != found[name]:
            line = _first_difference(expected[name], found[name])
            yield Difference(name, "", f"does not say what it should: {line}")


def _retold(before: Checkpoint, after: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield *before*'s configs and indexes as they are when they speak of what *after* stores."""
    stored = {shard.name: shard for shard in after.shards}

    def counterparts(shards: Iterable[Shard]) -> list[Shard]:
        return [stored[shard.name] for shard in shards if shard.name in stored]

    for name, config in before.configs.items():
        yield name, config.retold(main_dtype(counterparts(before.shards_of(config))))
    for weights in before.weights:
        if weights.index is not None:
            shards = counterparts(weights.shards)
            total = sum(shard.header.data_size for shard in shards)
            yield weights.name, weights.index.retold(total, main_dtype(shards))


def _first_difference(expected: str, found: str) -> str:
    """Return the first line in which two texts differ, as it is and as it should be."""
    for should, line in zip(expected.splitlines(), found.splitlines(), strict=False):
        if should != line:
            return f"{line.strip()} instead of {should.strip()}"
    return "its end differs"


def _compare_files(before: Checkpoint, after: Checkpoint) -> Iterator[Difference]:
    """Yield the other files that are missing, new, or not the same byte for byte."""
    old, new = ({file.name for file in each.files} for each in (before, after))
    for name in sorted(old - new):
        yield Difference(name, "", "is missing")
    for name in sorted(new - old):
        yield Difference(name, "", "is not in the source")
    for name in sorted(old & new):
        path = after.place_of(name)
        with naming(path):
            if not _is_same(before.place_of(name), path):
                yield Difference(name, "", "differs from the source's")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; `filecmp` would trust what it once read."""
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(_PIECE):
            if chunk != second.read(_PIECE):
                return False
        return not second.read(1)
