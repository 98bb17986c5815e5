"""What tests start ends with them, whatever becomes of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

_LONG = 60  # seconds: whoever has not ended by then lives on
_SLEEP = "import time; time.sleep(600)"
_TESTS = f"""
from tests import processes
with processes.watched("timeit", "-n1", "-r1", "{_SLEEP}"):
    print("started", flush=True)
    {_SLEEP}
"""
_POOL = f"""
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from tests import processes
with ProcessPoolExecutor(1, get_context("spawn"), processes.end_with_the_tests) as pool:
    pool.submit(int).result()
    print("started", flush=True)
    {_SLEEP}
"""


@pytest.mark.parametrize("tests", [_TESTS, _POOL], ids=["a module", "a pool"])
def test_nothing_outlives_tests_that_are_killed(tests: str) -> None:
    """All who could write to the pipe have gone: the tests, and what they had started."""
    line = [sys.executable, "-c", tests]
    root = Path(__file__).parents[1]
    with processes.started(line, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout.readline() == "started\n"
        process.kill()
        assert process.communicate(timeout=_LONG) == ("", None)


def test_nothing_outlives_a_test_that_fails() -> None:
    """Nobody waits for a process of which nothing is expected any more."""
    with (
        pytest.raises(AssertionError),
        processes.started([sys.executable, "-c", _SLEEP]) as process,
    ):
        raise AssertionError
    assert process.returncode < 0
