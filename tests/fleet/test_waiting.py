"""`--scheduler` while the workers, or the scheduler, are not there: nobody waits for ever."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Thread

import pytest

import recast
from recast import Fate, WorkerError
from recast.execution.fleets import attendance
from recast.execution.fleets.attendance import Attendance, news
from tests import test_cli
from tests.fleet import cluster, runs

_LONG = 60  # seconds: whatever takes longer is taken to hang
_SLOW = """
import time
from recast.execution import shard, shard_job
def slowly(*arguments):
    time.sleep(0.2)
    return shard.convert_shard(*arguments)
shard_job.convert_shard = slowly
"""
# The command, with as many seconds of patience as a test has.
_COMMAND = """
from recast import cli
from recast.execution.fleets import attendance, cluster
attendance.PATIENCE, cluster._PATIENCE = {}, 2.0
cli.main()
"""
YET = "no workers yet; jobs wait for them"
NONE = "no workers; jobs wait for them"
SOME = "there are workers; jobs go on"
AGAIN = "run the same command again"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """What makes a worker take its time over each shard."""
    preload = tmp_path / "slow.py"
    preload.write_text(_SLOW)
    return preload


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[Path, cluster.Process]]:
    """A scheduler without workers, as the file that names it, and its process."""
    with cluster.scheduler(tmp_path) as started:
        yield started


def command(root: Path, file: Path, patience: float) -> Sequence[str]:
    """Return the command that repairs *root* in place with the workers of a scheduler."""
    python = (sys.executable, "-c", _COMMAND.format(patience))
    return (*python, str(root), "-r", "--to", "bf16", "--in-place", "--scheduler-file", str(file))


def started(root: Path, file: Path, patience: float = 600) -> "subprocess.Popen[str]":
    """Start that command, with lines of JSON on stdout."""
    return subprocess.Popen(
        [*command(root, file, patience), "--jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str], list[str]]:
    """Wait for the end; return the status, and the lines on stdout and stderr."""
    out, said = process.communicate(timeout=_LONG)
    for line in out.splitlines():
        json.loads(line)
    return process.returncode, out.splitlines(), said.splitlines()


def address(file: Path) -> str:
    """Return the address that a scheduler's file names."""
    return str(json.loads(file.read_text())["address"])


