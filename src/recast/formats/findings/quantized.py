"""Signs that the values stored are codes, whose scales must not be narrowed."""

from collections.abc import Iterator

from recast.dtypes import Dtype
from recast.formats.checkpoint import Checkpoint, Shard
from recast.formats.findings.finding import Finding, Severity

# How libraries name what goes with packed weights: GPTQ and AWQ, compressed-tensors,
# bitsandbytes, and FP8 or int8 checkpoints (DeepSeek, ModelOpt, llm.int8).
_PACKED = frozenset(
    [
        *("qweight", "qzeros", "g_idx"),
        *("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
        *("SCB", "absmax", "quant_map", "nested_absmax", "nested_quant_map"),
        *("weight_scale_inv", "weight_scale_2", "w_scale"),
    ]
)
_PACKED_PART = ".quant_state."
# What else gives codes away: integers of these dtypes that have scales, or what a header says.
_CODES = frozenset([Dtype.I8, Dtype.U8, Dtype.I16, Dtype.U16, Dtype.I32, Dtype.U32])
_SCALES = ("scale", "scales", "zeros", "zero_point", "absmax")
_METHOD_KEYS = ("quantization", "quant_method")
_NO_METHOD = frozenset(["", "none", "null", "false", "{}"])


def quantized(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Find signs that the values stored are codes, whose scales must not be narrowed."""
    remedy = "convert the model it was quantized from"
    for config in checkpoint.configs.values():
        if config.quantization is not None:
            problem = f"the model is quantized ({config.quantization})"
            yield Finding("quantized", Severity.ERROR, config.name, problem, remedy)
    scaled = _scaled(checkpoint)
    for shard in checkpoint.shards:
        if sign := _said_in_header(shard) or _sign_of_quantization(shard, scaled):
            problem, tensors = f"{sign[0]}: the model is quantized", sign[1]
            yield Finding("quantized", Severity.ERROR, shard.name, problem, remedy, tensors)


_Sign = tuple[str, tuple[str, ...]]  # what it is, and the tensor that shows it


def _said_in_header(shard: Shard) -> _Sign | None:
    """Return what the header metadata of *shard* say of a method, if anything."""
    for key in _METHOD_KEYS:
        method = (shard.header.metadata or {}).get(key, "")
        if method.strip().lower() not in _NO_METHOD:
            return f"the header metadata say {key} = {method!r}", ()
    return None


def _sign_of_quantization(shard: Shard, scaled: frozenset[str]) -> _Sign | None:
    """Return the first tensor in *shard* that shows that its values are codes, or None."""
    for name, tensor in shard.header.tensors.items():
        if tensor.dtype.is_packed:
            return f"tensor {name!r} is stored as {tensor.dtype}", (name,)
        if name.rpartition(".")[2] in _PACKED or _PACKED_PART in name:
            return f"tensor {name!r} belongs to packed weights", (name,)
        if tensor.dtype in _CODES and _is_scaled(name, scaled):
            return f"tensor {name!r} is stored as {tensor.dtype}, with scales beside it", (name,)
    return None


def _scaled(checkpoint: Checkpoint) -> frozenset[str]:
    """Return the beginnings of names that tensors have a scale for.

    "x.weight" for a scale "x.weight_scale", "x." for "x.scales", "x.weight." for "x.weight.absmax".
    """
    return frozenset(
        name.removesuffix(end).rstrip("_")
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
        if name.endswith(_SCALES) and tensor.dtype.is_floating
        for end in _SCALES
        if name.endswith(end)
    )


def _is_scaled(name: str, scaled: frozenset[str]) -> bool:
    """Whether one of the beginnings in *scaled* is one of the last part of *name*, or all of it."""
    first = name.rfind(".") + 1
    return f"{name}." in scaled or any(name[:end] in scaled for end in range(first, len(name) + 1))
