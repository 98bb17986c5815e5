"""Where to work: a folder in memory if there is room in one, and what is there is removed again."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import BenchmarkError

MEMORY = Path("/dev/shm")  # noqa: S108 - each run makes a folder of its own in it
_SHARE = 0.75  # of what is free: others work here too
_IN_MEMORY = ("tmpfs", "ramfs")


@contextmanager
def workplace(needed: int, asked: Path | None = None) -> Iterator[Path]:
    """Yield a new folder with room for *needed* bytes; it is removed at the end.

    It lies in *asked*, or else in memory where there is room, or else where temporary files go.

    Raises BenchmarkError if there is no room.
    """
    candidates = [asked] if asked else [MEMORY, Path(tempfile.gettempdir())]
    parent = next((each for each in candidates if each.is_dir() and room(each) >= needed), None)
    if parent is None:
        raise BenchmarkError(
            f"{candidates[-1]}: {needed / 1e9:.1f} GB are needed, and only three quarters of what "
            "is free are used; choose a smaller --size, or another --folder"
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix="recast-benchmark-", dir=parent))
    except OSError as error:
        raise BenchmarkError(f"{parent}: {error.strerror}; choose another --folder") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def room(folder: Path) -> int:
    """Return the bytes that may be used in *folder*, in memory only what the machine can spare."""
    free = shutil.disk_usage(folder).free
    if filesystem(folder) in _IN_MEMORY:
        free = min(free, _memory("MemAvailable"))
    return int(_SHARE * free)


def filesystem(folder: Path) -> str:
    """Return the kind of the filesystem that *folder* lies on: ``tmpfs``; "" if unknown."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = [(Path(fields[1]), fields[2]) for fields in map(str.split, lines)]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0].parts))[1] if above else ""


def total_memory() -> int:
    """Return the bytes of memory that the machine has."""
    return _memory("MemTotal")


def _memory(key: str) -> int:
    """Return a line of the kernel's account of memory, in bytes; 0 if it gives none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
