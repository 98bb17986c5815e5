"""The machine and the software, in words that say what matters and not whose they are."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from benchmarks.places import filesystem, total_memory

_PACKAGES = ("numpy", "ml_dtypes", "safetensors", "torch", "transformers")


def describe(folders: Iterable[Path]) -> dict[str, str]:
    """Return what was measured on, the filesystems of *folders* included."""
    release = platform.release().split(".")
    packages = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in _PACKAGES)
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores, {_processor()}",
        "memory": f"{total_memory() / 2**30:.0f} GiB",
        "filesystems": ", ".join(dict.fromkeys(map(filesystem, folders))),
        "system": f"{platform.system()} {'.'.join(release[:2])}",
        "software": f"Python {platform.python_version()}, {packages}",
    }


def _processor() -> str:
    """Return the processor's name, as far as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{platform.machine()} {next(names, '')}".strip()
