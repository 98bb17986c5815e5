"""How fast a file is read into memory, and written from it, by where the memory lies.

python -m benchmarks.placement: the fewest seconds for a gigabyte in the page cache, 2 MiB at once,
by the distance of the address copied to from the one copied from, in the lower twelve bits of both.
`src/recast/execution/values/window.py` says what follows from it.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Callable

PIECE_BYTES = 2 << 20  # as recast
_SIZE = 512 << 20  # of the file
_PAGE = 4096
_ROUNDS = 5
_DISTANCES = (-1024, -64, -16, -8, 0, 8, 16, 32, 64, 1024)
_POSITION = 1000  # of the first piece: as good as any


def main() -> None:
    """Measure, and print a table."""
    memory = memoryview(mmap.mmap(-1, PIECE_BYTES + _PAGE))
    print("| bytes behind | read, s/GB | write, s/GB |\n| ---: | ---: | ---: |")
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:  # noqa: PTH112, S108 - in memory, where there is such a place
        for _ in range(_SIZE // PIECE_BYTES):
            file.write(memory[:PIECE_BYTES])
        file.flush()
        for distance in _DISTANCES:
            read = _window(memory, _POSITION + distance)
            write = _window(memory, _POSITION - distance)
            taken = (
                _least(lambda at, room=read: os.preadv(file.fileno(), [room], at)),
                _least(lambda at, room=write: os.pwrite(file.fileno(), room, at)),
            )
            print(f"| {distance} | {taken[0]:.3f} | {taken[1]:.3f} |")


def _window(memory: memoryview, address: int) -> memoryview:
    """Return room for a piece whose address ends like *address*; *memory* begins at a page."""
    return memory[address % _PAGE :][:PIECE_BYTES]


def _least(copy: Callable[[int], int]) -> float:
    """Return the fewest seconds of processor time that copying took, for a gigabyte."""
    taken = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for position in range(_POSITION, _SIZE - PIECE_BYTES, PIECE_BYTES):
            copy(position)
        taken.append(time.process_time() - begun)
    return min(taken) * 1e9 / (_SIZE - PIECE_BYTES)


if __name__ == "__main__":
    main()
