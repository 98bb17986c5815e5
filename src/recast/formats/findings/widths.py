"""Tensors that are stored wider than they need to be, or than those beside them."""

import re
from collections.abc import Iterator

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint, Shard, main_dtype
from recast.formats.config import Config
from recast.formats.findings import cures
from recast.formats.findings.finding import Finding, Severity, listed
from recast.formats.header import TensorInfo

_NUMBER = re.compile(r"\d+")


def oversized(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights that are stored wider than their config says."""
    for config in checkpoint.configs.values():
        stored = main_dtype(checkpoint.shards_of(config))
        if stored is None or (claimed := narrower(config, stored)) is stored:
            continue
        yield Finding(
            "oversized",
            Severity.WARNING,
            config.name,
            f"says {claimed.torch_name}, but most of what is stored is {stored.torch_name}, "
            f"{stored.bits // claimed.bits} times as large",
            f"convert it to {claimed.short_name}",
            command=cures.conversion(checkpoint, claimed),
        )


def narrower(config: Config, stored: Dtype) -> Dtype:
    """Return the dtype that *config* claims first, or *stored* if that is no wider."""
    claimed = next((each.dtype for each in config.claims if each.dtype is not None), None)
    return claimed if claimed in TARGETS and claimed.bits < stored.bits else stored


def wider_than(base: Checkpoint, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find weights that are stored wider than in the model they were trained from."""
    known = {name: each for shard in base.shards for name, each in shard.header.tensors.items()}
    for shard in checkpoint.shards:
        wider = [
            name
            for name, tensor in _floating(shard)
            if name in known and known[name].dtype.is_floating
            if tensor.dtype.bits > known[name].dtype.bits
        ]
        if wider:
            yield Finding(
                "oversized",
                Severity.WARNING,
                shard.name,
                f"stores {listed(wider)} wider than {base.path} does",
                "convert it to the dtypes of its base",
                tuple(wider),
                cures.likeness(checkpoint, base),
            )


def mixed(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find floating tensors stored in another dtype than most of those beside them."""
    for weights in checkpoint.weights:
        main = main_dtype(weights.shards)
        if main is None:
            continue
        others: dict[Dtype, list[str]] = {}
        for shard in weights.shards:
            for name, tensor in _floating(shard):
                if tensor.dtype is not main:
                    others.setdefault(tensor.dtype, []).append(name)
        for dtype, names in others.items():
            kinds = list(dict.fromkeys(_NUMBER.sub("*", name) for name in names))
            yield Finding(
                "mixed-dtypes",
                Severity.NOTE,
                weights.name,
                f"stores {len(names):,} of its tensors as {dtype.torch_name}, most as "
                f"{main.torch_name}: {listed(kinds)}",
                "well so where it is known to be needed; "
                f"--to {cures.target(main).short_name} casts the rest, if any",
                tuple(names),
            )


def _floating(shard: Shard) -> Iterator[tuple[str, TensorInfo]]:
    """Yield the tensors of *shard* that could be cast."""
    for name, tensor in shard.header.tensors.items():
        if tensor.dtype.is_floating:
            yield name, tensor
