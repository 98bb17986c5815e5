"""The evidence of many tensors, added up."""

import shlex
from collections import Counter
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import recast
from recast.dtypes import Dtype
from recast.reports.evidence import Evidence, EvidenceTotal, total
from tests import checkpoints


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    """Draw the evidence of one tensor: exact, rounded, overflowed or both."""
    error = draw(st.just(0.0) | st.floats(0, 1e30))
    overflowed = draw(st.integers(0, 3))
    name = draw(st.sampled_from("abc"))
    changed = overflowed + draw(st.integers(1, 5)) if error else overflowed
    return Evidence(name, Dtype.F32, Dtype.F16, changed, error, overflowed)


@given(st.lists(evidence(), max_size=8))
def test_a_total_is_the_sum_of_its_parts(parts: list[Evidence]) -> None:
    """Counts add up, and no tensor lost more than those that are named for it."""
    found = total(iter(parts))
    assert found.tensors == len(parts)
    assert found.lossless == Counter(each.lossless for each in parts)[True]
    assert found.overflowed == sum(each.overflowed for each in parts)
    assert found.changed == sum(each.changed for each in parts)
    assert found.rounded == sum(each.largest_error > 0 for each in parts)
    if found.worst is None:
        assert found.rounded == 0
    else:
        assert found.worst in parts
        assert found.worst.largest_error > 0
        assert all(each.largest_error <= found.worst.largest_error for each in parts)
    if found.most_overflowed is None:
        assert found.overflowed == 0
    else:
        assert found.most_overflowed in parts
        assert found.most_overflowed.overflowed > 0
        assert all(each.overflowed <= found.most_overflowed.overflowed for each in parts)


def test_nothing_cast_is_nothing_lost() -> None:
    """Without evidence there is neither a loss nor anything that was lossless."""
    counts = (0,) * len(fields(EvidenceTotal)[:-3])
    assert total([]) == EvidenceTotal(*counts, None, None, None)


def test_a_total_says_what_the_values_were(tmp_path: Path) -> None:
    """Bits, magnitude and infinity are those of all tensors together, as torch has them."""
    tensors = {
        "a": torch.tensor([1 + 2**-7, -300.0]),
        "b": torch.tensor([1 + 2**-12, torch.inf, -torch.inf]),
        "c": torch.tensor([torch.inf, torch.nan]),
    }
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    found = recast.convert(tmp_path / "x.safetensors", "bf16").total
    whole = torch.cat(list(tensors.values()))
    assert found.infinite == whole.isinf().sum()
    assert found.magnitude == whole[whole.isfinite()].abs().max()
    assert found.mantissa_bits == 12


def test_the_largest_error_is_not_hidden_by_an_overflow(tmp_path) -> None:
    """The tensor with the largest error is named even if another one overflowed."""
    tensors = {"overflows": torch.tensor([7e4, 1.0]), "rounds": torch.tensor([2049.0])}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    found = recast.convert(tmp_path / "x.safetensors", "fp16", allow=["overflow"]).total
    assert tensors["rounds"].half().item() == 2048
    assert found.worst is not None
    assert (found.worst.name, found.worst.largest_error, found.worst.overflowed) == ("rounds", 1, 0)
    assert found.most_overflowed is not None
    assert found.most_overflowed.name == "overflows"
    assert found.most_overflowed.largest_overflow == 7e4


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("wish", [{}, {"allow": ["overflow"], "lossless": True}])
def test_the_way_out_of_a_loss_can_be_typed(
    wish: dict[str, object], tmp_path: Path, *, in_place: bool
) -> None:
    """What the error says to type keeps the tensors, whatever they are called."""
    names = ["x[0].w", "it's a *", "-k"]
    tensors = {name: torch.tensor([1e5, 1.0]) for name in names} | {"x0.w": torch.ones(2)}
    path = tmp_path / "x.safetensors"
    checkpoints.save_shard(path, tensors)
    with pytest.raises(recast.LossError, match="; so would 2 more tensors of this shard") as lost:
        recast.convert(path, "fp16", in_place=in_place, **wish)
    typed = lost.value.remedy.partition("(")[2].partition(")")[0]
    keep = shlex.split(typed)[1::2]
    assert len(keep) == 3
    done = recast.convert(path, "fp16", in_place=in_place, keep=keep, lossless=True)
    stored = load_file(done.target)
    assert {name for name, each in stored.items() if each.dtype == torch.float32} == set(names)


def test_of_many_losses_the_first_few_are_spelled_out(tmp_path: Path) -> None:
    """With 33 tensors that overflow, the worst is told, and how many more there are."""
    tensors = {f"a.{number}": torch.full((number + 1,), 1e5) for number in range(33)}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    with pytest.raises(recast.LossError) as lost:
        recast.convert(tmp_path / "x.safetensors", "fp16")
    assert lost.value.problem == (
        "tensor 'a.32': 33 finite values, the largest of them 100000, would become infinite in "
        "float16; so would 32 more tensors of this shard"
    )
    assert lost.value.remedy == (
        "keep them (--keep a.32 --keep a.31 --keep a.30 ...), or accept it (--allow overflow)"
    )


SMALLEST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}


@pytest.mark.parametrize("kind", SMALLEST)
@pytest.mark.parametrize("source", [torch.float32, torch.float64])
@settings(deadline=None, max_examples=40)
@given(factors=st.lists(st.sampled_from([0, -0.1, 0.3, 0.5, -0.5000001, 0.51, 1, 1e9, 1e300])))
def test_a_tensor_vanishes_if_torch_leaves_nothing_but_zeros(
    kind: torch.dtype, source: torch.dtype, factors: list[float]
) -> None:
    """It does if it held finite values other than zero, and one that is left is enough to save it.

    Halves of the smallest number go to zero, also those that do so only once they are fp32.
    """
    values = torch.tensor([each * SMALLEST[kind] for each in factors], dtype=source)
    values = torch.cat([values, torch.tensor([SMALLEST[kind] / 2], dtype=source)[: len(factors)]])
    finite = values[values.isfinite()]
    gone = bool(finite.any()) and not finite.to(kind).any()
    with TemporaryDirectory() as folder:
        checkpoints.save_shard(Path(folder, "x.safetensors"), {"a": values})
        done = recast.convert(Path(folder, "x.safetensors"), kind, allow=["overflow"])
    (found,) = done.evidence
    assert found.vanished == gone
    assert done.total.vanished == gone
    assert [each.tensors for each in done.findings if each.name == "vanished-values"] == (
        [("a",)] if gone else []
    )


@pytest.mark.parametrize(
    ("dtype", "kind", "bits"), [("bf16", torch.bfloat16, 8), ("fp16", torch.float16, 11)]
)
def test_the_bound_of_the_relative_error(
    dtype: str, kind: torch.dtype, bits: int, tmp_path
) -> None:
    """Rounding a normal number has a relative error of at most 2^-b / (1 + 2^-b), b bits kept."""
    significands = torch.arange(0x3F800000, 0x40000000, dtype=torch.int32).view(torch.float32)
    cast = significands.to(kind).double()
    largest = ((cast - significands).abs() / significands).max().item()
    assert largest == 2.0**-bits / (1 + 2.0**-bits) < 2.0**-bits
    checkpoints.save_shard(tmp_path / "x.safetensors", {"a": significands[::99].clone()})
    (found,) = recast.convert(tmp_path / "x.safetensors", dtype).evidence
    assert 0 < found.largest_error <= 2.0**-bits
