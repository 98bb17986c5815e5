"""Lines for a terminal: what several texts are made of."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from recast.formats.checkpoint import File
from recast.formats.findings import Finding

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1000
SHOWN = 20  # lines of one kind, before the rest is counted only


def nbytes(count: float) -> str:
    """Return a number of bytes with a decimal unit, as the Hub's pages show it."""
    for unit in _UNITS:
        # Not 1000: what rounds to 1,000.00 reads better as 1.00 of the next unit.
        if round(abs(count), 0 if unit == "B" else 2) < _KILO or unit == _UNITS[-1]:
            break
        count /= _KILO
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.2f} {unit}"


def printable(text: str) -> str:
    """Return *text* on one line, with whatever a terminal would act on, or not show, escaped.

    Names of files and tensors come from strangers.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def findings_lines(found: Iterable[Finding]) -> Iterator[str]:
    """Yield each finding once, with the first of the files that it concerns, on two lines."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for each in found:
        remedy = f"{each.remedy}: {each.command}" if each.command else each.remedy
        key = (each.severity.value, each.name, each.problem, remedy)
        alike.setdefault(key, []).append(each.subject)
    entries = []
    for (severity, name, problem, remedy), (subject, *others) in alike.items():
        more = f" (and {len(others):,} more)" if others else ""
        entries.append((severity, f"{subject}{more}: {problem}", f"{remedy} [{name}]"))
    for severity, problem, remedy in entries[:SHOWN]:
        yield from labelled(severity, (problem, remedy))
    yield from labelled("", rest(len(entries)))


def left_out(files: Sequence[File]) -> Iterator[str]:
    """Yield what is no part of the model, by the top of its path."""
    sizes: Counter[tuple[str, str]] = Counter()
    for file in files:
        top, slash, _ = file.name.partition("/")
        sizes[top + slash, file.role.value] += file.size
    lines = [f"{top} ({why}, {nbytes(size)})" for (top, why), size in sorted(sizes.items())]
    yield from labelled("left out", shortened(lines))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 shard", "6 shards"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first *lines*, and how many more there are."""
    yield from lines[:SHOWN]
    yield from rest(len(lines))


def rest(count: int) -> Iterator[str]:
    """Yield how many of *count* lines were not shown, if any."""
    if count > SHOWN:
        yield f"and {count - SHOWN:,} more; --json lists them all"


def labelled(label: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield *lines*, indented behind a label that stands before the first."""
    for line in lines:
        yield f"  {label:<10}{line}"
        label = ""


def joined(lines: Iterable[str]) -> str:
    """Return *lines* as one text, in which nothing but their ends breaks a line."""
    return "\n".join(map(printable, lines))


def table(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Yield the lines of a table: the first *left* columns to the left, the others right."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()
