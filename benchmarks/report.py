"""The figures as Markdown, and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from benchmarks import growth
from benchmarks.aims import Verdict
from benchmarks.growth import Measured
from benchmarks.rounds import Figures, Results
from benchmarks.ways import Section

_BYTES = (growth.BYTES, growth.ONE_TENSOR)


def machine(words: Mapping[str, str]) -> str:
    """Return what was measured on."""
    return "\n".join(f"- {key}: {value}" for key, value in words.items())


def section(made: Section, results: Results, own_memory: int) -> str:
    """Return the table of a section.

    Args:
        made: which rows, in which order.
        results: the figures of each row.
        own_memory: the bytes of the benchmark itself; the kernel does not tell less than that.
    """
    found = [results[each.name] for each in made.contenders if each.name in results]
    beside = next((each.beside for each in found if each.beside), "")
    head = ["", "wall", "least", "alone", "CPU", "peak RSS"] + ([f"of {beside}"] if beside else [])
    rows = []
    for each in found:
        alone = "" if each.inner is None else _seconds(each.inner)
        row = [each.name, _seconds(each.wall), _seconds(each.least_wall), alone]
        row += [_seconds(each.cpu), _memory(each, own_memory)]
        rows.append(row + ([f"{each.ratio(results[beside]):.2f}"] if beside else []))
    return f"### {made.title}\n\n" + table(head, rows)


def grown(measured: Sequence[Measured], own_memory: int) -> str:
    """Return the table of what grows."""
    head = ["", "", "wall", "least", "CPU", "peak RSS", "a unit", "each further"]
    head.append("of `cp -r` or `cat`")
    rows = []
    before: dict[tuple[str, str], tuple[int, float]] = {}
    for each in measured:
        case = each.case
        for name, figures in each.results.items():
            row = [_amount(case), name, _seconds(figures.wall), _seconds(figures.least_wall)]
            row += [_seconds(figures.cpu), _memory(figures, own_memory)]
            row.append(_rate(case.quantity, figures.wall, case.units))
            fewer, faster = before.get((case.quantity, name), (0, 0.0))
            further = _rate(case.quantity, figures.wall - faster, case.units - fewer)
            row.append(further if fewer else "")
            copied = each.results.get(figures.beside)
            row.append(f"{figures.ratio(copied):.2f}" if copied else "")
            rows.append(row)
            before[case.quantity, name] = case.units, figures.wall
    return "### What grows\n\n" + table(head, rows, left=2)


def verdicts(found: Iterable[Verdict]) -> str:
    """Return the table of what is aimed at."""
    rows = [
        [
            each.aim,
            f"{'≥' if each.at_least else '≤'} {each.limit:g}",
            f"{each.measured:.3g}",
            "yes" if each.reached else "**no**",
        ]
        for each in found
    ]
    return "### Aims\n\n" + table(["", "aim", "measured", "reached"], rows)


def as_document(results: Results) -> list[dict[str, object]]:
    """Return every run of every row, for JSON."""
    return [asdict(each) for each in results.values()]


def grown_document(measured: Iterable[Measured]) -> list[dict[str, object]]:
    """Return every run of every case, for JSON."""
    return [{"case": asdict(each.case), "rows": as_document(each.results)} for each in measured]


def verdict_documents(found: Iterable[Verdict]) -> list[dict[str, object]]:
    """Return every aim, for JSON."""
    return [{**asdict(each), "reached": each.reached} for each in found]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table, its first *left* columns to the left and the others right."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _amount(case: growth.Case) -> str:
    """Return how much of its quantity a checkpoint has."""
    much = f"{case.units / 1e9:g} GB" if case.quantity in _BYTES else f"{case.units:,}"
    return f"{case.quantity}: {much}"


def _rate(quantity: str, seconds: float, units: int) -> str:
    """Return what *units* cost: bytes by the second, anything else by the piece."""
    if seconds <= 0:  # more took less time: what disturbed one did not disturb the other
        return ""
    if quantity in _BYTES:
        return f"{units / seconds / 1e9:.2f} GB/s"
    each = seconds / units
    return f"{each * 1e3:.2f} ms" if quantity == growth.SHARDS else f"{each * 1e6:.1f} µs"


def _seconds(seconds: float) -> str:
    """Return a time."""
    return f"{seconds:.3f} s"


def _memory(figures: Figures, own_memory: int) -> str:
    """Return the most memory, in MB."""
    few = "<" if figures.peak_rss <= own_memory else ""
    return f"{few} {max(figures.peak_rss, own_memory) / 1e6:.0f} MB".strip()


def replace_between(text: str, name: str, content: str) -> str:
    """Return *text* with *content* between the comments that mark the place *name*."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{content}{end}{after}"
