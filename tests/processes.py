"""Processes that tests start: none outlives its test, nor tests that are killed."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

# Runs a module that ends when its standard input does: the tests hold that open while they live.
_WATCHED = """
import os, runpy, sys, threading

def end_with_the_tests():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_the_tests, daemon=True).start()
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@contextmanager
def started(command: Sequence[Any], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """Start a process, with options of Popen's, and kill it in the end unless it has ended."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def watched(module: str, *arguments: str, **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """Start a module that would run for ever; it ends with the tests, though they are killed."""
    command = (sys.executable, "-c", _WATCHED, module, *arguments)
    with started(command, stdin=subprocess.PIPE, **options) as process:
        yield process


def end_with_the_tests() -> None:
    """Let this process, of a pool, end with the one that started it, which may be killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
