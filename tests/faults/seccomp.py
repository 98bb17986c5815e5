"""The kernel's seccomp listener: system calls of a process that wait for another's verdict.

Chosen over strace, which counts in each thread for itself and wants exact names; over a
preloaded library, which misses the calls that libc and Rust make on their own; and over
ptrace, which needs a C program. A filter stops exactly the calls it lists, whoever makes them,
in whatever thread; the listener reads each, in one order over all threads, and lets it go on,
makes it fail, or kills the process before it is carried out. It takes no privilege, no
compiler and no package, only Linux 5.8 or later.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
from dataclasses import dataclass
from functools import cache

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_SET_FLAGS = 0x40082104  # Linux 6.6: wake the other side on the same core
_CONTINUE = 1

_LOAD_WORD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4

_NOTICE = struct.Struct("=QIIiIQ6Q")
_VERDICT = struct.Struct("=QqiI")

# Number by architecture: x86_64, aarch64; None where there is only the *at form.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "mmap": (9, 222),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "sendfile": (40, 71),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "creat": (85, None),
    "link": (86, None),
    "unlink": (87, None),
    "symlink": (88, None),
    "readlink": (89, None),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "chown": (92, None),
    "fchown": (93, 55),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "setxattr": (188, 5),
    "getxattr": (191, 8),
    "listxattr": (194, 11),
    "getdents64": (217, 61),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "readlinkat": (267, 78),
    "fchmodat": (268, 53),
    "faccessat": (269, 48),
    "utimensat": (280, 88),
    "fallocate": (285, 47),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "copy_file_range": (326, 285),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "statx": (332, 291),
    "openat2": (437, 437),
    "faccessat2": (439, 439),
    "fchmodat2": (452, 452),
}
_SECCOMP = (317, 277)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class UnavailableError(Exception):
    """This system does not let one process judge the system calls of another."""


def _architecture() -> tuple[int, int]:
    """Return the column of `_NUMBERS`, and the kernel's own number of this architecture."""
    try:
        return _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise UnavailableError(f"no table of system calls for {platform.machine()}") from None


@cache
def calls() -> dict[int, str]:
    """Return the name of each system call that is listened to, by its number here."""
    column, _ = _architecture()
    numbers = ((numbers[column], name) for name, numbers in _NUMBERS.items())
    return {number: name for number, name in numbers if number is not None}


@dataclass(frozen=True, slots=True)
class Notice:
    """One system call that waits for a verdict: its thread, its name and its arguments."""

    id: int
    thread: int
    call: str
    arguments: tuple[int, ...]


def listen_to_me() -> int:
    """Put this process, and the threads it will have, under a filter; return the listener.

    Raises UnavailableError.
    """
    if sys.platform != "linux":
        raise UnavailableError("seccomp is Linux's")
    column, architecture = _architecture()
    numbers = sorted(calls())
    program = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        *((_IF_EQUAL, len(numbers) - place, 0, each) for place, each in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    filters = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(
        ctypes.c_long(_SECCOMP[column]),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_NEW_LISTENER),
        ctypes.c_char_p(filters),
    )
    if listener < 0:
        why = os.strerror(ctypes.get_errno())
        raise UnavailableError(f"the kernel grants no seccomp listener: {why}")
    return listener


def wake_together(listener: int) -> None:
    """Ask for the faster hand-over between the two processes, where the kernel has it."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, 1)
    except OSError:
        return


def receive(listener: int) -> Notice | None:
    """Return the next system call that waits; None if its process is gone."""
    buffer = bytearray(_NOTICE.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    number, thread, _, call, _, _, *arguments = _NOTICE.unpack(buffer)
    return Notice(number, thread, calls()[call], tuple(arguments))


def let_go_on(listener: int, notice: Notice) -> None:
    """Let the system call be carried out."""
    _send(listener, notice, 0, _CONTINUE)


def let_fail(listener: int, notice: Notice, error: int) -> None:
    """Make the system call return this errno, without being carried out."""
    _send(listener, notice, -error, 0)


def _send(listener: int, notice: Notice, error: int, flags: int) -> None:
    """Send a verdict, unless nobody waits for it any more."""
    try:
        fcntl.ioctl(listener, _SEND, _VERDICT.pack(notice.id, 0, error, flags))
    except OSError as gone:
        if gone.errno != errno.ENOENT:
            raise
