"""What must hold for every file, however damaged; each function raises AssertionError if not."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import recast
from recast.reports import documents, text
from tests.fuzz.mutations import ShardFile

Value = TypeVar("Value")

_DTYPE_KEYS = ("dtype", "torch_dtype")
_DEEPEST = 512  # levels of JSON that recast takes for a config or an index


class Bench:
    """A folder with a sound checkpoint of two shards, of which one file at a time is damaged."""

    def __init__(self, folder: Path) -> None:
        """Save the checkpoint in *folder*."""
        self.folder = folder
        self.shard = folder / "damaged.safetensors"
        self.sharded = folder / "sharded"
        self.single = folder / "single"
        self.sharded.mkdir()
        self.single.mkdir()
        for name in ("a", "b"):
            tensors = {name: np.full((4, 4), 1 / 3, np.float32)}
            save_file(tensors, self.sharded / f"{name}.safetensors", {"format": "pt"})
        save_file(tensors, self.single / "model.safetensors", {"format": "pt"})
        self.index = self.sharded / "model.safetensors.index.json"
        self.config = self.single / "config.json"

    def check_shard(self, file: ShardFile) -> bool:
        """Recast accepts a weights file if and only if safetensors does, and sees the same.

        Returns whether it does.
        """
        with self.shard.open("wb") as out:
            out.write(file.content)
            out.truncate(file.size)
        try:
            with safe_open(self.shard, "np") as opened:
                expected = sorted(opened.keys())
        except SafetensorError:
            expected = None
        checkpoint = _checked(self.shard)
        assert (checkpoint is None) == (expected is None), f"safetensors sees {expected}"
        if checkpoint is None or expected is None:
            return False
        header = checkpoint.shards[0].header
        length = int.from_bytes(file.content[:8], "little")
        told = json.loads(file.content[8 : 8 + length])
        assert header.metadata == _sorted(told.pop("__metadata__", None))
        seen = {
            name: {
                "dtype": str(tensor.dtype),
                "shape": list(tensor.shape),
                "data_offsets": list(tensor.data_offsets),
            }
            for name, tensor in header.tensors.items()
        }
        assert expected == sorted(seen)
        assert seen == {name: {key: told[name][key] for key in seen[name]} for name in told}
        return True

    def check_index(self, content: bytes) -> bool:
        """Recast accepts an index if and only if a loader can follow it, inside the folder."""
        self.index.write_bytes(content)
        shards = _followed(content)
        checkpoint = _checked(self.sharded)
        assert (checkpoint is None) == (shards is None), f"a loader would open {shards}"
        return checkpoint is not None

    def check_config(self, content: bytes) -> bool:
        """Recast accepts a config if and only if it is a JSON object, and not a bottomless one."""
        self.config.write_bytes(content)
        checkpoint = _checked(self.single)
        document = _object(content)
        assert (checkpoint is None) == (document is None)
        return checkpoint is not None


def _checked(path: Path) -> recast.Checkpoint | None:
    """Return what recast makes of *path*, None if it is an error, and check what follows from it.

    Anything but a RecastError ends in a failure here, and a message that cannot be printed.
    """
    checkpoint = _or_said(lambda: recast.inspect(path))
    if checkpoint is None:
        return None
    assert text.printable(text.inspection(checkpoint)).encode()
    assert json.dumps(documents.inspection(checkpoint), allow_nan=False)
    plan = _or_said(lambda: recast.plan(checkpoint, "bfloat16"))
    if plan is None:
        return checkpoint
    for shard in plan.shards:
        if shard.changes:
            _check_accepted(shard.head, shard.size)
    for document in plan.documents:
        before = json.loads((path / document.name).read_bytes())
        _check_only_dtypes_differ(before, json.loads(document.text))
    return checkpoint


def _or_said(work: Callable[[], Value]) -> Value | None:
    """Return what *work* returns; None if it is an error that can be said in one line."""
    try:
        return work()
    except recast.RecastError as error:
        line = text.printable(str(error))
    assert line.encode()
    assert line.count("\n") == 0
    return None


def _check_accepted(head: bytes, size: int) -> None:
    """Check that safetensors accepts what would be written."""
    with _hollow(head, size) as path, safe_open(path, "np"):
        pass


@contextmanager
def _hollow(head: bytes, size: int) -> Iterator[str]:
    """Yield a file of this size that begins with *head*."""
    descriptor = os.memfd_create("head")
    try:
        os.write(descriptor, head)
        os.ftruncate(descriptor, size)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _followed(content: bytes) -> list[str] | None:
    """Return the shards that a loader opens for an index; None if it fails, or leaves the folder.

    As transformers does it, except that it asks neither for metadata nor for what is in them.
    """
    document = _object(content)
    if document is None or not isinstance(document.get("metadata"), (dict, type(None))):
        return None
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        return None
    shards = (
        set(weight_map.values()) if all(isinstance(v, str) for v in weight_map.values()) else ()
    )
    if not shards or any(_leaves(shard) for shard in shards):
        return None
    return sorted(shards)


def _leaves(shard: str) -> bool:
    """Whether a name leads out of the folder it is read in, here or on Windows, or to nothing."""
    parts = shard.replace("\\", "/").split("/")
    drive = len(shard) > 1 and shard[1] == ":"
    nothing = not [part for part in shard.split("/") if part not in ("", ".")]
    return nothing or ".." in parts or parts[0] == "" or drive or "\0" in shard


def _object(content: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None if it holds something else, or a pit."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and _depth(document) <= _DEEPEST else None


def _depth(document: object) -> int:
    """Return how deep a JSON document is nested; 0 if it is a plain value."""
    depth, level = 0, [document]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [x for each in level for x in (each.values() if isinstance(each, dict) else each)]
    return depth


def _sorted(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if metadata is None else dict(sorted(metadata.items()))


def _check_only_dtypes_differ(before: object, after: object, key: str = "") -> None:
    """Check that a rewritten document says the same, but for its dtypes and the total size."""
    if key in (*_DTYPE_KEYS, "total_size") or (key == "metadata" and before is None):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        added = after.keys() - before.keys()
        assert added <= {*_DTYPE_KEYS, "total_size", "metadata"}
        assert [each for each in after if each not in added] == list(before)
        for each, value in before.items():
            _check_only_dtypes_differ(value, after[each], each)
        return
    assert json.dumps(before) == json.dumps(after)  # NaN, too, is what it was
