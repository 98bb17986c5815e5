"""Workers and clusters that cannot do their part, or are lost in the middle of it."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

import recast
from recast import Fate, Outcome, WorkerError
from recast.execution import shard_job
from recast.execution.fleets.cluster import address_in, connected
from tests.fleet import cluster, runs
from tests.processes import end_with_the_tests

_OTHER_VERSION = """
from recast.execution import shard_job
shard_job.own_version = lambda: "0.0.1"
"""


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, nor can: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def test_no_scheduler_there(root: Path, tmp_path: Path, nobody: str) -> None:
    """An address where nobody answers, and a file that names nothing, are errors of one line."""
    before = runs.contents(root)
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    for where, problem in (
        (("--scheduler", nobody), r"no scheduler answers there \(.+\); start one \(dask .+"),
        (("--scheduler", "nowhere"), "is no scheduler's address; write it like this: tcp://.+"),
        (("--scheduler-file", str(tmp_path / "none")), "No such file or directory; .+"),
        (("--scheduler-file", str(empty)), "names no scheduler; start one .+"),
    ):
        line = [sys.executable, "-m", "recast", root, "-r", "--to", "bf16", "--in-place", *where]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        (said,) = done.stderr.splitlines()
        assert re.fullmatch(f"recast: {re.escape(where[1])}: {problem}", said)
    assert runs.contents(root) == before


def test_dask_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks the extra is told its name."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(WorkerError, match=r"is not installed; pip install 'recast\[dask\]'"),
        connected("tcp://127.0.0.1:8786"),
    ):
        pass


def test_another_version_on_the_worker(root: Path, tmp_path: Path) -> None:
    """A worker with another recast refuses the job, says both versions, and nothing changes."""
    preload = tmp_path / "other_version.py"
    preload.write_text(_OTHER_VERSION)
    before = runs.contents(root)
    with (
        cluster.by_hand(tmp_path, 1, preload) as file,
        connected(address_in(file)) as found,
    ):
        done = recast.convert_all(recast.discover(root), "bf16", found.executor, in_place=True)
    assert {each.fate for each in done} == {Fate.FAILED}
    mine = recast.__version__
    for each in done:
        assert isinstance(each.error, WorkerError)
        assert each.error.problem == f"has recast 0.0.1, but was sent a job by recast {mine}"
        assert "same version" in each.error.remedy
    assert runs.contents(root) == before


def test_no_recast_on_the_worker(root: Path, tmp_path: Path) -> None:
    """A worker without recast is said to have none, lives on, and nothing changes."""
    preload = tmp_path / "none.py"
    preload.write_text("import sys; sys.modules['recast'] = None")
    before = runs.contents(root)
    with (
        cluster.scheduler(tmp_path, preload) as (file, _),
        cluster.worker(file, preload) as worker,
        connected(address_in(file)) as found,
    ):
        done = recast.convert_all(recast.discover(root), "bf16", found.executor, in_place=True)
        assert worker.poll() is None
    assert {each.fate for each in done} == {Fate.FAILED}
    for each in done:
        assert isinstance(each.error, WorkerError)
        assert "a worker has no recast, or an unlike one (ModuleNotFou" in each.error.problem
        assert each.error.remedy.startswith("install the same version there as here, then run")
    assert runs.contents(root) == before


def test_no_recast_on_the_scheduler(root: Path, saved: Path, tmp_path: Path) -> None:
    """The scheduler only hands jobs on, and needs no recast for that."""
    preload = tmp_path / "none.py"
    preload.write_text("import sys; sys.modules['recast'] = None")
    with (
        cluster.scheduler(tmp_path, preload) as (file, _),
        cluster.worker(file),
        connected(address_in(file)) as found,
    ):
        recast.convert_all(recast.discover(root), "bf16", found.executor, in_place=True)
    repaired_in_the_end(saved, root)


def test_a_worker_that_does_not_see_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without the disk says which folder it misses, and what to do."""
    paths = list(recast.discover(root))
    before = runs.contents(root)
    pack = shard_job.pack

    def elsewhere(job: shard_job.ShardJob) -> bytes:
        """Pack the job as it is for a worker that has the disk under another path."""
        content: bytes = pack(
            shard_job.ShardJob(
                job.number,
                job.plan,
                Path("/mnt/elsewhere") / job.source.name,
                job.scratch,
                job.scans,
                job.token,
            )
        )
        return content

    monkeypatch.setattr("recast.execution.crew.pack", elsewhere)
    with ThreadPoolExecutor(2) as executor:
        done = recast.convert_all(paths, "bf16", executor, in_place=True)
    assert {each.fate for each in done} == {Fate.FAILED}
    error = done[0].error
    assert isinstance(error, WorkerError)
    assert re.match(r"does not see /mnt/elsewhere/model-0000\d-of", error.problem)
    assert "the same disk under the same path" in error.remedy
    assert runs.contents(root) == before


class Elsewhere(ThreadPoolExecutor):
    """Workers that say they have written a file, which lies on a disk of their own."""

    def submit(self, call, /, *args, **kwargs):
        """Do the job, and hide what it has made."""

        def hidden() -> object:
            import pickle  # noqa: PLC0415
            import zlib  # noqa: PLC0415

            done = call(*args, **kwargs)
            pickle.loads(zlib.decompress(args[1])).staged.unlink(missing_ok=True)  # noqa: S301
            return done

        return super().submit(hidden)


