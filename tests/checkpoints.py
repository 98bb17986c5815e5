"""Small checkpoints for tests, written by safetensors itself."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

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
