"""Where results are prepared: locked while somebody works there, found again if he was killed."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable

import pytest

import recast
from recast import TargetError
from recast.execution import lock
from recast.execution.workplace import tidy, workplace
from tests.checkpoints import random_tensors, save_shard
from tests.execution.test_converter import contents

CALLS = 7  # for each of two shards its header and its data; tokenizer, config, index

# Converts, and stops at the call of progress that it is told, until it reads a line.
CHILD = """
import sys
import recast

source, out, stop, evidence = sys.argv[1:]
calls = 0

def progress(done):
    global calls
    calls += 1
    if calls == int(stop):
        print("stopped", flush=True)
        sys.stdin.readline()

recast.convert(
    source, "bf16", out=out, workers=1, evidence=evidence == "True", progress=progress
)
"""


@contextmanager
def stopped(source: Path, out: Path, call: int, *, evidence: bool = True) -> Iterator[Popen[str]]:
    """Start a process that converts *source*, and yield it when it has come so far."""
    command = [executable, "-c", CHILD, str(source), str(out), str(call), str(evidence)]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "stopped\n"
            yield process
        finally:
            process.kill()


def kill(source: Path, out: Path, call: int, *, evidence: bool = True) -> None:
    """Convert in a process that is killed when it has come so far."""
    with stopped(source, out, call, evidence=evidence) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    """Return what lies in *folder*."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", range(1, CALLS + 1))
def test_a_killed_run_is_finished_by_the_next(ckpt: Path, tmp_path: Path, call: int) -> None:
    """Wherever it is killed, no result appears; run again, it equals an uninterrupted one.

    Shards that were complete are not written again, and nothing is left of the dead.
    """
    recast.convert(ckpt, "bf16", out=tmp_path / "whole")
    source, out = contents(ckpt), tmp_path / "out"
    kill(ckpt, out, call)
    assert names(tmp_path) == [".out.recast", "ckpt", "whole"]
    done = recast.convert(ckpt, "bf16", out=out)
    assert done.resumed == min(2, (call - 1) // 2)
    assert not done.discarded
    assert names(tmp_path) == ["ckpt", "out", "whole"]
    assert contents(out) == contents(tmp_path / "whole")
    assert contents(ckpt) == source
    whole = recast.convert(ckpt, "bf16", out=tmp_path / "again")
    assert list(done.evidence) == list(whole.evidence)


def test_evidence_that_was_not_gathered_is_gathered_by_the_next(ckpt: Path, tmp_path: Path) -> None:
    """Shards that were done without evidence are done again if it is wanted, and not otherwise."""
    whole = recast.convert(ckpt, "bf16", out=tmp_path / "whole")
    assert whole.evidence
    for evidence, resumed in ((True, 0), (False, 2)):
        out = tmp_path / f"out-{evidence}"
        kill(ckpt, out, CALLS, evidence=False)
        done = recast.convert(ckpt, "bf16", out=out, evidence=evidence)
        assert done.resumed == resumed
        assert contents(out) == contents(tmp_path / "whole")
        assert list(done.evidence) == (list(whole.evidence) if evidence else [])


def test_what_another_plan_has_left_is_discarded(ckpt: Path, tmp_path: Path) -> None:
    """What is left of a run with other options, or of an earlier source, is not used."""
    out = tmp_path / "out"
    kill(ckpt, out, CALLS)
    done = recast.convert(ckpt, "bf16", out=out, keep=["*norm*"])
    assert (done.resumed, done.discarded) == (0, True)
    recast.convert(ckpt, "bf16", out=tmp_path / "whole", keep=["*norm*"])
    assert contents(out) == contents(tmp_path / "whole")
    kill(ckpt, tmp_path / "late", CALLS)
    shard = ckpt / "model-00001-of-00002.safetensors"
    kinds = {"model.embed_tokens.weight": (32, 8), "model.norm.weight": (8,)}
    save_shard(shard, {name: -each for name, each in random_tensors(**kinds).items()})
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 10**9))
    assert recast.convert(ckpt, "bf16", out=tmp_path / "late").discarded
    assert recast.verify(tmp_path / "late", against=ckpt).holds


