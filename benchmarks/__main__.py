"""The command: measure, print Markdown, write JSON.

python -m benchmarks             recast beside cp, the I/O floor and other ways
python -m benchmarks --growth    recast, with more and more bytes, tensors and shards
python -m benchmarks --fleet     fleets of many shapes, and the rates that fit them
"""

import argparse
import json
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from benchmarks import aims, fitting, fleet, machine, report
from benchmarks.growth import CASES, QUICK_CASES, measure_growth
from benchmarks.measure import ROOT, BenchmarkError, run
from benchmarks.places import MEMORY, workplace
from benchmarks.rounds import measure
from benchmarks.ways import conversions, durable_conversions, looks, script, starts
from recast.execution.workers import default_workers
from recast.planning.rates import dump

README = ROOT / "benchmarks" / "README.md"
_NEEDED = 5  # times the bytes of the source: itself, its conversion, a copy, a loaded model
_NEEDED_ON_DISK = 2.2  # times: itself, and a copy
_FLEET_ROUNDS = 3  # at most: there are many, and some take long
_QUICK = {"size": 0.2, "rounds": 2, "transformers_rounds": 0}
_KIB = 1024


def main() -> None:
    """Measure what the command line asks for."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    try:
        name, tables = _what(arguments)
        text, document = tables(arguments)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit("benchmarks: interrupted; everything was removed")
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if arguments.record:
        page = report.replace_between(README.read_text(encoding="utf-8"), name, text)
        README.write_text(page, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--growth", action="store_true", help="measure what grows instead")
    parser.add_argument("--fleet", action="store_true", help="measure many checkpoints instead")
    parser.add_argument("--size", type=float, default=2.0, help="of the checkpoint, in GB")
    parser.add_argument("--shards", type=int, default=6, help="of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is taken")
    parser.add_argument(
        "--transformers-rounds", type=int, default=3, help="for transformers, which takes long"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work (default: in memory, if there is room)"
    )
    parser.add_argument(
        "--disk-folder", type=Path, default=ROOT, help="on the disk to be durable on"
    )
    parser.add_argument("--quick", action="store_true", help="small: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    parser.add_argument(
        "--rates", type=Path, metavar="FILE", help="with --fleet: write what `recast --rates` reads"
    )
    parser.add_argument("--record", action="store_true", help="put the tables in the README")
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**_QUICK)
        arguments = parser.parse_args()
    return arguments


Tables = Callable[[argparse.Namespace], tuple[str, dict[str, object]]]


def _what(arguments: argparse.Namespace) -> tuple[str, Tables]:
    """Return what to measure: its name, and the function that does it."""
    if arguments.fleet:
        return "fleet", _fleet
    return ("growth", _growth) if arguments.growth else ("conversion", _conversions)


def _fleet(arguments: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """Return the tables, as text and as a document, of fleets, and the rates that fit them."""
    cases = fleet.QUICK_CASES if arguments.quick else fleet.CASES
    rounds = min(arguments.rounds, _FLEET_ROUNDS)
    rows = list(fleet.measure_fleets(cases, arguments.folder, rounds))
    own = _own_memory()
    rates = fitting.fit(rows)
    words = machine.describe([arguments.folder or MEMORY])
    if arguments.rates:
        arguments.rates.write_text(dump(rates), encoding="utf-8")
    document = {
        "rows": [{**asdict(row), "predicted": fitting.predicted(row, rates)} for row in rows],
        "rates": asdict(rates),
    }
    return fleet.text(rows, rates, words, own), document


def _conversions(arguments: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """Return the tables, as text and as a document, of all ways to convert one checkpoint."""
    size, workers = int(arguments.size * 1e9), default_workers()
    with (
        workplace(_NEEDED * size, arguments.folder) as memory,
        workplace(int(_NEEDED_ON_DISK * size), arguments.disk_folder) as disk,
    ):
        for folder in (memory, disk):
            run(script("checkpoints", "llama", folder / "source", size, arguments.shards))
        sections = (
            conversions(memory / "source", workers, arguments.transformers_rounds),
            durable_conversions(disk / "source", workers),
            looks(memory / "source"),
            starts(),
        )
        contenders = [each for section in sections for each in section.contenders]
        results = measure(contenders, arguments.rounds)
        words = machine.describe((memory, disk))
    verdicts = list(aims.of_conversions(results))
    title = f"{arguments.size:g} GB in {arguments.shards} shards, {arguments.rounds} rounds"
    text = "\n\n".join(
        (
            f"## {title}\n\n{report.machine(words)}",
            *(report.section(section, results, _own_memory()) for section in sections),
            report.verdicts(verdicts),
        )
    )
    document = {
        "machine": words,
        "size": size,
        "shards": arguments.shards,
        "rows": report.as_document(results),
        "aims": report.verdict_documents(verdicts),
    }
    return text, document


def _growth(arguments: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """Return the table, as text and as a document, of what grows."""
    cases = QUICK_CASES if arguments.quick else CASES
    measured = list(measure_growth(cases, arguments.folder, arguments.rounds))
    verdicts = list(aims.of_growth(measured))
    text = "\n\n".join((report.grown(measured, _own_memory()), report.verdicts(verdicts)))
    document = {
        "cases": report.grown_document(measured),
        "aims": report.verdict_documents(verdicts),
    }
    return text, document


def _own_memory() -> int:
    """Return the most bytes of memory that this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _leave(_number: int, _frame: object) -> NoReturn:
    """End on a signal as on an error: what was made is removed."""
    sys.exit("benchmarks: terminated; everything was removed")


if __name__ == "__main__":
    main()
