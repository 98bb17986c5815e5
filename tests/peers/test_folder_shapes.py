"""Folders of every shape that publishers use: one checkpoint each, all of it converted or none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

import recast
from recast.formats.names import Role
from tests import checkpoints
from tests.peers.test_transformers import same_bits

SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}


def pipeline(folder: Path) -> None:
    """Save a tiny diffusers pipeline: an unet in shards, a VAE, a text encoder, a scheduler."""
    unet = UNet2DConditionModel(
        **SMALL,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        **SMALL,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    text = CLIPTextModel(CLIPTextConfig(**sizes, num_hidden_layers=1, vocab_size=64))
    unet.save_pretrained(folder / "unet", max_shard_size="40KB")
    vae.save_pretrained(folder / "vae", variant="fp16")
    text.save_pretrained(folder / "text_encoder")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    checkpoints.write_json(folder / "model_index.json", {"_class_name": "Tiny", **parts})


def with_consolidated(folder: Path) -> None:
    """Save shards with an index, and beside them the same weights in one file, as Mistral does."""
    checkpoints.two_shards(folder)
    tensors = checkpoints.random_tensors(**{"layers.0.wq.weight": (8, 8), "norm.weight": (8,)})
    checkpoints.save_shard(folder / "consolidated.safetensors", tensors)
    checkpoints.write_json(folder / "params.json", {"dim": 8})


def sentence_model(folder: Path) -> None:
    """Save a model with a dense module behind it, as sentence-transformers does."""
    checkpoints.two_shards(folder)
    dense = checkpoints.random_tensors(**{"linear.weight": (8, 8), "linear.bias": (8,)})
    checkpoints.save_shard(folder / "2_Dense" / "model.safetensors", dense)
    checkpoints.write_json(folder / "2_Dense" / "config.json", {"in_features": 8})
    checkpoints.write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    checkpoints.write_json(folder / "modules.json", [])


def variants(folder: Path) -> None:
    """Save a variant in shards beside the main one."""
    checkpoints.two_shards(folder)
    index = folder / "model.safetensors.index.json"
    text = index.read_text(encoding="utf-8").replace("model-", "model.fp16-")
    (folder / "model.safetensors.index.fp16.json").write_text(text, encoding="utf-8")
    for path in list(folder.glob("model-*.safetensors")):
        path.with_name(path.name.replace("model-", "model.fp16-")).write_bytes(path.read_bytes())


SHAPES: dict[str, Callable[[Path], None]] = {
    "pipeline": pipeline,
    "consolidated": with_consolidated,
    "sentence": sentence_model,
    "variants": variants,
}


def weights(folder: Path) -> dict[str, Path]:
    """Return every weights file, by its path in *folder*."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("shape", SHAPES)
def test_all_weights_are_converted_and_verified(shape: str, tmp_path: Path) -> None:
    """Every weights file, in whatever folder, holds torch's cast of what it held."""
    source = tmp_path / "source"
    SHAPES[shape](source)
    target = recast.convert(source, "bfloat16").target
    assert target is not None
    assert weights(target).keys() == weights(source).keys()
    for name, path in weights(source).items():
        before, after = load_file(path), load_file(target / name)
        assert after.keys() == before.keys()
        for key, tensor in before.items():
            cast = tensor.bfloat16() if tensor.is_floating_point() else tensor
            assert same_bits(after[key], cast), key
    assert recast.verify(target, against=source).holds


@pytest.mark.parametrize("shape", SHAPES)
def test_one_bad_part_stops_all(shape: str, tmp_path: Path) -> None:
    """If the last weights file is quantized, none is converted."""
    source = tmp_path / "source"
    SHAPES[shape](source)
    path = weights(source)[max(weights(source))]
    codes = torch.ones(4, dtype=torch.float8_e4m3fn)
    checkpoints.save_shard(path, load_file(path) | {"codes": codes})
    with pytest.raises(recast.RecastError):
        recast.convert(source, "bfloat16", allow=["unindexed-tensors"])
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dtype_key_is_added_to_configs_of_transformers_alone(shape: str, tmp_path: Path) -> None:
    """Configs that say no model_type, and every other JSON file, stay byte for byte."""
    source = tmp_path / "source"
    SHAPES[shape](source)
    target = recast.convert(source, "bfloat16").target
    assert target is not None
    for path in source.rglob("*.json"):
        name = path.relative_to(source)
        if ".safetensors.index" in path.name:
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and "model_type" in document:
            written = json.loads((target / name).read_text(encoding="utf-8"))
            assert (written.get("dtype") or written.get("torch_dtype")) == "bfloat16"
        else:
            assert (target / name).read_bytes() == path.read_bytes(), name


def test_diffusers_loads_each_component_as_its_cast(tmp_path: Path) -> None:
    """The unet from shards, the VAE from a variant: the bits that diffusers itself casts to."""
    pipeline(tmp_path / "source")
    target = recast.convert(tmp_path / "source", "bfloat16").target
    parts = (("unet", UNet2DConditionModel, None), ("vae", AutoencoderKL, "fp16"))
    for name, kind, variant in parts:
        cast = kind.from_pretrained(tmp_path / "source" / name, variant=variant).bfloat16()
        loaded = kind.from_pretrained(target / name, variant=variant, torch_dtype=torch.bfloat16)
        expected = cast.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(same_bits(x, expected[key]) for key, x in loaded.state_dict().items())


def test_what_accelerate_saves_beside_the_weights(tmp_path: Path) -> None:
    """Of two optimizers, a scheduler and the random states, nothing is taken for the model."""
    from accelerate import Accelerator  # noqa: PLC0415 - it takes seconds to load

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(4, 4)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2)]
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizers[0])
    accelerator.prepare(model, *optimizers, scheduler)
    accelerator.save_state(str(tmp_path))
    checkpoint = recast.inspect(tmp_path)
    (shard,) = checkpoint.shards
    saved = {path.name for path in tmp_path.iterdir()}
    assert {"optimizer_1.bin", "scheduler.bin", "random_states_0.pkl"} <= saved
    left_out = {each.name for each in checkpoint.left_out if each.role is Role.TRAINER_STATE}
    assert left_out == saved - {shard.name}
