"""Checkpoints that loaders see differently, and what a transformers makes of each of them.

Run as a module, with a transformers of any version on the path, it prints what that one does.
"""

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TINY = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 8,
    "max_position_embeddings": 4,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 8,
}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
BF16, FP16, FP32 = "bfloat16", "float16", "float32"
CLAIMS: tuple[dict[str, object], ...] = (
    {},
    {"dtype": None},
    *({key: dtype} for key in ("dtype", "torch_dtype") for dtype in (BF16, FP16, FP32)),
    {"dtype": BF16, "torch_dtype": FP32},
    {"dtype": FP32, "torch_dtype": BF16},
    {"dtype": None, "torch_dtype": BF16},
    {"torch_dtype": "half"},
    {"dtype": "bf16"},
    {"torch_dtype": "torch.float16"},
    {"torch_dtype": "auto"},
)
# What is no dtype to load a model in, and dtypes by part.
ODD: tuple[dict[str, object], ...] = (
    *({key: said} for key in ("dtype", "torch_dtype") for said in ("", "float8_e4m3fn", 5)),
    {"dtype": "int8"},
    *({key: {"text_config": FP16}} for key in ("dtype", "torch_dtype")),
    {"dtype": ["float32"]},
    {"dtype": {}},
    {"dtype": {"": FP16, "part": "x"}},
    {"dtype": {"": "bf16"}},
    {"dtype": {"": None}},
    {"dtype": BF16, "torch_dtype": ""},
)
STORED = (BF16, FP32, "first fp32", "last fp32")
INDEXES = (None, "", FP16)  # no index, one that says no dtype, one that says fp16


def cases() -> Iterator[tuple[dict[str, object], str, str | None]]:
    """Yield what the config claims, what is stored, and what the index says."""
    yield from product(CLAIMS, STORED, INDEXES)
    yield from product(ODD, (BF16, FP32), (None,))
    yield from product(({}, {"dtype": BF16}), (BF16,), ("mixed", "float8_e4m3fn"))


def save(folder: Path, claims: dict[str, object], stored: str, index: str | None) -> Path:
    """Save a BERT too small to be slow."""
    folder.mkdir(parents=True)
    wide = {"first fp32": 0, "last fp32": -1}
    names = list(shapes())
    dtypes = dict.fromkeys(names, torch.float32 if stored == FP32 else torch.bfloat16)
    if stored in wide:
        dtypes[sorted(names)[wide[stored]]] = torch.float32
    tensors = {name: torch.ones(shape, dtype=dtypes[name]) for name, shape in shapes().items()}
    halves = [dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])]
    if index is None:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        metadata: dict[str, object] = {"total_size": sum(t.nbytes for t in tensors.values())}
        shards = [FIRST, SECOND]
        for shard, half in zip(shards, halves, strict=True):
            save_file(half, folder / shard, {"format": "pt"})
        weight_map = {name: shards[name not in halves[0]] for name in tensors}
        if index:
            metadata["dtype"] = index
        document = {"metadata": metadata, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(document), "utf-8")
    (folder / "config.json").write_text(json.dumps(TINY | claims), "utf-8")
    return folder


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors of the model, by name."""
    layer = "encoder.layer.0"
    square = {
        f"{layer}.{part}": 8
        for part in (
            *("attention.self.query", "attention.self.key", "attention.self.value"),
            *("attention.output.dense", "intermediate.dense", "output.dense"),
        )
    }
    norms = ("embeddings", f"{layer}.attention.output", f"{layer}.output")
    return {
        "embeddings.word_embeddings.weight": (8, 8),
        "embeddings.position_embeddings.weight": (4, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        **{f"{name}.weight": (8, 8) for name in (*square, "pooler.dense")},
        **{f"{name}.bias": (8,) for name in (*square, "pooler.dense")},
        **{f"{name}.LayerNorm.{end}": (8,) for name in norms for end in ("weight", "bias")},
    }


def strip(name: str, metadata: dict[str, str] | None) -> Callable[[Path], None]:
    """Return a fault: this header metadata in a shard, or none."""
    return lambda folder: save_file(load_file(folder / name), folder / name, metadata)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a fault: a changed index."""

    def plant(folder: Path) -> None:
        document = json.loads((folder / INDEX).read_text("utf-8"))
        change(document)
        (folder / INDEX).write_text(json.dumps(document), "utf-8")

    return plant


