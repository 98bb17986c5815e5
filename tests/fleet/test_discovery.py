"""What is a checkpoint in a folder of runs, and what is not."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import recast
from recast import StorageError
from recast.execution.fleets import discovery, signs
from recast.formats.forms import Form, Unread
from tests.checkpoints import random_tensors, save_shard, save_sharded, two_shards, write_json
from tests.fleet import runs


def below(root: Path, **options: object) -> list[str]:
    """Return what is discovered, relative to *root*."""
    return [path.relative_to(root).as_posix() for path in recast.discover(root, **options)]


def save_one(path: Path, config: str = "config.json") -> None:
    """Save one weights file with a config of this name beside it."""
    save_shard(path, random_tensors(a=(2, 2)))
    write_json(path.parent / config, {})


def test_the_shapes_of_checkpoints(tmp_path: Path) -> None:
    """Runs, their checkpoints, adapters, pipelines and bare files are found, each once."""
    two_shards(tmp_path / "run")
    two_shards(tmp_path / "run" / "checkpoint-500")
    two_shards(tmp_path / "run" / "checkpoint-1000")
    save_one(tmp_path / "run" / "2_Dense" / "model.safetensors")
    save_one(tmp_path / "deep" / "er" / "adapter_model.safetensors", "adapter_config.json")
    write_json(tmp_path / "pipeline" / "model_index.json", {})
    save_one(tmp_path / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    save_one(tmp_path / "pipeline" / "vae" / "diffusion_pytorch_model.safetensors")
    save_shard(tmp_path / "plain" / "model.safetensors", random_tensors(a=(2,)))
    assert below(tmp_path) == [
        *("deep/er", "pipeline", "plain"),
        *("run", "run/checkpoint-1000", "run/checkpoint-500"),
    ]
    for path in recast.discover(tmp_path):
        assert recast.inspect(path).path == path


def test_stray_files_do_not_swallow_what_lies_around(tmp_path: Path) -> None:
    """Weights without a config, beside whole checkpoints, are checkpoints of one file each."""
    two_shards(tmp_path / "run")
    save_shard(tmp_path / "stray.safetensors", random_tensors(a=(2,)))
    assert below(tmp_path) == ["stray.safetensors", "run"]


def test_what_is_skipped(tmp_path: Path) -> None:
    """Hidden folders, caches, trainer state and workplaces of recast hold no checkpoints."""
    for name in (
        *(".hidden", ".cache/huggingface", "models--org--name/snapshots/abc", "__pycache__"),
        *("run/.recast/result", ".ckpt-bf16.recast/result", "global_step500", "optimizer_0"),
    ):
        two_shards(tmp_path / name)
    two_shards(tmp_path / "run")
    assert below(tmp_path) == ["run"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A link to a checkpoint is another name for it; one that leads elsewhere is followed."""
    root = tmp_path / "runs"
    two_shards(root / "run" / "checkpoint-5")
    two_shards(tmp_path / "disk" / "old")
    (root / "run" / "best").symlink_to("checkpoint-5")
    (root / "a-loop").symlink_to(root)
    (root / "disk").symlink_to(tmp_path / "disk")
    (root / "nowhere").symlink_to(tmp_path / "missing")
    assert below(root) == ["run/checkpoint-5", "disk/old"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ["run-0/*"]}, ["run-0/checkpoint-100", "run-0/checkpoint-200"]),
        ({"include": "checkpoint-100"}, [f"run-{each}/checkpoint-100" for each in range(3)]),
        ({"exclude": ["run-[01]"]}, ["run-2/checkpoint-100", "run-2/checkpoint-200"]),
        ({"include": ["run-1/*"], "exclude": ["*-200"]}, ["run-1/checkpoint-100"]),
        ({"include": ["nothing"]}, []),
        ({"include": ["run-0"]}, ["run-0/checkpoint-100", "run-0/checkpoint-200"]),
        ({"include": ["./run-1/"]}, ["run-1/checkpoint-100", "run-1/checkpoint-200"]),
        ({"include": ["**/checkpoint-100"]}, [f"run-{each}/checkpoint-100" for each in range(3)]),
        ({"include": ["run-0/**/checkpoint-100"]}, ["run-0/checkpoint-100"]),
        ({"exclude": ["run-0/", "./run-1"]}, ["run-2/checkpoint-100", "run-2/checkpoint-200"]),
    ],
)
def test_include_and_exclude(options: dict[str, object], expected: list[str], saved: Path) -> None:
    """Patterns are those of paths below the root, or of last parts, with all that lies there."""
    assert below(saved, **options) == expected