def test_a_killed_run_of_one_file(tmp_path: Path) -> None:
    """A bare file is finished as well."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_shard(source, random_tensors(a=(5,)))
    kill(source, out, 2)
    assert names(tmp_path) == [".b.safetensors.recast", "a.safetensors"]
    recast.convert(source, "bf16", out=out)
    assert names(tmp_path) == ["a.safetensors", "b.safetensors"]
    assert recast.verify(out, against=source).holds


def test_one_at_a_time(ckpt: Path, tmp_path: Path) -> None:
    """While one process writes, another is refused, who is told its name, and disturbs nothing."""
    out = tmp_path / "out"
    with stopped(ckpt, out, 4) as process:
        before = contents(tmp_path)
        with pytest.raises(TargetError) as caught:
            recast.convert(ckpt, "bf16", out=out)
        assert caught.value.subject == str(out)
        holder = f"is being written by process {process.pid} on {socket.gethostname()}"
        assert caught.value.problem == holder
        assert caught.value.remedy
        assert contents(tmp_path) == before
        recast.convert(ckpt, "bf16", out=tmp_path / "elsewhere")  # nobody's business
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 0
    assert contents(out) == contents(tmp_path / "elsewhere")
    assert names(tmp_path) == ["ckpt", "elsewhere", "out"]


def test_a_lock_within_a_process(tmp_path: Path) -> None:
    """Two threads of one process are kept apart like two processes."""
    folder = tmp_path / ".out.recast"
    with workplace(folder, tmp_path / "out"):
        for call in (lambda: tidy(folder, tmp_path / "out"), lambda: enter(folder)):
            with pytest.raises(
                TargetError, match=f"is being written by process {os.getpid()} on .*; wait"
            ):
                call()
    with workplace(folder, tmp_path / "out") as work:
        assert work.left == {}
        work.remove()
    assert names(tmp_path) == []


def enter(folder: Path) -> None:
    """Enter a workplace."""
    with workplace(folder, folder.parent / "out"):
        pass


def test_a_lock_that_came_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened the lock of one that then finished does not work in a folder that is gone."""
    folder = tmp_path / ".out.recast"
    flock = lock.fcntl.flock

    def finish_meanwhile(file: object, flags: int) -> None:
        (folder / "lock").unlink()
        folder.rmdir()
        flock(file, flags)

    monkeypatch.setattr(lock.fcntl, "flock", finish_meanwhile)
    with pytest.raises(TargetError, match="has just been written by another process"):
        enter(folder)
    assert names(tmp_path) == []


@pytest.mark.parametrize("journal", ["", "{", "[1]", '"text"', "null"])
def test_a_journal_that_was_not_finished(ckpt: Path, tmp_path: Path, journal: str) -> None:
    """A journal that says nothing is no obstacle."""
    folder = tmp_path / ".out.recast"
    folder.mkdir()
    (folder / "journal.json").write_text(journal)
    (folder / ".old.partial").write_text("what was being written")
    done = recast.convert(ckpt, "bf16", out=tmp_path / "out")
    assert (done.resumed, done.discarded) == (0, False)
    assert recast.verify(tmp_path / "out", against=ckpt).holds
    assert names(tmp_path) == ["ckpt", "out"]


@pytest.mark.parametrize("record", [None, "", "[[1]]", '[["a", "F99", "BF16"]]'])
def test_evidence_that_was_not_finished(ckpt: Path, tmp_path: Path, record: str | None) -> None:
    """A shard of which the evidence is not there, or makes no sense, is converted again."""
    kill(ckpt, tmp_path / "out", CALLS)
    path = tmp_path / ".out.recast/shard-0.json"
    assert json.loads(path.read_text())
    path.unlink() if record is None else path.write_text(record)
    done = recast.convert(ckpt, "bf16", out=tmp_path / "out")
    assert done.resumed == 1
    assert {each.name for each in done.evidence} == {
        *("model.embed_tokens.weight", "model.norm.weight"),
        *("lm_head.weight", "lm_head.scale"),
    }


def test_a_finished_run_tidies_up(ckpt: Path, tmp_path: Path) -> None:
    """Of a run that was killed after its result had appeared, the next one removes the rest."""
    out = tmp_path / "out"
    recast.convert(ckpt, "bf16", out=out)
    (tmp_path / ".out.recast").mkdir()
    (tmp_path / ".out.recast/journal.json").write_text("{}")
    assert recast.convert(ckpt, "bf16", out=out).found
    assert names(tmp_path) == ["ckpt", "out"]


def test_an_nfs_client_removes_a_lock_late(tmp_path: Path) -> None:
    """A lock is removed while it is held; where only its release does that, no folder is left."""
    folder = tmp_path / "workplace"
    with workplace(folder, tmp_path) as work:
        work.remove()
        folder.mkdir()  # NFS keeps the folder for a file in it without a name
    assert not folder.exists()
