"""convert_shard(): one shard's plan → one file, complete and checked."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recast.dtypes import Dtype
from recast.errors import ShardError
from recast.execution.publish import replacing
from recast.execution.reader import validated
from recast.execution.storage import Output, Source
from recast.execution.values import examine, native
from recast.execution.values.cast import NUMPY_DTYPES, Array, kernel
from recast.execution.values.facts import add, mantissa_bits, nothing_seen
from recast.execution.values.pieces import Piece, batches, window
from recast.execution.values.window import Use, Window
from recast.execution.workers import share
from recast.planning.plan import ShardPlan
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import Evidence

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How to go about the work.

    Attributes:
        workers: the threads to use.
        evidence: whether to look at what rounding did; without, only overflow is seen.
        progress: called with the bytes of the source that were done, from any thread.
    """

    workers: int = 1
    evidence: bool = True
    progress: Progress | None = None

    def advance(self, done: int) -> None:
        """Tell whoever wants to know that *done* more bytes of the source were done."""
        if self.progress is not None:
            self.progress(done)


def convert_shard(
    plan: ShardPlan,
    source: Path,
    target: Path,
    scratch: Path | None = None,
    effort: Effort | None = None,
) -> ShardConversion:
    """Write the shard that *plan* describes to *target*, which appears when it is complete.

    Args:
        plan: what to write.
        source: the weights file it is made from.
        target: the weights file to write. It gets the permission bits of the source and,
            unless it replaces it, its time, by which a finished file is known.
        scratch: where it lies until then, on the same file system; beside *target* if left out.
        effort: how to go about it.

    Raises StorageError if the disk fails or the source changes, ShardError if safetensors
    rejects the result.
    """
    effort = effort or Effort()
    with (
        Source(source, plan.size_before, plan.modified) as old,
        replacing(target, plan.size, old.mode, scratch) as new,
    ):
        new.write(plan.head, 0)
        effort.advance(plan.source.size)
        found = share(batches(plan.tensors), _Worker(plan, old, new, effort), effort.workers)
        new.finish(modified=None if target == source else plan.modified, keep_cached=old.was_cached)
        _check(plan, new.path)
        old.check_unchanged()
    return ShardConversion(plan.name, plan.size, _evidence(plan, found, effort))


def scan_shard(plan: ShardPlan, source: Path, effort: Effort | None = None) -> tuple[Evidence, ...]:
    """Return what `convert_shard` would do to the values, without writing anything."""
    effort = effort or Effort()
    with Source(source, plan.size_before, plan.modified) as old:
        found = share(batches(plan.tensors), _Worker(plan, old, None, effort), effort.workers)
    return _evidence(plan, found, effort)


class _Worker:
    """Casts batches of pieces, in one thread or several."""

    def __init__(
        self, plan: ShardPlan, source: Source, output: Output | None, effort: Effort
    ) -> None:
        self.plan = plan
        self.source = source
        self.output = output
        self.effort = effort

    def __call__(self, batches: Iterable[list[Piece]]) -> Array:
        """Cast every piece of *batches*, and return the facts of each tensor."""
        facts = nothing_seen(len(self.plan.tensors))
        before, after = window(), window(2)  # no cast does more than double
        for batch in batches:
            for piece, content in contents(self.source, self.plan.source.size, batch, before):
                written = content
                position = len(self.plan.head) + piece.out_position
                if piece.run.source is not piece.run.target:
                    room = after.at(position, piece.out_bytes, Use.WRITE)
                    written = self._cast(piece, content, room, facts)
                if self.output is not None:
                    self.output.write(written.data, position)
            if self.output is not None:
                begin, end = batch[0].out_position, batch[-1].out_position
                self.output.write_back(len(self.plan.head) + begin, end - begin)
            self.effort.advance(sum(piece.source_bytes for piece in batch))
        return facts

    def _cast(self, piece: Piece, content: Array, out: Array, facts: Array) -> Array:
        """Return the bytes of *piece* in its new dtype, which lie in *out*."""
        values = content.view(NUMPY_DTYPES[piece.run.source])
        cast = out.view(NUMPY_DTYPES[piece.run.target])
        starts, tensors = piece.tensors()
        pair = (piece.run.source, piece.run.target)
        if pair == (Dtype.F32, Dtype.BF16) and native.library() is not None:
            add(facts, native.cast(values, cast, starts), tensors)
        else:
            kernel(*pair)(values, cast)
            if self.effort.evidence:
                add(facts, examine.compare(values, cast, starts), tensors)
            elif not piece.run.target.holds(piece.run.source):
                add(facts, examine.overflow(values, cast, starts), tensors)
        return cast.view(np.uint8)


def _check(plan: ShardPlan, path: Path) -> None:
    """Read back what was written. Raises ShardError if it is not a file that is as planned."""
    with validated(path, plan.name) as (_, head):
        if head != plan.head:
            raise ShardError(plan.name, "was not written as planned", "report this as a bug")


def contents(
    source: Source, begin: int, batch: list[Piece], window: Window
) -> Iterator[tuple[Piece, Array]]:
    """Yield each piece of *batch* with its bytes, which lie in *window* until the next is read.

    The data of *source* start at *begin*.
    """
    first = batch[0]
    for piece, following in zip(batch, (*batch[1:], None), strict=True):
        if following is None or following.run is not first.run:  # as few requests as runs
            size = piece.source_position + piece.source_bytes - first.source_position
            source.expect(begin + first.source_position, size)
            first = following or first
    for piece in batch:
        position = begin + piece.source_position
        content = window.at(position, piece.source_bytes, Use.READ)
        source.read(content.data, position)
        yield piece, content


def _evidence(plan: ShardPlan, found: list[Array], effort: Effort) -> tuple[Evidence, ...]:
    """Return what all threads together found out about the tensors that were cast.

    Without evidence, there is nothing to say about the tensors that did not overflow.
    """
    facts, *others = found
    for other in others:
        add(facts, other)
    names = ("changed", "largest_error", "overflowed", "largest_overflow", "underflowed")
    columns = [facts[name].tolist() for name in (*names, "nan", "infinite", "magnitude")]
    columns.append(mantissa_bits(facts, (tensor.source.dtype for tensor in plan.tensors)))
    return tuple(
        Evidence(tensor.name, tensor.source.dtype, tensor.dtype, *row)
        for tensor, row, overflowed in zip(
            plan.tensors, zip(*columns, strict=True), facts["overflowed"].tolist(), strict=True
        )
        if tensor.changes and (effort.evidence or overflowed)
    )
