"""A shard's work, cut into pieces that need little memory, whatever the size of a tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast.dtypes import Dtype
from recast.execution.values.window import Window
from recast.planning.plan import TensorPlan

PIECE_BYTES = 2 << 20  # of the source: threads wait for each other less than with smaller ones
BATCH_BYTES = 16 << 20  # of the source, taken by one thread at a time: reads stay sequential


@dataclass(frozen=True, slots=True)
class Run:
    """Tensors that lie one after another, in the same order, in the source and in the output.

    Attributes:
        source: the dtype they have.
        target: the dtype they get.
        begin: the position of the first in the source, in bytes from the end of its header.
        out: the position of the first in the output, likewise.
        tensors: the number of each tensor in the plan.
        starts: where each tensor begins, in elements from the beginning of the run.
        elements: how many elements there are in all.
    """

    source: Dtype
    target: Dtype
    begin: int
    out: int
    tensors: NDArray[np.intp]
    starts: NDArray[np.intp]
    elements: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some elements of a run, from *begin* up to *end*, counted from its beginning."""

    run: Run
    begin: int
    end: int

    @property
    def source_position(self) -> int:
        """Where it begins in the source, in bytes from the end of the header."""
        return self.run.begin + self.begin * self.run.source.bits // 8

    @property
    def source_bytes(self) -> int:
        """Its bytes in the source."""
        return (self.end - self.begin) * self.run.source.bits // 8

    @property
    def out_position(self) -> int:
        """Where it begins in the output, in bytes from the end of the header."""
        return self.run.out + self.begin * self.run.target.bits // 8

    @property
    def out_bytes(self) -> int:
        """Its bytes in the output."""
        return (self.end - self.begin) * self.run.target.bits // 8

    def tensors(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return where in the piece each of its tensors begins, and the tensors' numbers."""
        first = np.searchsorted(self.run.starts, self.begin, "right") - 1
        last = np.searchsorted(self.run.starts, self.end, "left")
        starts = np.maximum(self.run.starts[first:last] - self.begin, 0)
        return starts, self.run.tensors[first:last]


def window(pieces: int = 1) -> Window:
    """Return a window for so many pieces of a source."""
    return Window(pieces * PIECE_BYTES)


def batches(tensors: Sequence[TensorPlan]) -> Iterator[list[Piece]]:
    """Yield the work on a shard's tensors, in the output's order, in batches for one thread."""
    batch: list[Piece] = []
    size = 0
    for run in runs(tensors):
        for piece in _cut(run):
            batch.append(piece)
            size += piece.source_bytes
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def runs(tensors: Sequence[TensorPlan]) -> Iterator[Run]:
    """Yield a shard's tensors, save the empty ones, as runs in the order of the output."""
    out = 0
    numbered: list[tuple[int, TensorPlan]] = []
    for number, tensor in enumerate(tensors):
        if not tensor.nbytes:
            continue
        if numbered and not _continues(numbered[-1][1], tensor):
            yield _run(numbered, out)
            out += sum(each.nbytes for _, each in numbered)
            numbered = []
        numbered.append((number, tensor))
    if numbered:
        yield _run(numbered, out)


def _continues(before: TensorPlan, tensor: TensorPlan) -> bool:
    """Whether *tensor* lies behind *before* in the source and is treated alike."""
    return (
        before.source.data_offsets[1] == tensor.source.data_offsets[0]
        and before.source.dtype is tensor.source.dtype
        and before.dtype is tensor.dtype
    )


def _run(numbered: Sequence[tuple[int, TensorPlan]], out: int) -> Run:
    """Return the run of these tensors, the first of which lies at *out* in the output."""
    first, last = numbered[0][1].source, numbered[-1][1].source
    begin = first.data_offsets[0]
    bits = first.dtype.bits
    offsets = np.array([each.source.data_offsets[0] for _, each in numbered], np.intp)
    return Run(
        source=first.dtype,
        target=numbered[0][1].dtype,
        begin=begin,
        out=out,
        tensors=np.array([number for number, _ in numbered], np.intp),
        starts=(offsets - begin) * 8 // bits,
        elements=(last.data_offsets[1] - begin) * 8 // bits,
    )


def _cut(run: Run) -> Iterator[Piece]:
    """Cut *run* into pieces of whole elements and whole bytes."""
    step = PIECE_BYTES * 8 // run.source.bits // 8 * 8
    for begin in range(0, run.elements, step):
        yield Piece(run, begin, min(begin + step, run.elements))
