"""recast beside transformers on tiny models of every type that transformers can build.

A spread of 60 in `make test`, all of them in `make keep-rules`.
"""

import json
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import recast
from tests.peers.conftest import Tensors, tensors_of
from tests.peers.test_transformers import matches, same_bits
from tools import tiny_models

# By model type: the tensors that transformers changes by more than a cast when it loads them.
UNFAITHFUL = {
    "chinese_clip": ("*.word_embeddings.weight",),  # its initialisation empties the padding token
    "chinese_clip_text_model": ("*.word_embeddings.weight",),
    "oneformer": ("criterion.logit_scale",),  # its initialisation sets it
    "granite_speech5_ctc": ("*.num_batches_tracked",),  # an integer that becomes a float
    "granite_speech5_encoder": ("*.num_batches_tracked",),
}


def table() -> dict[str, dict[str, object]]:
    """Return the table of keep rules, which says which types can be built, and which keep any."""
    text = resources.files("recast.planning").joinpath("keep_rules.json").read_text("utf-8")
    return json.loads(text)


def spread(model_types: Sequence[str], count: int) -> list[str]:
    """Return *count* of *model_types*, evenly spaced."""
    return [model_types[place * len(model_types) // count] for place in range(count)]


def some() -> list[str]:
    """Return 60 model types: half of them such that keep something."""
    kept, tried = sorted(table()["observed"]), sorted(table()["tried"])
    return spread(kept, 30) + spread([each for each in tried if each not in kept], 30)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a model over 60 model types, or over all if that was asked for."""
    if "model_type" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-model-type", default=False)
        types = sorted(table()["tried"]) if every else some()
        metafunc.parametrize("model_type", types, scope="module")


@pytest.fixture(scope="module")
def model(model_type: str) -> PreTrainedModel:
    """A tiny fp32 model; those with a backbone of timm are skipped where timm is not installed."""
    try:
        return tiny_models.build(model_type)
    except tiny_models.CannotBuildError as error:
        if "ImportError" not in error.reason and find_spec("timm"):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nothing_that_transformers_keeps_is_narrowed(
    model: PreTrainedModel, model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """What transformers keeps in fp32 stays; the rest has its bits, or is kept and it says why."""
    model.save_pretrained(tmp_path / "wide")
    if hasattr(model, "load_speakers"):
        torch.save({}, tmp_path / "wide" / "spk_dict.pt")  # Qwen2.5-Omni does not load without
    made = recast.convert(tmp_path / "wide", dtype, allow=["overflow"])
    kept = {tensor.name: str(tensor.reason) for _, tensor in made.plan.kept}
    narrow = type(model).from_pretrained(tmp_path / "wide", dtype=dtype)
    narrow.save_pretrained(tmp_path / "narrow")
    source, resaved = tensors_of(tmp_path / "wide"), tensors_of(tmp_path / "narrow")
    assert made.target is not None
    stored = tensors_of(made.target)
    assert stored.keys() == source.keys()
    assert wrongly_narrowed(source, stored, resaved) == []
    assert [name for name in kept if not same_bits(stored[name], source[name])] == []
    assert all(kept.values())
    unfaithful = UNFAITHFUL.get(model_type, ())
    rest = [name for name in source if name in resaved and name not in kept]
    unlike = [name for name in rest if not same_bits(stored[name], resaved[name])]
    assert [name for name in unlike if not matches(name, unfaithful)] == []
    # What transformers drops or changes is torch's cast of what was there.
    dropped = [name for name in source if name not in kept and name not in resaved]
    for name in [*dropped, *unlike]:
        tensor = source[name]
        cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert same_bits(stored[name], cast), name


def wrongly_narrowed(source: Tensors, stored: Tensors, resaved: Tensors) -> list[str]:
    """Return the names of fp32 tensors that transformers left alone and recast did not."""
    return [
        name
        for name, tensor in resaved.items()
        if tensor.dtype is torch.float32
        and name in source
        and source[name].dtype is torch.float32
        and not same_bits(stored[name], source[name])
    ]


def test_the_spread_is_one() -> None:
    """Some are 60, each once, from all over the alphabet."""
    assert len(set(some())) == 60
    assert len({model_type[0] for model_type in some()}) > 15
