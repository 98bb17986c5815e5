"""How many threads there are, and what becomes of their work."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from subprocess import run
from sys import executable

import pytest

import recast
from recast import RefusedError
from recast.execution import workers
from recast.execution.workers import Queue, default_workers, share
from tests.checkpoints import two_shards


def cpus() -> int:
    """Return the CPUs that the kernel lets this process run on."""
    return len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "allowed"),
    [
        ("max 100000\n", None),
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        ("100001 100000\n", 2),
        ("9900000 100000\n", 99),
        ("0 100000\n", None),
        ("", None),
        ("nonsense\n", None),
    ],
)
def test_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, allowed: int | None
) -> None:
    """A container's share of the machine counts, up to whole CPUs; what is no number does not."""
    path = tmp_path / "cpu.max"
    path.write_text(content)
    monkeypatch.setattr(workers, "_CGROUP_QUOTA", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert default_workers() == min(64, allowed or 64)


def test_no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a quota, it is the CPUs on which this process may run; there is always one."""
    monkeypatch.setattr(workers, "_CGROUP_QUOTA", tmp_path / "none")
    assert default_workers() == cpus()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert default_workers() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_workers() == 1


def test_affinity() -> None:
    """A process that was bound to one CPU uses one thread."""
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from recast.execution.workers import default_workers; print(default_workers())"
    )
    assert run([executable, "-c", program], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_item_is_taken_once(count: int) -> None:
    """All threads together do all of the work, and none of it twice, in the order of the queue."""

    def work(items: Iterable[int]) -> list[int]:
        return list(items)

    results = share(iter(range(10_000)), work, count)
    assert len(results) == count
    assert sorted(chain.from_iterable(results)) == list(range(10_000))
    assert all(each == sorted(each) for each in results)


def test_threads_run_at_the_same_time() -> None:
    """The threads are real: each can wait for all the others."""
    everybody = threading.Barrier(4)

    def work(items: Iterable[int]) -> set[int]:
        everybody.wait(60)
        return {threading.get_ident() for _ in items}

    share(range(100), work, 4)
    assert not everybody.broken


def test_the_queue_is_made_by_one_thread_at_a_time() -> None:
    """Items may come from a generator, which two threads must not enter at once."""
    inside = threading.Lock()

    def items() -> Iterator[int]:
        for number in range(3000):
            assert inside.acquire(blocking=False)
            inside.release()
            yield number

    results = share(items(), lambda taken: sum(1 for _ in taken), 4)
    assert sum(results) == 3000


def test_an_error_surfaces_and_ends_the_others() -> None:
    """What one thread raises reaches the caller, once all threads have ended, before their time."""
    before = set(threading.enumerate())
    endless = iter(int, 1)
    taken = []

    def work(items: Iterable[int]) -> None:
        for each in items:
            taken.append(each)
            if len(taken) >= 50:
                raise KeyError("found")

    with pytest.raises(KeyError, match="found"):
        share(endless, work, 3)
    assert set(threading.enumerate()) <= before


def test_an_error_of_the_items() -> None:
    """What the queue's own items raise reaches the caller as well."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        share(items(), list, 3)


def test_an_interrupt_ends_the_threads() -> None:
    """An interrupt of the caller ends every thread after the item at hand, and is passed on."""
    before = set(threading.enumerate())
    everybody = threading.Barrier(3)

    def work(items: Iterable[int]) -> None:
        first = everybody.wait(60) == 0
        if first:
            signal.raise_signal(signal.SIGINT)  # Python's handler runs in the main thread
        for _ in items:
            pass

    with pytest.raises(KeyboardInterrupt):
        share(iter(int, 1), work, 3)
    assert set(threading.enumerate()) <= before


def test_one_worker_needs_no_other_thread() -> None:
    """The caller takes part, so that a small shard costs the start of no thread."""
    assert share(range(3), lambda _: threading.get_ident(), 1) == [threading.get_ident()]


def test_a_closed_queue_offers_nothing() -> None:
    """After it was closed, a queue gives no item more, to a thread that is at work neither."""
    queue = Queue(range(9))
    items = iter(queue)
    assert next(items) == 0
    queue.close()
    assert list(items) == []
    assert list(queue) == []


@pytest.mark.parametrize("number", [0, -1])
def test_no_workers_do_no_work(tmp_path: Path, number: int) -> None:
    """Fewer threads than one are refused in recast's own words, by everything that takes them."""
    folder = two_shards(tmp_path / "ckpt")
    for refused in (
        lambda: recast.convert(folder, "bf16", workers=number),
        lambda: recast.scan(folder, workers=number),
        lambda: recast.verify(folder, against=folder, workers=number),
    ):
        with pytest.raises(RefusedError, match="at least 1"):
            refused()


def test_impatience_waits_for_the_threads_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second interrupt, while the threads are waited for, does not leave them behind at work."""
    everybody, patience = threading.Barrier(2), threading.Event()
    ended: list[bool] = []
    wait = workers.wait

    def interrupted(threads: object) -> object:
        if not patience.is_set():
            patience.set()
            raise KeyboardInterrupt
        return wait(threads)

    def work(items: Iterable[int]) -> None:
        for _ in items:
            everybody.wait(60)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            assert patience.wait(60)  # at the item at hand until the caller is interrupted again
            ended.append(True)

    monkeypatch.setattr(workers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        share(iter(int, 1), work, 2)
    assert ended == [True]
