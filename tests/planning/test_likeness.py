"""The dtypes of a base model: what matches it, what it lacks, and what is not its like."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import recast
from recast import Dtype, cli
from recast.planning import likeness
from recast.planning.policy import Kind, Policy
from tests import checkpoints

SHAPES = {
    "model.embed_tokens.weight": (32, 8),
    "model.layers.0.norm.weight": (8,),
    "model.layers.0.mlp.weight": (16, 8),
    "lm_head.weight": (32, 8),
}
WIDE = "model.layers.0.norm.weight"


def save(folder: Path, tensors: Mapping[str, torch.Tensor], **config: object) -> Path:
    """Save a checkpoint of one file."""
    checkpoints.save_shard(folder / "model.safetensors", tensors)
    checkpoints.write_json(folder / "config.json", {"model_type": "llama", **config})
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A bf16 model with one norm in fp32."""
    tensors = checkpoints.random_tensors(**SHAPES)
    stored = {name: x if name == WIDE else x.bfloat16() for name, x in tensors.items()}
    return save(tmp_path / "base", stored, vocab_size=32)


def tuned(folder: Path, rename: Callable[[str], str] = str, **more: tuple[int, ...]) -> Path:
    """Save the model as fp32, with other names and more tensors."""
    tensors = checkpoints.random_tensors(**{rename(name): s for name, s in SHAPES.items()}, **more)
    return save(folder, tensors, vocab_size=32)


