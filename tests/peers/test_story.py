"""The story: trained in bf16, saved in fp32, repaired; told with transformers' own Trainer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import recast
from recast.dtypes import Dtype
from recast.reports import text
from recast.reports.loaders import loadings

TOKENS = torch.arange(3, 19).unsqueeze(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, published in bf16."""
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("story") / "base"
    LlamaForCausalLM(LlamaConfig(**sizes)).bfloat16().save_pretrained(folder)
    return folder


def fine_tuned(base: Path, dtype: torch.dtype | str, *, bf16: bool = True) -> Path:
    """Fine-tune *base*, loaded in *dtype*, for some steps of the Trainer, and save it."""
    folder = base.parent / f"tuned-{dtype}-{bf16}".replace("torch.", "")
    arguments = TrainingArguments(
        str(folder / "run"),
        bf16=bf16,
        use_cpu=True,
        max_steps=3,
        learning_rate=1e-3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    examples = [{"input_ids": TOKENS[0], "labels": TOKENS[0]}] * 8
    trainer = Trainer(model=model, args=arguments, train_dataset=examples)
    trainer.train()
    trainer.save_model(str(folder))
    return folder


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    """The base, loaded in fp32 as transformers 4 does by default, and fine-tuned with bf16=True."""
    return fine_tuned(base, torch.float32)


def stored(folder: Path) -> set[torch.dtype]:
    """Return the dtypes in a model's one weights file."""
    return {each.dtype for each in load_file(folder / "model.safetensors").values()}


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Return what the model says of some tokens."""
    with torch.no_grad():
        output: torch.Tensor = model.eval()(TOKENS).logits
    return output


def test_bf16_training_saves_fp32(base: Path, tuned: Path) -> None:
    """bf16=True computes in bf16 and keeps, and saves, the weights as they were loaded: fp32."""
    assert stored(base) == {torch.bfloat16}
    assert stored(tuned) == {torch.float32}
    total = recast.inspect(tuned).dtypes
    assert [share.dtype for share in total] == [Dtype.F32]


def test_who_loads_the_base_as_it_is_saves_bf16(base: Path) -> None:
    """Loaded in bf16, the model is saved in bf16, with and without bf16=True."""
    for bf16 in (True, False):
        assert stored(fine_tuned(base, "auto", bf16=bf16)) == {torch.bfloat16}


def test_recast_says_so(base: Path, tuned: Path) -> None:
    """Its findings and its table say that it is wider than its base, and who loads what."""
    said = text.inspection(recast.inspect(tuned))
    assert "float32" in said
    assert "saves" in said
    oversized, *_ = recast.findings(recast.inspect(tuned), base=recast.inspect(base))
    assert (oversized.name, oversized.command) == ("oversized", f"recast {tuned} --like {base}")
    loads = {(each.loader, each.option): each for each in loadings(recast.inspect(tuned))}
    five = loads["transformers 5", "default"]
    assert (five.before, five.after) == (Dtype.F32, Dtype.BF16)
    # These are no bf16 values stored wide: training has changed the bits that bf16 lacks.
    assert not recast.scan(tuned).wide


@pytest.mark.parametrize("way", ["to", "like"])
def test_the_repaired_model_is_the_cast_one(
    way: str, base: Path, tuned: Path, tmp_path: Path
) -> None:
    """What recast makes loads in bf16, with the logits of the model cast in memory."""
    if way == "like":
        if "like" not in (recast.convert.__kwdefaults__ or {}):
            pytest.skip("recast.convert has no like=")
        recast.convert(tuned, out=tmp_path / "out", like=base)
    else:
        recast.convert(tuned, "bf16", out=tmp_path / "out")
    assert recast.verify(tmp_path / "out", against=tuned).holds
    repaired = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    in_memory = AutoModelForCausalLM.from_pretrained(tuned)
    for parameter in in_memory.parameters():  # not what is computed, and in no checkpoint
        parameter.data = parameter.data.bfloat16()
    assert {each.dtype for each in repaired.parameters()} == {torch.bfloat16}
    assert torch.equal(logits(repaired), logits(in_memory))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers will drop
def test_merging_an_adapter_keeps_the_dtype_of_the_base(base: Path, tmp_path: Path) -> None:
    """A LoRA merged into a base that was loaded in fp32 is saved in fp32, in bf16 else."""
    peft = pytest.importorskip("peft")
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
        adapted.merge_and_unload().save_pretrained(tmp_path / str(dtype))
        assert stored(tmp_path / str(dtype)) == {dtype}