def test_weights_in_other_forms_are_told(tmp_path: Path) -> None:
    """A folder without safetensors, but with other weights, is no checkpoint, and is named."""
    two_shards(tmp_path / "run")
    for name in (
        "run/pytorch_model.bin",  # beside safetensors: recast reads those
        "run/global_step5/mp_rank_00_model_states.pt",
        "old/pytorch_model-00001-of-00002.bin",
        "old/global_step5/mp_rank_00_model_states.pt",  # the pickles are easier to use
        "zero/checkpoint-5/global_step5/mp_rank_00_model_states.pt",
        "zero/checkpoint-5/latest",
        "fsdp/checkpoint-5/pytorch_model_fsdp_0/__0_0.distcp",
        "titan/step-5/__0_0.distcp",
        "light/last.ckpt",
        "left/optimizer.pt",
        "left/training_args.bin",
        "corpus/tokens.bin",
        ".hidden/pytorch_model.bin",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told: list[Unread] = []
    assert below(tmp_path, unread=told.append) == ["run"]
    assert {each.path.relative_to(tmp_path).as_posix(): each.form for each in told} == {
        "old": Form.PICKLED,
        "zero/checkpoint-5": Form.PARTITIONED,
        "fsdp/checkpoint-5": Form.DISTRIBUTED,
        "titan/step-5": Form.DISTRIBUTED,
        "light": Form.PICKLED,
    }
    told.clear()
    assert below(tmp_path, unread=told.append, include=["zero"], exclude=["run"]) == []
    assert [each.path.name for each in told] == ["checkpoint-5"]
    for each in told:
        with pytest.raises(recast.CheckpointError) as caught:
            recast.inspect(each.path)
        assert each.form.remedy in str(caught.value)


def test_folders_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a folder is an error, or is reported and the rest is found."""
    closed = root / "run-1"
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(discovery.os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        list(recast.discover(root))
    said: list[StorageError] = []
    assert len(list(recast.discover(root, report=said.append))) == 4
    assert [each.subject for each in said] == [str(closed)]


def test_folders_that_are_deleted_meanwhile(root: Path) -> None:
    """One that was listed and is gone when its turn comes is passed over; the root is not."""
    found = recast.discover(root)
    first = next(found)
    shutil.rmtree(first.with_name("checkpoint-200"))
    shutil.rmtree(root / "run-1")
    assert [path.relative_to(root).parts[0] for path in found] == ["run-2", "run-2"]
    late = recast.discover(root)
    shutil.rmtree(root)
    with pytest.raises(StorageError, match="No such file"):
        next(late)


def test_links_that_cannot_be_followed_hide_nothing(tmp_path: Path) -> None:
    """One that leads to itself is passed over, another is reported; the rest is found."""
    two_shards(tmp_path / "run")
    (tmp_path / "itself").symlink_to("itself")
    assert below(tmp_path) == ["run"]
    (tmp_path / "long").symlink_to("x" * 300)
    said: list[StorageError] = []
    assert below(tmp_path, report=said.append) == ["run"]
    assert [each.subject for each in said] == [str(tmp_path / "long")]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_root_that_is_no_folder(tmp_path: Path, name: str) -> None:
    """A file, or nothing, is no folder of runs."""
    (tmp_path / "file").touch()
    with pytest.raises(recast.CheckpointError, match="is no folder"):
        recast.discover(tmp_path / name)


def test_ten_thousand_folders(tmp_path: Path) -> None:
    """A large tree is searched whole."""
    for run in range(100):
        for step in range(100):
            folder = tmp_path / f"run-{run}" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "model.safetensors").touch()
            (folder / "config.json").touch()
    found = list(recast.discover(tmp_path))
    assert len(found) == len(set(found)) == 10_000


@pytest.mark.parametrize("stray", [False, True])
def test_folders_deeper_than_calls(tmp_path: Path, stray: bool) -> None:  # noqa: FBT001 - a case
    """What lies in a thousand folders, each in the other, is found, whatever lies on the way."""
    folders = [tmp_path]
    try:
        for _ in range(sys.getrecursionlimit()):
            folders.append(folders[-1] / "d")
            folders[-1].mkdir()
            if stray:
                (folders[-1] / "weights.safetensors").touch()
        save_one(folders[-1] / "weights.safetensors")
        strays = [folder / "weights.safetensors" for folder in folders[1:-1] if stray]
        assert list(recast.discover(tmp_path)) == [*strays, folders[-1]]
    finally:  # shutil.rmtree calls itself for each
        for folder in reversed(folders[1:]):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """A checkpoint that nobody has touched for years."""
    return runs.age(save_sharded(tmp_path / "ckpt", {"model.safetensors": random_tensors(a=(4,))}))


def outcome(ckpt: Path) -> recast.Outcome:
    """Return what becomes of *ckpt* in a fleet, in place."""
    (done,) = recast.convert_all([ckpt], "bf16", in_place=True)
    return done


@pytest.mark.parametrize(
    "name", ["model.safetensors.tmp", ".tmpX7f2aB", "a.incomplete", "sub/x.partial"]
)
def test_a_fresh_temporary_file_means_that_somebody_writes(ckpt: Path, name: str) -> None:
    """Such a checkpoint is skipped, with the file's name; when the file is old, it is not."""
    before = runs.contents(ckpt)
    temporary = ckpt / name
    temporary.parent.mkdir(exist_ok=True)
    temporary.touch()
    done = outcome(ckpt)
    assert done.fate is recast.Fate.SKIPPED
    assert done.error.problem == f"is being written: {name} is new"
    assert runs.contents(ckpt) == before | {name: b""}
    runs.age(ckpt)
    assert outcome(ckpt).fate is recast.Fate.REPAIRED


def test_the_folder_that_a_trainer_will_rename(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known for what it is also from inside."""
    unfinished = ckpt.rename(ckpt.with_name("tmp-checkpoint-5"))
    os.utime(unfinished / "config.json", (time.time() - 300,) * 2)
    monkeypatch.chdir(unfinished)
    done = outcome(Path())
    assert done.fate is recast.Fate.SKIPPED
    assert done.error.problem == "is being written: config.json is new"


@pytest.mark.parametrize("change", ["grows", "new", "touched", "gone"])
def test_files_that_move_mean_that_somebody_writes(
    ckpt: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint whose files are not what they were a moment ago is skipped."""
    tokenizer = ckpt / "tokenizer.json"
    tokenizer.write_text("{}")

    def write(_seconds: float) -> None:
        match change:
            case "grows":
                with tokenizer.open("a") as file:
                    file.write(" ")
            case "new":
                (ckpt / "vocab.txt").touch()
            case "touched":
                os.utime(tokenizer, ns=(1, 1))
            case "gone":
                tokenizer.unlink()

    monkeypatch.setattr(signs.time, "sleep", write)
    done = outcome(ckpt)
    assert done.fate is recast.Fate.SKIPPED
    assert "its files have just changed" in done.error.problem


@pytest.mark.parametrize("look", ["the first", "to plan", "the last"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_goes_while_it_is_looked_at_means_that_somebody_writes(
    ckpt: Path, kind: str, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file, or folder, that was listed and is gone is no error of the disk."""
    walk = os.walk
    looks = ["the last", "to plan", "the first"]

    def pass_by(top: Path, **options: object) -> Iterator[tuple[str, list[str], list[str]]]:
        """List what is there, and in one of the looks what is there no more, too."""
        is_it = looks.pop() == look if looks else False
        for parent, folders, names in walk(top, **options):
            if is_it:
                (names if kind == "file" else folders).append("fleeting")
            yield parent, folders, names

    monkeypatch.setattr(discovery.os, "walk", pass_by)
    before = runs.contents(ckpt)
    done = outcome(ckpt)
    assert done.fate is recast.Fate.SKIPPED
    assert done.error.problem == "is being written: fleeting has just gone"
    assert runs.contents(ckpt) == before
    looks.clear()
    assert outcome(ckpt).fate is recast.Fate.REPAIRED


def test_a_checkpoint_that_is_deleted_while_it_is_looked_at(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that keeps only its latest checkpoints deletes the others, file by file."""
    walk = os.walk

    def delete(top: Path, **options: object) -> Iterator[tuple[str, list[str], list[str]]]:
        """List what is there, and delete it."""
        for listed in walk(top, **options):
            shutil.rmtree(ckpt)
            yield listed

    monkeypatch.setattr(discovery.os, "walk", delete)
    done = outcome(ckpt)
    assert done.fate is recast.Fate.SKIPPED
    assert done.error.problem == "was deleted meanwhile"


def test_a_checkpoint_that_was_just_finished_is_repaired(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files that rest between two looks, some time apart, are nobody's work any more."""
    slept: list[float] = []
    monkeypatch.setattr(signs.time, "sleep", slept.append)
    monkeypatch.setattr(signs.time, "monotonic", lambda: 100.0)
    os.utime(ckpt / "config.json", (time.time(), time.time()))
    assert outcome(ckpt).fate is recast.Fate.REPAIRED
    assert slept == [signs.PAUSE]


def test_half_a_checkpoint_of_a_live_trainer_is_no_failure(ckpt: Path) -> None:
    """What cannot be read because it is not finished is skipped, not reported as broken."""
    os.truncate(ckpt / "model.safetensors", 20)
    runs.age(ckpt)
    assert outcome(ckpt).fate is recast.Fate.FAILED
    (ckpt / "config.json.tmp").touch()
    assert outcome(ckpt).fate is recast.Fate.SKIPPED