def dtypes(folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of every tensor, as safetensors loads it."""
    return {name: x.dtype for name, x in load_file(folder / "model.safetensors").items()}


def test_every_tensor_gets_the_dtype_that_it_has_in_the_base(tmp_path: Path, base: Path) -> None:
    """Without a target the base model says all; the result verifies, and needs nothing more."""
    done = recast.convert(tuned(tmp_path / "tuned"), like=base)
    assert done.target == tmp_path / "tuned-bf16"
    assert dtypes(done.target) == dtypes(base)
    told = json.loads((done.target / "config.json").read_text())
    assert told["torch_dtype"] == "bfloat16"
    assert recast.verify(done.target, against=tmp_path / "tuned").holds
    found = recast.findings(recast.inspect(done.target))
    assert {each.name for each in found} == {"mixed-dtypes"}  # good to know, and as it should be
    assert not recast.plan(done.target, like=recast.inspect(base)).changes
    [(_, kept)] = done.plan.kept
    assert (kept.name, kept.reason.kind) == (WIDE, Kind.LIKE)
    assert {each.reason.kind for shard in done.plan.shards for each in shard.tensors} == {Kind.LIKE}


def test_what_was_narrowed_is_widened(tmp_path: Path, base: Path) -> None:
    """A tensor that is fp32 in the base becomes so, though the checkpoint has less; exactly."""
    narrow = {n: x.bfloat16() for n, x in checkpoints.random_tensors(**SHAPES).items()}
    source = save(tmp_path / "narrow", narrow, torch_dtype="bfloat16")
    done = recast.convert(source, like=base, out=tmp_path / "out")
    stored = load_file(done.target / "model.safetensors")
    assert torch.equal(stored[WIDE], narrow[WIDE].float())
    assert dtypes(done.target) == dtypes(base)
    assert recast.verify(done.target, against=source).holds


@pytest.mark.parametrize("prefix", ["module.", "base_model.model."])
def test_names_may_differ_by_one_prefix(tmp_path: Path, base: Path, prefix: str) -> None:
    """A wrapper's prefix is seen through, in the checkpoint and in the base; others are not."""
    wrapped = tuned(tmp_path / "wrapped", lambda name: prefix + name)
    plan = recast.plan(wrapped, like=base)
    assert (plan.like.prefix, plan.like.lacking) == (prefix, ())
    assert [tensor.name for _, tensor in plan.kept] == [prefix + WIDE]
    plain = tuned(tmp_path / "plain")
    assert recast.plan(plain, "bf16", like=wrapped).like.prefix == f"-{prefix}"
    assert recast.plan(plain, "bf16", like=wrapped).like.matched == len(SHAPES)
    assert recast.plan(plain, "bf16", like=base).like.prefix == ""


def test_what_the_base_lacks_is_listed_and_left_to_the_rules(tmp_path: Path, base: Path) -> None:
    """A new head gets the target, a routing bias what the rules say; both are named."""
    more = {"score.weight": (2, 8), "model.layers.0.mlp.gate.e_score_correction_bias": (4,)}
    source = tuned(tmp_path / "tuned", **more)
    plan = recast.plan(source, like=base)
    assert {name for _, name in plan.like.lacking} == more.keys()
    decided = {each.name: each for shard in plan.shards for each in shard.tensors}
    assert decided["score.weight"].dtype is Dtype.BF16
    assert [decided[name].reason.kind for name in more] == [Kind.CAST, Kind.RULE]
    assert recast.plan(source, "fp16", like=base).shards[0].tensors
    half = {
        each.name: each.dtype
        for shard in recast.plan(source, "fp16", like=base).shards
        for each in shard.tensors
    }
    assert (half["score.weight"], half["lm_head.weight"]) == (Dtype.F16, Dtype.BF16)
    shown = CliRunner().invoke(cli.command, [str(source), "--like", str(base), "-n"]).stdout
    assert f"4 tensors as in {base}" in shown
    assert all(name in shown for name in more)


def test_the_last_word_is_the_users(tmp_path: Path, base: Path) -> None:
    """--keep and --cast go before the base and before the rules; one tensor cannot have both."""
    bias = "model.layers.0.mlp.gate.e_score_correction_bias"
    source = tuned(tmp_path / "tuned", **{bias: (4,)})
    done = recast.convert(source, like=base, keep=["lm_head.*"], cast=["*.norm.weight", bias])
    found = dtypes(done.target)
    assert found["lm_head.weight"] is torch.float32
    assert found[WIDE] is found[bias] is torch.bfloat16
    assert recast.verify(done.target, against=source).holds
    with pytest.raises(recast.RefusedError, match=r"matches both --keep lm_\* and --cast \*head"):
        recast.plan(source, "bf16", keep=["lm_*"], cast=["*head*"])
    with pytest.raises(recast.RefusedError, match="no tensor matches --cast nothing"):
        recast.plan(source, "bf16", cast=["nothing"])


def test_what_is_not_alike_is_refused(tmp_path: Path, base: Path) -> None:
    """Another shape, another architecture, other names: refused, naming the first difference."""
    tensors = checkpoints.random_tensors(**SHAPES)
    other = save(tmp_path / "other", tensors | {"lm_head.weight": torch.zeros(32, 9)})
    with pytest.raises(
        recast.RefusedError, match=r"'lm_head.weight' has shape \[32, 9\], and \[32"
    ):
        recast.plan(other, like=base)
    bert = save(tmp_path / "bert", tensors, model_type="bert")
    with pytest.raises(recast.RefusedError, match="says model_type = bert instead of llama"):
        recast.plan(bert, like=base)
    foreign = save(tmp_path / "foreign", {"h.0.weight": torch.zeros(3)})
    with pytest.raises(recast.RefusedError, match=r"no floating tensor 'h\.0\.weight'"):
        recast.plan(foreign, like=base)


def test_added_tokens_are_no_other_shape(tmp_path: Path, base: Path) -> None:
    """Embeddings with as many rows more as the configs say are those of the base."""
    more = {name: (33, *shape[1:]) if shape[0] == 32 else shape for name, shape in SHAPES.items()}
    tensors = checkpoints.random_tensors(**more)
    plan = recast.plan(save(tmp_path / "more", tensors, vocab_size=33), like=base)
    assert plan.like.matched == len(SHAPES)
    with pytest.raises(recast.RefusedError, match=r"has shape \[33, 8\]"):
        recast.plan(save(tmp_path / "unsaid", tensors, vocab_size=32), like=base)


def test_components_are_like_their_namesakes(tmp_path: Path) -> None:
    """In a pipeline each folder is compared with the folder of its name, whatever the others."""
    for name, dtype in (("base", torch.bfloat16), ("tuned", torch.float32)):
        for part, kept in (("unet", dtype), ("vae", torch.float32)):
            tensors = {"conv.weight": torch.ones(4 if part == "vae" else 2, dtype=kept)}
            checkpoints.save_shard(tmp_path / name / part / "model.safetensors", tensors)
    done = recast.convert(tmp_path / "tuned", "bf16", like=tmp_path / "base")
    stored = {path.parent.name: load_file(path) for path in done.target.rglob("*.safetensors")}
    assert stored["unet"]["conv.weight"].dtype is torch.bfloat16
    assert stored["vae"]["conv.weight"].dtype is torch.float32


def test_plans_differ_with_the_policy(tmp_path: Path, base: Path) -> None:
    """Base and casts are part of what a plan is known by: another one is never taken for it."""
    source = tuned(tmp_path / "tuned")
    other = tuned(tmp_path / "wide")
    plans = [
        recast.plan(source, "bf16"),
        recast.plan(source, "bf16", like=base),
        recast.plan(source, "bf16", like=other),
        recast.plan(source, "bf16", cast=["*norm*"]),
    ]
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    assert len({plan.policy.fingerprint for plan in plans}) == len(plans)
    same = Policy(Dtype.BF16, base=recast.inspect(base))
    assert same.fingerprint == plans[1].policy.fingerprint


def test_a_base_of_codes_has_no_main_dtype(tmp_path: Path) -> None:
    """Of a base without a dtype that recast writes, no target can be taken."""
    base = save(tmp_path / "base", {"a": torch.ones(3, dtype=torch.float64)})
    with pytest.raises(recast.RefusedError, match="say with --to"):
        likeness.main_dtype_of(recast.inspect(base))


@pytest.mark.parametrize("value", ["org/name", "./gone", "", "a b/c", 7, None])
def test_inspect_suggests_the_command(tmp_path: Path, value: object) -> None:
    """A base that config.json names is suggested if it can be found: a folder, or the Hub's."""
    source = tuned(tmp_path / "tuned")
    config = {"model_type": "llama", "_name_or_path": value}
    checkpoints.write_json(source / "config.json", config)
    shown = CliRunner().invoke(cli.command, [str(source)]).stdout
    expected = f"recast {source} --like hf://org/name"
    assert (expected in shown) is (value == "org/name")
    assert ("--like" in shown) is (value == "org/name")


@pytest.mark.parametrize(
    ("front", "named"),
    [
        ("base_model: org/name", "hf://org/name"),
        ("license: mit\nbase_model:\n- org/name\n- org/other", "hf://org/name"),
        ("base_model: 'org/name' # so", "hf://org/name"),
        ("base_model_relation: org/name", None),
        ("base_model: []", None),
    ],
)
def test_a_model_card_names_the_base(tmp_path: Path, front: str, named: str | None) -> None:
    """The front matter of README.md is looked at where config.json says nothing."""
    source = tuned(tmp_path / "tuned")
    (source / "README.md").write_text(f"---\n{front}\n---\nbase_model: no/no\n", encoding="utf-8")
    assert recast.inspect(source).base == named


def test_a_folder_that_exists_is_suggested(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base on this disk is named as it stands in the config; a checkpoint is not its own."""
    source = tuned(tmp_path / "tuned")
    for name, found in ((str(base), str(base)), (str(source), None)):
        config = {"model_type": "llama", "_name_or_path": name}
        checkpoints.write_json(source / "config.json", config)
        assert recast.inspect(source).base == found
    monkeypatch.chdir(tmp_path)
    checkpoints.write_json(source / "config.json", {"_name_or_path": "base"})
    assert recast.inspect("tuned").base == "base"
