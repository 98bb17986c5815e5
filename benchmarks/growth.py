"""What grows: time and memory as the bytes, the tensors and the shards become more."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import run
from benchmarks.places import room, workplace
from benchmarks.rounds import Contender, Results, measure, say
from benchmarks.ways import (
    COPY,
    READ_ALL,
    RECAST,
    SCAN,
    VERIFY,
    copy,
    looks,
    recast,
    script,
    size_of,
    touch,
)

INSPECT = "`recast`, inspecting"
DRY_RUN = "`recast -n`"

MB, GB = 10**6, 10**9
BYTES, TENSORS, SHARDS = "bytes", "tensors", "shards"
ONE_TENSOR, HEADERS = "bytes of one tensor", "tensors in many shards, headers alone"
_TENSOR_BYTES = 1024
_NEEDED = 1.6  # times the bytes of the source: itself, its conversion, and some


@dataclass(frozen=True, slots=True)
class Case:
    """One checkpoint.

    Attributes:
        quantity: what there is more and more of.
        units: how much of it this one has.
        kind: what `benchmarks.checkpoints` calls it.
        count: its bytes, or its tensors.
        shards: its shards.
        size: the bytes that it takes.
        ways: the contenders to run.
    """

    quantity: str
    units: int
    kind: str
    count: int
    shards: int
    size: int
    ways: tuple[str, ...]


def _bytes(size: int, shards: int) -> Case:
    return Case(BYTES, size, "llama", size, shards, size, (COPY, RECAST, READ_ALL, SCAN))


def _tensors(count: int) -> Case:
    return Case(TENSORS, count, "small", count, 1, count * _TENSOR_BYTES, (RECAST, VERIFY))


def _shards(count: int, size: int) -> Case:
    return Case(SHARDS, count, "llama", size, count, size, (RECAST,))


def _one_tensor(size: int) -> Case:
    return Case(ONE_TENSOR, size, "one", size, 1, size, (RECAST,))


def _headers(count: int, shards: int) -> Case:
    return Case(HEADERS, count, "experts", count, shards, 0, (INSPECT, DRY_RUN))


CASES = (
    *(_bytes(GB // 2, 2), _bytes(2 * GB, 6), _bytes(8 * GB, 24)),
    *(_tensors(100), _tensors(1_000), _tensors(10_000), _tensors(100_000)),
    *(_shards(1, GB // 2), _shards(20, GB // 2), _shards(200, GB // 2)),
    *(_one_tensor(64 * MB), _one_tensor(2 * GB), _one_tensor(6 * GB)),
    _headers(90_000, 160),
)
# To see that all of it works, not to learn anything.
QUICK_CASES = (
    *(_bytes(5 * MB, 2), _bytes(20 * MB, 6)),
    *(_tensors(100), _tensors(1_000)),
    *(_shards(1, 5 * MB), _shards(5, 5 * MB)),
    _one_tensor(20 * MB),
    _headers(900, 16),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One checkpoint, and what the contenders made of it."""

    case: Case
    results: Results


def measure_growth(cases: tuple[Case, ...], asked: Path | None, rounds: int) -> Iterator[Measured]:
    """Measure *cases*, each in a folder of its own, in *asked* or where there is room."""
    for case in cases:
        with workplace(int(_NEEDED * case.size), asked) as folder:
            yield Measured(case, _measure(case, folder, rounds))


def _measure(case: Case, folder: Path, rounds: int) -> Results:
    """Write one checkpoint, and measure it."""
    source, out, converted = (folder / name for name in ("source", "out", "converted"))
    spare = room(folder) - case.size
    say(f"{case.quantity}: {case.units:,}")
    run(script("checkpoints", case.kind, source, case.count, case.shards))
    if VERIFY in case.ways:
        run(recast(source, "--to", "bf16", "-o", converted, "-q"))
    commands = {
        COPY: _copies(source, out, spare),
        RECAST: (recast(source, "--to", "bf16", "-o", out, "-q"),),
        VERIFY: (recast(converted, "--against", source),),
        INSPECT: (recast(source),),
        DRY_RUN: (recast(source, "--to", "bf16", "-n"),),
    }
    prepare = touch(max(MB, min(case.size, spare)))
    writing = [
        Contender(name, commands[name], out, COPY, prepare=prepare)
        for name in case.ways
        if name in commands
    ]
    looking = [each for each in looks(source).contenders if each.name in case.ways]
    return measure([*writing, *looking], rounds)


def _copies(source: Path, out: Path, spare: int) -> tuple[tuple[str, ...], ...]:
    """Return the commands that copy *source*: one, or as many as *spare* bytes make necessary.

    Each fills *out* with its part of the files, and what it has written is then removed.
    """
    files = sorted(source.iterdir())
    parts = min(len(files), -(-size_of(source) // max(1, spare)))
    if parts <= 1:
        return (copy(source, out),)
    into = ("sh", "-c", 'mkdir "$0" && cp -r "$@" "$0"', str(out))
    return tuple((*into, *map(str, files[part::parts])) for part in range(parts))
