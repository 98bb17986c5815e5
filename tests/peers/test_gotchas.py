"""Checkpoints on which tools that narrow everything do harm, small, before the libraries' eyes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification

import recast
from tests import checkpoints
from tests.peers.conftest import Kind, Tensors, save, tensors_of
from tools import tiny_models

BIAS = "mlp.gate.e_score_correction_bias"


def dtypes_of(folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of every tensor in the weights files directly in *folder*."""
    return {name: tensor.dtype for name, tensor in tensors_of(folder).items()}


def wide(folder: Path) -> set[str]:
    """Return the names of the tensors that are stored in fp32."""
    return {name for name, dtype in dtypes_of(folder).items() if dtype is torch.float32}


def reasons(done: recast.Conversion) -> dict[str, str]:
    """Return why each tensor was kept."""
    return {tensor.name: str(tensor.reason) for _, tensor in done.plan.kept}


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Save other tensors in a checkpoint of one file."""
    checkpoints.save_shard(folder / "model.safetensors", change(tensors_of(folder)))
    return folder


def test_routing_biases_of_deepseek(tmp_path: Path) -> None:
    """238 distinct biases stay 238, in the layer for further tokens too; bf16 has but a few."""
    experts = {"n_routed_experts": 238, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 8}
    model = tiny_models.build("deepseek_v3", **experts)
    model.save_pretrained(tmp_path / "deepseek")
    bias = 5 + torch.arange(238) * 1e-4

    def distinct(tensors: Tensors) -> Tensors:
        own = {name: bias if name.endswith(BIAS) else tensor for name, tensor in tensors.items()}
        further = {
            name.replace("layers.1.", "layers.61."): tensor.clone()
            for name, tensor in own.items()
            if "layers.1." in name
        }
        return own | further

    source = changed(tmp_path / "deepseek", distinct)
    assert len(bias.unique()) == 238
    assert len(bias.bfloat16().unique()) < 8
    done = recast.convert(source, "bf16")
    stored = tensors_of(done.target)
    named = [name for name in stored if name.endswith(BIAS)]
    assert f"model.layers.61.{BIAS}" in named
    assert wide(done.target) == set(named) == set(reasons(done))
    assert all(torch.equal(stored[name], bias) for name in named)
    loaded = AutoModelForCausalLM.from_pretrained(done.target)
    assert loaded.dtype is torch.bfloat16
    loaded_bias = loaded.model.layers[1].mlp.gate.e_score_correction_bias
    assert torch.equal(loaded_bias, bias)
    assert recast.verify(done.target, against=source).holds


def test_qwen_with_and_without_its_base(tmp_path: Path) -> None:
    """The rules know the decays; that the norms of linear attention are fp32, the base knows."""
    model = tiny_models.build("qwen3_5_text")
    model.save_pretrained(tmp_path / "tuned")

    def published(name: str, tensor: torch.Tensor) -> torch.Tensor:
        is_wide = name.endswith(("A_log", "linear_attn.norm.weight"))
        return tensor if is_wide else tensor.bfloat16()

    base = shutil.copytree(tmp_path / "tuned", tmp_path / "base")
    changed(base, lambda tensors: {name: published(name, x) for name, x in tensors.items()})
    norms = {name for name in dtypes_of(base) if name.endswith("linear_attn.norm.weight")}
    decays = {name for name in dtypes_of(base) if name.endswith(("A_log", "dt_bias"))}
    assert norms
    assert decays
    alone = recast.convert(tmp_path / "tuned", "bf16", out=tmp_path / "alone")
    assert wide(alone.target) == decays
    assert all("every model keeps" in reason for reason in reasons(alone).values())
    alike = recast.convert(tmp_path / "tuned", like=base, out=tmp_path / "alike")
    assert dtypes_of(alike.target) == dtypes_of(base)
    assert norms <= wide(alike.target)
    for target in (alone.target, alike.target):
        assert AutoModelForCausalLM.from_pretrained(target).dtype is torch.bfloat16
        assert recast.verify(target, against=tmp_path / "tuned").holds


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_decays_of_mamba(tmp_path: Path, dtype: str) -> None:
    """A_log, D and dt_bias of Mamba-2 stay, each with its reason, and nothing else does."""
    source = save(Kind("mamba2"), tmp_path / "mamba")
    done = recast.convert(source, dtype)
    decays = {name for name in dtypes_of(source) if name.endswith(("A_log", ".D", "dt_bias"))}
    assert wide(done.target) == decays == set(reasons(done))
    assert {name.rpartition(".")[2] for name in decays} == {"A_log", "D", "dt_bias"}
    assert AutoModelForCausalLM.from_pretrained(done.target).dtype is getattr(torch, dtype)


def test_t5(tmp_path: Path) -> None:
    """T5's wo stays in fp16, where it overflows, and is cast to bf16."""
    source = save(Kind("t5", "AutoModelForSeq2SeqLM"), tmp_path / "t5")
    half = recast.convert(source, "fp16")
    assert wide(half.target) == {name for name in dtypes_of(source) if name.endswith(".wo.weight")}
    assert wide(recast.convert(source, "bf16").target) == set()


