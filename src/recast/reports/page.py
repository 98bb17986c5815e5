"""A page to look at: what a result says, as tables and maps, in one HTML file of its own.

The page needs no network and loads nothing: styles, charts and the script that sorts its tables
are in it. `Page` is what it shows, as values; Jinja2, which comes with ``recast[report]``,
renders it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import chain
from math import floor, log2
from typing import Any

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, DtypeShare
from recast.formats.findings import Finding, findings
from recast.planning.planner import TensorPlan
from recast.reports.conversion import Conversion
from recast.reports.evidence import Evidence, EvidenceTotal
from recast.reports.scan import Scan, TensorScan
from recast.reports.text import nbytes, printable
from recast.reports.verification import Verification

Result = Checkpoint | Conversion | Scan | Verification

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")
_MOST_ROWS = 5000  # of a table: a page of a hundred thousand is one that no browser likes
_MOST_COLUMNS = 200
_STEPS = 6  # of errors that are told apart by colour, each half of the one before


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
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and numbers, to be sorted by any column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """All that a page shows."""

    title: str
    sentence: str
    tiles: tuple[Tile, ...] = ()
    bars: tuple[Bar, ...] = ()
    maps: tuple[Map, ...] = ()
    findings: tuple[Finding, ...] = ()
    tables: tuple[Table, ...] = ()


def page(result: Result) -> Page:
    """Return what there is to show of what `inspect`, `convert`, `scan` or `verify` returned."""
    if isinstance(result, Conversion):
        return _of_conversion(result)
    if isinstance(result, Scan):
        return _of_scan(result)
    if isinstance(result, Verification):
        return _of_verification(result)
    return _of_checkpoint(result)


def html(result: Result) -> str:
    """Return the page of *result* as one HTML document. Raises RecastError without Jinja2."""
    try:
        import jinja2  # noqa: PLC0415 - only who wants a page needs it
    except ImportError:
        raise RecastError(
            "report", "needs Jinja2, which is not installed", "pip install 'recast[report]'"
        ) from None
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    environment.filters["printable"] = printable
    template = resources.files(__package__).joinpath("page.html.jinja").read_text("utf-8")
    return environment.from_string(template).render(page=page(result))


def _of_checkpoint(checkpoint: Checkpoint) -> Page:
    """Show what is stored."""
    tensors = [
        (shard.name, name, tensor)
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
    ]
    return Page(
        title=f"{checkpoint.path.name}: what is stored",
        sentence=f"{len(tensors):,} tensors in {len(checkpoint.shards):,} weights files.",
        tiles=(
            Tile("weights", nbytes(checkpoint.size)),
            Tile("tensors", f"{len(tensors):,}"),
            Tile("parameters", f"{sum(share.parameters for share in checkpoint.dtypes):,}"),
        ),
        bars=_bars((("stored", checkpoint.dtypes),)),
        maps=_maps(_dtype_map((name, tensor.dtype) for _, name, tensor in tensors)),
        findings=findings(checkpoint),
        tables=(
            _table(
                "Tensors",
                ("tensor", "dtype", "shape", "bytes", "file"),
                (
                    (name, tensor.dtype.torch_name, _shape(tensor.shape), tensor.nbytes, shard)
                    for shard, name, tensor in tensors
                ),
            ),
        ),
    )


def _of_conversion(done: Conversion) -> Page:
    """Show what was written, and what rounding did."""
    made = done.plan
    target = made.policy.target.torch_name
    tensors = [(shard.name, tensor) for shard in made.shards for tensor in shard.tensors]
    evidence = {(shard.name, each.name): each for shard in done.shards for each in shard.evidence}
    before = made.checkpoint.dtypes
    return Page(
        title=f"{made.checkpoint.path.name}: converted to {target}",
        sentence=_said_of(done.total) if evidence else "Nothing had to be cast.",
        tiles=(
            Tile("before", nbytes(made.size_before)),
            Tile("after", nbytes(made.size)),
            Tile("tensors cast", f"{done.total.tensors:,} of {len(tensors):,}"),
            Tile("lossless", f"{done.total.lossless:,}"),
            Tile("values changed", f"{done.total.changed:,}"),
            Tile("became infinite", f"{done.total.overflowed:,}"),
            Tile("became zero", f"{done.total.underflowed:,}"),
            Tile("NaN", f"{done.total.nan:,}"),
        ),
        bars=_bars((("before", before), ("after", _shares(tensor for _, tensor in tensors)))),
        maps=_maps(
            _dtype_map((tensor.name, tensor.dtype) for _, tensor in tensors),
            _error_map(evidence.values()),
        ),
        findings=(*findings(made.checkpoint), *done.findings),
        tables=(_evidence_table(tensors, evidence),),
    )


def _of_scan(found: Scan) -> Page:
    """Show what the values are."""
    narrow = sum(each.fits_bf16 for each in found.tensors)
    return Page(
        title=f"{found.path.name}: what its values need",
        sentence=f"bf16 holds all values of {narrow:,} of {len(found.tensors):,} floating tensors.",
        tiles=(
            Tile("looked at", nbytes(found.nbytes)),
            Tile("NaN", f"{sum(each.nan for each in found.tensors):,}"),
            Tile("infinite", f"{sum(each.infinite for each in found.tensors):,}"),
            Tile("all zero", f"{sum(each.is_zero for each in found.tensors):,}"),
        ),
        maps=_maps(_mantissa_map(found.tensors)),
        findings=tuple(found.findings),
        tables=(
            _table(
                "Tensors",
                ("tensor", "dtype", "mantissa bits", "largest", "NaN", "infinite", "file"),
                (
                    (
                        each.name,
                        each.dtype.torch_name,
                        each.mantissa_bits,
                        each.magnitude,
                        each.nan,
                        each.infinite,
                        each.shard,
                    )
                    for each in found.tensors
                ),
            ),
        ),
    )


def _of_verification(verdict: Verification) -> Page:
    """Show whether everything is as it should be."""
    tensors = sum(shard.tensors for shard in verdict.shards)
    holds = "is" if verdict.holds else "is NOT"
    return Page(
        title=f"{verdict.path.name}: verified against {verdict.against.name}",
        sentence=f"It {holds} what {verdict.against} becomes.",
        tiles=(
            Tile("tensors compared", f"{tensors:,}"),
            Tile("other files", f"{verdict.files:,}"),
            Tile("differences", f"{len(verdict.differences):,}"),
        ),
        tables=(
            _table(
                "Differences",
                ("file", "tensor", "what is the matter"),
                ((each.file, each.tensor, each.problem) for each in verdict.differences),
            ),
            _table(
                "Weights files",
                ("file", "tensors", "differing"),
                ((each.name, each.tensors, each.differing) for each in verdict.shards),
            ),
        ),
    )


def _said_of(total: EvidenceTotal) -> str:
    """Return what rounding did, in a sentence."""
    if total.worst is None:
        return f"Lossless: no value of {total.tensors:,} cast tensors changed."
    lossy = total.tensors - total.lossless
    return (
        f"{lossy:,} of {total.tensors:,} cast tensors were rounded; the largest error of a value "
        f"is {total.worst.largest_error:.3g}, in {total.worst.name}."
    )


def _evidence_table(
    tensors: Sequence[tuple[str, TensorPlan]], evidence: Mapping[tuple[str, str], Evidence]
) -> Table:
    """Return what was decided of each tensor, and what rounding did to it: the worst first."""

    def row(shard: str, tensor: TensorPlan) -> tuple[object, ...]:
        found = evidence.get((shard, tensor.name))
        facts: tuple[object, ...] = ("", "", "", "", "")
        if found is not None:
            facts = (
                found.largest_error,
                found.changed,
                found.overflowed,
                found.underflowed,
                found.magnitude,
            )
        names = tensor.source.dtype.torch_name, tensor.dtype.torch_name
        return (tensor.name, *names, str(tensor.reason), *facts, tensor.source.parameters, shard)

    rows = sorted((row(*each) for each in tensors), key=lambda cells: -(_number(cells[4]) or 0))
    columns = ("tensor", "was", "is", "why", "largest error", "changed", "became infinite")
    return _table("Tensors", (*columns, "became zero", "largest value", "parameters", "file"), rows)


def _number(cell: object) -> float | None:
    """Return a cell's number, if it holds one."""
    return float(cell) if isinstance(cell, (int, float)) else None


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Table:
    """Return a table of the first *rows*, and how many more there are."""
    every = list(rows)
    return Table(title, columns, tuple(every[:_MOST_ROWS]), max(0, len(every) - _MOST_ROWS))


