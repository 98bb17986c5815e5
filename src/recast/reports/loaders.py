"""In which dtype programs would load a checkpoint, as it is and once it is converted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, Weights
from recast.formats.config import Config
from recast.formats.findings.incomplete import hollow
from recast.formats.index import Index
from recast.planning.plan import Plan
from recast.planning.planner import make_plan
from recast.planning.policy import Policy
from recast.reports.loading_rules import LOADERS, LoadingError, Rule, Stored

# What transformers looks for, in this order.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_POOLING_MODULES = "modules.json"  # of sentence-transformers


@dataclass(frozen=True, slots=True)
class Loading:
    """In which dtype one program would load the weights.

    Attributes:
        loader: the program.
        option: "default", or "auto" where it has to be told to look at the checkpoint.
        before: the dtype as the checkpoint is; None if it would not load.
        after: the dtype once it is converted; None if it would not load, or is not converted.
    """

    loader: str
    option: str
    before: Dtype | None
    after: Dtype | None


def loadings(checkpoint: Checkpoint, target: Dtype = Dtype.BF16) -> tuple[Loading, ...]:
    """Return what each program makes of *checkpoint*, before and after it is cast to *target*.

    Nothing if it holds no model that they would load, or a quantized one.
    """
    config = checkpoint.configs.get("config.json")
    by_name = {each.name: each for each in checkpoint.weights}
    weights = next((by_name[name] for name in _WEIGHTS if name in by_name), None)
    if config is None or config.model_type is None or config.quantization or weights is None:
        return ()
    pools = any(file.name == _POOLING_MODULES for file in checkpoint.files)
    before = replace(_as_it_is(weights, config), pools=pools)
    try:
        plan = make_plan(checkpoint, Policy(target))
        after = replace(_converted(plan, weights, config), pools=pools)
    except RecastError:
        after = None
    return tuple(
        Loading(name, option, _loaded(rule, before), _loaded(rule, after) if after else None)
        for name, option, rule in LOADERS
    )


def _as_it_is(weights: Weights, config: Config) -> Stored:
    """Return what a program sees now."""
    shards = {
        shard.name: {name: each.dtype for name, each in shard.header.tensors.items()}
        for shard in weights.shards
    }
    metadata = [shard.header.metadata for shard in weights.shards]
    return replace(
        _stored(config, weights.index, shards),
        is_broken=bool(weights.missing_shards)
        or (weights.index is not None and weights.index.metadata is None)
        or bool(hollow(weights.shards)),
        is_unmarked=None in metadata,
        is_unformatted=any(each is not None and "format" not in each for each in metadata),
    )


def _converted(plan: Plan, weights: Weights, config: Config) -> Stored:
    """Return what a program will see of *weights* when *plan* is executed: nothing broken."""
    texts = {each.name: each.text.encode() for each in plan.documents}
    if config.name in texts:
        config = Config.parse(config.name, texts[config.name])
    index = weights.index
    if index is not None and index.claim is not None and index.name in texts:
        index = Index.parse(index.name, texts[index.name])
    names = {shard.name for shard in weights.shards}
    shards = {
        shard.name: {each.name: each.dtype for each in shard.tensors}
        for shard in plan.shards
        if shard.name in names
    }
    return _stored(config, index, shards)


def _stored(
    config: Config, index: Index | None, shards: Mapping[str, Mapping[str, Dtype]]
) -> Stored:
    """Return what a program can look at."""
    leading = next((shards[name] for name in sorted(shards)), {})
    foremost = {name: dtype for name, dtype in leading.items() if dtype.is_floating}
    by_name = sorted(foremost.items())
    floating = {each for shard in shards.values() for each in shard.values() if each.is_floating}
    # fp16 and bf16 together are what only fp32 can hold.
    widest = max(floating, key=lambda each: each.bits, default=Dtype.F32)
    if {Dtype.BF16, Dtype.F16} <= floating and widest.bits == Dtype.BF16.bits:
        widest = Dtype.F32
    first = by_name[0][1] if by_name else Dtype.F32
    claim = None if index is None else index.claim
    said = None if claim is None else claim.value or "null"
    return Stored(
        config.document, config.nested, said, first, next(iter(foremost.values()), first), widest
    )


def _loaded(rule: Rule, stored: Stored) -> Dtype | None:
    """Return the dtype that *rule* finds; None if the program would fail."""
    try:
        return rule(stored)
    except LoadingError:
        return None
