"""The kernels in C, if they could be built where recast was installed: look, fp32 → bf16."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from recast.execution.values.cast import Array
from recast.execution.values.facts import FACTS, Numbers

LIBRARY = Path(__file__).with_name("libnative.so")
_INTERFACE = 3  # that native.c states, so that a library from another day is not called


@cache
def library() -> ctypes.CDLL | None:
    """Return the kernels; None where there was no C compiler, or they are not for this machine."""
    if not np.little_endian:
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))  # whose functions run without the interpreter's lock
        known = found.recast_interface() == _INTERFACE
    except (OSError, AttributeError):
        return None
    return found if known else None


# What look.h writes down of a tensor.
_SEEN = np.dtype(
    [
        ("bits", "<u8"),
        ("magnitude", "<i8"),
        ("nan", "<i8"),
        ("infinite", "<i8"),
        ("lost", "<u8"),
    ],
)


def look(values: Array, starts: Numbers) -> Array:
    """Return what the values of each tensor are: the facts that `examine` finds.

    Args:
        values: flat and contiguous, of a floating dtype of 16, 32 or 64 bits.
        starts: where in them each tensor begins; no two alike, the first one 0.
    """
    seen = np.zeros(len(starts), _SEEN)
    begins = np.ascontiguousarray(starts, np.int64)
    bits = np.dtype(f"<i{values.itemsize}")
    _loaded()[f"recast_look_{8 * values.itemsize}"](
        _address(values),
        ctypes.c_int64(len(values)),
        ctypes.c_int64(int(np.array(np.inf, values.dtype).view(bits))),
        _address(begins),
        ctypes.c_int64(len(begins)),
        _address(seen),
    )
    facts = np.zeros(len(starts), FACTS)
    for name in ("bits", "nan", "infinite", "lost"):
        facts[name] = seen[name]
    facts["magnitude"] = seen["magnitude"].astype(bits).view(values.dtype)
    return facts


def cast(values: Array, out: Array, starts: Numbers) -> Array:
    """Round the fp32 *values* into *out*, bf16, and return each tensor's facts.

    Args:
        values: flat and contiguous.
        out: likewise.
        starts: where in them each tensor begins; no two alike, the first one 0.
    """
    facts = np.zeros(len(starts), FACTS)
    begins = np.ascontiguousarray(starts, np.int64)
    _loaded().recast_fp32_to_bf16(
        _address(values),
        _address(out),
        ctypes.c_int64(len(values)),
        _address(begins),
        ctypes.c_int64(len(begins)),
        _address(facts),
    )
    return facts


def _loaded() -> ctypes.CDLL:
    """Return the kernels, which are there."""
    kernels = library()
    if kernels is None:
        raise RuntimeError("there are no native kernels: ask library() first")
    return kernels


def _address(array: Array) -> ctypes.c_void_p:
    """Return where the values of *array* lie."""
    return ctypes.c_void_p(array.ctypes.data)