def _bars(shares: Sequence[tuple[str, Sequence[DtypeShare]]]) -> tuple[Bar, ...]:
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


def _shares(tensors: Iterable[TensorPlan]) -> tuple[DtypeShare, ...]:
    """Return what each dtype amounts to after a conversion, the most bytes first."""
    sums: dict[Dtype, list[int]] = {}
    for tensor in tensors:
        counts = sums.setdefault(tensor.dtype, [0, 0, 0])
        for at, count in enumerate((1, tensor.source.parameters, tensor.nbytes)):
            counts[at] += count
    shares = (DtypeShare(dtype, *counts) for dtype, counts in sums.items())
    return tuple(sorted(shares, key=lambda each: -each.nbytes))


def _maps(*maps: Map) -> tuple[Map, ...]:
    """Return those maps that have something to show."""
    return tuple(each for each in maps if each.rows)


def _dtype_map(tensors: Iterable[tuple[str, Dtype]]) -> Map:
    """Return which kinds have which dtype, layer by layer."""

    def cell(dtypes: list[Dtype]) -> Cell:
        names = sorted({each.torch_name for each in dtypes})
        colour = dtypes[0].value if len(names) == 1 else "mixed"
        return Cell(colour, f"{', '.join(names)}{_times(len(dtypes))}")

    listed = list(tensors)
    legend = [(each.value, each.torch_name) for each in dict.fromkeys(d for _, d in listed)]
    drawn = _mapped("Dtype by layer and kind", listed, cell, legend)
    if any(each is not None and each.colour == "mixed" for _, row in drawn.rows for each in row):
        return replace(drawn, legend=(*drawn.legend, ("mixed", "several")))
    return drawn


