"""Signs that the values stored are codes, whose scales must not be narrowed."""

from collections.abc import Iterator, Mapping

from recast.dtypes import Dtype
from recast.formats.checkpoint import Checkpoint, Shard
from recast.formats.findings.finding import Finding, Severity
from recast.formats.header import TensorInfo

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
# What is called so is none, however large it is beside the scales: a causal mask, positions.
_NO_CODES = ("bias", "mask", "ids")
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


def _sign_of_quantization(shard: Shard, scaled: Mapping[str, int]) -> _Sign | None:
    """Return the first tensor in *shard* that shows that its values are codes, or None."""
    for name, tensor in shard.header.tensors.items():
        if tensor.dtype.is_packed:
            return f"tensor {name!r} is stored as {tensor.dtype}", (name,)
        if name.rpartition(".")[2] in _PACKED or _PACKED_PART in name:
            return f"tensor {name!r} belongs to packed weights", (name,)
        if tensor.dtype in _CODES and _is_scaled(name, tensor, scaled):
            return f"tensor {name!r} is stored as {tensor.dtype}, with scales beside it", (name,)
    return None


def _scaled(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Return the beginnings of names that tensors have a scale for.

    "x.weight" for a scale "x.weight_scale", "x.weight." for "x.weight.absmax", and "x." for
    "x.scales", which is one for the whole module: with the bytes of what floats in it.
    """
    floating = [
        (name, tensor)
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
        if tensor.dtype.is_floating
    ]
    scaled = {
        name.removesuffix(end).rstrip("_"): 0
        for name, _ in floating
        if name.endswith(_SCALES)
        for end in _SCALES
        if name.endswith(end)
    }
    for name, tensor in floating if scaled else ():
        if (module := name[: name.rfind(".") + 1]) in scaled:
            scaled[module] += tensor.nbytes
    return scaled


def _is_scaled(name: str, tensor: TensorInfo, scaled: Mapping[str, int]) -> bool:
    """Whether *name* begins as one of *scaled*: in all of it, or in the whole of its module.

    In a module with a scale of its own, only what may be its weight is scaled: by its name, or as
    it takes no less than what floats beside it.
    """
    first = name.rfind(".") + 1
    own = range(first + 1, len(name) + 1)
    if f"{name}." in scaled or any(name[:end] in scaled for end in own):
        return True
    module, last = name[:first], name[first:]
    if module not in scaled or last.endswith(_NO_CODES):
        return False
    return "weight" in last or tensor.nbytes >= scaled[module]