def test_a_worker_that_writes_elsewhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker claims to have written is believed when it is seen."""
    monkeypatch.setattr("recast.execution.publish._DELAYS", (0.01,))
    paths = list(recast.discover(root))
    before = runs.contents(root)
    with Elsewhere(2) as executor:
        done = recast.convert_all(paths, "bf16", executor, in_place=True)
    assert {each.fate for each in done} == {Fate.FAILED}
    assert "but cannot be seen here" in done[0].error.problem
    assert runs.contents(root) == before


def repaired_in_the_end(saved: Path, root: Path) -> None:
    """Check that every checkpoint below *root* is what it should be."""
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred checkpoints; nobody writes here."""
    root = tmp_path_factory.mktemp("hundred") / "runs"
    runs.save_runs(root, 20, 5)
    return root


class Killer(Thread):
    """Keeps two workers, and kills one of them at random whenever both are there."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.chance = random.Random(0)  # noqa: S311 - no secret
        self.over = Event()
        self.workers: dict[str, cluster.Process] = {}
        self.kills = 0

    def run(self) -> None:
        """Kill and start workers until it is over. One is left, or nothing would ever be done."""
        with ExitStack() as stack:
            client = stack.enter_context(cluster.client(self.file))
            while not self.over.wait(self.chance.uniform(0.05, 0.4)):
                known = {str(each["name"]) for each in client.scheduler_info()["workers"].values()}
                if len(self.workers.keys() & known) == 2:
                    victim = self.workers.pop(self.chance.choice(sorted(self.workers)))
                    victim.kill()
                    victim.wait()
                    self.kills += 1
                while len(self.workers) < 2:
                    name = f"{self.kills}-{len(self.workers)}"
                    started = cluster.worker(self.file, name=name)
                    self.workers[name] = stack.enter_context(started)


def test_workers_killed_at_random(
    hundred: Path,
    tmp_path: Path,
    thorough: bool,  # noqa: FBT001 - a fixture
) -> None:
    """While a hundred checkpoints are repaired in place, workers die; all end right.

    A job whose worker was lost is done by another; where a job was unlucky several times, the
    same call finishes what is missing.
    """
    with cluster.scheduler(tmp_path) as (file, _), connected(address_in(file)) as found:
        killer = Killer(file)
        killer.start()
        try:
            for number in count():
                root = runs.copied(hundred, tmp_path / f"runs-{number}")
                done = until_all_is_done(list(recast.discover(root)), found.executor)
                assert all(each.error is None for each in done)
                repaired_in_the_end(hundred, root)
                if killer.kills >= (30 if thorough else 1):
                    break
                assert killer.is_alive(), "nobody will be killed any more"
        finally:
            killer.over.set()
            killer.join()


def until_all_is_done(paths: list[Path], executor: Executor) -> list[Outcome]:
    """Repair *paths*, and again if jobs were unlucky; return what became of each in the end."""
    for _ in range(5):
        done = recast.convert_all(paths, "bf16", executor, in_place=True)
        assert all(isinstance(each.error, WorkerError | None) for each in done)
        if all(each.error is None for each in done):
            break
    return done


def test_a_process_pool_that_dies(hundred: Path, tmp_path: Path, thorough: bool) -> None:  # noqa: FBT001 - a fixture
    """A pool breaks when one of its processes is killed: it is said, and a new pool goes on."""
    chance = random.Random(0)  # noqa: S311 - no secret
    root = runs.copied(hundred, tmp_path / "runs")
    paths = list(recast.discover(root))
    broken = 0
    for _ in range(50):
        with ProcessPoolExecutor(2, get_context("spawn"), end_with_the_tests) as pool:
            pool.submit(os.getpid).result()
            (victim, *_) = (each.pid for each in psutil.Process().children() if is_of(pool, each))
            more = broken < (20 if thorough else 2)
            killer = Thread(target=kill_after, args=(victim, chance.uniform(0.02, 0.3)))
            if more:
                killer.start()
            done = recast.convert_all(paths, "bf16", pool, in_place=True)
            if more:
                killer.join()
        failed = [each for each in done if each.error is not None]
        assert all(isinstance(each.error, WorkerError) for each in failed)
        # The job at hand, and those for which the pool is no use any more.
        said = r"(a worker failed|the executor takes no more jobs) \(BrokenProcessPool: .+\)"
        assert all(re.fullmatch(said, each.error.problem) for each in failed)
        assert all("run the same command again: " in each.error.remedy for each in failed)
        broken += bool(failed)
        if not failed:
            break
    assert broken
    assert not failed
    repaired_in_the_end(hundred, root)


@pytest.mark.parametrize("where", [{"in_place": True}, {"out": "out"}], ids=["in place", "anew"])
def test_workers_that_stand_elsewhere(
    where: dict[str, Any], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths as people type them lead every worker to the same files, whatever folder it is in."""
    runs.age(shutil.copytree(saved, tmp_path / "here" / "runs"))
    monkeypatch.chdir(tmp_path / "here")
    with ProcessPoolExecutor(1, get_context("spawn"), os.chdir, ("/",)) as pool:
        done = recast.convert_all(recast.discover("runs"), "bf16", pool, **where)
    assert {each.fate for each in done} == {Fate.REPAIRED}, [str(each.error) for each in done]
    for path in recast.discover(saved):
        runs.check_repaired(path, Path(where.get("out", "runs")) / path.relative_to(saved))


def is_of(pool: ProcessPoolExecutor, process: psutil.Process) -> bool:
    """Whether *process* is one of the pool's."""
    return process.pid in pool._processes  # noqa: SLF001 - there is no other way to ask


def kill_after(process: int, seconds: float) -> None:
    """Kill a process after some time."""
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
