"""The kernel in C, if it could be built where recast was installed: fp32 → bf16 with its facts."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from recast.execution.cast import Array
from recast.execution.facts import FACTS, Numbers

LIBRARY = Path(__file__).with_name("libnative.so")
_INTERFACE = 1  # that native.c states, so that a library from another day is not called


@cache
def library() -> ctypes.CDLL | None:
    """Return the kernel; None where there was no C compiler, or it is not for this machine."""
    if not np.little_endian:
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))  # whose functions run without the interpreter's lock
        known = found.recast_interface() == _INTERFACE
    except (OSError, AttributeError):
        return None
    found.recast_fp32_to_bf16.restype = None
    return found if known else None


def cast(values: Array, out: Array, starts: Numbers) -> Array:
    """Round the fp32 *values* into *out*, bf16, and return each tensor's facts.

    Args:
        values: flat and contiguous.
        out: likewise.
        starts: where in them each tensor begins; no two alike, the first one 0.
    """
    kernel = library()
    if kernel is None:
        raise RuntimeError("there is no native kernel: ask library() first")
    facts = np.zeros(len(starts), FACTS)
    begins = np.ascontiguousarray(starts, np.int64)
    kernel.recast_fp32_to_bf16(
        _address(values),
        _address(out),
        ctypes.c_int64(len(values)),
        _address(begins),
        ctypes.c_int64(len(begins)),
        _address(facts),
    )
    return facts


def _address(array: Array) -> ctypes.c_void_p:
    """Return where the values of *array* lie."""
    return ctypes.c_void_p(array.ctypes.data)