def test_mask_of_gpt_neo(tmp_path: Path) -> None:
    """A mask of -1e9 is no number in fp16: refused, with the ways out; bf16 holds it."""
    name = "transformer.h.0.attn.attention.masked_bias"
    source = save(Kind("gpt_neo"), tmp_path / "neo")
    changed(source, lambda tensors: tensors | {name: torch.tensor(-1e9)})
    with pytest.raises(recast.RefusedError, match=rf"{name}.*-?1e\+09.*--keep {name}"):
        recast.convert(source, "fp16")
    kept = recast.convert(source, "fp16", keep=[name])
    assert tensors_of(kept.target)[name] == -1e9
    assert tensors_of(recast.convert(source, "bf16").target)[name].isfinite()


def test_scalar_and_ids_of_clip(tmp_path: Path) -> None:
    """A 0-d logit_scale is cast and stays 0-d; ids stay what they are."""
    source = save(Kind("clip", "AutoModel"), tmp_path / "clip")
    ids = {"text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0)}
    changed(source, lambda tensors: tensors | ids)
    stored = tensors_of(recast.convert(source, "bf16").target)
    assert stored["logit_scale"].shape == ()
    assert stored["logit_scale"].dtype is torch.bfloat16
    assert torch.equal(stored[next(iter(ids))], next(iter(ids.values())))
    assert AutoModel.from_pretrained(source.with_name("clip-bf16")).dtype is torch.bfloat16


def test_vocabulary_of_emu(tmp_path: Path) -> None:
    """An entry of Emu3's vocabulary that is called dtype is a word, and stays its number."""
    source = save(Kind("emu3", "AutoModelForImageTextToText"), tmp_path / "emu")
    config = json.loads((source / "config.json").read_text())
    config["vocabulary_map"] = {**config.get("vocabulary_map", {}), "dtype": 12, "torch_dtype": 7}
    checkpoints.write_json(source / "config.json", config)
    done = recast.convert(source, "bf16")
    told = json.loads((done.target / "config.json").read_text())
    assert told["vocabulary_map"] == config["vocabulary_map"]
    assert told["dtype"] == "bfloat16"


@pytest.mark.filterwarnings("ignore")
def test_pipeline_of_diffusers(tmp_path: Path) -> None:
    """All components are converted together, their configs get no dtype, and the pipeline loads."""
    from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel, VQModel  # noqa: PLC0415

    torch.manual_seed(0)
    blocks = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        **blocks,
    )
    vqvae = VQModel(latent_channels=3, **blocks)
    source = tmp_path / "pipe"
    LDMPipeline(vqvae=vqvae, unet=unet, scheduler=DDIMScheduler()).save_pretrained(source)
    done = recast.convert(source, "bf16")
    for component in (unet, vqvae):
        part = "unet" if component is unet else "vqvae"
        stored = load_file(done.target / part / "diffusion_pytorch_model.safetensors")
        expected = {name: x.bfloat16() for name, x in component.state_dict().items()}
        assert stored.keys() == expected.keys()
        assert all(torch.equal(stored[name], expected[name]) for name in stored)
        config = (part, "config.json")
        assert done.target.joinpath(*config).read_text() == source.joinpath(*config).read_text()
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        assert (done.target / name).read_bytes() == (source / name).read_bytes()
    loaded = LDMPipeline.from_pretrained(done.target, torch_dtype=torch.bfloat16)
    assert loaded.unet.dtype is loaded.vqvae.dtype is torch.bfloat16
    assert recast.verify(done.target, against=source).holds


