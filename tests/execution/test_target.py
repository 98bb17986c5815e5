"""Which places can take the output, and which are refused before a byte is written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import recast
from recast import TargetError
from recast.execution.target import check_space, check_target, free_space, is_finished
from tests.checkpoints import random_tensors, save_shard
from tests.execution.test_converter import seen


def through_a_link(ckpt: Path) -> Path:
    """Return the source by another name."""
    (ckpt.parent / "link").symlink_to("ckpt")
    return ckpt.parent / "link"


def inside_through_a_link(ckpt: Path) -> Path:
    """Return a place inside the source by another name."""
    return through_a_link(ckpt) / "out"


def a_file(ckpt: Path) -> Path:
    """Return a file that is in the way."""
    (ckpt.parent / "file").write_text("")
    return ckpt.parent / "file"


def a_full_folder(ckpt: Path) -> Path:
    """Return a folder that is in the way."""
    (ckpt.parent / "folder/more").mkdir(parents=True)
    return ckpt.parent / "folder"


def a_broken_link(ckpt: Path) -> Path:
    """Return a link to nothing."""
    (ckpt.parent / "broken").symlink_to("nothing")
    return ckpt.parent / "broken"


def a_circle(ckpt: Path) -> Path:
    """Return a link to itself."""
    (ckpt.parent / "circle").symlink_to("circle")
    return ckpt.parent / "circle"


def in_the_hub_cache(ckpt: Path) -> Path:
    """Return a place in a snapshot of the Hub's cache."""
    for name in ("blobs", "snapshots"):
        (ckpt.parent / "models--org--name" / name).mkdir(parents=True)
    return ckpt.parent / "models--org--name/snapshots/0123-bf16"


def below_a_file(ckpt: Path) -> Path:
    """Return a place in what is no folder."""
    return a_file(ckpt) / "out"


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (lambda ckpt: ckpt, "is the source itself"),
    (lambda ckpt: ckpt / "../ckpt", "is the source itself"),
    (through_a_link, "is the source itself"),
    (lambda ckpt: ckpt / "out", "lies inside the source"),
    (inside_through_a_link, "lies inside the source"),
    (lambda ckpt: ckpt.parent, "holds the source"),
    (lambda _: Path("/"), "holds the source"),
    (a_file, "is there already"),
    (a_full_folder, "is there already"),
    (a_broken_link, "is there already"),
    (a_circle, "is a link to itself|is there already"),
    (in_the_hub_cache, "lies in a Hub cache"),
    (below_a_file, "is not a folder"),
]


@pytest.mark.parametrize(("place", "problem"), REFUSED)
def test_places_that_are_refused(ckpt: Path, place: Callable[[Path], Path], problem: str) -> None:
    """Where the output would do harm or cannot be, it is refused at once, with a way out."""
    target = place(ckpt)
    before = seen(ckpt.parent)
    plan = recast.plan(ckpt, "bf16")
    for refuse in (
        lambda: check_target(plan, target),
        lambda: recast.convert(ckpt, "bf16", out=target),
    ):
        with pytest.raises(TargetError, match=problem) as caught:
            refuse()
        assert "-o" in caught.value.remedy
        assert str(target).startswith(caught.value.subject)
    assert seen(ckpt.parent) == before


def test_places_that_are_not(ckpt: Path) -> None:
    """A new name, an empty folder, and a link to one are fine, even far from any folder."""
    plan = recast.plan(ckpt, "bf16")
    (ckpt.parent / "empty").mkdir()
    (ckpt.parent / "link").symlink_to("empty")
    (ckpt.parent / "ckpt-more").mkdir()  # beside the source, whatever its name begins with
    for name in ("new", "empty", "link", "new/and/deep", "ckpt-bf16", "ckpt-more/out"):
        check_target(plan, ckpt.parent / name)


