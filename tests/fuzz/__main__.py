"""Try damaged files by the ten thousand: how many, in how long, from which seed.

The work is done in a process of its own, with a limit on its memory: what allocates because a
file claims something ends in an error, and what hangs is stopped and says where.
"""

import argparse
import faulthandler
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import mutations
from tests.fuzz.laws import Bench

_MEMORY = 512 << 20  # bytes beyond what the process has at first
_PATIENCE = 60  # seconds for a hundred files
_KINDS = ("header", "header", "index", "config")


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many files")
    parser.add_argument("--seconds", type=float, default=300, help="after how long to stop")
    parser.add_argument("--seed", type=int, default=None, help="of the random numbers")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = time.time_ns() % 1_000_000
    if arguments.here:
        return _work(arguments.inputs, arguments.seconds, arguments.seed)
    own = ["--inputs", f"{arguments.inputs}", "--seconds", f"{arguments.seconds}"]
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--here", *own, "--seed", f"{arguments.seed}"],
        check=False,
    ).returncode


def _work(inputs: int, seconds: float, seed: int) -> int:
    """Try *inputs* files, and say what has been found."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    tried: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_fast()) as folder:
        bench = Bench(Path(folder))
        _limit_memory()
        while tried.total() < inputs and time.monotonic() - begun < seconds:
            if tried.total() % 100 == 0:
                faulthandler.dump_traceback_later(_PATIENCE, exit=True)
            kind = chance.choice(_KINDS)
            tried[kind] += 1
            accepted[kind] += _try(bench, kind, chance, f"seed {seed}, file {tried.total()}")
        faulthandler.cancel_dump_traceback_later()
    counts = ", ".join(f"{tried[kind]:,} {kind} ({accepted[kind]:,} accepted)" for kind in tried)
    sys.stdout.write(f"{tried.total():,} files, seed {seed}: {counts}\n")
    return 0 if tried.total() >= inputs else 1


def _try(bench: Bench, kind: str, chance: random.Random, where: str) -> bool:
    """Try one file. Raises what went wrong, and says which file it was."""
    file = getattr(mutations, "shard" if kind == "header" else kind)(chance)
    check = getattr(bench, "check_shard" if kind == "header" else f"check_{kind}")
    try:
        accepted: bool = check(file)
    except BaseException:
        sys.stderr.write(f"{where}, {kind}: {str(file)[:2000]}\n")
        raise
    return accepted


def _fast() -> str | None:
    """Return a folder in memory, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a new one in it


def _limit_memory() -> None:
    """Let this process have little more memory than it has now; a mapped hole takes none."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
