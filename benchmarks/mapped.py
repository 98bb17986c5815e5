"""The barest conversion to bf16, its input either mapped or read: which of the two is better?

Nothing is planned, checked, or looked at: an fp32 shard's header is passed over, its data are
cast by ml_dtypes, a window to a thread, and written without a header. Mapped windows are
populated first, so that a file that is truncated meanwhile is an error and no SIGBUS, and
unmapped when they are done, so that memory stays flat. Prints the seconds of the loop alone.
"""

import argparse
import json
import mmap
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 1 << 20
WINDOW_BYTES = 16 << 20
MADV_POPULATE_READ = 22  # Linux 5.14; mmap has no name for it

Window = tuple[int, int, int, int, int]  # source, output, begin of the data, begin, end
_kept = threading.local()


def main() -> None:
    """Convert as the command line asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["map", "read"])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    convert = _convert_mapped if arguments.how == "map" else _convert_read
    begun = time.monotonic()
    arguments.out.mkdir()
    with ThreadPoolExecutor(arguments.workers) as pool:
        for path in sorted(arguments.source.glob("*.safetensors")):
            with path.open("rb") as source, (arguments.out / path.name).open("wb") as output:
                data = 8 + int.from_bytes(source.read(8), "little")
                windows = _windows(source.fileno(), output.fileno(), data, path.stat().st_size)
                list(pool.map(convert, windows))
    print(json.dumps({"seconds": time.monotonic() - begun}))


def _windows(source: int, output: int, data: int, size: int) -> Iterator[Window]:
    """Yield the windows of a file whose data begin at *data*."""
    for begin in range(data, size, WINDOW_BYTES):
        yield source, output, data, begin, min(begin + WINDOW_BYTES, size)


def _convert_mapped(window: Window) -> None:
    """Cast a window out of a mapping of its own."""
    source, output, data, begin, end = window
    start = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(source, end - start, prot=mmap.PROT_READ, offset=start) as mapping:
        mapping.madvise(MADV_POPULATE_READ)
        _, cast = _buffers()
        for position in range(begin, end, PIECE_BYTES):
            count = (min(position + PIECE_BYTES, end) - position) // 4
            values = np.frombuffer(mapping, "<f4", count, position - start)
            _write(values, cast[:count], output, position - data)
            del values  # or the mapping could not be closed


def _convert_read(window: Window) -> None:
    """Cast a window that is read into a buffer."""
    source, output, data, begin, end = window
    buffer, cast = _buffers()
    for position in range(begin, end, PIECE_BYTES):
        values = buffer[: (min(position + PIECE_BYTES, end) - position) // 4]
        os.preadv(source, [values.data], position)
        _write(values, cast[: len(values)], output, position - data)


def _buffers() -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Return this thread's buffers, for the values before and after the cast."""
    if not hasattr(_kept, "before"):
        _kept.before = np.empty(PIECE_BYTES // 4, "<f4")
        _kept.after = np.empty(PIECE_BYTES // 4, ml_dtypes.bfloat16)
    return _kept.before, _kept.after


def _write(
    values: NDArray[np.float32], cast: NDArray[np.generic], output: int, position: int
) -> None:
    """Cast *values*, *position* bytes into the data, and write them."""
    np.copyto(cast, values, casting="unsafe")
    os.pwrite(output, cast.view(np.uint8).data, position // 2)


if __name__ == "__main__":
    main()