def test_no_workers_yet(
    root: Path, saved: Path, slow: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """Without workers it is said at once, once; when some come it is said, and all is done."""
    file, _ = scheduler
    with started(root, file) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"recast: {address(file)}: {YET}\n"
        with cluster.worker(file, slow):
            status, lines, said = ended(process)
    assert (status, len(lines)) == (0, 7)
    assert said == [f"recast: {address(file)}: {SOME}"]
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


def test_the_last_worker_goes(
    root: Path, saved: Path, slow: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """It is said; when nobody comes, what is open fails with the way out, and that way works."""
    file, _ = scheduler
    with cluster.worker(file, slow) as worker:
        cluster.wait_for_worker(file)  # which may take longer than the command's patience
        with started(root, file, patience=3) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            worker.kill()
            status, lines, said = ended(process)
    assert status == 1
    *each, total = (json.loads(line) for line in lines)
    failed = [one["path"] for one in each if one["fate"] == "failed"]
    assert first["fate"] == "repaired"
    assert total["totals"]["failed"] == len(failed) > 0
    where = f"recast: {address(file)}: "
    news = [line.removeprefix(where) for line in said if line.startswith(where)]
    assert [line for line in news if line not in (YET, SOME)] == [NONE]
    problems = [line for line in said if not line.startswith(where)]
    assert len(problems) == len(failed)
    for line in problems:
        assert f"{address(file)}: has had no workers for" in line
        assert "start some (dask worker), then run the same command again: " in line
        assert line.count(AGAIN) == 1
    with started(root, file) as process, cluster.worker(file):
        assert ended(process)[0] == 0
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


def test_the_scheduler_goes(
    root: Path, saved: Path, slow: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """What is open fails at once, without a word of Dask's; nothing stays locked."""
    file, process_there = scheduler
    with started(root, file) as process, cluster.worker(file, slow):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["fate"] == "repaired"
        process_there.kill()
        status, lines, said = ended(process)
    fates = [json.loads(line).get("fate") for line in lines[:-1]]
    assert status == 1
    assert "failed" in fates
    assert all(line.startswith("recast: ") for line in said)
    failed = [line for line in said if line.startswith(f"recast: {root}")]
    assert len(failed) == fates.count("failed")
    assert all("the scheduler has gone; start another one, and workers" in one for one in failed)
    done = recast.convert_all(recast.discover(root), "bf16", in_place=True)
    assert {each.fate for each in done} <= {Fate.REPAIRED, Fate.RIGHT}
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_waiting(
    number: signal.Signals, root: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """It ends with the signal's status, and nothing is changed, left behind or locked."""
    file, _ = scheduler
    before = runs.contents(root)
    with started(root, file) as process:
        assert process.stderr is not None
        assert YET in process.stderr.readline()
        end = time.monotonic() + _LONG
        while not list(root.rglob(".recast/lock")):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        status, lines, said = ended(process)
    assert (status, lines) == (128 + number, [])
    assert said == [f"recast: interrupted; {AGAIN} to go on"]
    assert runs.contents(root) == before


def test_it_is_said_above_the_bar(
    root: Path,
    slow: Path,
    scheduler: tuple[Path, cluster.Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal the bar is taken away for the line, and is there again below it."""
    file, _ = scheduler

    def kill_in_the_middle(worker: cluster.Process) -> None:
        sizes = {path: path.stat().st_size for path in root.rglob("*.safetensors")}
        end = time.monotonic() + _LONG
        while all(path.stat().st_size == size for path, size in sizes.items()):
            assert time.monotonic() < end
            time.sleep(0.05)
        worker.kill()

    monkeypatch.setattr(test_cli, "COMMAND", command(root, file, 3))
    with cluster.worker(file, slow) as worker:
        cluster.wait_for_worker(file)
        killer = Thread(target=kill_in_the_middle, args=(worker,))
        killer.start()
        status, shown = test_cli.on_a_terminal()
        killer.join()
    before, line, after = shown.partition(f"\rrecast: {address(file)}: {NONE}\r\n")
    assert (status, line != "") == (1, True)
    assert before.rpartition("\r")[2].strip() == ""
    assert "B/s" in before
    assert "B/s" in after


def test_what_is_new() -> None:
    """Each change is told once; how many workers there are is nobody's concern."""
    first = Attendance(0, 0.0, 0.0)
    assert news(None, first) == YET
    assert news(None, Attendance(3, 0.0, 0.0)) is None
    told = []
    seen = first
    for second, workers in enumerate((0, 2, 5, 0, 0, None, None, 0, 1, None, 4), 1):
        now = seen.then(workers, float(second))
        told.append(news(seen, now))
        seen = now
    silent = "the scheduler does not answer; jobs wait for it"
    assert told == [None, SOME, None, NONE, None, silent, None, NONE, SOME, silent, SOME]


def test_when_to_give_up() -> None:
    """Patience is counted from the last worker, or from the beginning where there was none."""
    seen = Attendance(0, 100.0, 100.0)
    assert not seen.then(0, 99.0 + attendance.PATIENCE).is_hopeless
    assert seen.then(0, 100.0 + attendance.PATIENCE).is_hopeless
    assert seen.then(None, 100.0 + attendance.PATIENCE).is_hopeless
    again = seen.then(1, 99.0 + attendance.PATIENCE)
    assert not again.then(0, 101.0 + attendance.PATIENCE).is_hopeless
    assert again.then(0, 99.0 + 2 * attendance.PATIENCE).is_hopeless


class Closed(Executor):
    """An executor that takes no jobs, and says so in its own way."""

    def submit(self, *_: object, **__: object) -> "Future[object]":  # type: ignore[override]
        """Refuse."""
        raise Exception("this client is closed")  # noqa: TRY002 - such as some executors raise


def test_an_executor_that_takes_no_jobs(root: Path) -> None:
    """Whatever submit() raises is said as an error of each checkpoint, and nothing is changed."""
    before = runs.contents(root)
    done = recast.convert_all(recast.discover(root), "bf16", Closed(), in_place=True)
    assert {each.fate for each in done} == {Fate.FAILED}
    for each in done:
        assert isinstance(each.error, WorkerError)
        assert each.error.problem == (
            "the executor takes no more jobs (Exception: this client is closed)"
        )
    assert runs.contents(root) == before