def _error_map(evidence: Iterable[Evidence]) -> Map:
    """Return how large the largest error is, layer by layer, in steps of a factor of two."""
    listed = list(evidence)
    top = floor(log2(max((each.largest_error for each in listed), default=0) or 1))

    def colour(each: Evidence) -> str:
        if each.overflowed:
            return "overflow"
        if each.lossless:
            return "exact"
        return f"error{min(_STEPS - 1, top - floor(log2(each.largest_error)))}"

    def cell(found: list[Evidence]) -> Cell:
        worst = max(found, key=lambda each: (each.overflowed, each.largest_error))
        if worst.lossless:
            return Cell("exact", f"lossless{_times(len(found))}")
        hint = f"largest error {worst.largest_error:.3g}, {worst.changed:,} values changed"
        if worst.overflowed:
            hint = f"{worst.overflowed:,} finite values became infinite"
        return Cell(colour(worst), f"{hint} in {worst.name}")

    used = {colour(each) for each in listed}
    meanings = [f"{2.0 ** (top - number):.2g} or more" for number in range(_STEPS - 1)]
    meanings.append("less")
    legend = [(f"error{number}", meaning) for number, meaning in enumerate(meanings)]
    legend += [("exact", "lossless"), ("overflow", "became infinite")]
    pairs = [(each.name, each) for each in listed]
    shown = [each for each in legend if each[0] in used]
    return _mapped("Largest error by layer and kind", pairs, cell, shown)


def _mantissa_map(tensors: Iterable[TensorScan]) -> Map:
    """Return how many bits of the mantissa are in use, layer by layer."""
    steps = (("bits7", 7, "7 bits or less: bf16"), ("bits10", 10, "10 bits or less: fp16"))

    def cell(found: list[TensorScan]) -> Cell:
        most = max(each.mantissa_bits for each in found)
        colour = next((name for name, limit, _ in steps if most <= limit), "bits23")
        return Cell(colour, f"{most} mantissa bits in use{_times(len(found))}")

    legend = [*((name, meaning) for name, _, meaning in steps), ("bits23", "more: fp32")]
    pairs = [(each.name, each) for each in tensors]
    return _mapped("Mantissa bits in use by layer and kind", pairs, cell, legend)


def _mapped(
    title: str,
    tensors: Sequence[tuple[str, Any]],
    cell: Callable[[list[Any]], Cell],
    legend: Sequence[tuple[str, str]],
) -> Map:
    """Return a map of *tensors* by the first number in their names, and by the rest of these."""
    cells: dict[str, dict[int, list[Any]]] = {}
    for name, value in tensors:
        kind, layer = _kind_and_layer(name)
        cells.setdefault(kind, {}).setdefault(layer, []).append(value)
    layers = sorted(set(chain.from_iterable(cells.values())))[:_MOST_COLUMNS]
    rows = tuple(
        (kind, tuple(cell(row[layer]) if layer in row else None for layer in layers))
        for kind, row in cells.items()
    )
    columns = tuple("" if layer < 0 else str(layer) for layer in layers)
    return Map(title, columns, rows[:_MOST_ROWS], tuple(legend))


def _kind_and_layer(name: str) -> tuple[str, int]:
    """Return a tensor's name with * for its numbers, and the first of them; -1 without any."""
    first = _NUMBER.search(name)
    return _NUMBER.sub("*", name), -1 if first is None else int(first[0])


def _times(count: int) -> str:
    """Return how many tensors a cell stands for, unless it is one."""
    return f", {count:,} tensors" if count > 1 else ""


def _shape(shape: Sequence[int]) -> str:
    """Return a shape as people write it."""
    return " x ".join(map(str, shape)) or "scalar"


def _figure(value: object) -> str:
    """Return a number as a table shows it, anything else as text."""
    if isinstance(value, float):
        return f"{value:.3g}" if value else "0"
    return f"{value:,}" if isinstance(value, int) else str(value)
