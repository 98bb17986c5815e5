"""Maps: tensors by kind and layer, with a colour for what one wants to see of them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from math import floor, log2
from typing import Any

from recast.dtypes import Dtype
from recast.reports.evidence import Evidence
from recast.reports.page.parts import Cell, Map
from recast.reports.scan import TensorScan

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")
_MOST_ROWS = 5000
_MOST_COLUMNS = 200
_STEPS = 6  # of errors that are told apart by colour, each a quarter of the one before


def maps(*maps: Map) -> tuple[Map, ...]:
    """Return those maps that have something to show."""
    return tuple(each for each in maps if each.rows)


def dtype_map(tensors: Iterable[tuple[str, Dtype]]) -> Map:
    """Return which kinds have which dtype, layer by layer."""

    def cell(dtypes: list[Dtype]) -> Cell:
        names = sorted({each.torch_name for each in dtypes})
        colour = dtypes[0].value if len(names) == 1 else "mixed"
        return Cell(colour, f"{', '.join(names)}{_times(len(dtypes))}")

    listed = list(tensors)
    legend = [(each.value, each.torch_name) for each in dict.fromkeys(d for _, d in listed)]
    drawn = _mapped("Dtypes by kind and layer", listed, cell, legend)
    if any(each is not None and each.colour == "mixed" for _, row in drawn.rows for each in row):
        return replace(drawn, legend=(*drawn.legend, ("mixed", "several")))
    return drawn


def error_map(evidence: Iterable[Evidence]) -> Map:
    """Return how large the largest error is, layer by layer, in steps of a factor of four."""
    listed = list(evidence)
    top = floor(log2(max((each.largest_error for each in listed), default=0) or 1))

    def colour(each: Evidence) -> str:
        if each.overflowed:
            return "overflow"
        if not each.largest_error:
            return "exact"
        return f"error{min(_STEPS - 1, (top - floor(log2(each.largest_error))) // 2)}"

    def cell(found: list[Evidence]) -> Cell:
        worst = max(found, key=lambda each: (each.overflowed, each.largest_error))
        if worst.lossless:
            return Cell("exact", f"lossless{_times(len(found))}")
        hint = f"largest error {worst.largest_error:.3g}, {worst.changed:,} values changed"
        if worst.overflowed:
            hint = f"{worst.overflowed:,} finite values became infinite"
        elif worst.underflowed:
            hint += f", {worst.underflowed:,} of them to zero"
        return Cell(colour(worst), f"{hint} in {worst.name}")

    used = {colour(each) for each in listed}
    meanings = [f"{2.0 ** (top - 2 * number - 1):.2g} or more" for number in range(_STEPS - 1)]
    meanings.append("less")
    legend = [(f"error{number}", meaning) for number, meaning in enumerate(meanings)]
    legend += [("exact", "lossless"), ("overflow", "became infinite")]
    pairs = [(each.name, each) for each in listed]
    shown = [each for each in legend if each[0] in used]
    return _mapped("Largest error by kind and layer", pairs, cell, shown)


def mantissa_map(tensors: Iterable[TensorScan]) -> Map:
    """Return how many bits of the mantissa are in use, layer by layer."""
    steps = (("bits7", 7, "7 bits or less: bf16"), ("bits10", 10, "10 bits or less: fp16"))

    def cell(found: list[TensorScan]) -> Cell:
        most = max(each.mantissa_bits for each in found)
        colour = next((name for name, limit, _ in steps if most <= limit), "bits23")
        return Cell(colour, f"{most} mantissa bits in use{_times(len(found))}")

    legend = [*((name, meaning) for name, _, meaning in steps), ("bits23", "more: fp32")]
    pairs = [(each.name, each) for each in tensors]
    return _mapped("Mantissa bits in use by kind and layer", pairs, cell, legend)


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
    every = sorted(set(chain.from_iterable(cells.values())))
    layers = every[:_MOST_COLUMNS]
    rows = tuple(
        (kind, tuple(cell(row[layer]) if layer in row else None for layer in layers))
        for kind, row in cells.items()
    )
    columns = tuple("" if layer < 0 else str(layer) for layer in layers)
    return Map(title, columns, rows[:_MOST_ROWS], tuple(legend), len(every) - len(layers))


def _kind_and_layer(name: str) -> tuple[str, int]:
    """Return a tensor's name with * for its numbers, and the first of them; -1 without any."""
    first = _NUMBER.search(name)
    return _NUMBER.sub("*", name), -1 if first is None else int(first[0])


def _times(count: int) -> str:
    """Return how many tensors a cell stands for, unless it is one."""
    return f", {count:,} tensors" if count > 1 else ""
