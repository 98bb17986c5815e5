"""Models of every type: what recast narrows, transformers narrows too; all else has a reason.

The oracle is transformers alone: it loads each fp32 checkpoint in the narrow dtype, and saves it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, PreTrainedModel

import recast
from recast import Dtype
from recast.planning import keep_rules
from tests.checkpoints import TORCH_DTYPES
from tests.peers.conftest import tensors_of
from tools import tiny_models

TABLE: Mapping[str, Any] = json.loads(
    Path(keep_rules.__file__).with_suffix(".json").read_text(encoding="utf-8")
)
BUILDABLE = sorted({*TABLE["tried"]} & {*CONFIG_MAPPING})
SPREAD = 60
# Oddities of transformers' re-save: values changed by its own init, and integers made floating.
CHANGED_BY_TRANSFORMERS = ("chinese_clip", "granite_speech5", "zaya")


def chosen(every: bool) -> list[str]:  # noqa: FBT001 - an option of the command line
    """Return all types, or as many of them as time allows, spread over the alphabet."""
    return BUILDABLE if every else BUILDABLE[:: max(1, len(BUILDABLE) // SPREAD)][:SPREAD]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each type."""
    if "model_type" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-type", default=False)
        metafunc.parametrize("model_type", chosen(every))


@contextmanager
def as_it_was() -> Iterator[None]:
    """Give torch back the default dtype that some models change."""
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("narrow", [Dtype.BF16, Dtype.F16], ids=["bf16", "fp16"])
def test_nothing_is_narrowed_that_transformers_keeps(
    model_type: str, narrow: Dtype, tmp_path: Path
) -> None:
    """What transformers stores in fp32 stays fp32; all else has its bits, or a reason is shown."""
    with as_it_was():
        source, resaved = saved_twice(model_type, narrow, tmp_path)
    done = recast.convert(source, narrow, out=tmp_path / "out", allow=["overflow"])
    reasons = {tensor.name: str(tensor.reason) for _, tensor in done.plan.kept}
    before = tensors_of(source)
    stored = tensors_of(done.target) if done.target else before
    theirs = tensors_of(resaved)
    assert stored.keys() == before.keys()
    wide = {name for name, x in theirs.items() if x.dtype is torch.float32 and name in before}
    assert [name for name in wide if not same(stored[name], before[name])] == []
    unlike = [
        name
        for name, tensor in stored.items()
        if not reasons.get(name) and not is_cast(before[name], tensor, narrow)
    ]
    assert unlike == []
    if not model_type.startswith(CHANGED_BY_TRANSFORMERS):
        shared = stored.keys() & theirs.keys() - reasons.keys()
        assert [name for name in shared if not same(stored[name], theirs[name])] == []


def saved_twice(model_type: str, narrow: Dtype, folder: Path) -> tuple[Path, Path]:
    """Save a tiny model in fp32, and as transformers narrows it; return both folders."""
    model = tiny_models.build(model_type)
    source, resaved = folder / "source", folder / "resaved"
    model.save_pretrained(source)
    if hasattr(model, "load_speakers"):
        torch.save({}, source / "spk_dict.pt")
    kind: type[PreTrainedModel] = type(model)
    kind.from_pretrained(source, dtype=TORCH_DTYPES[narrow]).save_pretrained(resaved)
    return source, resaved


def is_cast(before: torch.Tensor, after: torch.Tensor, narrow: Dtype) -> bool:
    """Whether a tensor is torch's cast of what it was; one that is not floating, what it was."""
    expected = before.to(TORCH_DTYPES[narrow]) if before.is_floating_point() else before
    return same(after, expected)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether dtype, shape and values are the same; any NaN is like any other."""
    if one.dtype is not other.dtype or one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5))
