"""What a page shows, as values: tiles, bars, maps, tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recast.formats.checkpoint import DtypeShare
from recast.formats.findings import Finding
from recast.planning.plan import TensorPlan
from recast.reports.text import nbytes

_MOST_ROWS = 2000  # of a table: a page of a hundred thousand is one that no browser likes


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with its label."""

    label: str
    figure: str


@dataclass(frozen=True, slots=True)
class Bar:
    """The bytes of one checkpoint by dtype: (dtype, share of the longest bar in %, in words)."""

    label: str
    parts: tuple[tuple[str, float, str], ...]
    figure: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a map: its colour's name, and what it says when one points at it."""

    colour: str
    hint: str


@dataclass(frozen=True, slots=True)
class Map:
    """Tensors by kind and layer.

    Attributes:
        title: what the colours show.
        columns: the layers.
        rows: each kind of tensor, with a cell, or None, for each layer.
        legend: each colour's name, with what it means.
        left_out: how many more layers there are.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    legend: tuple[tuple[str, str], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and numbers, to be sorted by any column.

    Attributes:
        title: what the rows are.
        columns: the heads of the columns.
        rows: a cell for each column; None where there is nothing to say.
        left_out: how many more rows there are.
        falling: the column by which the rows are sorted, the largest first; "" without any.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    left_out: int = 0
    falling: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows.

    Attributes:
        title: what it is about.
        sentence: the answer.
        about: what was done, for who has never seen recast.
        tiles: figures.
        bars: bytes by dtype.
        maps: tensors by kind and layer.
        findings: what is wrong or surprising, in groups that have a head each.
        tables: in which one looks things up.
    """

    title: str
    sentence: str
    about: str = ""
    tiles: tuple[Tile, ...] = ()
    bars: tuple[Bar, ...] = ()
    maps: tuple[Map, ...] = ()
    findings: tuple[tuple[str, tuple[Finding, ...]], ...] = ()
    tables: tuple[Table, ...] = ()


def table(
    title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]], falling: str = ""
) -> Table:
    """Return a table of the first *rows*, and how many more there are."""
    every = list(rows)
    if falling:
        at = columns.index(falling)
        every.sort(key=lambda row: -1.0 if row[at] is None else float(str(row[at])), reverse=True)
    left_out = max(0, len(every) - _MOST_ROWS)
    return Table(title, columns, tuple(every[:_MOST_ROWS]), left_out, falling)


def bars(shares: Sequence[tuple[str, Sequence[DtypeShare]]]) -> tuple[Bar, ...]:
    """Return a bar for each checkpoint, on one scale."""
    whole = max((sum(each.nbytes for each in parts) for _, parts in shares), default=0) or 1
    return tuple(
        Bar(
            label,
            tuple(
                (
                    each.dtype.value,
                    100 * each.nbytes / whole,
                    f"{each.dtype.torch_name}: {nbytes(each.nbytes)} in {each.tensors:,} tensors",
                )
                for each in parts
            ),
            nbytes(sum(each.nbytes for each in parts)),
        )
        for label, parts in shares
    )


def shares(tensors: Iterable[TensorPlan]) -> tuple[DtypeShare, ...]:
    """Return what each dtype amounts to after a conversion, the most bytes first."""
    listed = list(tensors)
    sums = {each.dtype: [0, 0, 0] for each in listed}
    for tensor in listed:
        for at, count in enumerate((1, tensor.source.parameters, tensor.nbytes)):
            sums[tensor.dtype][at] += count
    every = (DtypeShare(dtype, *counts) for dtype, counts in sums.items())
    return tuple(sorted(every, key=lambda each: -each.nbytes))
