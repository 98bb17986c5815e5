"""Which tensor gets which dtype, and why."""

from collections.abc import Iterable
from pathlib import Path

import pytest

import recast
from recast.dtypes import TARGETS, Dtype
from recast.formats.header import TensorInfo
from recast.planning import keep_rules
from recast.planning.policy import Kind, Policy, Reason

FLOATING = (Dtype.F64, Dtype.F32, Dtype.F16, Dtype.BF16)
RULED = "model.layers.3.mlp.gate.e_score_correction_bias"  # of deepseek_v3, for bf16 and fp16


def decision(
    policy: Policy, stored: Dtype, name: str = "lm_head.weight", model_type: str | None = None
) -> tuple[Dtype, Reason]:
    """Return what a policy decides for one tensor of 8 elements."""
    rule = keep_rules.rule(model_type, policy.target)
    return policy.decider(rule)(name, TensorInfo(stored, (8,), (0, stored.bits)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stored", Dtype)
def test_floating_tensors_get_the_target(stored: Dtype, target: Dtype) -> None:
    """Without rules and patterns every float becomes the target, and nothing else changes."""
    dtype, reason = decision(Policy(target), stored)
    if stored is target:
        assert (dtype, reason.kind) == (stored, Kind.ALREADY)
    elif stored in FLOATING:
        assert (dtype, reason.kind) == (target, Kind.CAST)
    else:
        assert (dtype, reason.kind) == (stored, Kind.NOT_FLOATING)
    assert not reason.keeps
    assert str(reason) == reason.kind.value


@pytest.mark.parametrize(
    ("pattern", "kept", "cast"),
    [
        ("lm_head.weight", ["lm_head.weight"], ["lm_head.weight2", "x.lm_head.weight"]),
        ("*.norm.weight", ["a.norm.weight", "a.b.norm.weight"], ["norm.weight", "a.norm.bias"]),
        ("*norm*", ["norm", "final_layernorm.weight", "a.norm.b"], ["Norm.weight", "a.b"]),
        ("model.layers.[01].*", ["model.layers.0.a.b", "model.layers.1.c"], ["model.layers.2.a"]),
        ("layer?.weight", ["layer1.weight", "layer..weight"], ["layer10.weight", "layer.weight"]),
        ("[!a]*", ["b", "ä.weight"], ["a.weight", ""]),
        ("*", ["", "a.b", "a\nb"], []),
        ("", [""], ["a"]),
        ("a/b*", ["a/bc/d"], ["a"]),
    ],
)
def test_patterns_are_those_of_a_shell(pattern: str, kept: list[str], cast: list[str]) -> None:
    """``*`` stands for anything, dots too; case counts; a pattern covers the whole name."""
    policy = Policy(Dtype.BF16, keep=("no such tensor", pattern))
    for name in kept:
        dtype, reason = decision(policy, Dtype.F32, name)
        assert (dtype, reason) == (Dtype.F32, Reason(Kind.KEEP, f"--keep {pattern}"))
        assert reason.keeps
        assert str(reason) == f"--keep {pattern}"
    for name in cast:
        assert decision(policy, Dtype.F32, name)[0] is Dtype.BF16


@pytest.mark.parametrize("stored", Dtype)
def test_what_a_pattern_keeps_stays_as_it_is(stored: Dtype) -> None:
    """A kept tensor keeps the dtype it has, whichever that is; only floats are there to keep."""
    dtype, reason = decision(Policy(Dtype.BF16, keep=("*",)), stored)
    assert dtype is stored
    assert reason.keeps == (stored in FLOATING and stored is not Dtype.BF16)


def test_the_first_pattern_that_matches_is_the_reason() -> None:
    """Of several patterns the reason names the one that decided."""
    policy = Policy(Dtype.F16, keep=("x*", "*head*", "*"))
    assert decision(policy, Dtype.F32)[1].detail == "--keep *head*"


def test_a_pattern_goes_before_a_rule() -> None:
    """What the user asked for is what the reason says, also where a rule would keep it too."""
    policy = Policy(Dtype.BF16, keep=("*bias",))
    assert decision(policy, Dtype.F32, RULED, "deepseek_v3") == (
        Dtype.F32,
        Reason(Kind.KEEP, "--keep *bias"),
    )


@pytest.mark.parametrize("target", [Dtype.BF16, Dtype.F16])
@pytest.mark.parametrize("stored", FLOATING)
def test_a_rule_keeps_at_most_fp32(stored: Dtype, target: Dtype) -> None:
    """A ruled tensor becomes fp32 from fp64, and stays what it is if it is stored narrower."""
    dtype, reason = decision(Policy(target), stored, RULED, "deepseek_v3")
    if stored is target:
        assert (dtype, reason.kind) == (stored, Kind.ALREADY)
    else:
        assert dtype is (Dtype.F32 if stored is Dtype.F64 else stored)
        assert reason.kind is Kind.RULE
        assert reason.keeps
        assert "deepseek_v3" in str(reason)
        assert "e_score_correction_bias" in str(reason)


@pytest.mark.parametrize("target", TARGETS)
def test_rules_can_be_switched_off(target: Dtype) -> None:
    """Without the rules even what is known to need fp32 is cast."""
    policy = Policy(target, keep_rules=False)
    assert decision(policy, Dtype.F64, RULED, "deepseek_v3") == (target, Reason(Kind.CAST))


@pytest.mark.parametrize("keep", ["lm_head.*", ["lm_head.*"], iter(("*.scale", "lm_head.*"))])
def test_patterns_may_come_as_one_or_many(keep: str | Iterable[str], ckpt: Path) -> None:
    """One pattern alone is a pattern, and not as many patterns as it has letters."""
    plan = recast.plan(ckpt, "bf16", keep=keep)
    assert [tensor.name for _, tensor in plan.kept] == ["lm_head.scale", "lm_head.weight"]
