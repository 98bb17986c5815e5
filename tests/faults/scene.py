"""A small sharded checkpoint, what it becomes, and what may lie in its folder on the way."""

import json
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests import checkpoints
from tests.faults.client import Server
from tests.faults.server import Job, Outcome, Step
from tests.faults.tracer import Point

INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
KEPT = "model.layers.1.router.weight"
TWIN = "model.layers.1.mirror.weight"  # of the same shape, and a name as long


class Mode(StrEnum):
    """Where the result goes."""

    COPY = "copy"
    IN_PLACE = "in place"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its bytes, its permission bits, and when it was modified, in ns."""

    content: bytes
    mode: int
    modified: int


Tree = Mapping[str, Entry]


def tree(folder: Path) -> Tree:
    """Return all files in *folder* and below by their paths, and the folders, which end in "/"."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[f"{name}/"] = Entry(b"", 0, 0)
        else:
            status = path.stat()
            mode = stat.S_IMODE(status.st_mode)
            found[name] = Entry(path.read_bytes(), mode, status.st_mtime_ns)
    return found


def contents(files: Tree) -> dict[str, bytes]:
    """Return the bytes alone."""
    return {name: entry.content for name, entry in files.items()}


def save_checkpoint(folder: Path, rows: int) -> Path:
    """Save a checkpoint of three shards, with a tokenizer and a folder beside them."""
    shards = {
        name: checkpoints.random_tensors(
            **{f"model.layers.{number}.mlp.weight": (rows, 16), f"model.{number}.norm.weight": (5,)}
        )
        for number, name in enumerate(SHARDS)
    }
    shards[SHARDS[1]] |= checkpoints.random_tensors(**{KEPT: (4, 4), TWIN: (4, 4)})
    shards[SHARDS[2]] |= {"lm_head.scale": torch.tensor(1 / 3), "ids": torch.arange(7)}
    checkpoints.save_sharded(folder, shards)
    (folder / "tokenizer.json").write_text('{"model": {}}\n', encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling": "mean"}\n', encoding="utf-8")
    (folder / SHARDS[0]).chmod(0o640)
    return folder


class Scene:
    """A folder that holds a checkpoint, and all that converting it may touch.

    Attributes:
        root: the folder; it holds nothing else.
        seen: the same folder, as the server sees it.
        mode: where the result goes.
        source: the checkpoint.
        target: what is written.
        old: the checkpoint as it was saved.
        new: the checkpoint as an uninterrupted run leaves it.
    """

    def __init__(
        self, root: Path, mode: Mode, server: Server, rows: int = 8, seen: Path | None = None
    ) -> None:
        """Save the checkpoint, and learn what becomes of it when nothing is the matter."""
        self.root = root
        self.seen = seen or root
        self.mode = mode
        self.source = root / "ckpt"
        self.target = self.source if mode is Mode.IN_PLACE else root / "ckpt-bf16"
        self._start = root.with_name(f"{root.name}.start")
        pristine = save_checkpoint(self._start / "ckpt", rows)
        self.old = tree(pristine)
        self._loaded: set[str] = set()
        self.reset()
        outcome = server.run(self.job())
        assert outcome.status == 0, outcome
        self.new = tree(self.target)
        self.check_finished()
        _check_cast(pristine, self.target)
        self.reset()

    def job(self, step: Step | None = None, *, watched: bool = False, **options: Any) -> Job:
        """Return the run of this scene, or one with other *options* of `recast.convert`."""
        options = {"in_place": self.mode is Mode.IN_PLACE, "keep": [KEPT], "workers": 1} | options
        folder = str(self.seen) if watched or step else ""
        return Job(str(self.seen / "ckpt"), options=options, folder=folder, step=step)

    def command(self, step: Step | None = None, *, watched: bool = False, workers: int = 2) -> Job:
        """Return the same run by way of the command."""
        arguments = [
            str(self.seen / "ckpt"),
            "--to",
            "bf16",
            "--keep",
            KEPT,
            "--workers",
            str(workers),
        ]
        if self.mode is Mode.IN_PLACE:
            arguments.append("--in-place")
        folder = str(self.seen) if watched or step else ""
        return Job(arguments[0], command=[*arguments, "-q"], folder=folder, step=step)

    def trace(self, server: Server, job: Job | None = None) -> Sequence[Point]:
        """Return the system calls of an uninterrupted run."""
        self.reset()
        outcome = server.run(job or self.job(watched=True))
        assert outcome.status == 0, outcome
        self.check_finished()
        self.reset()
        return outcome.points

    def reset(self) -> None:
        """Make everything as it was at first."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._start, self.root)

    def interrupt(self, server: Server, step: Step) -> None:
        """Let a run be killed, and begin from what it leaves, from now on."""
        self.reset()
        outcome = server.run(self.job(step))
        assert outcome.status < 0, outcome
        shutil.rmtree(self._start)
        shutil.copytree(self.root, self._start)

    @property
    def converted(self) -> list[str]:
        """The shards in the source that are the new ones."""
        return [
            name
            for name in SHARDS
            if (self.source / name).read_bytes() == self.new[name].content != self.old[name].content
        ]

    def check_interrupted(self) -> None:
        """Check what must hold at every instant: nothing is lost, nothing is half done."""
        found = {entry.name for entry in self.root.iterdir()}
        source = tree(self.source)
        if self.mode is Mode.COPY:
            assert source == self.old
            assert found <= {"ckpt", "ckpt-bf16", ".ckpt-bf16.recast"}
            if self.target.exists():
                assert contents(tree(self.target)) == contents(self.new)
            return
        assert found == {"ckpt"}
        names = {name for name in source if not name.startswith(".recast/")}
        assert names == self.old.keys()
        for name in names:
            assert source[name].content in (self.old[name].content, self.new[name].content), name
        self._check_loads(source)

    def check_failed(self) -> None:
        """Check what must hold after an error, too: a workplace stays only if it is needed."""
        self.check_interrupted()
        workplace = ".recast" if self.mode is Mode.IN_PLACE else ".ckpt-bf16.recast"
        folder = self.source if self.mode is Mode.IN_PLACE else self.root
        if not (self._start / folder.relative_to(self.root) / workplace).exists():
            done = self.converted if self.mode is Mode.IN_PLACE else self.target.exists()
            assert done or not (folder / workplace).exists()

    def check_finished(self) -> None:
        """Check that the result is that of an uninterrupted run, and nothing else is there."""
        assert {entry.name for entry in self.root.iterdir()} == {"ckpt", self.target.name}
        found = tree(self.target)
        assert contents(found) == contents(self.new)
        for name, entry in found.items():
            assert entry.mode == self.new[name].mode, name
            if self.mode is Mode.COPY and name in self._as_old:
                assert entry.modified == self.old[name].modified, name
        if self.mode is Mode.COPY:
            assert tree(self.source) == self.old

    @property
    def _as_old(self) -> set[str]:
        """The files of the result that have the time of the source: copies, and shards."""
        return {name for name in self.old if self.old[name].content == self.new[name].content} | {
            *SHARDS
        }

    def _check_loads(self, files: Tree) -> None:
        """Check that a checkpoint loads: every tensor of the index from the shard it names."""
        key = sha256()
        for name, entry in sorted(files.items()):
            key.update(f"{name} {len(entry.content)} ".encode() + entry.content)
        if key.hexdigest() in self._loaded:
            return
        json.loads(files["config.json"].content)
        stored = {name: shard for shard in SHARDS for name in load_file(self.source / shard)}
        assert stored == json.loads(files[INDEX].content)["weight_map"]
        self._loaded.add(key.hexdigest())


def check_reported(outcome: Outcome) -> None:
    """Check that a run failed as it should: in one line, and without a traceback."""
    assert outcome.status == 1, (outcome.status, outcome.errors)
    assert outcome.errors.startswith("recast: ")
    assert outcome.errors.count("\n") == 1, outcome.errors
    assert outcome.errors.endswith("\n")


def _check_cast(source: Path, target: Path) -> None:
    """Check with torch that *target* is what *source* becomes."""
    for shard in SHARDS:
        old, new = load_file(source / shard), load_file(target / shard)
        assert old.keys() == new.keys()
        for name, tensor in old.items():
            expected = tensor.bfloat16() if tensor.is_floating_point() and name != KEPT else tensor
            assert new[name].dtype is expected.dtype
            assert torch.equal(new[name], expected)
