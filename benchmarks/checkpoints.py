"""Checkpoints to measure with: written piece by piece, so that they may be larger than memory.

``python -m benchmarks.checkpoints KIND FOLDER COUNT [SHARDS]`` writes one in a process of its
own: what the benchmark itself has ever held in memory would count as its children's.
"""

import argparse
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

FLOAT = 4  # bytes of an fp32 value
NOISE_BYTES = 64 << 20
SPREAD = 0.02  # the standard deviation that transformers initializes weights with
HEAD_SIZE = 64

Shapes = Mapping[str, tuple[int, ...]]


def main() -> None:
    """Write the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int, help="bytes, or tensors")
    parser.add_argument("shards", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    KINDS[arguments.kind](arguments.folder, arguments.count, arguments.shards)


def llama(folder: Path, size: int, shards: int) -> None:
    """Write a Llama of about *size* bytes that transformers loads."""
    config = llama_config(size)
    write(folder, llama_shapes(config), config, shards)


def small(folder: Path, tensors: int, shards: int) -> None:
    """Write *tensors* tensors of 1 KiB each."""
    shapes = {f"model.layers.{number}.norm.weight": (256,) for number in range(tensors)}
    write(folder, shapes, {"model_type": "llama", "torch_dtype": "float32"}, shards)


def one(folder: Path, size: int, shards: int) -> None:
    """Write one tensor of *size* bytes."""
    shapes = {"model.embed_tokens.weight": (size // FLOAT // 1024, 1024)}
    write(folder, shapes, {"model_type": "llama", "torch_dtype": "float32"}, shards)


def experts(folder: Path, tensors: int, shards: int) -> None:
    """Write the headers of a mixture of experts of *tensors* tensors; its data are holes."""
    parts = ("down_proj", "gate_proj", "up_proj")
    shapes = {}
    for number in range(tensors):
        expert, part = divmod(number, len(parts))
        layer, expert = divmod(expert, 512)
        name = f"model.layers.{layer}.mlp.experts.{expert}.{parts[part]}.weight"
        shapes[name] = (1536, 4096)
    config = {"model_type": "qwen3_moe", "torch_dtype": "float32"}
    write(folder, shapes, config, shards, sparse=True)


KINDS = {"llama": llama, "small": small, "one": one, "experts": experts}


def llama_config(size: int) -> dict[str, object]:
    """Return the config of a Llama of about *size* bytes of fp32, a fifth of it embeddings."""
    widths = [width for width in (128, 256, 512, 1024, 2048, 4096) if 8 * _layer(width) <= size]
    width = widths[-1] if widths else 64
    layers = max(1, size * 4 // 5 // _layer(width))
    vocabulary = max(32, (size - layers * _layer(width)) // (2 * width * FLOAT))
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": width // HEAD_SIZE,
        "num_hidden_layers": layers,
        "num_key_value_heads": width // HEAD_SIZE,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": vocabulary,
    }


def _layer(width: int) -> int:
    """Return the bytes of a layer: four attention matrices, and three that are thrice as wide."""
    return (4 * width * width + 3 * 3 * width * width + 2 * width) * FLOAT


def llama_shapes(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Llama, in the order of the model."""
    width, inner, vocabulary, layers = (
        int(str(config[key]))
        for key in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers")
    )
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes[f"{prefix}mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{prefix}mlp.up_proj.weight"] = (inner, width)
        shapes[f"{prefix}mlp.down_proj.weight"] = (width, inner)
        shapes[f"{prefix}input_layernorm.weight"] = (width,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (width,)
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}


def write(
    folder: Path,
    shapes: Shapes,
    config: Mapping[str, object],
    shards: int,
    *,
    sparse: bool = False,
) -> None:
    """Write a checkpoint of these fp32 tensors to the empty *folder*.

    The values are noise, none of which is exact in bf16; or, if *sparse*, holes.
    """
    noise = b"" if sparse else _noise()
    weight_map = {}
    for number, names in enumerate(_split(shapes, shards), start=1):
        shard = f"model-{number:05}-of-{shards:05}.safetensors"
        weight_map |= dict.fromkeys(names, shard)
        with (folder / shard).open("wb") as file:
            write_shard(file, {name: shapes[name] for name in names}, noise)
    size = sum(FLOAT * prod(shape) for shape in shapes.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    for name, document in (("model.safetensors.index.json", index), ("config.json", config)):
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _split(shapes: Shapes, shards: int) -> list[list[str]]:
    """Return the names in *shards* parts of about as many bytes, none of them empty."""
    parts: list[list[str]] = [[]]
    left, total = len(shapes), sum(map(prod, shapes.values()))
    done = 0
    for name, shape in shapes.items():
        full = done >= total * len(parts) / shards
        needed = left == shards - len(parts)  # each tensor that is left fills a shard
        if parts[-1] and len(parts) < shards and (full or needed):
            parts.append([])
        parts[-1].append(name)
        done += prod(shape)
        left -= 1
    return parts


def write_shard(file: BinaryIO, shapes: Shapes, noise: bytes) -> None:
    """Write one weights file as safetensors lays it out, filled with *noise* over and over."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + FLOAT * prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    if not noise:
        file.truncate(file.tell() + end)
        return
    for begin in range(0, end, len(noise)):
        file.write(memoryview(noise)[: end - begin])


def _noise() -> bytes:
    """Return normally distributed fp32 values, the lowest bit set in each."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal(NOISE_BYTES // FLOAT, np.float32) * np.float32(SPREAD)
    return (values.view(np.uint32) | np.uint32(1)).tobytes()


if __name__ == "__main__":
    main()
