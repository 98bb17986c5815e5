"""Fleets of different shapes, looked at and repaired: how long it takes, and in how much memory."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from benchmarks import fitting, report
from benchmarks.measure import ROOT, Run, run
from benchmarks.places import workplace
from benchmarks.rounds import say
from benchmarks.ways import recast as command
from benchmarks.ways import script
from recast.planning.estimate import Rates, Work
from recast.planning.rates import dump

KB, MB, GB = 10**3, 10**6, 10**9
_NEEDED = 2.6  # times the bytes of the checkpoints: themselves, and those being repaired
_BLOCKS = 64 * KB  # bytes that the small files of a checkpoint may take on a disk

LOOK, ANEW = "a look", "new folder"
IN_PLACE, AGAIN, PROCESSES = "in place", "already right", "in place, processes"


@dataclass(frozen=True, slots=True)
class Part:
    """Like checkpoints: how many, of how many bytes, in how many shards each."""

    checkpoints: int
    nbytes: int
    shards: int


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet, and the ways in which it is dealt with.

    Attributes:
        name: as the table has it.
        parts: what it is made of.
        ways: each with its number of workers.
        most_rounds: how often at most it is done, since some fleets take long.
    """

    name: str
    parts: tuple[Part, ...]
    ways: tuple[tuple[str, int], ...]
    most_rounds: int = 9


_BOTH = ((IN_PLACE, 1), (IN_PLACE, 2))
_ALL = (*_BOTH, (PROCESSES, 1), (PROCESSES, 2))

