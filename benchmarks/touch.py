"""Take memory, use all of it once, and give it back.

Memory that has lain free for a while may cost much more to use for the first time: a virtual
machine's host has taken it away. What writes most would suffer most. So before each contender
some process uses as much as it will write, and the contender gets what was just given back.
"""

import mmap
import sys


def main() -> None:
    """Touch as many bytes as the command line says."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, int(sys.argv[1]), flags=flags).close()


if __name__ == "__main__":
    main()
