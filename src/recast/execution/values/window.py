"""Where bytes of a file lie in memory, so that the kernel copies them from and to it fast.

Some processors copy slowly to an address that lies just behind the one they copy from, by the
lower twelve bits of both: a store then seems to hit what is about to be loaded. On AMD EPYC, 8
bytes behind takes three to four times as long as anything before (`python -m
benchmarks.placement`), and whether a file is met by it is a matter of the length of its header.
"""

from enum import IntEnum

import numpy as np

from recast.execution.values.cast import Array

_PAGE = 4096
_ALIGNMENT = 8  # bytes of the widest value


class Use(IntEnum):
    """What bytes in memory are for, and how far behind their place in the file they lie best."""

    READ = -8  # from the file: measured to be the fastest, or as fast as any
    WRITE = 64  # to the file


class Window:
    """Memory that is used again and again, for bytes at one place of a file after another."""

    def __init__(self, nbytes: int) -> None:
        """Take room for *nbytes*, whatever their place."""
        self._room = np.empty(nbytes + _PAGE, np.uint8)
        self._address = self._room.ctypes.data  # numpy aligns it for values of any dtype

    def at(self, position: int, nbytes: int, use: Use) -> Array:
        """Return room, of arbitrary content, for *nbytes* at *position* of a file.

        It begins where values of any dtype may begin, and is valid until the next is asked for.
        """
        begin = (position + use - self._address) % _PAGE // _ALIGNMENT * _ALIGNMENT
        return self._room[begin : begin + nbytes]
