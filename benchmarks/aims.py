"""What recast aims at, beside what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import growth, ways
from benchmarks.measure import Run
from benchmarks.rounds import Results

MOST_MEMORY = 120.0  # MB, of a whole process, whatever the model


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim, and whether it was reached.

    Attributes:
        aim: what is aimed at, and in which unit.
        limit: the most that it should be, or the least.
        measured: what it is.
        at_least: whether *limit* is the least.
    """

    aim: str
    limit: float
    measured: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the measured figure is within the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def of_conversions(results: Results) -> Iterator[Verdict]:
    """Yield what is aimed at for a checkpoint of about 2 GB, and for starting."""

    def times(way: str, other: str) -> float:
        return results[way].ratio(results[other])

    def work(way: str, other: str) -> float:
        return results[way].ratio(results[other], _work)

    yield Verdict("recast, of `cp -r`", 0.75, times(ways.RECAST, ways.COPY))
    yield Verdict(
        "conversion alone, of the I/O floor alone", 1.15, work(ways.FROM_PYTHON, ways.FLOOR)
    )
    yield Verdict("by hand, of recast", 4, times(ways.BY_HAND, ways.RECAST), at_least=True)
    if ways.TRANSFORMERS in results:
        yield Verdict(
            "transformers, of recast", 8, times(ways.TRANSFORMERS, ways.RECAST), at_least=True
        )
    yield Verdict("with evidence, of without", 1.15, times(ways.FROM_PYTHON, ways.NO_EVIDENCE))
    yield Verdict("verifying, of converting", 1.3, times(ways.VERIFY, ways.RECAST))
    yield Verdict("`recast --scan`, of `cat`", 1.2, times(ways.SCAN, ways.READ_ALL))
    yield Verdict("looking alone, of `cat`", 1.2, work(ways.SCAN_FROM_PYTHON, ways.READ_ALL))
    yield Verdict(
        "durable, of `cp -r`, `sync -f`", 0.75, times(ways.DURABLE_RECAST, ways.DURABLE_COPY)
    )
    rows = (
        ways.RECAST,
        ways.FROM_PYTHON,
        ways.NO_EVIDENCE,
        ways.VERIFY,
        ways.SCAN,
        ways.DURABLE_RECAST,
    )
    peak = max(results[name].peak_rss for name in rows)
    yield Verdict("most memory of any recast above, MB", MOST_MEMORY, peak / 1e6)
    yield Verdict("`recast --version`, s", 0.15, results[ways.VERSION].wall)
    yield Verdict("`recast --help`, s", 0.2, results[ways.HELP].wall)


def of_growth(measured: Sequence[growth.Measured]) -> Iterator[Verdict]:
    """Yield what is aimed at for large checkpoints, and for those of many tensors."""
    last = {each.case.quantity: each for each in measured}  # the largest of each
    large, many = last[growth.BYTES], last[growth.TENSORS]
    yield Verdict(
        f"{large.case.units / 1e9:g} GB, of `cp -r`",
        0.6,
        large.results[ways.RECAST].ratio(large.results[ways.COPY]),
    )
    yield Verdict(
        f"looking at {large.case.units / 1e9:g} GB, of `cat`",
        1.2,
        large.results[ways.SCAN].ratio(large.results[ways.READ_ALL]),
    )
    yield Verdict(
        f"{many.case.units:,} small tensors, µs a tensor",
        15,
        many.results[ways.RECAST].wall / many.case.units * 1e6,
    )
    headers = last[growth.HEADERS]
    yield Verdict(
        f"inspecting {headers.case.shards} shards with {headers.case.units:,} tensors, s",
        1.0,
        headers.results[growth.INSPECT].wall,
    )
    peak = max(
        figures.peak_rss
        for each in measured
        for name, figures in each.results.items()
        if name not in (ways.COPY, ways.READ_ALL)
    )
    yield Verdict("most memory of any recast above, MB", MOST_MEMORY, peak / 1e6)


def _work(run: Run) -> float:
    """Return the seconds of the work alone."""
    return run.wall if run.inner is None else run.inner