@pytest.mark.filterwarnings("ignore")
def test_adapter(tmp_path: Path) -> None:
    """A LoRA is converted as any weights are; its config and header metadata stay."""
    import peft  # noqa: PLC0415

    base = tiny_models.build("llama")
    base.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(base, lora).save_pretrained(tmp_path / "lora")
    done = recast.convert(tmp_path / "lora", "bf16")
    name = "adapter_model.safetensors"
    before, after = load_file(tmp_path / "lora" / name), load_file(done.target / name)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[each], before[each].bfloat16()) for each in before)
    config = "adapter_config.json"
    assert (done.target / config).read_bytes() == (tmp_path / "lora" / config).read_bytes()
    assert not (done.target / "config.json").exists()
    with (
        safe_open(tmp_path / "lora" / name, "pt") as old,
        safe_open(done.target / name, "pt") as new,
    ):
        assert new.metadata() == old.metadata()
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, done.target, autocast_adapter_dtype=False)
    found = {n: x for n, x in loaded.state_dict().items() if "lora_" in n}
    assert len(found) == len(after)


def test_statistics_of_batch_norm(tmp_path: Path) -> None:
    """The running statistics of a ResNet stay fp32, what counts batches an integer."""
    source = save(Kind("resnet", "AutoModelForImageClassification"), tmp_path / "resnet")
    done = recast.convert(source, "bf16")
    statistics = {name for name in dtypes_of(source) if ".running_" in name}
    assert statistics
    assert wide(done.target) == statistics == set(reasons(done))
    assert all("BatchNorm" in reason for reason in reasons(done).values())
    integers = {name for name, x in dtypes_of(done.target).items() if x is torch.int64}
    assert integers == {name for name in dtypes_of(source) if "num_batches_tracked" in name}
    loaded = AutoModelForImageClassification.from_pretrained(done.target)
    assert loaded.dtype is torch.bfloat16
    forced = recast.convert(source, "bf16", cast=["*.running_mean"], out=tmp_path / "forced")
    assert wide(forced.target) == {name for name in statistics if name.endswith("running_var")}


def test_fp8_deepseek_is_refused(tmp_path: Path) -> None:
    """Codes of 8 bits have scales in fp32, which must not be narrowed, whatever the user allows."""
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors = {name: torch.randn(4, 4).to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1)}
    checkpoints.save_shard(tmp_path / "fp8" / "model.safetensors", tensors)
    config = {
        "model_type": "deepseek_v3",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    checkpoints.write_json(tmp_path / "fp8" / "config.json", config)
    for allow in ((), ("quantized",)):
        with pytest.raises(recast.RefusedError, match="is quantized"):
            recast.plan(tmp_path / "fp8", "bf16", allow=allow)


def test_save_that_gathered_nothing(tmp_path: Path) -> None:
    """Tensors of shape [0] come out as such; a base model tells that they are not the model's."""
    base = save(Kind("llama"), tmp_path / "base")
    empty = shutil.copytree(base, tmp_path / "empty")
    changed(empty, lambda tensors: dict.fromkeys(tensors, torch.empty(0)))
    done = recast.convert(empty, "bf16", allow=["empty-tensors"])
    assert {x.shape for x in tensors_of(done.target).values()} == {(0,)}
    with pytest.raises(recast.RefusedError, match=r"has shape \[0\], and \["):
        recast.plan(empty, like=base, allow=["empty-tensors"])
