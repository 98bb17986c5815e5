"""Fleets: how they scale from one worker to two, and how many shard jobs a second they do."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import recast
from benchmarks import checkpoints
from benchmarks.measure import BenchmarkError
from benchmarks.places import workplace

MB, GB = 10**6, 10**9
_NEEDED = 2.5  # times the bytes of the checkpoints: themselves, and those being repaired
_LONG_AGO = 10**18  # ns: so that no trainer seems to be at work
_BLOCKS = 64 << 10  # bytes that a tiny checkpoint may take on a disk


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet: how many checkpoints of how many bytes, in how many shards each."""

    checkpoints: int
    nbytes: int
    shards: int


CASES = (Case(8, GB // 4, 2), Case(5_000, 4_000, 1))
QUICK_CASES = (Case(2, 2 * MB, 2), Case(20, 4_000, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """One fleet, repaired in place in one way: the median of some rounds.

    Attributes:
        case: the fleet.
        executor: "threads" or "processes".
        workers: how many of them.
        seconds: from before `convert_all` until it has returned.
        jobs: the shard jobs: in place, each shard is looked at and then converted.
    """

    case: Case
    executor: str
    workers: int
    seconds: float
    jobs: int


def measure_fleets(cases: Iterable[Case], asked: Path | None, rounds: int) -> Iterator[Row]:
    """Measure *cases*, each in a folder of its own, in *asked* or where there is room."""
    for case in cases:
        size = case.checkpoints * (case.nbytes + _BLOCKS)
        with workplace(int(_NEEDED * size), asked) as folder:
            _save(folder / "saved", case)
            for executor in ("threads", "processes"):
                for workers in (1, 2):
                    taken = [_repair(folder, executor, workers) for _ in range(rounds)]
                    jobs = 2 * case.checkpoints * case.shards
                    yield Row(case, executor, workers, median(taken), jobs)


def _save(root: Path, case: Case) -> None:
    """Save a fleet of like checkpoints."""
    first = root / "run-0"
    first.mkdir(parents=True)
    if case.nbytes < MB:
        checkpoints.small(first, max(1, case.nbytes // 1024), case.shards)
    else:
        checkpoints.llama(first, case.nbytes, case.shards)
    for path in first.iterdir():
        os.utime(path, ns=(_LONG_AGO, _LONG_AGO))
    for number in range(1, case.checkpoints):
        shutil.copytree(first, root / f"run-{number}")


def _repair(folder: Path, kind: str, workers: int) -> float:
    """Repair a copy of the fleet in place; return the seconds that it took."""
    runs = folder / "runs"
    shutil.copytree(folder / "saved", runs)
    try:
        paths = list(recast.discover(runs))
        with _executor(kind, workers) as executor:
            at_once = 4 * workers if executor else workers
            begun = time.perf_counter()
            done = recast.convert_all(paths, "bf16", executor, in_place=True, workers=at_once)
            seconds = time.perf_counter() - begun
        if wrong := [each for each in done if each.fate is not recast.Fate.REPAIRED]:
            raise BenchmarkError(f"{wrong[0].path}: {wrong[0].fate}: {wrong[0].error}")
    finally:
        shutil.rmtree(runs)
    return seconds


def _executor(kind: str, workers: int) -> ProcessPoolExecutor | nullcontext[Executor | None]:
    """Return who does the jobs: processes that have loaded what they need, or own threads."""
    if kind == "threads":
        return nullcontext(None)
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    for job in [pool.submit(_load) for _ in range(2 * workers)]:
        job.result()
    return pool


def _load() -> None:
    """Load what jobs need, so that it is not measured."""


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table."""
    lines = [
        "| checkpoints | bytes each | executor | workers | seconds | GB/s of source | jobs/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        moved = row.case.checkpoints * row.case.nbytes / row.seconds / GB
        lines.append(
            f"| {row.case.checkpoints:,} | {row.case.nbytes:,} | {row.executor} | {row.workers} "
            f"| {row.seconds:.2f} | {moved:.2f} | {row.jobs / row.seconds:,.0f} |"
        )
    return "\n".join(lines)
