"""Tiny models of many kinds, narrowed by recast and by transformers, offline and in silence."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

import recast
from tests import checkpoints
from tools import tiny_models

Tensors = dict[str, torch.Tensor]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that builds a tiny model of every type, rather than of some."""
    parser.addoption(
        "--every-model-type", action="store_true", help="try all types of models, not 60 of them"
    )


@pytest.fixture(scope="package", autouse=True)
def _offline_and_quiet() -> Iterator[None]:
    """Set for these tests alone what HF_HUB_OFFLINE would set for the process."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


def noise(*shape: int) -> torch.Tensor:
    """Return the same fp32 noise whenever the shape is the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def text(_config: PreTrainedConfig) -> Tensors:
    """Return what a language model reads."""
    return {"input_ids": torch.arange(3, 19).unsqueeze(0)}


def two_texts(config: PreTrainedConfig) -> Tensors:
    """Return what a model of an encoder and a decoder reads."""
    return text(config) | {"decoder_input_ids": torch.arange(3, 11).unsqueeze(0)}


def text_and_codes(config: PreTrainedConfig) -> Tensors:
    """Return what MusicGen reads: a text, and the sound so far in each of its codebooks."""
    codes = torch.arange(3, 11).expand(config.decoder.num_codebooks, -1)
    return text(config) | {"decoder_input_ids": codes}


def speech(config: PreTrainedConfig) -> Tensors:
    """Return what Whisper reads: a spectrogram, and the text so far."""
    spectrogram = noise(1, config.num_mel_bins, 2 * config.max_source_positions)
    return {"input_features": spectrogram, "decoder_input_ids": torch.arange(3, 11).unsqueeze(0)}


def image_and_text(config: PreTrainedConfig) -> Tensors:
    """Return what Llava reads: an image, with one token for each of its patches."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    image = torch.full((1, (size // patch) ** 2), config.image_token_id)
    tokens = torch.cat([image, *text(config).values()], dim=1)
    return {"input_ids": tokens, "pixel_values": noise(1, 3, size, size)}


def patches_and_text(config: PreTrainedConfig) -> Tensors:
    """Return what Qwen2-VL reads: the patches of an image, with one token for each four."""
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    tokens = torch.cat([torch.full((1, 4), config.image_token_id), *text(config).values()], dim=1)
    grid = torch.tensor([[1, 4, 4]])
    kinds = (tokens == config.image_token_id).long()
    return {
        "input_ids": tokens,
        "pixel_values": noise(16, patch),
        "image_grid_thw": grid,
        "mm_token_type_ids": kinds,
    }


@dataclass(frozen=True, slots=True)
class Kind:
    """One architecture: how to build it small, load it and run it.

    Attributes:
        model_type: what transformers calls it.
        auto: the Auto class whose models its checkpoints hold.
        inputs: what to run it on.
        overrides: what is peculiar in its config.
    """

    model_type: str
    auto: str = "AutoModelForCausalLM"
    inputs: Callable[[PreTrainedConfig], Tensors] = text
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loader(self) -> Any:
        """The Auto class itself."""
        return getattr(transformers, self.auto)


KINDS = {
    "bert": Kind("bert", "AutoModelForPreTraining"),
    "deepseek_v3": Kind("deepseek_v3"),
    "gpt2": Kind("gpt2"),
    "gpt_oss": Kind("gpt_oss"),
    "hy_v3": Kind("hy_v3"),
    "lfm2_moe": Kind("lfm2_moe"),
    "llama": Kind("llama"),
    "llama-tied": Kind("llama", overrides={"tie_word_embeddings": True}),
    "llava": Kind(
        "llava",
        "AutoModelForImageTextToText",
        image_and_text,
        {"vision_config": {"image_size": 56}, "image_seq_length": 16},
    ),
    "mamba2": Kind("mamba2", overrides={"chunk_size": 16}),
    "mixtral": Kind("mixtral"),
    "musicgen": Kind(
        "musicgen",
        "AutoModelForTextToWaveform",
        text_and_codes,
        {"audio_encoder": {"target_bandwidths": [1.5]}},
    ),
    "qwen2_vl": Kind(
        "qwen2_vl",
        "AutoModelForImageTextToText",
        patches_and_text,
        {"text_config": {"rope_parameters": {"mrope_section": [2, 3, 3]}}},
    ),
    "t5": Kind("t5", "AutoModelForSeq2SeqLM", two_texts),
    "whisper": Kind("whisper", "AutoModelForSpeechSeq2Seq", speech),
}


@dataclass(frozen=True, slots=True)
class Twins:
    """One fp32 checkpoint, narrowed by recast and by transformers.

    Attributes:
        source: the fp32 checkpoint.
        conversion: what recast did.
        cast: the model that transformers loaded from the source in the narrow dtype.
        loading: what transformers said about loading it.
        resaved: where it saved that model.
    """

    source: Path
    conversion: recast.Conversion
    cast: PreTrainedModel
    loading: Mapping[str, Any]
    resaved: Path

    @property
    def converted(self) -> Path:
        """The checkpoint that recast wrote."""
        assert self.conversion.target is not None
        return self.conversion.target

    @property
    def kept(self) -> dict[str, str]:
        """The tensors that recast kept, each with the reason."""
        return {tensor.name: str(tensor.reason) for _, tensor in self.conversion.plan.kept}


def narrowed(
    source: Path, dtype: str, loader: Any, *, resave: str | None = None, allow: str = ""
) -> Twins:
    """Let recast, told to *allow* something, and transformers narrow *source*.

    *resave* is the largest shard that transformers shall write.
    """
    conversion = recast.convert(source, dtype, allow=[allow] if allow else ())
    cast, loading = loader.from_pretrained(source, dtype=dtype, output_loading_info=True)
    resaved = source.with_name(f"{source.name}-{dtype}-by-transformers")
    cast.save_pretrained(resaved, **({"max_shard_size": resave} if resave else {}))
    return Twins(source, conversion, cast, loading, resaved)


def save(kind: Kind, folder: Path, **options: Any) -> Path:
    """Save a tiny model in fp32 the way fine-tuning leaves it: loaded from elsewhere, and saved."""
    fresh = folder.with_name(f"{folder.name}-fresh")
    model = tiny_models.build(kind.model_type, **kind.overrides)
    model.save_pretrained(fresh)
    kind.loader.from_pretrained(fresh, dtype="float32").save_pretrained(folder, **options)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: the name of a kind → its fp32 checkpoint, saved once. Not to be written to."""
    folder = tmp_path_factory.mktemp("sources")
    return cache(lambda name: save(KINDS[name], folder / name))


@pytest.fixture(scope="module")
def twins(source: Callable[[str], Path]) -> Callable[[str, str], Twins]:
    """A function: the name of a kind, and a dtype → its checkpoint, narrowed once by both."""
    return cache(lambda name, dtype: narrowed(source(name), dtype, KINDS[name].loader))


@pytest.fixture
def altered(source: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A function: the name of a kind, and a change of its tensors → that checkpoint."""

    def alter(name: str, change: Callable[[Tensors], Tensors] = dict) -> Path:
        folder = tmp_path / name
        shutil.copytree(source(name), folder)
        tensors = change(tensors_of(folder))
        checkpoints.save_shard(folder / "model.safetensors", tensors)
        return folder

    return alter


def tensors_of(folder: Path) -> Tensors:
    """Return every tensor that the weights files in *folder* hold."""
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
