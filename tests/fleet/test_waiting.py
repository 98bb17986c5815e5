"""`--scheduler` while the workers, or the scheduler, are not there: nobody waits for ever."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

import recast
from recast import Fate, WorkerError
from recast.execution.fleets import attendance
from recast.execution.fleets.attendance import Attendance, news
from tests import processes, test_cli
from tests.fleet import cluster, runs

_LONG = 120  # seconds: whatever takes longer is taken to hang
_SILENCE = 60  # seconds: whatever is silent as long has gone, and not only a slow machine
# Does so many shards, waits until a file appears, and does the rest.
_PAUSE = """
import time
from pathlib import Path
from recast.execution import shard, shard_job

left, go, limit = {shards}, Path({go!r}), {limit}

def convert_shard(*arguments):
    global left
    end = time.monotonic() + limit
    while not (left or go.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    left = max(0, left - 1)
    return shard.convert_shard(*arguments)

shard_job.convert_shard = convert_shard
"""
_MOST = 7  # shards of twelve: of six checkpoints one is done then, or more, and three are not
# The command, with as many seconds of patience as a test has, for workers and for an answer.
_COMMAND = """
from recast import cli
from recast.execution.fleets import attendance, cluster
attendance.PATIENCE, cluster._PATIENCE = {}, {}
cli.main()
"""
YET = "no workers yet; jobs wait for them"
NONE = "no workers; jobs wait for them"
SOME = "there are workers; jobs go on"
AGAIN = "run the same command again"


@dataclass(frozen=True)
class Pause:
    """A worker's pause in the middle of its work.

    Attributes:
        preload: what makes the worker pause.
        go: the file that ends the pause.
    """

    preload: Path
    go: Path


def pause_after(shards: int, folder: Path) -> Pause:
    """Return a pause after so many shards; its files lie in *folder*."""
    pause = Pause(folder / "pause.py", folder / "go")
    pause.preload.write_text(_PAUSE.format(shards=shards, go=str(pause.go), limit=_LONG))
    return pause


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[Path, cluster.Process]]:
    """A scheduler without workers, as the file that names it, and its process."""
    with cluster.scheduler(tmp_path) as started:
        yield started


def command(root: Path, file: Path, patience: float, silence: float = _SILENCE) -> Sequence[str]:
    """Return the command that repairs *root* in place with the workers of a scheduler."""
    python = (sys.executable, "-c", _COMMAND.format(patience, silence))
    return (*python, str(root), "-r", "--to", "bf16", "--in-place", "--scheduler-file", str(file))


@contextmanager
def started(
    root: Path, file: Path, patience: float = 600, silence: float = _SILENCE
) -> "Iterator[subprocess.Popen[str]]":
    """Start that command, with lines of JSON on stdout."""
    line = [*command(root, file, patience, silence), "--jsonl"]
    pipe = subprocess.PIPE
    with processes.started(line, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


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
    root: Path, saved: Path, tmp_path: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """Without workers it is said at once, once; when some come it is said, and all is done."""
    file, _ = scheduler
    pause = pause_after(0, tmp_path)
    with started(root, file) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"recast: {address(file)}: {YET}\n"
        with cluster.worker(file, pause.preload):
            assert process.stderr.readline() == f"recast: {address(file)}: {SOME}\n"
            pause.go.touch()
            status, lines, said = ended(process)
    assert (status, len(lines), said) == (0, 7, [])
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


def test_the_last_worker_goes(
    root: Path, saved: Path, tmp_path: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """It is said; when nobody comes, what is open fails with the way out, and that way works."""
    file, _ = scheduler
    with cluster.worker(file, pause_after(_MOST, tmp_path).preload) as worker:
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
    root: Path, saved: Path, tmp_path: Path, scheduler: tuple[Path, cluster.Process]
) -> None:
    """What is open fails at once, without a word of Dask's; nothing stays locked."""
    file, process_there = scheduler
    pause = pause_after(_MOST, tmp_path)
    with started(root, file, silence=10) as process, cluster.worker(file, pause.preload):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["fate"] == "repaired"
        process_there.kill()
        pause.go.touch()
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
    tmp_path: Path,
    scheduler: tuple[Path, cluster.Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal the bar is taken away for the line, and is there again below it."""
    file, _ = scheduler

    sizes = {path: path.stat().st_size for path in root.rglob("*.safetensors")}

    def kill_in_the_middle(worker: cluster.Process) -> None:
        end = time.monotonic() + _LONG
        while all(path.stat().st_size == size for path, size in sizes.items()):
            assert time.monotonic() < end
            time.sleep(0.05)
        worker.kill()

    monkeypatch.setattr(test_cli, "COMMAND", command(root, file, 3))
    with cluster.worker(file, pause_after(_MOST, tmp_path).preload) as worker:
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
