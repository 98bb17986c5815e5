"""The ways to convert a checkpoint that are compared, each a command."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import run
from benchmarks.rounds import Contender

COPY = "`cp -r`"
FLOOR = "I/O floor: the same bytes, no cast"
READ = "bare cast, read"
MAPPED = "bare cast, mapped"
RECAST = "`recast`"
FROM_PYTHON = "`recast.convert`"
NO_EVIDENCE = "`recast.convert(evidence=False)`"
BY_HAND = "load_file, `.to`, save_file by hand"
TRANSFORMERS = "transformers, load and save"
VERIFY = "`recast --against`"
READ_ALL = "`cat`, to `/dev/null`"
SCAN = "`recast --scan`"
SCAN_FROM_PYTHON = "`recast.scan`"
DURABLE_COPY = "`cp -r`, `sync -f`"
DURABLE_FLOOR = "I/O floor, fsync"
DURABLE_RECAST = "`recast`, durable"
BARE = "`python -c pass`"
IMPORT = "`import recast`"
VERSION = "`recast --version`"
HELP = "`recast --help`"

_PIECE_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Section:
    """A table: what it shows, and its rows."""

    title: str
    contenders: tuple[Contender, ...]


def recast(*arguments: object) -> tuple[str, ...]:
    """Return the command `recast` with *arguments*."""
    return (sys.executable, "-m", "recast", *map(str, arguments))


def script(name: str, *arguments: object) -> tuple[str, ...]:
    """Return the command that runs a module of this package."""
    return (sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments))


def copy(source: Path, out: Path) -> tuple[str, ...]:
    """Return the command that copies a checkpoint."""
    return ("cp", "-r", str(source), str(out))


def conversions(source: Path, workers: int, transformers_rounds: int) -> Section:
    """Return the ways to convert *source*, from memory to memory."""
    out, converted = source.with_name("out"), source.with_name("converted")
    prepare = touch(size_of(source))
    run(recast(source, "--to", "bf16", "-o", converted, "-q"))

    def way(name: str, command: tuple[str, ...], rounds: int | None = None) -> Contender:
        return Contender(name, (command,), out, COPY, rounds, prepare)

    threads = ("--workers", workers)
    return Section(
        "Converting",
        (
            way(COPY, copy(source, out)),
            way(FLOOR, script("floor", source, out, *threads)),
            way(READ, script("mapped", "read", source, out, *threads)),
            way(MAPPED, script("mapped", "map", source, out, *threads)),
            way(RECAST, recast(source, "--to", "bf16", "-o", out, "-q")),
            way(FROM_PYTHON, script("by_recast", source, out)),
            way(NO_EVIDENCE, script("by_recast", source, out, "--no-evidence")),
            way(VERIFY, recast(converted, "--against", source)),
            way(BY_HAND, script("by_hand", source, out)),
            way(TRANSFORMERS, script("by_transformers", source, out), transformers_rounds),
        ),
    )


def looks(source: Path) -> Section:
    """Return the ways to read every value of *source*, which is in memory."""
    files = sorted(map(str, source.glob("*.safetensors")))
    ways = {
        READ_ALL: ("sh", "-c", 'cat "$@" > /dev/null', "cat", *files),
        SCAN: recast(source, "--scan", "-q"),
        SCAN_FROM_PYTHON: script("by_recast", source, "--scan"),
    }
    return Section(
        "Looking at every value",
        tuple(Contender(name, (command,), beside=READ_ALL) for name, command in ways.items()),
    )


def durable_conversions(source: Path, workers: int) -> Section:
    """Return the ways to convert *source*, on a disk, until all of it has arrived there."""
    out = source.with_name("out")
    synced = ("sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', str(source), str(out))

    def way(name: str, command: tuple[str, ...]) -> Contender:
        return Contender(name, (command,), out, DURABLE_COPY, prepare=calm(source))

    return Section(
        "On a disk, until it is durable",
        (
            way(DURABLE_COPY, synced),
            way(DURABLE_FLOOR, script("floor", source, out, "--workers", workers, "--durable")),
            way(DURABLE_RECAST, recast(source, "--to", "bf16", "-o", out, "-q")),
        ),
    )


def starts() -> Section:
    """Return what does nothing but start."""
    return Section(
        "Starting",
        (
            Contender(BARE, ((sys.executable, "-c", "pass"),)),
            Contender(IMPORT, ((sys.executable, "-c", "import recast"),)),
            Contender(VERSION, (recast("--version"),)),
            Contender(HELP, (recast("--help"),)),
        ),
    )


def touch(size: int) -> Callable[[], None]:
    """Return a function after which *size* bytes of free memory have just been in use."""

    def use() -> None:
        run(script("touch", size))

    return use


def calm(source: Path) -> Callable[[], None]:
    """Return a function after which, also, *source* is in memory and its disk is idle."""
    use = touch(size_of(source))

    def settle() -> None:
        use()
        run(("sync", "-f", str(source)))
        for path in source.iterdir():
            with path.open("rb", buffering=0) as file:
                while file.read(_PIECE_BYTES):
                    pass

    return settle


def size_of(folder: Path) -> int:
    """Return the bytes of the files in *folder*."""
    return sum(path.stat().st_size for path in folder.iterdir())
