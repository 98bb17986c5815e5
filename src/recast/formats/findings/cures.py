"""What to type to put things right; nothing where no one command does it."""

import shlex
from pathlib import Path

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import HubPath

FIX_CONFIG = "--fix-config"
_SCRIPT = "zero_to_fp32.py"  # which DeepSpeed lays beside its global_step folder


def conversion(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that converts *checkpoint* to *dtype*, or to bf16 if it cannot."""
    target = dtype if dtype in TARGETS else Dtype.BF16
    return shlex.join(["recast", str(checkpoint.path), "--to", target.short_name])


def truth(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that makes configs and indexes say what is stored, mostly in *dtype*.

    Where their files cannot be replaced, on the Hub and in its cache, it is a conversion.
    """
    if isinstance(checkpoint.path, HubPath) or _cached_from(checkpoint.path):
        return conversion(checkpoint, dtype)
    return shlex.join(["recast", str(checkpoint.path), FIX_CONFIG])


def likeness(checkpoint: Checkpoint, base: Checkpoint) -> str:
    """Return the command that gives the tensors of *checkpoint* the dtypes of *base*'s."""
    return shlex.join(["recast", str(checkpoint.path), "--like", str(base.path)])


def gathering(checkpoint: Checkpoint) -> str:
    """Return the command that gathers a ZeRO-3 save, if DeepSpeed's script lies in its folder."""
    path = checkpoint.path
    if isinstance(path, HubPath) or all(file.name != _SCRIPT for file in checkpoint.files):
        return ""
    script = [str(path / _SCRIPT), str(path), f"{path}-whole"]
    return shlex.join(["python", *script, "--safe_serialization"])


def fetching(checkpoint: Checkpoint, name: str) -> str:
    """Return the command that downloads the file *name* again, into the Hub's cache."""
    path = checkpoint.path
    if isinstance(path, HubPath) or not (repo := _cached_from(path)):
        return ""
    there = ["--revision", path.name, "--cache-dir", str(path.parents[2])]
    return shlex.join(["hf", "download", repo, name, *there])


def removal(checkpoint: Checkpoint, name: str) -> str:
    """Return the command that moves the weights file *name* away, beside the folder."""
    path = checkpoint.path
    if isinstance(path, HubPath):
        return ""
    aside = f"{path.name}-stale-{name.replace('/', '-')}"
    here = path.name in {"", ".."}  # such as ".", beside which one cannot name a thing
    target = path / ".." / aside.lstrip("-.") if here else path.with_name(aside)
    return shlex.join(["mv", str(path / name), str(target)])


def deletion(checkpoint: Checkpoint) -> str:
    """Return the command that deletes trainer state."""
    if isinstance(checkpoint.path, HubPath):
        return ""
    return shlex.join(["recast", str(checkpoint.path), "--delete-trainer-state"])


def _cached_from(path: Path) -> str:
    """Return the repository whose snapshot in the Hub's cache *path* is; "" if it is none."""
    if len(path.parts) < 3 or path.parent.name != "snapshots":
        return ""
    folder = path.parents[1].name
    return folder[len("models--") :].replace("--", "/") if folder.startswith("models--") else ""
