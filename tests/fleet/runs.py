"""Folders of runs for tests, and what they should become, as safetensors and torch have it."""

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save

from recast import Dtype
from tests import checkpoints

LONG_AGO = 10**18  # ns: when nobody can be at work on a file of this time any more
INDEX = "model.safetensors.index.json"


def age(root: Path) -> Path:
    """Let everything in *root* be old, so that no trainer seems to be at work there."""
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return root


def save_runs(root: Path, runs: int, each: int) -> list[Path]:
    """Save *runs* runs of *each* checkpoints that differ, and return these."""
    saved = []
    for run in range(runs):
        for step in range(1, each + 1):
            folder = root / f"run-{run}" / f"checkpoint-{100 * step}"
            tensors = {
                name: tensor * (run + 1) + step
                for name, tensor in checkpoints.random_tensors(a=(40, 8), b=(8,), c=()).items()
            }
            shards = {
                "model-00001-of-00002.safetensors": {"a.weight": tensors["a"]},
                "model-00002-of-00002.safetensors": {"b": tensors["b"], "c": tensors["c"]},
            }
            checkpoints.save_sharded(folder, shards)
            (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
            saved.append(folder)
    age(root)
    return saved


def copied(root: Path, to: Path) -> Path:
    """Copy a folder of runs, with the times of its files."""
    return Path(shutil.copytree(root, to))


def shards(checkpoint: Path, target: Dtype = Dtype.BF16) -> dict[str, bytes]:
    """Return what the shards of *checkpoint* should become, as safetensors itself saves it."""
    return {
        path.name: save(checkpoints.cast_all(load_file(path), target), {"format": "pt"})
        for path in checkpoint.glob("*.safetensors")
    }


def check_repaired(before: Path, after: Path) -> None:
    """Check that *after* is what *before* becomes, byte for byte, and nothing is left over."""
    expected = shards(before)
    assert {path.name: path.read_bytes() for path in after.glob("*.safetensors")} == expected
    assert {path.name for path in after.iterdir()} == {path.name for path in before.iterdir()}
    config = json.loads((after / "config.json").read_text())
    assert config == {"model_type": "llama", "torch_dtype": "bfloat16"}
    index, old = (json.loads((each / INDEX).read_text()) for each in (after, before))
    assert index["metadata"]["total_size"] * 2 == old["metadata"]["total_size"]
    assert index["weight_map"] == old["weight_map"]
    assert (after / "tokenizer.json").read_text() == "{}"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in *folder* and below."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
