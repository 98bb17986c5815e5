"""A process that has recast loaded, and forks itself for each run: ``python -m`` this module.

It reads one JSON document a line, a `Job`, from its standard input, and answers each with one
line, an `Outcome`. While a run is held at a system call, it says so in a line, and waits for
another line before it goes on.
"""

import ctypes
import errno
import gc
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import recast
from recast import cli
from recast.execution import converter
from tests.faults import seccomp, tracer

_SET_PARENT_DEATH_SIGNAL = 1
CRASHED = 70  # the exit status of a run that ended in a traceback
UNAVAILABLE = 69  # the exit status where system calls cannot be watched


@dataclass(frozen=True, slots=True)
class Step:
    """What is done when a run comes to a system call.

    Attributes:
        at: the number of the call, counted over all threads from 0.
        error: the name of the errno with which the call fails: "EIO"; empty if it is carried out.
        kill: whether the process is killed instead, before the call is carried out.
        hold: whether the run waits there for a line on the server's standard input.
        meddle: what is done to *path* beforehand: "truncate", "append", "touch", "rewrite",
            "remove", "replace", or "fill" the disk with it.
        path: the file that is meddled with.
    """

    at: int
    error: str = ""
    kill: bool = False
    hold: bool = False
    meddle: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: what is converted, and what happens to it.

    Attributes:
        source: the checkpoint.
        dtype: what it is converted to.
        options: the options of `recast.convert`.
        command: the arguments of the command, which is run instead of the library.
        folder: what is watched: all that the run may touch; empty if it is not watched.
        step: where to step in.
    """

    source: str
    dtype: str = "bfloat16"
    options: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    folder: str = ""
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: its exit status; negative, the signal that killed it.
        errors: what it wrote to standard error.
        done: what it said of the conversion; None if it failed.
        points: its system calls on the watched files, in order.
        stepped: the one at which the step was taken; None if there was none.
    """

    status: int
    errors: str
    done: dict[str, Any] | None
    points: list[tracer.Point]
    stepped: tracer.Point | None


def main() -> None:
    """Serve until standard input ends."""
    os.chdir("/")
    _warm_up()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        fields = json.loads(line)
        step = fields.pop("step", None)
        _answer(asdict(_run(Job(**fields, step=step and Step(**step)))))


def _warm_up() -> None:
    """Convert something, so that all that is loaded on first use is loaded before the fork."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_file({"weight": np.zeros(4, np.float32)}, path)
        converter.convert(path, "bfloat16")


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _run(job: Job) -> Outcome:
    """Carry out *job* in a child, and see how it ends."""
    output, errors = os.memfd_create("output"), os.memfd_create("errors")
    here, there = socket.socketpair()
    process = os.fork()
    if not process:
        here.close()
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os._exit(_child(job, there))
    there.close()
    stepped: list[tracer.Point] = []

    def judge(number: int, point: tracer.Point) -> tracer.Verdict:
        if job.step is None or number != job.step.at:
            return tracer.Verdict()
        stepped.append(point)
        return _take(job.step, point)

    points: list[tracer.Point] = []
    with here:
        if job.folder:
            _, listeners, _, _ = socket.recv_fds(here, 1, 1)
            for listener in listeners:
                points = tracer.watch(listener, process, job.folder, judge)
                os.close(listener)
    _, status = os.waitpid(process, 0)
    said, complaints = (_content(each) for each in (output, errors))
    return Outcome(
        os.waitstatus_to_exitcode(status),
        complaints,
        json.loads(said) if said else None,
        points,
        stepped[0] if stepped else None,
    )


def _child(job: Job, channel: socket.socket) -> int:
    """Convert, or run the command; return the exit status."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    gc.disable()
    try:
        with channel:
            if job.folder:
                listener = seccomp.listen_to_me()
                socket.send_fds(channel, [b"!"], [listener])
                os.close(listener)
        if job.command:
            sys.argv = ["recast", *job.command]
            cli.main()
        done = converter.convert(job.source, job.dtype, **job.options)
    except SystemExit as end:
        return int(end.code or 0)
    except seccomp.UnavailableError as error:
        os.write(2, str(error).encode())
        return UNAVAILABLE
    except recast.RecastError as error:
        os.write(2, f"recast: {error}\n".encode())
        return 1
    except BaseException:  # noqa: BLE001 - this is the end of the process
        os.write(2, traceback.format_exc().encode())
        return CRASHED
    document = {
        "target": None if done.target is None else str(done.target),
        "shards": [shard.name for shard in done.shards],
        "resumed": done.resumed,
        "discarded": done.discarded,
        "found": done.found,
    }
    os.write(1, json.dumps(document).encode())
    return 0


def _take(step: Step, point: tracer.Point) -> tracer.Verdict:
    """Do what *step* says."""
    if step.hold:
        _answer({"held": point})
        sys.stdin.readline()
    if step.meddle:
        _meddle(step.meddle, Path(step.path))
    return tracer.Verdict(step.kill, getattr(errno, step.error) if step.error else 0)


def _meddle(how: str, path: Path) -> None:
    """Do to a file what another process might."""
    match how:
        case "truncate":
            os.truncate(path, path.stat().st_size // 2)
        case "append":
            with path.open("ab") as file:
                file.write(b"\0")
        case "touch":
            os.utime(path)
        case "rewrite":
            path.write_bytes(path.read_bytes()[:-1] + b"\0")
        case "remove":
            path.unlink()
        case "replace":
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        case "fill":
            _fill(path)
        case _:
            raise ValueError(how)


def _fill(path: Path) -> None:
    """Write to *path* until the disk is full."""
    with path.open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise


def _content(descriptor: int) -> str:
    """Return what was written to an open file, and close it."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    main()
