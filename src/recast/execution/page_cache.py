"""Being a good neighbour in the page cache: it is left as it was found.

A source that was not in memory is dropped as it is read, and what was made of it goes with it,
so that converting a large model does not push out everybody else's files. All of this is
advice, which some systems and file systems do not take.
"""

import os

_SAMPLES = 16


def is_cached(descriptor: int, size: int) -> bool:
    """Whether most of a file of *size* bytes is in memory, or nobody can tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    buffer = bytearray(1)
    missing = 0
    for position in range(0, size, max(1, size // _SAMPLES)):
        try:
            os.preadv(descriptor, [buffer], position, os.RWF_NOWAIT)
        except BlockingIOError:
            missing += 1
        except OSError:  # such as tmpfs, where all is in memory
            return True
    return missing <= _SAMPLES // 2


def forget(descriptor: int, position: int, size: int) -> None:
    """Drop these bytes of a file from memory; Linux first starts to write what is not on disk.

    A *size* of 0 reaches to the end.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, position, size, os.POSIX_FADV_DONTNEED)


def fetch(descriptor: int, position: int, size: int) -> None:
    """Begin to read these bytes of a file into memory."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, position, size, os.POSIX_FADV_WILLNEED)
