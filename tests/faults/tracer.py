"""Watching a process at its system calls on some files, and stepping in at one of them."""

import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.faults import seccomp

_PATH_BYTES = 4096
_AT_WORKING_FOLDER = -100

# Where a call's arguments hold what it works on: a descriptor, a path, or a path beside the
# descriptor of the folder that it starts from.
_DESCRIPTOR, _PATH, _BESIDE = "descriptor", "path", "beside"
_OPERANDS: dict[str, tuple[tuple[str, int], ...]] = {
    **dict.fromkeys(
        [
            *("read", "pread64", "readv", "preadv", "preadv2", "getdents64"),
            *("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate"),
            *("fsync", "fdatasync", "flock", "close", "fstat", "fstatfs", "fchmod", "fchown"),
        ],
        ((_DESCRIPTOR, 0),),
    ),
    **dict.fromkeys(
        [
            *("open", "creat", "stat", "lstat", "access", "statfs", "readlink", "listxattr"),
            *("truncate", "unlink", "rmdir", "mkdir", "chmod", "chown", "getxattr", "setxattr"),
        ],
        ((_PATH, 0),),
    ),
    **dict.fromkeys(
        [
            *("openat", "openat2", "newfstatat", "statx", "faccessat", "faccessat2"),
            *("readlinkat", "unlinkat", "mkdirat", "fchmodat", "fchmodat2", "utimensat"),
        ],
        ((_BESIDE, 1),),
    ),
    "rename": ((_PATH, 0), (_PATH, 1)),
    "link": ((_PATH, 0), (_PATH, 1)),
    "symlink": ((_PATH, 1),),
    "renameat": ((_BESIDE, 1), (_BESIDE, 3)),
    "renameat2": ((_BESIDE, 1), (_BESIDE, 3)),
    "linkat": ((_BESIDE, 1), (_BESIDE, 3)),
    "symlinkat": ((_BESIDE, 2),),
    "sendfile": ((_DESCRIPTOR, 0), (_DESCRIPTOR, 1)),
    "copy_file_range": ((_DESCRIPTOR, 2), (_DESCRIPTOR, 0)),
    "mmap": ((_DESCRIPTOR, 4),),
}
_NEEDS_ROOM = frozenset(
    [
        *("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate"),
        *("creat", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "setxattr"),
        *("rename", "renameat", "renameat2", "sendfile", "copy_file_range", "fsync", "fdatasync"),
    ]
)


class Point(NamedTuple):
    """One system call on the watched files.

    Attributes:
        call: its name.
        path: what it works on, relative to the watched folder, "." for that folder itself.
        other: the second file, for calls that have two: where a rename leads to, or what a
            copy reads from.
        needs_room: whether it may find the disk full.
    """

    call: str
    path: str
    other: str = ""
    needs_room: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a system call: killed with its process, failed, or carried out.

    Attributes:
        kill: whether the process is killed.
        error: the errno with which the call fails; 0 if it does not.
        last: whether no later call matters.
    """

    kill: bool = False
    error: int = 0
    last: bool = False


Judge = Callable[[int, Point], Verdict]


def watch(listener: int, process: int, folder: str, judge: Judge) -> list[Point]:
    """Let *judge* decide on every system call of *process* that concerns *folder*.

    It is called with the number of the call, counted over all threads from 0, and the call.
    Returns these calls, once the process is gone.
    """
    seccomp.wake_together(listener)
    points: list[Point] = []
    verdict = Verdict()
    ended = os.pidfd_open(process)
    memory = os.open(f"/proc/{process}/mem", os.O_RDONLY | os.O_CLOEXEC)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ended, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll())
            if not ready.get(listener, 0) & select.POLLIN:
                return points  # nothing waits, and the process has ended
            notice = seccomp.receive(listener)
            if notice is None:
                continue
            point = None if verdict.last else _point(notice, process, memory, folder)
            verdict = Verdict(last=verdict.last)
            if point is not None:
                points.append(point)
                verdict = judge(len(points) - 1, point)
            if verdict.kill:
                os.kill(process, 9)
                os.waitid(os.P_PIDFD, ended, os.WEXITED | os.WNOWAIT)
                return points
            if verdict.error:
                seccomp.let_fail(listener, notice, verdict.error)
            else:
                seccomp.let_go_on(listener, notice)
    finally:
        os.close(memory)
        os.close(ended)


def _point(notice: seccomp.Notice, process: int, memory: int, folder: str) -> Point | None:
    """Return the call that waits, if it concerns *folder*."""
    names = [
        _relative(_path(kind, place, notice, process, memory), folder)
        for kind, place in _OPERANDS[notice.call]
    ]
    if not any(names):
        return None
    room = notice.call in _NEEDS_ROOM
    if notice.call in ("open", "openat"):
        flags = notice.arguments[_OPERANDS[notice.call][0][1] + 1]
        room = bool(flags & os.O_CREAT)
    return Point(notice.call, *names, *([""] * (2 - len(names))), needs_room=room)


def _path(kind: str, place: int, notice: seccomp.Notice, process: int, memory: int) -> str:
    """Return the path of one operand; empty if it has none."""
    argument = notice.arguments[place]
    if kind == _DESCRIPTOR:
        return _opened(process, argument)
    path = os.fsdecode(_text(memory, argument)) if argument else ""
    if path.startswith("/"):
        return path
    start = notice.arguments[place - 1] if kind == _BESIDE else _AT_WORKING_FOLDER
    return os.path.normpath(os.path.join(_opened(process, start), path))  # noqa: PTH118 - many a run


def _opened(process: int, descriptor: int) -> str:
    """Return the path of an open file, or of the working folder; empty if there is none."""
    number = (descriptor & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    name = "cwd" if number == _AT_WORKING_FOLDER else f"fd/{number}"
    try:
        return str(Path(f"/proc/{process}/{name}").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def _text(memory: int, address: int) -> bytes:
    """Return the zero-terminated text at *address* of another process."""
    text = b""
    while b"\0" not in text and len(text) < _PATH_BYTES:
        # Up to the end of a page: the next one may not be there.
        text += os.pread(
            memory, _PATH_BYTES - (address + len(text)) % _PATH_BYTES, address + len(text)
        )
    return text.partition(b"\0")[0]


def _relative(path: str, folder: str) -> str:
    """Return *path* relative to *folder*; empty if it does not lie there."""
    if path == folder:
        return "."
    return path[len(folder) + 1 :] if path.startswith(folder + "/") else ""
