"""What to type to put things right; nothing where no one command does it."""

import shlex
from pathlib import Path

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import HubPath

FIX_CONFIG = "--fix-config"
_SCRIPT = "zero_to_fp32.py"  # which DeepSpeed lays beside its global_step folder


def typed(*words: str | Path | HubPath) -> str:
    """Return *words* as one would type them: a path never is an option, nor two lines."""
    return " ".join(
        _quoted(f"./{word}" if _is_like_an_option(word) else str(word)) for word in words
    )


def _is_like_an_option(word: str | Path | HubPath) -> bool:
    """Whether *word* is a path that a program would take for an option."""
    return isinstance(word, Path) and str(word).startswith("-")


def _quoted(word: str) -> str:
    """Return *word* as a shell takes it, on one line, in characters that can be seen."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(char: str) -> str:
    """Return *char* as it stands in $'', where shells know the escapes of C."""
    if char in "'\\":
        return f"\\{char}"
    if "\udc80" <= char <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def conversion(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that converts *checkpoint* to *dtype*, or to bf16 if it cannot."""
    return typed("recast", checkpoint.path, "--to", target(dtype).short_name)


def rewriting(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that writes *checkpoint*, mostly *dtype*, anew, and changes no value."""
    command = conversion(checkpoint, dtype)
    has_tensors = any(shard.header.tensors for shard in checkpoint.shards)  # which "*" would match
    return f"{command} --keep '*'" if has_tensors else command


def target(dtype: Dtype | None) -> Dtype:
    """Return *dtype*, or bf16 if recast does not convert to it."""
    return dtype if dtype in TARGETS else Dtype.BF16


def truth(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that makes configs and indexes say what is stored, mostly in *dtype*.

    Where their files cannot be replaced, on the Hub and in its cache, it is a conversion.
    """
    if isinstance(checkpoint.path, HubPath) or _cached_from(checkpoint.path):
        command = conversion if dtype in TARGETS else rewriting
        return command(checkpoint, dtype)
    return typed("recast", checkpoint.path, FIX_CONFIG)


def likeness(checkpoint: Checkpoint, base: Checkpoint) -> str:
    """Return the command that gives the tensors of *checkpoint* the dtypes of *base*'s."""
    return typed("recast", checkpoint.path, "--like", base.path)


def gathering(checkpoint: Checkpoint) -> str:
    """Return the command that gathers a ZeRO-3 save, if DeepSpeed's script lies in its folder."""
    path = checkpoint.path
    if isinstance(path, HubPath) or all(file.name != _SCRIPT for file in checkpoint.files):
        return ""
    places = (path / _SCRIPT, path, Path(f"{path}-whole"))
    return typed("python", *places, "--safe_serialization")


def fetching(checkpoint: Checkpoint, name: str) -> str:
    """Return the command that downloads the file *name* again, into the Hub's cache."""
    path = checkpoint.path
    if isinstance(path, HubPath) or not (repo := _cached_from(path)):
        return ""
    there = ("--revision", path.name, "--cache-dir", path.parents[2])
    return typed("hf", "download", repo, name, *there)


def removal(checkpoint: Checkpoint, name: str) -> str:
    """Return the command that moves the weights file *name* away, beside the folder."""
    path = checkpoint.path
    if isinstance(path, HubPath):
        return ""
    aside = f"{path.name}-stale-{name.replace('/', '-')}"
    here = path.name in {"", ".."}  # such as ".", beside which one cannot name a thing
    target = path / ".." / aside.lstrip("-.") if here else path.with_name(aside)
    return typed("mv", path / name, target)


def deletion(checkpoint: Checkpoint) -> str:
    """Return the command that deletes trainer state."""
    if isinstance(checkpoint.path, HubPath):
        return ""
    return typed("recast", checkpoint.path, "--delete-trainer-state")


def _cached_from(path: Path) -> str:
    """Return the repository whose snapshot in the Hub's cache *path* is; "" if it is none."""
    if len(path.parts) < 3 or path.parent.name != "snapshots":
        return ""
    folder = path.parents[1].name
    return folder[len("models--") :].replace("--", "/") if folder.startswith("models--") else ""
