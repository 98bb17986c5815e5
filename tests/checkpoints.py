"""Small checkpoints for tests, written by safetensors itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from recast import Dtype

Tensors = Mapping[str, torch.Tensor]


def random_tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return fp32 noise of these shapes, none of which is exact in bf16."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_shard(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Save one weights file, as transformers does unless *metadata* says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path, {"format": "pt"} if metadata is None else metadata or None)


def save_sharded(
    folder: Path, shards: Mapping[str, Tensors], config: Mapping[str, object] | None = None
) -> Path:
    """Save a checkpoint of several shards, with index and config, and return its folder."""
    for name, tensors in shards.items():
        save_shard(folder / name, tensors)
    size = sum(each.nbytes for tensors in shards.values() for each in tensors.values())
    index = {
        "metadata": {"total_size": size},
        "weight_map": {name: shard for shard, tensors in shards.items() for name in tensors},
    }
    write_json(folder / "model.safetensors.index.json", index)
    if config is None:
        config = {"model_type": "llama", "torch_dtype": "float32"}
    write_json(folder / "config.json", config)
    return folder


def write_json(path: Path, document: object) -> None:
    """Write a JSON file as transformers does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def two_shards(folder: Path) -> Path:
    """Save a small fp32 checkpoint of two shards, with a tokenizer beside it."""
    first = random_tensors(**{"model.embed_tokens.weight": (32, 8), "model.norm.weight": (8,)})
    second = random_tensors(**{"lm_head.weight": (32, 8), "lm_head.scale": ()})
    shards = {
        "model-00001-of-00002.safetensors": first,
        "model-00002-of-00002.safetensors": second,
    }
    save_sharded(folder, shards)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


TORCH_DTYPES = {
    Dtype.BOOL: torch.bool,
    Dtype.U8: torch.uint8,
    Dtype.I8: torch.int8,
    Dtype.I16: torch.int16,
    Dtype.F16: torch.float16,
    Dtype.BF16: torch.bfloat16,
    Dtype.I32: torch.int32,
    Dtype.F32: torch.float32,
    Dtype.C64: torch.complex64,
    Dtype.F64: torch.float64,
    Dtype.I64: torch.int64,
}


def bytes_of(tensor: torch.Tensor) -> bytes:
    """Return a tensor's data as a file holds them."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def cast_all(tensors: Tensors, target: Dtype) -> dict[str, torch.Tensor]:
    """Return the tensors as they should be once converted: those of a float dtype are cast."""
    return {
        name: each.to(TORCH_DTYPES[target]) if each.is_floating_point() else each
        for name, each in tensors.items()
    }


def write_laid_out(
    path: Path,
    tensors: Tensors,
    *,
    header: Sequence[str],
    data: Sequence[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a valid weights file whose layout is not the library's own.

    The names in *header* and *data* are those of *tensors*, in the order in which they are
    described, and in which their data lie. The header is not padded.
    """
    tags = {dtype: tag.value for tag, dtype in TORCH_DTYPES.items()}
    content = b""
    offsets = {}
    for name in data:
        begin = len(content)
        content += bytes_of(tensors[name])
        offsets[name] = [begin, len(content)]
    document: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    for name in header:
        tensor = tensors[name]
        document[name] = {
            "shape": list(tensor.shape),
            "data_offsets": offsets[name],
            "dtype": tags[tensor.dtype],
        }
    text = json.dumps(document).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


# What safetensors reserves, and what says that a model is quantized. Hypothesis tries words
# that it finds in the source, these among them.
NO_NAMES = ("__metadata__", "SCB", "absmax", "g_idx", "qzeros")


# The short ones of the names by which a model is known to be quantized; Hypothesis finds them.
_OF_QUANTIZED_MODELS = {"SCB", "absmax", "g_idx", "qzeros"}


SCALES = ("scale", "scales", "zeros", "zero_point", "absmax")  # beside integers, signs of codes


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw tensors of any name, dtype and shape: scalar, empty and odd-sized among them; no NaN.

    Only one is floating and of shape (0,): several are the mark of a ZeRO-3 save.
    """
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    shapes = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (4, 0), (5, 1, 3), (16,), (40, 7)])
    kinds = draw(
        st.dictionaries(
            names.filter(lambda name: name not in NO_NAMES and not name.endswith(SCALES)),
            st.tuples(st.sampled_from([*TORCH_DTYPES, Dtype.F32, Dtype.F32]), shapes),
            max_size=7,
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensors: dict[str, torch.Tensor] = {}
    for name, (dtype, drawn) in kinds.items():
        hollow = [each for each in tensors.values() if each.shape == (0,)]
        is_second = drawn == (0,) and any(each.is_floating_point() for each in hollow)
        shape = (4, 0) if is_second else drawn
        # Some are exact in bf16, some round, some overflow in fp16 or vanish.
        scale = 10.0 ** draw(st.sampled_from([0, 0, 6, -9]))
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        if draw(st.booleans()):
            values = values.bfloat16()
        if dtype is Dtype.U8:
            values = values.abs().clamp(max=255)
        if dtype in {Dtype.I8, Dtype.I16, Dtype.I32}:
            values = values.clamp(-128, 127)
        tensors[name] = values.to(TORCH_DTYPES[dtype])
    return tensors
