"""Which dtype each tensor of a checkpoint has in its base model, by the headers of both."""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from recast.dtypes import TARGETS, Dtype
from recast.errors import RefusedError
from recast.formats.checkpoint import Checkpoint, main_dtype
from recast.formats.config import Config
from recast.formats.header import TensorInfo

Names = Mapping[str, TensorInfo]
_OTHER_BASE = "name the checkpoint that it was made from"


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a base model says of a checkpoint's tensors.

    Attributes:
        path: where the base model lies.
        dtypes: by the folder of the weights ("" at the root) and the name of the tensor, in the
            checkpoint's words, the dtype that it has in the base model.
        lacking: the floating tensors that the base model lacks, each with its folder.
        prefix: what all names of the checkpoint have before those of the base model, such as
            "module."; with a minus before it, what they lack.
    """

    path: str
    dtypes: Mapping[str, Mapping[str, Dtype]] = field(repr=False)
    lacking: tuple[tuple[str, str], ...]
    prefix: str = ""

    @property
    def matched(self) -> int:
        """How many tensors have a dtype in the base model."""
        return sum(map(len, self.dtypes.values()))


def main_dtype_of(base: Checkpoint) -> Dtype:
    """Return what most of *base* is stored in. Raises RefusedError if recast does not write it."""
    dtype = main_dtype(base.shards)
    if dtype not in TARGETS:
        raise RefusedError(
            str(base.path),
            "is not mainly bf16, fp16 or fp32, so that there is no dtype to take from it",
            "say with --to what its other tensors become",
        )
    return dtype


def digest(base: Checkpoint) -> str:
    """Return a text that differs for bases of other tensors or dtypes."""
    told = sha256()
    for home, tensors in sorted(_by_home(base).items()):
        for name, tensor in sorted(tensors.items()):
            told_of = f"{home}\0{name}\0{tensor.dtype}\0{tensor.shape}\0"
            told.update(told_of.encode(errors="surrogateescape"))  # a folder may be no UTF-8
    return told.hexdigest()


def compare(checkpoint: Checkpoint, base: Checkpoint) -> Likeness:
    """Return which dtypes the tensors of *checkpoint* have in *base*.

    Names match as they are, or if all of them differ by one common prefix. Raises RefusedError,
    naming the first difference, if the two are not of one architecture.
    """
    _refuse_other_architecture(checkpoint, base)
    theirs = _by_home(base)
    dtypes: dict[str, Mapping[str, Dtype]] = {}
    lacking: list[tuple[str, str]] = []
    prefixes = []
    own = _by_home(checkpoint)
    for home, tensors in own.items():
        prefix, renamed = _matched(tensors, theirs.get(home, {}))
        _refuse_other_shapes(checkpoint, base, home, tensors, renamed)
        # What the base has in a dtype that recast does not write is left to the rules.
        dtypes[home] = {
            name: renamed[name].dtype
            for name, tensor in tensors.items()
            if tensor.dtype.is_floating
            and name in renamed
            and renamed[name].dtype in (*TARGETS, tensor.dtype)
        }
        floating = (name for name, tensor in tensors.items() if tensor.dtype.is_floating)
        lacking += [(home, name) for name in floating if name not in dtypes[home]]
        prefixes.append(prefix)
    like = Likeness(str(base.path), dtypes, tuple(lacking), next(filter(None, prefixes), ""))
    if like.matched < len(lacking):
        home, name = lacking[0]
        raise RefusedError(
            str(checkpoint.path),
            f"is of another architecture than {base.path}, which has no floating tensor "
            f"{posixpath.join(home, name)!r} and {len(lacking) - 1:,} more",
            _OTHER_BASE,
        )
    return like


def _by_home(checkpoint: Checkpoint) -> dict[str, dict[str, TensorInfo]]:
    """Return the tensors of each folder that holds weights: components may have equal names."""
    homes: dict[str, dict[str, TensorInfo]] = {}
    for weights in checkpoint.weights:
        homes.setdefault(posixpath.dirname(weights.name), {}).update(weights.tensors)
    return homes


def _matched(own: Names, theirs: Names) -> tuple[str, Names]:
    """Return the prefix by which names differ, and *theirs* by the names that *own* gives them."""
    best, matched, most = "", theirs, _shared(own, theirs)
    for prefix in _prefixes(own):
        renamed = {prefix + name: tensor for name, tensor in theirs.items()}
        if (shared := _shared(own, renamed)) > most:
            best, matched, most = prefix, renamed, shared
    for prefix in _prefixes(theirs):
        renamed = {name.removeprefix(prefix): tensor for name, tensor in theirs.items()}
        if (shared := _shared(own, renamed)) > most:
            best, matched, most = f"-{prefix}", renamed, shared
    return best, matched


def _shared(own: Names, theirs: Names) -> int:
    """Return how many names are in both."""
    return len(own.keys() & theirs.keys())


def _prefixes(names: Collection[str]) -> Iterator[str]:
    """Yield what all *names* begin with, up to each dot."""
    first, last = min(names, default=""), max(names, default="")  # all others lie between
    for end, (one, other) in enumerate(zip(first, last, strict=False), 1):
        if one != other:
            return
        if one == ".":
            yield first[:end]


def _refuse_other_architecture(checkpoint: Checkpoint, base: Checkpoint) -> None:
    """Raise RefusedError if two configs of one name say that they have nothing in common."""
    for name, config in checkpoint.configs.items():
        own = _model_types(config)
        theirs = _model_types(base.configs.get(name))
        if own and theirs and not set(own) & set(theirs):
            raise RefusedError(
                str(checkpoint.path),
                f"is of another architecture than {base.path}: {name} says model_type = {own[0]} "
                f"instead of {theirs[0]}",
                _OTHER_BASE,
            )


def _model_types(config: Config | None) -> list[str]:
    """Return the model types that a config and its sub-configs name."""
    if config is None:
        return []
    return [kind for kind in (config.model_type, *(kind for _, kind in config.parts)) if kind]


def _refuse_other_shapes(
    checkpoint: Checkpoint, base: Checkpoint, home: str, own: Names, theirs: Names
) -> None:
    """Raise RefusedError about the first tensor that has another shape in the base model."""
    config = posixpath.join(home, "config.json")
    sizes = tuple(_vocabulary(each.configs.get(config)) for each in (checkpoint, base))
    for name, tensor in own.items():
        if name not in theirs or tensor.shape == theirs[name].shape:
            continue
        before, after = theirs[name].shape, tensor.shape
        # Tokens were added: as many rows more as the configs say.
        if (after[:1], before[:1]) == sizes and after[1:] == before[1:]:
            continue
        raise RefusedError(
            str(checkpoint.path),
            f"tensor {posixpath.join(home, name)!r} has shape {list(after)}, and "
            f"{list(before)} in {base.path}",
            _OTHER_BASE,
        )


def _vocabulary(config: Config | None) -> tuple[int, ...]:
    """Return the number of tokens that a config names, as the first dimension of a shape."""
    size = None if config is None else config.vocabulary
    return () if size is None else (size,)
