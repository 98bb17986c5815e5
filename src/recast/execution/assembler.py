"""The files of a checkpoint, wherever they lie → Checkpoint."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from recast.errors import CheckpointError
from recast.formats.checkpoint import Checkpoint, File, Shard, Weights
from recast.formats.config import Config
from recast.formats.forms import form
from recast.formats.hub_path import HubPath, may_be_repository
from recast.formats.index import Index
from recast.formats.model_card import base_model
from recast.formats.names import Role

_CARD = "README.md"
_LARGEST_CARD = 10_000_000  # bytes: a real one has thousands


class Place(Protocol):
    """Where the files of a checkpoint lie: a folder on a disk, or on the Hub."""

    @property
    def path(self) -> Path | HubPath:
        """What the place is called."""

    def files(self) -> Iterable[File]:
        """Return the files in it and below, in a fixed order."""

    def content(self, name: str) -> bytes:
        """Return the content of a small file."""

    def shards(self, names: Iterable[str]) -> Iterable[Shard]:
        """Return these weights files, in this order, each with its header."""


def assemble(place: Place) -> Checkpoint:
    """Return the checkpoint that lies in *place*."""
    found = {file.name: file for file in place.files()}
    files = {name: file for name, file in found.items() if not file.role.is_left_out}
    indexes = [
        Index.parse(name, place.content(name))
        for name, file in files.items()
        if file.role is Role.INDEX
    ]
    weights = tuple(_read_weights(place, files, indexes))
    if not weights:
        raise CheckpointError(str(place.path), "holds no safetensors weights", _hint(found))
    loaded = (name for each in weights for name in (each.name, *(s.name for s in each.shards)))
    homes = set(map(posixpath.dirname, loaded))
    configs = {
        name: Config.parse(name, place.content(name))
        for name, file in files.items()
        if file.role is Role.CONFIG and posixpath.dirname(name) in homes
    }
    named = {shard.name for each in weights for shard in each.shards}
    named |= {index.name for index in indexes} | configs.keys()
    return Checkpoint(
        place.path,
        weights,
        configs,
        files=tuple(file for name, file in files.items() if name not in named),
        left_out=tuple(file for file in found.values() if file.role.is_left_out),
        base=_base(place, configs.get("config.json"), files),
    )


def _base(place: Place, config: Config | None, files: Mapping[str, File]) -> str | None:
    """Return the model that the checkpoint was made from, where somebody can find it."""
    named = [] if config is None else [config.document.get("_name_or_path")]
    folder = place.path if isinstance(place.path, Path) else None
    # On the Hub the card would be one request more, and its page shows the base anyway.
    if folder is not None and _CARD in files and files[_CARD].size <= _LARGEST_CARD:
        named.append(base_model(place.content(_CARD).decode("utf-8", "replace")))
    for name in named:
        if not isinstance(name, str) or not name or "\0" in name:
            continue
        with suppress(OSError):  # such as a name too long for a path: it is none then
            if folder is not None and Path(name).is_dir():
                if Path(name).samefile(folder):
                    continue
                return name
        if may_be_repository(name):
            return f"hf://{name}"
    return None


def _read_weights(
    place: Place, files: Mapping[str, File], indexes: list[Index]
) -> Iterator[Weights]:
    """Yield each loadable set of tensors: first the indexes', then the single files."""
    indexed = {name: None for index in indexes for name in index.shards if name in files}
    single = {
        name: None
        for name, file in files.items()
        if file.role is Role.WEIGHTS and name not in indexed
    }
    shards = {shard.name: shard for shard in place.shards(indexed | single)}
    for index in indexes:
        yield Weights(
            index.name,
            tuple(shards[name] for name in index.shards if name in shards),
            index,
            tuple(name for name in index.shards if name not in shards),
        )
    for name in single:
        yield Weights(name, (shards[name],))


def _hint(found: Mapping[str, File]) -> str:
    """Return what may help somebody whose folder holds no weights."""
    nested = sorted(
        {
            name.partition("/")[0]
            for name, file in found.items()
            if file.role is Role.NESTED_CHECKPOINT
        }
    )
    if nested:
        return f"name one of the checkpoints in it: {', '.join(nested[:3])}"
    if other := form(found):
        what, name = other
        return f"it has {what.value} ({name}): {what.remedy}"
    return "name the folder that holds model.safetensors or model.safetensors.index.json"
