"""Contenders, run in turn, round after round, so that whatever disturbs one disturbs them all."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.measure import Run, run


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: as the table has it.
        commands: the processes, one after another, whose time is added up.
        out: what they write, removed after each of them and outside of the time.
        beside: the contender that it is compared with; "" for none.
        rounds: at most so many, for what takes long; None for all.
        prepare: what to do before each round, outside of the time.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    out: Path | None = None
    beside: str = ""
    rounds: int | None = None
    prepare: Callable[[], None] | None = None


@dataclass(slots=True)
class Figures:
    """The runs of one contender, and those of the one it is compared with in the same rounds."""

    name: str
    beside: str
    runs: list[Run] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """The median of the seconds that a whole process took."""
        return median(run.wall for run in self.runs)

    @property
    def least_wall(self) -> float:
        """The fewest seconds: what it takes when nothing disturbs it."""
        return min(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """The median of the seconds of processor time."""
        return median(run.cpu for run in self.runs)

    @property
    def peak_rss(self) -> int:
        """The most bytes of memory in any round."""
        return max(run.peak_rss for run in self.runs)

    @property
    def inner(self) -> float | None:
        """The median of the seconds of the work alone, if the process says them."""
        inner = [run.inner for run in self.runs if run.inner is not None]
        return median(inner) if inner else None

    def ratio(self, other: "Figures", of: Callable[[Run], float] = lambda run: run.wall) -> float:
        """Return the median, over the rounds that both ran in, of this one's time to *other*'s.

        A machine that is slow for a while is slow for both, so this varies less than the
        ratio of the medians.
        """
        pairs = zip(self.runs, other.runs, strict=False)  # some ways run in the first rounds only
        return median(of(mine) / of(theirs) for mine, theirs in pairs)


Results = Mapping[str, Figures]


def measure(contenders: Sequence[Contender], rounds: int) -> Results:
    """Run every contender once a round. Returns the figures of each, by its name."""
    results = {each.name: Figures(each.name, each.beside) for each in contenders}
    for number in range(rounds):
        for each in contenders:
            if each.rounds is None or number < each.rounds:
                say(f"round {number + 1} of {rounds}: {each.name}")
                results[each.name].runs.append(_run(each))
    return {name: each for name, each in results.items() if each.runs}


def _run(contender: Contender) -> Run:
    """Run the commands of one contender, once."""
    if contender.prepare is not None:
        contender.prepare()
    return in_all([_alone(command, contender.out) for command in contender.commands])


def _alone(command: Sequence[str], out: Path | None) -> Run:
    """Run one command, and remove what it has written."""
    try:
        return run(command)
    finally:
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)


def in_all(runs: Sequence[Run]) -> Run:
    """Return what several processes, one after another, took together."""
    inner = [run.inner for run in runs if run.inner is not None]
    return Run(
        sum(run.wall for run in runs),
        sum(run.cpu for run in runs),
        max(run.peak_rss for run in runs),
        sum(inner) if inner else None,
    )


def say(message: str) -> None:
    """Tell somebody who waits at a terminal how far it is; the last such message stays."""
    if sys.stderr.isatty():
        print(f"\r\033[K{message}", end="", file=sys.stderr, flush=True)
