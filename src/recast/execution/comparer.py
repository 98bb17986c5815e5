"""Two tensors → whether one is the cast of the other, and where it is not."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from recast.dtypes import Dtype
from recast.execution.shard import Progress
from recast.execution.storage import Source
from recast.execution.values.cast import NUMPY_DTYPES, Array, kernel
from recast.execution.values.window import Use, Window
from recast.formats.checkpoint import Shard
from recast.formats.header import TensorInfo

_PIECE = 1 << 18  # elements compared at a time
_WIDEST = 8  # bytes of an element


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the source and the one it should have become."""

    name: str
    before: TensorInfo
    after: TensorInfo


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Values of one tensor that are not the cast of the source's.

    Attributes:
        count: how many.
        first: which element is the first of them.
        bits: how many bits of the first differ.
        zeroed: how many of them are zero, where the source's are not.
        live: how many values of the source become something else than zero.
        toward_zero: how many of them are what cutting the mantissa off would give.
        expected: a digest of the tensor as it should be; empty for a part of one.
        stored: a digest of it as it is.
        faded: whether it is the cast that makes zero of values that were not.
    """

    count: int
    first: int
    bits: int
    zeroed: int
    live: int
    toward_zero: int
    expected: bytes = b""
    stored: bytes = b""
    faded: bool = False


_LIVE = Mismatch(0, 0, 0, 0, 1, 0)  # of a piece that is right, and not all zero
_FADED = Mismatch(0, 0, 0, 0, 0, 0, faded=True)  # of one that is right, and zero by the cast


def told(mismatch: Mismatch, total: int) -> str:
    """Return what happened to a tensor of *total* values, as far as they show it."""
    if mismatch.faded:
        return f"all of its {total:,} values are zero since the cast: the source's are too small"
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


class Comparer:
    """Compares tensors of one shard, in one thread or several."""

    def __init__(
        self, old: Shard, source: Source, new: Shard, output: Source, progress: Progress | None
    ) -> None:
        self.old, self.source = old, source
        self.new, self.output = new, output
        self.progress = progress

    def __call__(self, pairs: Iterable[Pair]) -> Mapping[str, Mismatch]:
        """Return the tensors among *pairs* that are not the cast of the source's.

        Those of which the cast itself has left nothing but zeros are there with a count of 0.
        """
        found: dict[str, Mismatch] = {}
        room = _Room()
        for pair in pairs:
            seen = list(self._compare(pair, room))
            if wrong := [each for each in seen if each.count]:
                should, stored = self._digests(pair, room)
                found[pair.name] = Mismatch(
                    count=sum(each.count for each in wrong),
                    first=wrong[0].first,
                    bits=wrong[0].bits,
                    zeroed=sum(each.zeroed for each in wrong),
                    live=sum(each.live for each in seen),
                    toward_zero=sum(each.toward_zero for each in wrong),
                    expected=should,
                    stored=stored,
                )
            elif seen and all(each.faded for each in seen):
                found[pair.name] = _FADED
            if self.progress is not None:
                self.progress(pair.before.nbytes)
        return found

    def _compare(self, pair: Pair, room: "_Room") -> Iterator[Mismatch]:
        """Compare one tensor piece by piece. Nothing is said of a piece that is right and zero."""
        live = False
        for begin, original, expected, stored in self._pieces(pair, room):
            if not _equal(expected, stored):
                yield _mismatch(original, expected, stored, pair, begin)
            elif not live and _is_live(expected, pair.after.dtype):
                live = True  # the tensor is not all zero, however zero the rest is
                yield _LIVE
            elif not live and _is_live(original, pair.before.dtype):
                yield _FADED

    def _digests(self, pair: Pair, room: "_Room") -> tuple[bytes, bytes]:
        """Return by what a tensor can be known, as it should be and as it is."""
        should, found = blake2b(), blake2b()
        for _, _, expected, stored in self._pieces(pair, room):
            should.update(expected.data)
            found.update(stored.data)
        return should.digest(), found.digest()

    def _pieces(self, pair: Pair, room: "_Room") -> Iterator[tuple[int, Array, Array, Array]]:
        """Yield where each piece begins, its bytes in the source, as they should be and are.

        They lie in *room* until the next piece is asked for.
        """
        size = pair.before.parameters
        for begin in range(0, size, _PIECE):
            count = min(_PIECE, size - begin)
            original = expected = _read(
                self.source, self.old, pair.before, range(begin, begin + count), room.source
            )
            if pair.before.dtype is not pair.after.dtype:
                values = expected.view(NUMPY_DTYPES[pair.before.dtype])
                expected = room.cast[: count * pair.after.dtype.bits // 8]
                cast = expected.view(NUMPY_DTYPES[pair.after.dtype])
                kernel(pair.before.dtype, pair.after.dtype)(values, cast)
            stored = _read(
                self.output, self.new, pair.after, range(begin, begin + count), room.output
            )
            yield begin, original, expected, stored


class _Room:
    """Memory that a thread uses again for each piece: of the source, its cast, and the output."""

    def __init__(self) -> None:
        self.source, self.output = Window(_PIECE * _WIDEST), Window(_PIECE * _WIDEST)
        self.cast = np.empty(_PIECE * _WIDEST, np.uint8)


def _read(source: Source, shard: Shard, tensor: TensorInfo, elements: range, room: Window) -> Array:
    """Return the bytes of some elements of a tensor, which lie in *room*."""
    position = shard.header.size + tensor.data_offsets[0] + elements.start * tensor.dtype.bits // 8
    content = room.at(position, len(elements) * tensor.dtype.bits // 8, Use.READ)
    source.read(content.data, position)
    return content


def _is_live(content: Array, dtype: Dtype) -> bool:
    """Whether anything in these bytes is not zero; -0.0 is."""
    if dtype not in NUMPY_DTYPES:
        return bool(content.any())
    with np.errstate(invalid="ignore"):  # a signalling NaN would make ml_dtypes warn
        return bool((content.view(NUMPY_DTYPES[dtype]) != 0).any())


def _equal(one: Array, other: Array) -> bool:
    """Whether the same bytes are in both: words of them, as far as they are whole, go faster."""
    if len(one) == len(other) and len(one) % _WIDEST == 0:
        one, other = one.view(np.uint64), other.view(np.uint64)
    return np.array_equal(one, other)


def _mismatch(original: Array, expected: Array, stored: Array, pair: Pair, begin: int) -> Mismatch:
    """Return how a piece that begins at element *begin* differs from what it should be."""
    wrong = _differing(expected, stored, pair)
    if not len(wrong):
        return _LIVE
    width = max(1, pair.after.dtype.bits // 8)
    should, found = expected.reshape(-1, width), stored.reshape(-1, width)
    cut = 0
    if (pair.before.dtype, pair.after.dtype) == (Dtype.F32, Dtype.BF16):
        cut = int((original.reshape(-1, 4)[wrong, 2:] == found[wrong]).all(axis=1).sum())
    return Mismatch(
        count=len(wrong),
        first=begin + int(wrong[0]),
        bits=int(np.unpackbits(should[wrong[0]] ^ found[wrong[0]]).sum()),
        zeroed=int((~found[wrong].any(axis=1)).sum()),
        live=int(should.any(axis=1).sum()),
        toward_zero=cut,
    )


def _differing(expected: Array, stored: Array, pair: Pair) -> Array:
    """Return which elements differ; a NaN that was cast may have any payload."""
    dtype = pair.after.dtype
    width = max(1, dtype.bits // 8)  # of elements smaller than a byte, bytes are compared
    unlike = (expected.reshape(-1, width) != stored.reshape(-1, width)).any(axis=1)
    if dtype is not pair.before.dtype:
        values = NUMPY_DTYPES[dtype]
        with np.errstate(invalid="ignore"):  # a signalling NaN would make ml_dtypes warn
            unlike &= ~(np.isnan(expected.view(values)) & np.isnan(stored.view(values)))
    return np.flatnonzero(unlike)
