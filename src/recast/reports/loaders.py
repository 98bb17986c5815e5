"""In which dtype programs would load a checkpoint, as it is and once it is converted.

Each rule says what one program does, in the order in which it looks. Those of transformers are
checked against the library itself; those of vLLM (`_find_dtype`, `_resolve_auto_dtype`) and
SGLang (`_get_and_verify_dtype`) are read in their sources, and hold for GPUs that know bf16.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recast.dtypes import TARGETS, Dtype, named
from recast.errors import RecastError
from recast.formats import json_text
from recast.formats.checkpoint import Checkpoint, Weights
from recast.planning.planner import Plan, make_plan
from recast.planning.policy import Policy

# What transformers looks for, in this order.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# The spellings that are attributes of torch; programs crash on any other.
_TORCH_NAMES = ("bfloat16", "float16", "half", "float32", "float", "float64", "double")


class _LoadingError(Exception):
    """The program would end with an error."""


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


@dataclass(frozen=True, slots=True)
class _Stored:
    """All that a program can look at.

    Attributes:
        config: the content of config.json.
        index_dtype: what the index metadata says; None without an index.
        first: the dtype of the first floating tensor by name, of the first shard by name.
        foremost: the dtype of the one whose data lie foremost there.
        widest: the widest of the floating dtypes in all shards.
    """

    config: Mapping[str, Any] = field(repr=False)
    index_dtype: str | None
    first: Dtype
    foremost: Dtype
    widest: Dtype


def loadings(checkpoint: Checkpoint, target: Dtype = Dtype.BF16) -> tuple[Loading, ...]:
    """Return what each program makes of *checkpoint*, before and after it is cast to *target*.

    Nothing if it holds no model that they would load, or a quantized one.
    """
    config = checkpoint.configs.get("config.json")
    by_name = {each.name: each for each in checkpoint.weights}
    weights = next((by_name[name] for name in _WEIGHTS if name in by_name), None)
    if config is None or config.model_type is None or config.quantization or weights is None:
        return ()
    before = _as_it_is(weights, config.document)
    try:
        after = _converted(make_plan(checkpoint, Policy(target)), weights)
    except RecastError:
        after = None
    return tuple(
        Loading(name, option, _loaded(rule, before), after and _loaded(rule, after))
        for name, option, rule in _LOADERS
    )


def _as_it_is(weights: Weights, config: Mapping[str, Any]) -> _Stored:
    """Return what a program sees now."""
    shards = {
        shard.name: {name: each.dtype for name, each in shard.header.tensors.items()}
        for shard in weights.shards
    }
    return _stored(config, weights.index.dtype if weights.index else None, shards)


def _converted(plan: Plan, weights: Weights) -> _Stored:
    """Return what a program will see of *weights* when *plan* is executed."""
    texts = {each.name: each.text for each in plan.documents}
    config = plan.checkpoint.configs["config.json"]
    index_dtype = None
    if weights.index is not None and weights.index.dtype is not None:
        index_dtype = plan.policy.target.torch_name
    names = {shard.name for shard in weights.shards}
    shards = {
        shard.name: {each.name: each.dtype for each in shard.tensors}
        for shard in plan.shards
        if shard.name in names
    }
    document = json_text.parse(texts.get(config.name, config.text), config.name)
    return _stored(document, index_dtype, shards)


def _stored(
    config: Mapping[str, Any], index_dtype: str | None, shards: Mapping[str, Mapping[str, Dtype]]
) -> _Stored:
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
    return _Stored(config, index_dtype, first, next(iter(foremost.values()), first), widest)


_Rule = Callable[[_Stored], Dtype]


def _loaded(rule: _Rule, stored: _Stored) -> Dtype | None:
    """Return the dtype that *rule* finds; None if the program would fail."""
    try:
        return rule(stored)
    except _LoadingError:
        return None


def _claim(config: object, *keys: str) -> Dtype | None:
    """Return what the first of *keys* that is not null says; None if none is there."""
    value = next((found for found in _values(config, keys) if found is not None), None)
    if isinstance(value, dict):  # one dtype a part; "" is the model as a whole
        value = value.get("", Dtype.F32.torch_name)
    if value is not None and value not in _TORCH_NAMES:
        raise _LoadingError
    return named(value)


def _values(config: object, keys: tuple[str, ...]) -> Iterator[object]:
    """Yield what *config* has under each of *keys*."""
    if isinstance(config, Mapping):
        for key in keys:
            yield config.get(key)


def _guessed(stored: _Stored) -> Dtype:
    """Return what transformers 5 takes if the config says nothing."""
    if stored.index_dtype is not None:
        if stored.index_dtype not in _TORCH_NAMES:
            raise _LoadingError
        return named(stored.index_dtype) or Dtype.F32
    return stored.first


def _both_keys(stored: _Stored) -> Dtype:
    """Return what transformers 5 takes."""
    return _claim(stored.config, "dtype", "torch_dtype") or _guessed(stored)


def _both_keys_4(stored: _Stored) -> Dtype:
    """Return what transformers 4.57 takes when told "auto"; it fails on what an index says."""
    claimed = _claim(stored.config, "dtype", "torch_dtype")
    if claimed is None and stored.index_dtype is not None:
        raise _LoadingError
    return claimed or stored.first


def _old_key_4(stored: _Stored) -> Dtype:
    """Return what transformers 4.44 takes when told "auto"; tensors that are wider stay so."""
    claimed = _claim(stored.config, "torch_dtype")
    if claimed is None and stored.index_dtype is not None:
        raise _LoadingError
    return claimed or stored.foremost


def _always_fp32(stored: _Stored) -> Dtype:
    """Return what transformers 4.57 takes when told nothing."""
    _claim(stored.config, "dtype", "torch_dtype")  # which it parses nonetheless
    return Dtype.F32


def _always_fp32_old(stored: _Stored) -> Dtype:
    """Return what transformers 4.44 takes when told nothing."""
    _claim(stored.config, "torch_dtype")
    return Dtype.F32


def _vllm(stored: _Stored) -> Dtype:
    """Return what vLLM takes: never fp32, unless told."""
    parts = ("text_config", "vision_config", "encoder_config")
    found = (
        _claim(config, "dtype", "torch_dtype")
        for config in (stored.config, *(stored.config.get(part) for part in parts))
    )
    claimed = next((each for each in found if each is not None), stored.widest)
    return claimed if claimed in {Dtype.BF16, Dtype.F16} else Dtype.BF16


def _sglang(stored: _Stored) -> Dtype:
    """Return what SGLang takes: fp16 for whatever says fp32, or nothing."""
    keys = ("dtype", "torch_dtype")
    claimed = _claim(stored.config, *keys) or _claim(stored.config.get("text_config"), *keys)
    if claimed not in {None, Dtype.F32}:
        return claimed if claimed in TARGETS else Dtype.F16
    gemma = str(stored.config.get("model_type")).startswith("gemma")  # too large for fp16
    return Dtype.BF16 if gemma else Dtype.F16


_LOADERS: tuple[tuple[str, str, _Rule], ...] = (
    ("transformers 5", "default", _both_keys),
    ("transformers 5", "auto", _both_keys),
    ("transformers 4.57", "default", _always_fp32),
    ("transformers 4.57", "auto", _both_keys_4),
    ("transformers 4.44", "default", _always_fp32_old),
    ("transformers 4.44", "auto", _old_key_4),
    ("vLLM", "default", _vllm),
    ("SGLang", "default", _sglang),
)
