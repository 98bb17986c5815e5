"""What is done to a fleet in a process of its own, so that the benchmark itself stays small.

What the benchmark has ever held in memory would count as its children's.

python -m benchmarks.by_fleet save FOLDER CHECKPOINTS BYTES SHARDS [CHECKPOINTS BYTES SHARDS]...
python -m benchmarks.by_fleet work FOLDER in-place|anew    print what is to be done
python -m benchmarks.by_fleet repair FOLDER WORKERS        with processes; print the seconds
"""

import json
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import recast
from benchmarks import checkpoints
from benchmarks.measure import BenchmarkError
from recast.execution.fleets.survey import survey_all
from recast.reports.fleet import work

_IN_FLIGHT = 4  # jobs given out for each worker, so that none waits
_LONG_AGO = 10**18  # ns: so that no trainer seems to be at work
_MB = 10**6


def main() -> None:
    """Do what the command line says."""
    what, folder, *rest = sys.argv[1:]
    if what == "save":
        save(Path(folder), list(map(int, rest)))
    elif what == "work":
        in_place = rest == ["in-place"]
        surveys = survey_all(recast.discover(folder), "bf16")
        print(json.dumps(asdict(work(surveys, in_place=in_place, scans=in_place))))
    else:
        print(json.dumps({"seconds": repair(Path(folder), int(rest[0]))}))


def save(root: Path, numbers: list[int]) -> None:
    """Save a fleet: of each part, how many checkpoints, of how many bytes, in how many shards."""
    number = 0
    for begin in range(0, len(numbers), 3):
        count, nbytes, shards = numbers[begin : begin + 3]
        first = root / f"run-{number}"
        first.mkdir(parents=True)
        if nbytes < _MB:
            checkpoints.small(first, max(1, nbytes // 1024), shards)
        elif shards == 1:
            checkpoints.one(first, nbytes, 1)
        else:
            checkpoints.llama(first, nbytes, shards)
        for path in first.iterdir():
            os.utime(path, ns=(_LONG_AGO, _LONG_AGO))
        for copy in range(number + 1, number + count):
            shutil.copytree(first, root / f"run-{copy}")
        number += count


def repair(folder: Path, workers: int) -> float:
    """Repair a fleet in place, in processes that have loaded what they need."""
    paths = list(recast.discover(folder))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for job in [pool.submit(load) for _ in range(2 * workers)]:
            job.result()
        begun = time.perf_counter()
        at_once = _IN_FLIGHT * workers
        done = recast.convert_all(paths, "bf16", pool, in_place=True, workers=at_once)
        seconds = time.perf_counter() - begun
    if wrong := [each for each in done if each.fate is not recast.Fate.REPAIRED]:
        raise BenchmarkError(f"{wrong[0].path}: {wrong[0].fate}: {wrong[0].error}")
    return seconds


def load() -> None:
    """Nothing: importing this module has loaded what jobs need."""


if __name__ == "__main__":
    main()
