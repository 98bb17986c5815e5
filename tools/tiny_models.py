"""Tiny, randomly initialised models of every architecture that transformers knows.

A tiny model is built from the architecture's own default config with its sizes shrunk: few
layers, narrow widths, a small vocabulary. It has the tensors of the real one, by the same
names and of the same kinds, in a few hundred kilobytes.

    >>> model = build("llama", tie_word_embeddings=True)
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

if TYPE_CHECKING:
    from types import ModuleType

Settings: TypeAlias = dict[str, Any]
"""Config attributes and their values; a nested dict belongs to the sub-config of that name."""

SEED = 0
MAX_PARAMETERS = 60_000_000
"""A model of more is not tiny (0.24 GB in fp32); the next shrinking is tried."""

HEADS = (
    "TEXT_TO_WAVEFORM",
    "PRETRAINING",
    "MULTIMODAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "SPEECH_SEQ_2_SEQ",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "MASKED_LM",
    "CAUSAL_LM",
)
"""Tasks in the order in which a publisher's checkpoint most likely has that task's class."""


class CannotBuildError(Exception):
    """No tiny model of this type could be built."""

    def __init__(self, model_type: str, reason: str) -> None:
        """Remember which type failed, and why the smallest config did."""
        super().__init__(model_type, reason)
        self.model_type = model_type
        self.reason = reason

    def __str__(self) -> str:
        """Return the type and the reason on one line."""
        return f"{self.model_type}: {self.reason}"


Size: TypeAlias = Callable[[int], int]
"""From a size in the real config to the size in the tiny one."""


def at_most(limit: int) -> Size:
    """Return a size that is cut off at *limit*."""
    return lambda value: min(value, limit)


def eighth(value: int) -> int:
    """Return an eighth of *value*, but no less than 8 unless it already is."""
    return max(min(value, 8), value // 8)


def unchanged(value: int) -> int:
    """Return *value*."""
    return value


@dataclass(frozen=True, slots=True)
class Shrinking:
    """One way to make every size of a config small."""

    layers: Size
    width: Size
    heads: Size
    head_dim: Size


SHRINKINGS = (
    Shrinking(at_most(2), at_most(64), at_most(4), at_most(16)),
    Shrinking(unchanged, at_most(64), at_most(4), at_most(16)),
    Shrinking(at_most(2), eighth, unchanged, eighth),
    Shrinking(unchanged, eighth, unchanged, eighth),
    Shrinking(at_most(2), unchanged, unchanged, unchanged),
)
"""Tried in this order. Equal widths are smallest; eighths keep proportions; the last is wide."""

RULES: tuple[tuple[str, Callable[[Shrinking], Size]], ...] = (
    (r".*(token|pad|bos|eos|start|end|mask)_(id|index)", lambda _: lambda value: value % 64),
    (r"(.*_)?vocab(ulary)?_size(_.*)?|.*_vocab|codebook_size|num_embeds", lambda _: at_most(128)),
    (r"max_.*(position|length|len).*|n_positions|n_ctx", lambda _: at_most(256)),
    (r"image_size|.*patch.*|.*kernel.*|window_size|.*stride.*|.*_ratios?", lambda _: unchanged),
    (r"(.*_)?(num_)?(hidden_)?layers|n_layers?|depths?|num_blocks", lambda s: s.layers),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index", lambda _: at_most(1)),
    (r"n_group|topk_group", lambda _: at_most(1)),
    (r".*experts_per_tok|(moe_)?(top_?k|k)", lambda _: at_most(2)),
    (r"(.*_)?(num|n)_(.*_)?experts", lambda _: at_most(4)),
    (r"(.*_)?(n|num)_(.*_)?heads?|(.*_)?attention_heads", lambda s: s.heads),
    (r"(.*_)?head_dim|d_kv|d_head|dim_head|kv_channels", lambda s: s.head_dim),
    (r"(.*_)?(hidden|intermediate|embedding|embed|ffn|mlp)(_.*)?(size|dim)s?", lambda s: s.width),
    (r"(.*_)?(proj|projection|inner|adapter|output)(_.*)?(size|dim)s?", lambda s: s.width),
    (r"d_(model|ff|inner|embed)|n_(embd|inner)|dim|dff|.*_(dim|rank|channels)", lambda s: s.width),
    (r".*(hidden|ffn|embed|units|feedforward).*|conv_dim|tdnn_dim|channels", lambda s: s.width),
    (r"upsample_(groups|initial_channel)", lambda s: s.width),
    (r"num_filters", lambda _: at_most(4)),
)
"""What the name of a whole-number attribute says about it; the first that matches counts."""

_TIMM_BACKBONE = {
    "backbone_config": {"backbone": "resnet18", "out_indices": [1, 2, 3, 4], "out_features": None}
}
_TIMM_VIT = {"embed_dim": 64, "depth": 2, "num_heads": 4}
_CONVOLUTION = [3, 1, 1]
_INTRACLASS = {
    "intraclass_block_config": {
        f"{name}_conv_{ratio}ratio": _CONVOLUTION
        for name in ("vertical_long_to_small", "horizontal_small_to_long", "symmetric")
        for ratio in ("long", "mid", "short", "long_long", "long_mid", "long_short")
    }
    | {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}
}

OVERRIDES: dict[str, Settings] = {
    "autoformer": {"prediction_length": 8},
    "bailing_hybrid": {"num_hidden_layers": 6},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "beam": {"num_hidden_layers": 4},
    "chameleon": {"vocabulary_map": {"<image>": 3}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
    "conditional_detr": _TIMM_BACKBONE,
    "cosmos3_edge_text": {"rope_parameters": {"mrope_section": [4, 2, 2]}},
    "dab-detr": _TIMM_BACKBONE,
    "dbrx": {"attn_config": {"rope_theta": 1e4}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v4": {"num_hidden_layers": 8},
    "deformable_detr": _TIMM_BACKBONE,
    "detr": _TIMM_BACKBONE,
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 64},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 32,
        "swa_qk_nope_head_dim": 16,
        "swa_v_head_dim": 16,
        "head_dim": 24,
    },
    "dots3_note_vision_encoder": {"pyramid_num_routed": [-1, 4], "num_hidden_layers": 2},
    "electra": {"embedding_size": 32},
    "emu3": {"vocabulary_map": {"<image>": 3, "<|extra_200|>": 4}},
    "ernie4_5_vl_moe_text": {"rope_parameters": {"mrope_section": [3, 3, 2]}},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "esmfold2": {
        "single_inputs_size": 131,
        "atom_encoder": {"num_spatial_rope_pairs_per_axis": 1, "num_uid_rope_pairs": 5},
        "structure_head": {
            "diffusion_module": {
                "atom_encoder": {"num_spatial_rope_pairs_per_axis": 1, "num_uid_rope_pairs": 5}
            }
        },
    },
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64},
    "fast_vlm": {
        "vision_config": {
            "model_args": {
                "inference_mode": True,
                "layers": [1] * 5,
                "embed_dims": [16, 16, 32, 32, 64],
            }
        }
    },
    "flint": {"num_hidden_layers": 4},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 4, "intermediate_size": 64},
    "gemma3n_vision": {"model_args": {"channel_multiplier": 0.1}},
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        }
    },
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0], [-2, 1]], "downsample_rate": "1/2"},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "hiera": {"decoder_hidden_size": 32, "decoder_depth": 1, "decoder_num_heads": 2},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
    "hunyuan_vl_text": {"head_dim": 16},
    "informer": {"prediction_length": 8},
    "jamba": {"num_hidden_layers": 5},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16},
    "mimi": {"vector_quantization_hidden_dimension": 32},
    "ministral": {"head_dim": 16},
    "mllama_text_model": {"num_hidden_layers": 4, "cross_attention_layers": [3]},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "musicgen": {"decoder": {"hidden_size": 32}},
    "musicgen_melody": {"decoder": {"hidden_size": 32}},
    "nemotron": {"num_key_value_heads": 4},
    "pe_audio_video_encoder": {"vision_config": {"model_args": _TIMM_VIT}},
    "pe_video_encoder": {"vision_config": {"model_args": _TIMM_VIT}},
    "perceiver": {"d_latents": 64, "image_size": 8},
    "perception_lm": {
        "vision_config": {"architecture": "vit_pe_lang_large_patch14_448", "model_args": _TIMM_VIT}
    },
    "pix2struct_text_model": {"initializer_range": 0.02},
    "pp_ocrv5_server_det": _INTRACLASS
    | {"scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2]},
    "pp_ocrv6_medium_det": _INTRACLASS
    | {"scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2]},
    "pp_ocrv6_small_det": {
        "backbone_config": {
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "out_indices": [1, 2, 3, 4],
        }
    },
    "qwen3_omni_moe": {"talker_config": {"spatial_merge_size": 2}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 64},
    "qwen4_exp_text": {
        "eos_token_id": 1,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 64,
        "indexer_compress_ratio": 8,
        "ple_layer_ids": [1],
        "ngram_vocab_size_base": 128,
        "split_ngram_parts": 1,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "sam3_lite_text_text_model": {"num_hidden_layers": 4},
    "sapiens2": {"head_config": {"upsample_out_channels": [32, 32], "conv_out_channels": [32]}},
    "sew": {"hidden_size": 32},
    "sew-d": {"hidden_size": 32},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "table-transformer": _TIMM_BACKBONE,
    "time_series_transformer": {"prediction_length": 8},
    "timm_backbone": {"backbone": "resnet18"},
    "vitmatte": {
        "fusion_hidden_sizes": [64, 64, 64, 32],
        "backbone_config": {"out_features": ["stage2"], "out_indices": [2]},
    },
}
"""By model type (also of a sub-config): what shrinking by name gets wrong."""

CLASSES: dict[str, str] = {
    "autoformer": "AutoformerForPrediction",
    "bridgetower": "BridgeTowerForMaskedLM",
    "clipseg": "CLIPSegForImageSegmentation",
    "glm_image": "GlmImageForConditionalGeneration",
    "informer": "InformerForPrediction",
    "seggpt": "SegGptForImageSegmentation",
    "time_series_transformer": "TimeSeriesTransformerForPrediction",
    "tvp": "TvpForVideoGrounding",
}
"""By model type: the class of a checkpoint, where transformers lists it under no task."""


def model_types() -> list[str]:
    """Return every model type that has a model class, sorted."""
    return sorted(kind for kind in CONFIG_MAPPING if model_class(kind) is not None)


def build(
    model_type: str, architecture: type[PreTrainedModel] | None = None, /, **overrides: object
) -> PreTrainedModel:
    """Return a tiny fp32 model, the same one whenever it is called with the same arguments.

    It is of the class *architecture*, by default model_class(model_type). *overrides* are
    attributes of the config, after shrinking; a dict is merged into the sub-config of that name.
    Float values are noisy: hardly any fits in bf16. Integers are as the architecture makes them.
    The state of torch's random number generator is left alone.

    Raises CannotBuildError if no shrinking of the config gives a model.
    """
    architecture = architecture or model_class(model_type)
    if architecture is None:
        raise CannotBuildError(model_type, "it has no model class")
    reasons = []
    for shrinking in SHRINKINGS:
        try:
            return _build(model_type, architecture, shrinking, overrides)
        except Exception as error:  # noqa: BLE001  a foreign constructor may raise anything
            reasons.append(f"{type(error).__name__}: {error}")
    raise CannotBuildError(model_type, reasons[0])


def tiny_config(model_type: str, shrinking: Shrinking = SHRINKINGS[0]) -> PreTrainedConfig:
    """Return the default config of *model_type*, made small."""
    config_class = CONFIG_MAPPING[model_type]
    return config_class(**_shrunk(_default(config_class), {}, {}, shrinking))


@cache
def model_class(model_type: str) -> type[PreTrainedModel] | None:
    """Return the class that a published checkpoint of this type most likely holds."""
    return next(iter(model_classes(model_type)), None)


@cache
def model_classes(model_type: str) -> tuple[type[PreTrainedModel], ...]:
    """Return all classes that a checkpoint of this type may hold, the most likely one first."""
    config_class = CONFIG_MAPPING[model_type]
    names = dict.fromkeys([CLASSES.get(model_type, ""), *_auto_names(model_type)])
    listed = [getattr(transformers, name) for name in names if hasattr(transformers, name)]
    own = [item for item in listed if _takes(item, config_class)]
    # Some types are listed nowhere, some borrow another's class: internlm3 is a llama.
    return tuple(own or sorted(_classes_of(config_class), key=_standing, reverse=True) or listed)


def _build(
    model_type: str,
    architecture: type[PreTrainedModel],
    shrinking: Shrinking,
    overrides: Settings,
) -> PreTrainedModel:
    """Build one model by one shrinking; raise whatever its constructor raises."""
    config_class = CONFIG_MAPPING[model_type]
    settings = _shrunk(_default(config_class), {}, overrides, shrinking)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in architecture(config_class(**settings)).parameters())
    if parameters > MAX_PARAMETERS:
        raise CannotBuildError(model_type, f"it would have {parameters:,} parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = architecture(config_class(**settings))
    model.float()  # type: ignore[no-untyped-call]
    model.eval()  # type: ignore[no-untyped-call]
    _randomise(model)
    return model


def _shrunk(
    config: PreTrainedConfig, given: Settings, overrides: Settings, shrinking: Shrinking
) -> Settings:
    """Return the settings that make *config*, an instance of the defaults, small.

    An attribute that is None by default stays unset, so that the config derives it from the
    others again, unless it is *given* by the config that this one is a part of.
    """
    overrides = _merged(OVERRIDES.get(config.model_type, {}), overrides)
    deep_enough = _deep_enough(config, shrinking)
    settings = {
        name: _shrunk_value(name, value, deep_enough)
        for name, value in (_declared(config) | given).items()
    }
    for name, part in vars(config).items():
        if isinstance(part, PreTrainedConfig):
            spec = config.sub_configs_defaults.get(name)
            given_part = (spec.init_kwargs if spec else {}) | _named(part)
            inner = _shrunk(part, given_part, overrides.pop(name, {}), shrinking)
            settings[name] = type(part)(**inner).to_dict()
    return _merged(settings, overrides)


def _deep_enough(config: PreTrainedConfig, shrinking: Shrinking) -> Shrinking:
    """Return *shrinking* with enough layers for one of each kind that *config* has."""
    depth = 0
    for value in vars(config).values():
        if isinstance(value, list) and value and isinstance(value[0], str):
            depth = max(depth, *(value.index(kind) + 1 for kind in set(value)))
    return replace(shrinking, layers=lambda size: max(shrinking.layers(size), min(size, depth)))


def _named(part: PreTrainedConfig) -> Settings:
    """Return the strings that the parent gave *part*, such as the name of a timm backbone."""
    default = type(part)()
    names = [field.name for field in fields(part) if field.default is None]
    values = {name: getattr(part, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str) and value != getattr(default, name)
    }


def _default(config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    """Return the default config of a class, helped by OVERRIDES where it has no valid default."""
    try:
        return config_class()
    except Exception:  # noqa: BLE001  a config's own validation may raise anything
        return config_class(**OVERRIDES.get(config_class.model_type, {}))


def _declared(config: PreTrainedConfig) -> Settings:
    """Return the attributes of *config* that its class gives a default other than None."""
    common = {field.name for field in fields(PreTrainedConfig)}
    return {
        field.name: config._getattr_without_heterogeneous_validation(field.name)  # noqa: SLF001
        for field in fields(config)
        if field.name not in common
        and (field.default not in (None, MISSING) or field.default_factory is not MISSING)
    }


def _shrunk_value(name: str, value: object, shrinking: Shrinking) -> object:
    """Return *value*, smaller if it is a size or a list of sizes by the name of *name*."""
    size = next((rule(shrinking) for pattern, rule in RULES if re.fullmatch(pattern, name)), None)
    if size is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return size(value) if value > 0 else value
    if isinstance(value, list | tuple):
        return type(value)(_shrunk_value(name, item, shrinking) for item in value)
    return value


def _merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """Return *settings* with *overrides*; dicts in both are merged in turn."""
    merged = dict(settings)
    for name, value in overrides.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def _auto_names(model_type: str) -> Iterator[str]:
    """Yield the names of the classes transformers lists for *model_type*, preferred ones first."""
    suffix = "_MAPPING_NAMES"
    listed = [name for name in vars(modeling_auto) if name.endswith(suffix)]
    preferred = [f"MODEL_FOR_{head}{suffix}" for head in HEADS]
    plain = [
        f"MODEL{head}{suffix}" for head in ("", "_FOR_IMAGE", "_FOR_BACKBONE", "_FOR_TEXT_ENCODING")
    ]
    others = [name for name in listed if name.startswith("MODEL_FOR_") and name not in plain]
    for mapping in dict.fromkeys(preferred + others + plain):
        names = getattr(modeling_auto, mapping).get(model_type, ())
        yield from [names] if isinstance(names, str) else names


def _classes_of(config_class: type[PreTrainedConfig]) -> list[type[PreTrainedModel]]:
    """Return the model classes that take *config_class*, defined in its own package."""
    package = importlib.import_module(config_class.__module__.rpartition(".")[0])
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    classes = []
    for name in modules:
        with suppress(ImportError):  # Its requirements are not installed.
            if name.startswith("modeling_"):
                classes += _defined_in(importlib.import_module(f"{package.__name__}.{name}"))
    return [item for item in classes if _takes(item, config_class)]


def _defined_in(module: ModuleType) -> list[type[PreTrainedModel]]:
    """Return the model classes of *module*, abstract ones left out."""
    return [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and issubclass(item, PreTrainedModel)
        and item.__module__ == module.__name__
        and not item.__name__.endswith("PreTrainedModel")
    ]


def _takes(item: type[PreTrainedModel], config_class: type[PreTrainedConfig]) -> bool:
    """Return whether *item* is a model of *config_class*."""
    try:
        return item.config_class is config_class
    except ImportError:  # A stand-in for a class whose requirements are not installed.
        return False


def _standing(item: type[PreTrainedModel]) -> tuple[bool, int]:
    """Return what makes *item* the class to save: a head, else being built of those above it."""
    return "For" in item.__name__, inspect.getsourcelines(item)[1]


def _randomise(model: PreTrainedModel) -> None:
    """Add noise to the float parameters and stored float buffers of *model*, ones and zeros too.

    Buffers only grow: a variance must stay positive.
    """
    generator = torch.Generator().manual_seed(SEED)
    stored = model.state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.nan_to_num_(nan=0.0).add_(noise, alpha=0.02)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and name in stored:
                buffer.add_(torch.rand(buffer.shape, generator=generator), alpha=0.02)