CASES = (
    Case("2 of 1 GB in 1 file", (Part(2, GB, 1),), ((ANEW, 1), *_ALL)),
    Case("8 of 250 MB in 2 files", (Part(8, GB // 4, 2),), ((ANEW, 1), (ANEW, 2), *_ALL)),
    Case("1 of 1 GB, 500 of 4 kB", (Part(1, GB, 1), Part(500, 4 * KB, 1)), _ALL),
    Case("100 of 1 MB in 16 files", (Part(100, MB, 16),), ((ANEW, 1), *_BOTH, (AGAIN, 1))),
    Case("1 of 4 kB", (Part(1, 4 * KB, 1),), ((IN_PLACE, 1), (AGAIN, 1))),
    Case("500 of 4 kB", (Part(500, 4 * KB, 1),), (*_BOTH, (AGAIN, 1), (LOOK, 1))),
    Case("5,000 of 4 kB", (Part(5_000, 4 * KB, 1),), (*_ALL, (AGAIN, 1)), 1),
    Case("10,000 of 4 kB", (Part(10_000, 4 * KB, 1),), ((LOOK, 1),), 1),
)
# To see that all of it works, not to learn anything.
QUICK_CASES = (
    Case("2 of 2 MB", (Part(2, 2 * MB, 2),), ((ANEW, 1), *_BOTH)),
    Case("1 of 2 MB, 5 of 4 kB", (Part(1, 2 * MB, 1), Part(5, 4 * KB, 1)), _ALL[-1:]),
    Case("20 of 4 kB", (Part(20, 4 * KB, 1),), (*_BOTH, (AGAIN, 1), (LOOK, 1))),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One fleet, dealt with in one way, in some rounds.

    Attributes:
        fleet: its name.
        way: how it was dealt with.
        workers: how many took part.
        todo: the work, as an estimate sees it.
        runs: the process of each round.
    """

    fleet: str
    way: str
    workers: int
    todo: Work
    runs: tuple[Run, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the time is that of a whole process; else, of the work without its start."""
        return self.way != PROCESSES

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return median(run.wall if run.inner is None else run.inner for run in self.runs)

    @property
    def peak_rss(self) -> int:
        """The most bytes of memory that one process had resident in any round."""
        return max(run.peak_rss for run in self.runs)

    @property
    def jobs(self) -> int:
        """The shard jobs: in place, each shard is looked at and then converted."""
        return self.todo.shards * (2 if self.todo.bytes_scanned else 1)


def measure_fleets(cases: Iterable[Case], asked: Path | None, rounds: int) -> Iterator[Row]:
    """Measure *cases*, each in a folder of its own, in *asked* or where there is room."""
    for case in cases:
        size = sum(part.checkpoints * (part.nbytes + _BLOCKS) for part in case.parts)
        with workplace(int(_NEEDED * size), asked) as folder:
            parts = [n for part in case.parts for n in astuple(part)]
            run(script("by_fleet", "save", folder / "saved", *parts))
            fleet = _Fleet(case, folder)
            for way, workers in case.ways:
                say(f"{case.name}: {way}, workers: {workers}")
                runs = tuple(
                    fleet.deal_with(way, workers) for _ in range(min(rounds, case.most_rounds))
                )
                yield Row(case.name, way, workers, fleet.todo(way), runs)


class _Fleet:
    """A saved fleet, of which each round gets a copy."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._saved = folder / "saved"
        self._runs = folder / "runs"
        self._out = folder / "out"
        self._work: dict[str, Work] = {}

    def deal_with(self, way: str, workers: int) -> Run:
        """Do it once, with a fresh copy if it is changed."""
        convert = command(self._runs, "-r", "--to", "bf16", "-q", "--workers", workers)
        if way == LOOK:
            return run(command(self._saved, "-r", "--to", "bf16", "-n", "-q"))
        if way == ANEW:
            convert = command(
                self._saved, "-r", "--to", "bf16", "-o", self._out, "-q", "--workers", workers
            )
            return self._removing(self._out, convert)
        shutil.copytree(self._saved, self._runs)
        if way == PROCESSES:
            return self._removing(self._runs, script("by_fleet", "repair", self._runs, workers))
        if way == AGAIN:
            run((*convert, "--in-place"))
            self._work.setdefault(way, _work(self._runs, in_place=True))
        return self._removing(self._runs, (*convert, "--in-place"))

    def todo(self, way: str) -> Work:
        """Return the work of *way*, as `recast -n` reckons it."""
        if way not in self._work:
            todo = _work(self._saved, in_place=way in (IN_PLACE, PROCESSES))
            if way == LOOK:  # nothing of what it finds out is done
                todo = Work(todo.checkpoints, todo.weights_files, todo.other_files)
            self._work[way] = todo
        return self._work[way]

    @staticmethod
    def _removing(folder: Path, convert: tuple[str, ...]) -> Run:
        """Run a command, and remove what it has left."""
        try:
            return run(convert)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _work(root: Path, *, in_place: bool) -> Work:
    """Return what is to be done to the fleet in *root*, as `recast -n` reckons it."""
    where = "in-place" if in_place else "anew"
    said = subprocess.run(
        script("by_fleet", "work", root, where), cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    return Work(**json.loads(said.stdout))


def table(rows: Sequence[Row], rates: Rates, own_memory: int) -> str:
    """Return the rows as a table, beside what the model predicts with *rates*."""
    head = ["fleet", "way", "workers", "seconds", "GB/s of source", "jobs/s", "peak RSS"]
    head.append("predicted")
    body = []
    for row in rows:
        moved, jobs = row.todo.bytes_cast / row.seconds / GB, row.jobs / row.seconds
        least = "< " if row.peak_rss <= own_memory else ""
        body.append(
            [
                *(row.fleet, row.way, str(row.workers), f"{row.seconds:.2f}"),
                f"{moved:.2f}" if row.todo.bytes_cast > GB else "",
                f"{jobs:,.0f}" if row.jobs else "",
                f"{least}{max(row.peak_rss, own_memory) / MB:.0f} MB",
                f"{fitting.predicted(row, rates) / row.seconds:.2f}",
            ]
        )
    return report.table(head, body, left=2)


def text(rows: Sequence[Row], rates: Rates, words: Mapping[str, str], own_memory: int) -> str:
    """Return all that was learned: the machine, the rows, and the rates that fit them."""
    said = (
        "The rates that fit these rows best, by least squares of the relative errors; "
        "**predicted** is what the model says with them, of what was measured:"
    )
    return "\n\n".join(
        (
            "## Fleets",
            report.machine(words),
            table(rows, rates, own_memory),
            said,
            f"```json\n{dump(rates)}```",
        )
    )