def test_the_current_folder(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder would be gone under the user's feet: name one in it."""
    folder = ckpt.parent / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for target in (Path(), folder, Path("../here")):
        with pytest.raises(TargetError, match=r"the current folder.*; name a new folder in it"):
            recast.convert(ckpt, "bf16", out=target)
    assert recast.convert(ckpt, "bf16", out="out").target == Path("out")
    assert len(list((folder / "out").iterdir())) == 5


def test_a_mount_point(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file system that is mounted somewhere cannot be replaced by a folder."""
    (ckpt.parent / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "disk")
    with pytest.raises(TargetError, match=r"is a mount point.*; name a new folder in it"):
        recast.convert(ckpt, "bf16", out=ckpt.parent / "disk")
    recast.convert(ckpt, "bf16", out=ckpt.parent / "disk/out")


def test_targets_of_a_bare_file(tmp_path: Path) -> None:
    """One file becomes a file: under a name of its kind, and not in the place of a folder."""
    source = tmp_path / "a.safetensors"
    save_shard(source, {"x": torch.ones(2)})
    (tmp_path / "folder.safetensors").mkdir()
    plan = recast.plan(source, "bf16")
    check_target(plan, tmp_path / "b.safetensors")
    for name, problem in (
        ("folder.safetensors", "is there already"),
        ("b", "is no name for one weights file; let it end in .safetensors"),
        ("b.bin", "is no name for one weights file; let it end in .safetensors"),
        ("a.safetensors", "is the source itself"),
    ):
        with pytest.raises(TargetError, match=problem):
            check_target(plan, tmp_path / name)


def test_too_little_space(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the output, to the byte, nothing is written; the error says how much."""
    needed = recast.plan(ckpt, "bf16").size
    before = seen(ckpt.parent)
    asked = []

    def disk_usage(path: Path) -> object:
        asked.append(Path(path))
        return type("Usage", (), {"free": needed - 1})

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    out = ckpt.parent / "new/out"
    with pytest.raises(TargetError, match=f"needs {needed:,} bytes.* {needed - 1:,} are free"):
        recast.convert(ckpt, "bf16", out=out)
    assert seen(ckpt.parent) == before
    assert set(asked) <= {ckpt.parent, ckpt.parent / "new"}  # that very disk was asked about
    check_space(needed - 1, out)
    with pytest.raises(TargetError, match="free some space, or write elsewhere with -o"):
        check_space(needed, out)


def test_the_disk_that_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that on which the files will lie: where a link leads, and a mount point itself."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "link").symlink_to(disk)
    asked = []

    def disk_usage(path: Path) -> object:
        asked.append(Path(path))
        return type("Usage", (), {"free": 1})

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    for name in ("disk", "link", "link/new/out", "disk/a.safetensors"):
        assert free_space(tmp_path / name) == 1
    assert asked == [disk] * 4


def test_what_is_finished(ckpt: Path, tmp_path: Path) -> None:
    """A result is recognized by its names, headers, sizes and times; any change is seen."""
    plan = recast.plan(ckpt, "bf16")
    out = tmp_path / "out"
    assert not is_finished(plan, out)
    recast.convert(plan, out=out)
    assert is_finished(plan, out)
    assert not is_finished(recast.plan(ckpt, "fp16"), out)
    assert not is_finished(recast.plan(ckpt, "bf16", keep=["*norm*"]), out)
    shard = out / "model-00001-of-00002.safetensors"
    header = shard.read_bytes().replace(b"norm", b"nerm")
    for name, content in (
        ("extra.txt", b""),
        ("tokenizer.json", b"[]"),
        ("config.json", (out / "config.json").read_bytes().replace(b"bfloat16", b"bfloat32")),
        (shard.name, shard.read_bytes() + b"\0"),
        (shard.name, header),
    ):
        other = tmp_path / "other"
        shutil.copytree(out, other)
        (other / name).write_bytes(content)
        if content is header:  # all that tells it apart
            os.utime(other / name, ns=(0, shard.stat().st_mtime_ns))
        assert not is_finished(plan, other)
        shutil.rmtree(other)
    for name in (shard.name, "config.json", "tokenizer.json"):
        shutil.copytree(out, tmp_path / "other")
        (tmp_path / "other" / name).unlink()
        assert not is_finished(plan, tmp_path / "other")
        shutil.rmtree(tmp_path / "other")


def test_a_source_that_was_trained_further(ckpt: Path, tmp_path: Path) -> None:
    """What was made of an earlier source of the same shape is not taken for the result."""
    out = tmp_path / "out"
    recast.convert(ckpt, "bf16", out=out)
    shard = ckpt / "model-00001-of-00002.safetensors"
    kinds = {"model.embed_tokens.weight": (32, 8), "model.norm.weight": (8,)}
    save_shard(shard, {name: -each for name, each in random_tensors(**kinds).items()})
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 10**9))
    with pytest.raises(TargetError, match="is there already"):
        recast.convert(ckpt, "bf16", out=out)
