"""The index of sharded weights: which shard holds which tensor, and the index metadata."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recast.dtypes import Dtype
from recast.errors import CheckpointError
from recast.formats import json_text
from recast.formats.config import DtypeClaim
from recast.formats.names import is_inside


@dataclass(frozen=True, slots=True)
class Index:
    """An index as it stands in its file, such as ``model.safetensors.index.json``.

    Attributes:
        name: its path relative to the checkpoint, with "/".
        text: the file's content.
        weight_map: tensor name → shard, relative to the checkpoint, in the file's order.
        metadata: the index metadata, None if the file has none.
    """

    name: str
    text: str = field(repr=False)
    weight_map: Mapping[str, str] = field(repr=False)
    metadata: Mapping[str, Any] | None

    @classmethod
    def parse(cls, name: str, content: bytes) -> "Index":
        """Read an index. Raises CheckpointError if it is none or leaves its folder."""
        text = json_text.decode(content, name)
        document = json_text.parse(text, name)
        weight_map, metadata = document.get("weight_map"), document.get("metadata")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(name, "has no weight_map", "restore the index")
        if metadata is not None and not isinstance(metadata, dict):
            raise CheckpointError(name, "has metadata that is no object", "restore the index")
        home = posixpath.dirname(name)
        paths: dict[str, str] = {}  # a hundred thousand tensors lie in a few shards
        for tensor, shard in weight_map.items():
            if not isinstance(shard, str) or not (shard in paths or is_inside(shard)):
                raise CheckpointError(
                    name,
                    f"tensor {tensor!r} lies in {shard!r}, which is not inside the folder",
                    "move the shard into the folder and name it there",
                )
            if shard not in paths:
                paths[shard] = posixpath.normpath(posixpath.join(home, shard))
            weight_map[tensor] = paths[shard]
        return cls(name, text, weight_map, metadata)

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return len(self.text.encode())

    @property
    def shards(self) -> tuple[str, ...]:
        """The shard names, each once, sorted."""
        return tuple(sorted(set(self.weight_map.values())))

    @property
    def total_size(self) -> object:
        """The bytes of all tensors that the index metadata claims; None if it does not."""
        return self.metadata.get("total_size") if self.metadata else None

    @property
    def claim(self) -> DtypeClaim | None:
        """What the index metadata say of the dtype, whatever it is; None if nothing."""
        if self.metadata is None or "dtype" not in self.metadata:
            return None
        return DtypeClaim.of(("metadata", "dtype"), self.metadata["dtype"])

    def retold(self, total_size: int, dtype: Dtype | None) -> str:
        """Return the text with *total_size* in bytes and, where one is claimed, *dtype*.

        Where nothing is stored that has a dtype, *dtype* is None, and what is claimed stays.
        """
        text = self.text
        if self.metadata is None:
            drop_null = "metadata" in json_text.parse(text, self.name)
            edit = json_text.replace if drop_null else _insert_at_root
            return edit(text, ("metadata",), {"total_size": total_size})
        if "total_size" not in self.metadata:
            text = json_text.insert(text, ("metadata",), "total_size", total_size)
        elif self.total_size != total_size:
            text = json_text.replace(text, ("metadata", "total_size"), total_size)
        claim = self.claim
        if dtype is not None and claim is not None and claim.value != dtype.torch_name:
            text = json_text.replace(text, claim.path, dtype.torch_name)
        return text


def _insert_at_root(text: str, path: tuple[str, ...], value: object) -> str:
    """Return *text* with the member *path*, of one key, added to the root."""
    return json_text.insert(text, (), path[0], value)
