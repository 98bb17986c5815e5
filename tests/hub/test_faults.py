"""Every request of a push fails once, in every way: main is old or new, and a rerun completes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

import recast as library
from tests import checkpoints, processes
from tests.hub.client import Job, Outcome, run
from tests.hub.conftest import Run, environment
from tests.hub.server import DROPPED, LOST, TOKEN, WRONG, HubServer

FAULTS = {"429": 429, "500": 500, "503": 503, "dropped": DROPPED, "wrong": WRONG, "lost": LOST}
SOME = 11  # of so many faults, one is tried, unless all are


@dataclass(frozen=True)
class Scene:
    """A model in fp32, its bf16 twin, and what the repository held before."""

    source: Path
    narrow: Path
    old: dict[str, bytes]
    new: dict[str, bytes]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two shards, which replace themselves."""
    source = checkpoints.two_shards(tmp_path / "ckpt")
    narrow = library.convert(source, "bf16").target
    return Scene(source, Path(str(narrow)), contents(source), contents(tmp_path / "ckpt-bf16"))


def jobs_of(kind: str, scene: Scene, names: list[str]) -> list[Job]:
    """Return a push to each repository: of a folder, or of what is there, made bf16."""
    if kind == "folder":
        return [Job(str(scene.narrow), name) for name in names]
    return [Job(f"hf://{name}", name) for name in names]


@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_every_request_fails_once(
    kind: str, scene: Scene, either_hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Return a push to each: of a folder, or of what is there, made bf16."""
    hub = either_hub
    variables = environment(hub, tmp_path / "home")
    hub.add("me/whole", scene.source)
    [whole] = run(jobs_of(kind, scene, ["me/whole"]), variables)
    assert whole.url, whole.said
    requests = hub.count("me/whole")
    assert requests >= 8
    points = [(at, name) for at in range(1, requests + 1) for name in FAULTS]
    if not request.config.getoption("--every-request", default=False):
        points = points[::SOME]
    names = {f"me/at-{at}-{name}": (at, FAULTS[name]) for at, name in points}
    for repository, fault in names.items():
        hub.add(repository, scene.source)
        hub.faults[(repository, fault[0])] = fault[1]
    first = run(jobs_of(kind, scene, list(names)), variables)
    assert not hub.faults, "a fault was never met"
    for name, outcome in zip(names, first, strict=True):
        files = hub.files(name)
        assert files == scene.new if outcome.url else files in (scene.old, scene.new), name
        check_said(outcome)
    failed = [name for name, outcome in zip(names, first, strict=True) if not outcome.url]
    second = run(jobs_of(kind, scene, failed), variables)
    for name, outcome in zip(failed, second, strict=True):
        assert outcome.url, (name, outcome.said)
    for name in names:
        assert hub.files(name) == scene.new, name
        assert len(hub.repositories[name].commits) == 2, name
    assert not list((tmp_path / "home").glob("recast-*/*"))


def check_said(outcome: Outcome) -> None:
    """An error is one line with the way out, without a token."""
    if not outcome.url:
        assert outcome.error in {"HubError", "RejectedError", "StorageError", "ShardError"}
        assert "again" in outcome.said or "meanwhile" in outcome.said
        assert "\n" not in outcome.said
        assert TOKEN not in outcome.said


def big(folder: Path, shards: int) -> Path:
    """Save a checkpoint of equal shards of 2 MB."""
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    return checkpoints.save_sharded(
        folder,
        {
            name: checkpoints.random_tensors(**{f"layers.{number}.weight": (512, 1024)})
            for number, name in enumerate(names)
        },
    )


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Yield the bytes on the disk below *folder*, measured all the time; the last is the most.

    A look takes time, in which files come and go: only what two looks have seen was there at once.
    """
    most, over = [0], threading.Event()

    def watch() -> None:
        before: dict[Path, int] = {}
        while not over.wait(0.003):
            now = used(folder)
            both = sum(min(now[path], before[path]) for path in now.keys() & before.keys())
            most.append(max(most[-1], both))
            before = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def used(folder: Path) -> dict[Path, int]:
    """Return the bytes that each file below *folder* takes."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                found[path] = path.lstat().st_blocks * 512
    return found


def comes_true(holds: Callable[[], object], seconds: float = 60) -> bool:
    """Wait until something holds, but no longer than so many seconds; return whether it does."""
    end = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < end:
        time.sleep(0.005)
    return bool(done)


def test_the_disk_never_holds_more_than_two_shards(
    tmp_path: Path, hub: HubServer, recast: Run
) -> None:
    """Six shards pass through room for two, while the next is fetched during an upload."""
    source = big(tmp_path / "big", 6)
    largest = max(path.stat().st_size for path in source.iterdir())
    hub.add("other/big", source)
    hub.pace = 0.15
    (tmp_path / "home").mkdir()

    def whole() -> list[int]:
        """Return when, in the order of all requests, a whole shard had been fetched."""
        return [
            at
            for at, each in enumerate(hub.requests)
            if each.method == "GET" and each.sent > largest - 1000
        ]

    with watched(tmp_path / "home") as most:
        # The first upload ends when another shard was fetched, and seen on the disk.
        hub.before_put = lambda: comes_true(lambda: len(whole()) > 1 and most[-1] > largest)
        done = recast(hub, "other/big", "--to", "bf16", "--push", "me/big")
    assert done.returncode == 0, done.stderr
    assert largest < most[-1] <= 2 * largest + 300_000
    first_upload = next(at for at, each in enumerate(hub.requests) if each.method == "PUT")
    assert whole()[1] < first_upload, "nothing was fetched during the first upload"
    assert len(whole()) == 6
    assert len(hub.repositories["me/big"].commits) == 2


def test_killed_and_run_again(tmp_path: Path, hub: HubServer, recast: Run) -> None:
    """After a kill, no shard that was uploaded is fetched, converted or sent again."""
    hub.add("other/big", big(tmp_path / "big", 5))
    uploads, killed = count(1), threading.Event()
    hub.before_put = lambda: next(uploads) == 4 and killed.wait(60)
    arguments = ["other/big", "--to", "bf16", "--push", "me/big"]
    with processes.started(
        [sys.executable, "-m", "recast", *arguments],
        env=environment(hub, tmp_path / "home"),
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    ):
        assert comes_true(lambda: sum(r.path.endswith("/verify") for r in hub.requests) == 3)
    killed.set()
    assert list(hub.files("me/big")) == [".gitattributes"]
    done = recast(hub, *arguments)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout
    puts = [each.path for each in hub.requests if each.method == "PUT"]
    fetched = [each.path for each in hub.requests if each.sent > 1_000_000]
    assert len(puts) - len(set(puts)) <= 1  # the one under way when it was killed
    assert len(fetched) - len(set(fetched)) <= 2  # likewise, and the next one
    assert len(hub.repositories["me/big"].commits) == 2
    library.convert(tmp_path / "big", "bf16")
    files = hub.files("me/big")
    del files[".gitattributes"]
    assert files == contents(tmp_path / "big-bf16")
