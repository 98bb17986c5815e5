"""Tensors known to need fp32: what the data say, how they are read, and who they are true to."""

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import recast
from recast.dtypes import Dtype
from recast.planning import keep_rules
from tests import checkpoints

NARROW = (Dtype.BF16, Dtype.F16)
T5_WO = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
ROUTER_BIAS = "model.layers.3.mlp.gate.e_score_correction_bias"

# In the form of the real data, which may change with the next release of transformers.
TABLE = {
    "source": "a test",
    "observed": {"seen": {"bf16": ["a.*.bias", "b+c"], "fp16": ["a.*.bias", "b+c", "wo.weight"]}},
    "tried": ["seen", "plain"],
    "unbuildable": {},
    "modules": {
        "seen": {"keep_strict": ["never"]},
        "plain": {"keep_strict": ["never"]},
        "listed": {"keep_strict": ["router"], "keep": ["wo", "x.*.norm"]},
        "two_words": {"keep": ["wo"]},
    },
    "aliases": {"other-name": "listed"},
}


@pytest.fixture(scope="module")
def data() -> Mapping[str, Any]:
    """The data that recast ships."""
    text = resources.files("recast.planning").joinpath("keep_rules.json").read_text("utf-8")
    return json.loads(text)


@pytest.mark.parametrize(
    ("model_type", "name", "target", "kept"),
    [
        ("t5", T5_WO, Dtype.F16, True),
        ("t5", T5_WO, Dtype.BF16, False),
        ("t5", T5_WO.replace("wo", "wi"), Dtype.F16, False),
        ("t5", "shared.weight", Dtype.F16, False),
        ("deepseek_v3", ROUTER_BIAS, Dtype.F16, True),
        ("deepseek_v3", ROUTER_BIAS, Dtype.BF16, True),
        ("deepseek_v3", "model.layers.3.mlp.gate.weight", Dtype.BF16, False),
        ("deepseek_v3", ROUTER_BIAS, Dtype.F32, False),
        ("t5", T5_WO, Dtype.F32, False),
        ("llama", T5_WO, Dtype.F16, False),
        ("no such model", T5_WO, Dtype.F16, False),
        ("", T5_WO, Dtype.F16, False),
        (None, T5_WO, Dtype.F16, False),
    ],
)
def test_what_is_known_to_need_fp32_is_kept(
    model_type: str | None,
    name: str,
    target: Dtype,
    kept: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Rules are those of the architecture and of the target: T5 in fp16, DeepSeek in both."""
    reason = keep_rules.rule(model_type, target)(name)
    assert (reason is not None) == kept
    if kept:
        assert f"{model_type} keeps " in reason
        assert "transformers" in reason


@pytest.mark.parametrize(
    ("model_type", "target", "kept", "cast"),
    [
        # Observed: whole names, in which a star is a number and all else is itself.
        ("seen", Dtype.BF16, ["a.0.bias", "a.61.bias", "b+c"], ["wo.weight", "x.a.0.bias"]),
        ("seen", Dtype.F16, ["wo.weight", "a.7.bias"], ["a.b.bias", "a.0.bias.x", "a.0xbias"]),
        ("seen", Dtype.BF16, ["b+c"], ["bbc", "never", "a..bias", "a.1.2.bias", "xwo.weight"]),
        # Tried, and nothing was kept: what transformers' code lists does not count.
        ("plain", Dtype.F16, [], ["never", "x.never.weight"]),
        # Not observed: the lists in transformers' code, which name modules.
        ("listed", Dtype.BF16, ["x.router.weight"], ["x.wo.weight"]),
        ("listed", Dtype.F16, ["x.router.weight", "x.wo.weight", "x.1.norm.a"], ["x.norm"]),
        ("other-name", Dtype.F16, ["x.router.weight", "x.wo.weight"], []),
        ("two-words", Dtype.F16, ["x.wo.weight"], []),
        ("seen", Dtype.F32, [], ["a.0.bias", "wo.weight"]),
        ("listed", Dtype.F32, [], ["x.router.weight", "x.wo.weight"]),
    ],
)
def test_the_table_is_read_as_it_is_meant(
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    target: Dtype,
    kept: list[str],
    cast: list[str],
) -> None:
    """What was observed goes before what is listed, under the names that both may have."""
    monkeypatch.setattr(keep_rules, "_table", lambda: TABLE)
    rule = keep_rules.rule(model_type, target)
    assert [name for name in [*kept, *cast] if rule(name) is not None] == kept


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.12.bias", "seen keeps a.*.bias in fp32 (a test)"),
        ("b+c", "seen keeps b+c in fp32 (a test)"),
        ("wo.weight", "seen keeps wo.weight in fp32 (a test)"),
    ],
)
def test_the_reason_names_the_rule_that_matched(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """Of several rules the reason quotes the one that decided, and where it comes from."""
    monkeypatch.setattr(keep_rules, "_table", lambda: TABLE)
    assert keep_rules.rule("seen", Dtype.F16)(name) == reason


EVERYWHERE = {
    "model.layers.3.block_sparse_moe.e_score_correction_bias": (),
    "layers.3.moe.expert_bias": (),
    "expert_bias": (),
    "backbone.layers.0.mixer.A_log": (),
    "backbone.layers.0.mixer.dt_bias": (),
    "backbone.layers.0.mixer.D": ("backbone.layers.0.mixer.A_log",),
    "D": ("A_log",),
    "bn1.running_mean": ("bn1.running_var",),
    "bn1.running_var": ("bn1.num_batches_tracked",),
    "running_var": ("running_mean",),
}
NOWHERE = {
    "model.layers.3.mlp.gate.bias": (),
    "model.layers.3.e_score_correction_bias.weight": (),
    "my_expert_bias": (),
    "heads.D": ("heads.A", "heads.B", "A_log", "heads.0.A_log"),
    "backbone.layers.0.mixer.norm_D": ("backbone.layers.0.mixer.A_log",),
    "backbone.layers.0.D.weight": ("backbone.layers.0.A_log",),
    "vq.running_mean": ("bn.running_var", "running_var", "vq.running_means"),
    "vq.running_mean.weight": ("vq.running_var",),
    "vq.running_var": (),
}


@pytest.mark.parametrize("model_type", ["llama", "no such model", None])
@pytest.mark.parametrize("target", NARROW)
def test_some_are_kept_in_any_model(model_type: str | None, target: Dtype) -> None:
    """What publishers ship in fp32 is kept, with or without a config, and nothing like it is."""
    for name, beside in (EVERYWHERE | NOWHERE).items():
        reason = keep_rules.rule(model_type, target, holds=beside.__contains__)(name)
        assert (reason is not None) == (name in EVERYWHERE), name
        assert reason is None or f"every model keeps {name.rpartition('.')[2]} in fp32 (" in reason
        assert keep_rules.rule(model_type, Dtype.F32, holds=beside.__contains__)(name) is None


def test_neighbours_may_lie_in_another_shard(tmp_path: Path) -> None:
    """A layer may be cut in two; what lies in another folder is no neighbour."""
    first = checkpoints.random_tensors(**{"layers.0.mixer.A_log": (4,), "bn.running_var": (4,)})
    second = checkpoints.random_tensors(**{"layers.0.mixer.D": (4,), "bn.running_mean": (4,)})
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    folder = checkpoints.save_sharded(
        tmp_path / "ckpt", dict(zip(names, (first, second), strict=True))
    )
    other = checkpoints.random_tensors(**{"layers.0.mixer.D": (4,), "bn.running_mean": (4,)})
    checkpoints.save_shard(folder / "other" / "model.safetensors", other)
    kept = [(shard, tensor.name) for shard, tensor in recast.plan(folder, "bf16").kept]
    assert set(kept) == {(names[0], n) for n in first} | {(names[1], n) for n in second}


PARTS = (
    (("text_config",), "seen"),
    (("text_config", "deep"), "other-name"),
    (("vision_config",), "plain"),
)


@pytest.mark.parametrize("model_type", ["plain", "no such model", None])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.1.bias", "seen keeps a.*.bias"),
        ("model.language_model.a.1.bias", "seen keeps a.*.bias"),
        ("x2.wo.weight", "seen keeps wo.weight"),
        ("model.vision_tower.a.1.bias", None),
        ("visual.wo.weight", None),
        ("layers.1.wo.weight", None),
        ("language_model.layers.1.wo.weight", None),
        ("language_model.a.1.bias.x", None),
        ("x_a.1.bias", None),
    ],
)
def test_sub_models_bring_their_rules(
    monkeypatch: pytest.MonkeyPatch, model_type: str | None, name: str, reason: str | None
) -> None:
    """Behind any prefix, but not in another sub-model, nor within its own layers."""
    monkeypatch.setattr(keep_rules, "_table", lambda: TABLE)
    found = keep_rules.rule(model_type, Dtype.F16, PARTS[::2])(name)
    assert found == (reason and f"{reason} in fp32 (a test)")


def test_a_part_of_a_part_is_known_by_the_words_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sub-model is not taken for another because of a prefix that it shares with its parent."""
    monkeypatch.setattr(keep_rules, "_table", lambda: TABLE)
    parts = (
        (("thinker_config",), "plain"),
        (("thinker_config", "text_config"), "seen"),
        (("talker_config",), "plain"),
    )
    rule = keep_rules.rule("plain", Dtype.BF16, parts)
    names = ["thinker.model.a.1.bias", "talker.model.a.1.bias"]
    assert [rule(name) is not None for name in names] == [True, False]


@pytest.mark.parametrize("target", NARROW)
def test_a_real_sub_model_brings_its_rules(target: Dtype, tmp_path: Path) -> None:
    """A T5 in a model of an unknown kind keeps in fp16 what a T5 of its own keeps."""
    config = {"model_type": "new", "text_encoder": {"model_type": "t5"}, "torch_dtype": "float32"}
    names = {f"text_encoder.{T5_WO}": (4, 4), f"text_encoder.{T5_WO.replace('wo', 'wi')}": (4, 4)}
    tensors = checkpoints.random_tensors(**names)
    checkpoints.save_shard(tmp_path / "ckpt" / "model.safetensors", tensors)
    checkpoints.write_json(tmp_path / "ckpt" / "config.json", config)
    kept = [tensor.name for _, tensor in recast.plan(tmp_path / "ckpt", target).kept]
    assert kept == ([f"text_encoder.{T5_WO}"] if target is Dtype.F16 else [])


def test_the_data_can_be_used(data: Mapping[str, Any]) -> None:
    """Every pattern is a regular expression without groups, which would confuse the reasons."""
    patterns = [
        pattern
        for lists in data["modules"].values()
        for kind in ("keep_strict", "keep")
        for pattern in lists.get(kind, [])
    ]
    assert patterns
    assert not [pattern for pattern in patterns if re.compile(pattern).groups or not pattern]
    assert set(data["aliases"].values()) <= set(data["modules"])
    assert data["source"].startswith("transformers ")
    for by_target in data["observed"].values():
        assert set(by_target) <= {"bf16", "fp16"}


def test_every_rule_keeps_what_it_names(data: Mapping[str, Any]) -> None:
    """A name made from an observed pattern is kept, with that pattern as the reason."""
    for model_type, by_target in data["observed"].items():
        for target in NARROW:
            rule = keep_rules.rule(model_type, target)
            for pattern in by_target.get(target.short_name, []):
                reason = rule(pattern.replace("*", "12"))
                assert reason is not None
                assert reason.startswith(f"{model_type} keeps ")


def t5() -> torch.nn.Module:
    """Build a T5 of a few thousand parameters."""
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = AutoConfig.for_model("t5", vocab_size=32, **sizes)
    return AutoModelForSeq2SeqLM.from_config(config)


def deepseek() -> torch.nn.Module:
    """Build a DeepSeek-V3 of a few thousand parameters."""
    sizes = dict.fromkeys(["hidden_size", "moe_intermediate_size", "intermediate_size"], 8)
    sizes |= dict.fromkeys(["num_hidden_layers", "num_attention_heads", "num_key_value_heads"], 2)
    sizes |= dict.fromkeys(["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"], 4)
    sizes |= dict.fromkeys(["kv_lora_rank", "q_lora_rank", "n_routed_experts"], 4)
    sizes |= dict.fromkeys(["n_group", "num_experts_per_tok"], 2)
    sizes |= dict.fromkeys(["topk_group", "first_k_dense_replace"], 1)
    config = AutoConfig.for_model("deepseek_v3", vocab_size=32, **sizes)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("build", [t5, deepseek])
@pytest.mark.parametrize("target", NARROW)
def test_transformers_keeps_the_same(
    build: Callable[[], torch.nn.Module], target: Dtype, tmp_path: Path
) -> None:
    """What transformers itself stores in fp32 when it saves the model narrow is what is kept."""
    model = build().float()
    model.save_pretrained(tmp_path / "wide")
    narrow = type(model).from_pretrained(tmp_path / "wide", dtype=getattr(torch, target.torch_name))
    narrow.save_pretrained(tmp_path / "narrow")
    with safe_open(tmp_path / "narrow" / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no dict
    plan = recast.plan(tmp_path / "wide", target)
    planned = {each.name: each.dtype.value for shard in plan.shards for each in shard.tensors}
    assert planned == stored
    kept = {"F32"} if build is deepseek or target is Dtype.F16 else set()
    assert set(stored.values()) == {target.value, *kept}