def hollow(name: str) -> Callable[[Path], None]:
    """Return a fault: a tensor as ZeRO-3 leaves it."""

    def plant(folder: Path) -> None:
        tensors = load_file(folder / FIRST)
        tensors[name] = torch.empty(0, dtype=tensors[name].dtype)
        save_file(tensors, folder / FIRST, {"format": "pt"})

    return plant


# What is wrong with files; what a conversion cures stands first.
CURABLE: dict[str, Callable[[Path], object]] = {
    "no metadata": edit(lambda document: document.pop("metadata")),
    "null metadata": edit(lambda document: document.update(metadata=None)),
    "empty metadata": edit(lambda document: document["metadata"].clear()),
    "null as dtype": edit(lambda document: document["metadata"].update(dtype=None)),
    "no header metadata": strip(FIRST, None),
    "no header metadata in the second": strip(SECOND, None),
    "no format": strip(FIRST, {"a": "b"}),
    "no format in the second": strip(SECOND, {"a": "b"}),
}
INCURABLE: dict[str, Callable[[Path], object]] = {
    "no first shard": lambda folder: (folder / FIRST).unlink(),
    "no second shard": lambda folder: (folder / SECOND).unlink(),
    "ZeRO-3": hollow("embeddings.word_embeddings.weight"),
}
SAID_OF_A_PART: tuple[dict[str, object], ...] = (
    {},
    *(
        {key: said}
        for key in ("dtype", "torch_dtype")
        for said in (BF16, FP32, "torch.bfloat16", "bf16", "auto", "", 5, None, {"": BF16})
    ),
)


def save_parts(folder: Path, claims: dict[str, object]) -> Path:
    """Save a CLIP too small to be slow, whose text config says *claims*."""
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    text = {**size, "num_attention_heads": 1, "vocab_size": 8, "max_position_embeddings": 4}
    vision = {**size, "num_attention_heads": 1, "image_size": 4, "patch_size": 2}
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415 - few need it

    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4))
    folder.mkdir()
    tensors = {name: each.bfloat16().contiguous() for name, each in model.state_dict().items()}
    floating = {name: each for name, each in tensors.items() if "position_ids" not in name}
    save_file(floating, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 4,
        "dtype": BF16,
        "torch_dtype": BF16,
        "text_config": {"model_type": "clip_text_model", **text, **claims},
        "vision_config": {"model_type": "clip_vision_model", **vision},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def loaded(folder: Path, option: str) -> str | None:
    """Return the dtype in which the transformers at hand loads what lies in *folder*."""
    import transformers  # noqa: PLC0415 - whichever is on the path

    major, minor = map(int, transformers.__version__.split(".")[:2])
    key = "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
    torch.set_default_dtype(torch.float32)  # which a load that failed may have changed
    options = {key: "auto"} if option == "auto" else {}
    try:
        model = transformers.AutoModel.from_pretrained(folder, **options)
    except Exception:  # noqa: BLE001 - whatever it is, people see a traceback
        return None
    # Not model.dtype, which older versions take from the config.
    dtypes = Counter(str(each.dtype).removeprefix("torch.") for each in model.parameters())
    if major >= 5 and len(dtypes) > 1:
        return f"several: {dtypes}"  # only older ones leave some as they are
    return max(dtypes, key=dtypes.__getitem__)


def main(folder: Path) -> None:
    """Print what the transformers at hand makes of each checkpoint in *folder*."""
    import transformers  # noqa: PLC0415 - as above

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    each = {
        path.name: {option: loaded(path, option) for option in ("default", "auto")}
        for path in folder.iterdir()
    }
    print(json.dumps(each))  # noqa: T201 - for the test that started it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
