"""Checkpoint: all that lies in a folder that a loader can load."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath

from recast.dtypes import Dtype
from recast.errors import RefusedError
from recast.formats.config import Config
from recast.formats.header import Header, TensorInfo
from recast.formats.hub_path import HubPath
from recast.formats.index import Index
from recast.formats.names import Role


@dataclass(frozen=True, slots=True)
class File:
    """One file that holds no weights.

    Attributes:
        name: its path relative to the checkpoint, with "/".
        size: its bytes.
        role: what it is to the checkpoint.
    """

    name: str
    size: int
    role: Role


@dataclass(frozen=True, slots=True)
class Shard:
    """One weights file.

    Attributes:
        name: its path relative to the checkpoint, with "/".
        header: what it says of its tensors.
        modified: when it was last modified, in ns since 1970.
    """

    name: str
    header: Header = field(repr=False)
    modified: int = 0

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self.header.file_size


@dataclass(frozen=True, slots=True)
class Weights:
    """One loadable set of tensors: an index with its shards, or one file.

    Attributes:
        name: the file a loader opens first: the index, or the only shard.
        shards: those that exist, in the index's order.
        index: None for a single file.
        missing_shards: names that the index holds and the folder does not.
    """

    name: str
    shards: tuple[Shard, ...]
    index: Index | None = None
    missing_shards: tuple[str, ...] = ()

    @property
    def tensors(self) -> Iterator[tuple[str, TensorInfo]]:
        """Every tensor with its name, shard by shard."""
        for shard in self.shards:
            yield from shard.header.tensors.items()

    @property
    def data_size(self) -> int:
        """The bytes of all tensors, headers excluded."""
        return sum(shard.header.data_size for shard in self.shards)


@dataclass(frozen=True, slots=True)
class DtypeShare:
    """What one dtype amounts to in some shards: counts of tensors and parameters, and bytes."""

    dtype: Dtype
    tensors: int
    parameters: int
    nbytes: int


def dtype_shares(shards: Iterable[Shard]) -> tuple[DtypeShare, ...]:
    """Return what each dtype stored in *shards* amounts to, the most bytes first."""
    # By dtype and shape first: tensors by the hundred thousand have few kinds.
    kinds = Counter(
        (tensor.dtype, tensor.shape) for shard in shards for tensor in shard.header.tensors.values()
    )
    tensors: Counter[Dtype] = Counter()
    parameters: Counter[Dtype] = Counter()
    for (dtype, shape), count in kinds.items():
        tensors[dtype] += count
        parameters[dtype] += count * prod(shape)
    nbytes = {dtype: parameters[dtype] * dtype.bits // 8 for dtype in tensors}
    return tuple(
        DtypeShare(dtype, tensors[dtype], parameters[dtype], nbytes[dtype])
        for dtype in sorted(tensors, key=lambda each: (-nbytes[each], each))
    )


def main_dtype(shards: Iterable[Shard]) -> Dtype | None:
    """Return the floating dtype of the most parameters in *shards*; None without any."""
    shares = dtype_shares(shards)
    return most_used((share.dtype, share.parameters) for share in shares)


def most_used(parameters: Iterable[tuple[Dtype, int]]) -> Dtype | None:
    """Return the floating dtype that has the most *parameters*.

    Of equals it is the narrowest, and rather bf16 than fp16.
    """
    counts: Counter[Dtype] = Counter()
    for dtype, count in parameters:
        if dtype.is_floating:
            counts[dtype] += count
    return min(counts, key=lambda each: (-counts[each], each.bits, each), default=None)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its headers, index and config describe it.

    Attributes:
        path: the folder, or the one weights file; or where on the Hub it lies.
        weights: the loadable sets of tensors; more than one when formats lie side by side.
        configs: each config.json that lies beside weights, by its name.
        files: everything else that belongs to the checkpoint.
        left_out: what lies in the folder and is no part of the model: trainer state,
            checkpoints of their own, download caches.
        is_file: whether *path* is one bare weights file, without a folder around it.
        base: the model that it was made from, as config.json or the model card names it: a
            folder that exists, or a repository as ``hf://org/name``; None if neither does.
    """

    path: Path | HubPath
    weights: tuple[Weights, ...]
    configs: Mapping[str, Config] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    left_out: tuple[File, ...] = ()
    is_file: bool = False
    base: str | None = None

    @property
    def local_path(self) -> Path:
        """The path on this machine. Raises RefusedError if the checkpoint lies on the Hub."""
        if isinstance(self.path, HubPath):
            raise RefusedError(
                str(self.path), "lies on the Hub, and this needs its files", "download it first"
            )
        return self.path

    def place_of(self, name: str) -> Path:
        """Return where the file *name* lies on this machine. Raises as `local_path` does."""
        return self.local_path if self.is_file else self.local_path / name

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of all weights, each once."""
        return tuple({s.name: s for weights in self.weights for s in weights.shards}.values())

    @property
    def size(self) -> int:
        """The bytes of all weights files."""
        return sum(shard.size for shard in self.shards)

    @property
    def dtypes(self) -> tuple[DtypeShare, ...]:
        """What each stored dtype amounts to, the most bytes first."""
        return dtype_shares(self.shards)

    @property
    def all_files(self) -> tuple[File, ...]:
        """Every file that belongs to the checkpoint, weights first."""
        indexes = [weights.index for weights in self.weights if weights.index is not None]
        return (
            *(File(shard.name, shard.size, Role.WEIGHTS) for shard in self.shards),
            *(File(each.name, each.size, Role.CONFIG) for each in self.configs.values()),
            *(File(each.name, each.size, Role.INDEX) for each in indexes),
            *self.files,
        )

    @property
    def configs_by_shard(self) -> Mapping[str, Config]:
        """The config that speaks of each shard: beside the index, or else beside the shard."""
        found: dict[str, Config] = {}
        for weights in self.weights:
            for shard in weights.shards:
                for name in (weights.name, shard.name):
                    config = self.configs.get(_beside(name))
                    if config is not None:
                        found.setdefault(shard.name, config)
        return found

    def config_of(self, shard: str) -> Config | None:
        """Return the config that speaks of the shard of this name."""
        return self.configs_by_shard.get(shard)

    def shards_of(self, config: Config) -> tuple[Shard, ...]:
        """Return the shards of which *config* speaks."""
        configs = self.configs_by_shard
        return tuple(shard for shard in self.shards if configs.get(shard.name) is config)


def _beside(name: str) -> str:
    """Return the name of the config beside the file *name*."""
    return str(PurePosixPath(name).with_name("config.json"))
