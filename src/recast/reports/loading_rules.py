"""What programs look at when they choose the dtype in which they load a model: a rule for each.

Those of transformers are checked against the library itself, in versions 5.23, 4.57 and 4.44.
Those of vLLM and SGLang are read in their sources, and hold for GPUs that know bf16: vLLM's
`_find_dtype`, `_resolve_auto_dtype` and `_get_default_runner_type` as of commit 0052a5b818,
SGLang's `_get_and_verify_dtype` as of commit 001adf564f, and its `get_hf_text_config` of that time.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recast.dtypes import TARGETS, Dtype, named

_KEYS = ("dtype", "torch_dtype")  # the first that is not null counts
_OLD_KEY = "torch_dtype"
# The spellings that are attributes of torch; programs crash on any other.
_TORCH_NAMES = ("bfloat16", "float16", "half", "float32", "float", "float64", "double")
# What is one too, and no dtype to load a model in.
_NOT_FLOATING = re.compile(r"u?int\d+|float8_\w+|bool|short|int|long|c?half|cfloat|complex\d+")
# vLLM runs models of these architectures to embed or classify, not to write; and prefers fp16 then.
_POOLING = ("Model", "Classification", "ForTextEncoding", "ForRewardModeling")
_WRITING = ("ChatModel", "LMHeadModel")
_TOO_LARGE_FOR_FP16 = frozenset(["gemma2", "gemma3", "gemma3_text", "plamo2", "glm4"])
# Where SGLang finds the language model of one that has more parts, the first that is there.
_LANGUAGE = ("thinker_config", "llm_config", "language_config", "text_config")


class LoadingError(Exception):
    """The program would end with an error."""


@dataclass(frozen=True, slots=True)
class Stored:
    """All that a program can look at.

    Attributes:
        config: the content of config.json.
        nested: its sub-configs.
        index_dtype: what the index metadata says, whatever it is; None if it says nothing.
        first: the dtype of the first floating tensor by name, of the first shard by name.
        foremost: the dtype of the one whose data lie foremost there.
        widest: the widest of the floating dtypes in all shards.
        is_broken: whether the index has no metadata, shards are missing or tensors are empty.
        is_unmarked: whether a shard has no header metadata at all.
        is_unformatted: whether a shard has some, and they do not say the format.
        pools: whether sentence-transformers' modules.json lies beside it.
    """

    config: Mapping[str, Any] = field(repr=False)
    nested: tuple[Mapping[str, Any], ...] = field(repr=False)
    index_dtype: str | None
    first: Dtype
    foremost: Dtype
    widest: Dtype
    is_broken: bool = False
    is_unmarked: bool = False
    is_unformatted: bool = False
    pools: bool = False


Rule = Callable[[Stored], Dtype]


def _claim(config: object, *keys: str) -> Dtype | None:
    """Return what the first of *keys* that is not null says; None if none is there."""
    value = _said(config, keys)
    if value is None:
        return None
    if isinstance(value, dict):  # one dtype a part; "" is the model as a whole
        value = value.get("", Dtype.F32.torch_name)
    return _by_torch(value)


def _by_torch(name: object) -> Dtype:
    """Return the floating dtype that torch calls *name*."""
    if name not in _TORCH_NAMES or (found := named(name)) is None:
        raise LoadingError
    return found


def _said(config: object, keys: tuple[str, ...]) -> object:
    """Return what *config* has under the first of *keys* that is not null; None if none is."""
    values = (config.get(key) for key in keys) if isinstance(config, Mapping) else ()
    return next((value for value in values if value is not None), None)


def _parse(stored: Stored, *keys: str, also: tuple[type, ...] = ()) -> None:
    """Read what all configs say, as transformers does before it loads anything.

    Strings must be attributes of torch. What is none passes for the time being if it is of a
    type in *also*.
    """
    for config in (stored.config, *stored.nested):
        value = _said(config, keys)
        if isinstance(value, str):
            if value not in _TORCH_NAMES and not _NOT_FLOATING.fullmatch(value):
                raise LoadingError
        elif value is not None and not isinstance(value, also):
            raise LoadingError


def _both_keys(stored: Stored) -> Dtype:
    """Return what transformers 5 takes."""
    if stored.is_broken:
        raise LoadingError
    _parse(stored, *_KEYS, also=(int, dict))
    if (claimed := _claim(stored.config, *_KEYS)) is not None:
        return claimed
    return stored.first if stored.index_dtype is None else _by_torch(stored.index_dtype)


def _both_keys_4(stored: Stored) -> Dtype:
    """Return what transformers 4.57 takes when told "auto"."""
    _always_fp32(stored)  # which fails where this does
    return _auto_4(stored, *_KEYS) or stored.first


def _old_key_4(stored: Stored) -> Dtype:
    """Return what transformers 4.44 takes when told "auto"; tensors that are wider stay so."""
    _always_fp32_old(stored)
    return _auto_4(stored, _OLD_KEY) or stored.foremost


def _auto_4(stored: Stored, *keys: str) -> Dtype | None:
    """Return what the config says, in words that transformers 4 can load a model by.

    It fails on parts that say anything else, and on what an index says.
    """
    said = [_said(config, keys) for config in (stored.config, *stored.nested)]
    claimed, *_ = [None if value is None else _by_torch(value) for value in said]
    if claimed is None and stored.index_dtype is not None:
        raise LoadingError
    return claimed


def _always_fp32(stored: Stored) -> Dtype:
    """Return what transformers 4.57 takes when told nothing."""
    if stored.is_broken or stored.is_unformatted:
        raise LoadingError
    _parse(stored, *_KEYS, also=(int, dict))
    return Dtype.F32


def _always_fp32_old(stored: Stored) -> Dtype:
    """Return what transformers 4.44 takes when told nothing."""
    if stored.is_broken or stored.is_unformatted or stored.is_unmarked:
        raise LoadingError
    _parse(stored, _OLD_KEY)
    return Dtype.F32


def _vllm(stored: Stored) -> Dtype:
    """Return what vLLM takes: never fp32, unless told."""
    parts = ("text_config", "vision_config", "encoder_config")
    found = (
        _claim(config, *_KEYS)
        for config in (stored.config, *(stored.config.get(part) for part in parts))
    )
    claimed = next((each for each in found if each is not None), stored.widest)
    if stored.config.get("model_type") in _TOO_LARGE_FOR_FP16:
        return Dtype.BF16
    if claimed in {Dtype.BF16, Dtype.F16}:
        return claimed
    return Dtype.F16 if _pools(stored) else Dtype.BF16


def _pools(stored: Stored) -> bool:
    """Whether vLLM runs the model to embed or to classify."""
    architectures = stored.config.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return stored.pools or (first.endswith(_POOLING) and not first.endswith(_WRITING))


def _sglang(stored: Stored) -> Dtype:
    """Return what SGLang takes: fp16 for whatever says fp32, or nothing.

    It asks the config of the language model alone, which does not inherit what the root says.
    """
    parts = (stored.config.get(part) for part in _LANGUAGE)
    config = next((part for part in parts if isinstance(part, dict)), stored.config)
    claimed = _claim(config, *_KEYS)
    if claimed not in {None, Dtype.F32}:
        return claimed if claimed in TARGETS else Dtype.F16
    kind = config.get("model_type", stored.config.get("model_type"))
    return Dtype.BF16 if str(kind).startswith("gemma") else Dtype.F16  # too large for fp16


LOADERS: tuple[tuple[str, str, Rule], ...] = (
    ("transformers 5", "default", _both_keys),
    ("transformers 5", "auto", _both_keys),
    ("transformers 4.57", "default", _always_fp32),
    ("transformers 4.57", "auto", _both_keys_4),
    ("transformers 4.44", "default", _always_fp32_old),
    ("transformers 4.44", "auto", _old_key_4),
    ("vLLM", "default", _vllm),
    ("SGLang", "default", _sglang),
)
