"""recast beside transformers: what it stores, and what is loaded, is what transformers makes.

The oracle is transformers alone: it loads the fp32 checkpoint in the narrow dtype, and saves it.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel

import recast
from tests import checkpoints
from tests.peers.conftest import (
    KINDS,
    Kind,
    Tensors,
    Twins,
    narrowed,
    noise,
    save,
    tensors_of,
    text,
)

DTYPES = ("bfloat16", "float16")
# By kind and dtype, the tensors that transformers keeps in fp32; of others it keeps none.
KEPT = {
    ("deepseek_v3", "bfloat16"): ("*.e_score_correction_bias",),
    ("deepseek_v3", "float16"): ("*.e_score_correction_bias",),
    ("gpt_oss", "float16"): ("*norm.weight",),
    ("hy_v3", "bfloat16"): ("*.mlp.expert_bias",),  # known by another name in memory
    ("hy_v3", "float16"): ("*.mlp.expert_bias",),
    ("lfm2_moe", "bfloat16"): ("*.expert_bias",),  # declared float32, and in no list
    ("lfm2_moe", "float16"): ("*.expert_bias",),
    ("musicgen", "float16"): ("text_encoder.*.wo.weight",),  # it holds a T5
    ("t5", "float16"): ("*.wo.weight",),
}
# By kind, what recast keeps beyond: transformers casts it, but publishers ship it in fp32.
BEYOND = {"mamba2": ("*.A_log", "*.D", "*.dt_bias")}


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether *name* is matched by any of *patterns*."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in *folder*, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether dtype, shape and bits are the same; any NaN is like any other."""
    if one.dtype is not other.dtype or one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    bits = {2: torch.int16, 4: torch.int32}[one.itemsize]
    alike = one.view(bits) == other.view(bits)
    return bool((alike | (one.isnan() & other.isnan())).all())


def parts(model: PreTrainedModel) -> Tensors:
    """Return the parameters and buffers of *model*, stored or not."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def outputs(model: PreTrainedModel, inputs: Tensors) -> list[torch.Tensor]:
    """Return the logits, and whatever other tensors come out of *model*."""
    own = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    with torch.inference_mode():
        found = model(**own).to_tuple()
    return [each for each in found if isinstance(each, torch.Tensor)]


def assert_same_model(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Assert that two models are of one class and dtype, and have the same bits everywhere."""
    assert type(model) is type(reference)
    assert model.dtype is reference.dtype
    assert parts(model).keys() == parts(reference).keys()
    unlike = [
        name
        for name, tensor in parts(model).items()
        if not same_bits(tensor, parts(reference)[name])
    ]
    assert unlike == []


def assert_cast(stored: Tensors, source: Tensors, dtype: str, kept: Mapping[str, str]) -> None:
    """Assert that each tensor is torch's cast of the source's, or kept bit for bit and why."""
    assert stored.keys() == source.keys()
    for name, tensor in source.items():
        narrow = tensor.is_floating_point() and name not in kept
        expected = tensor.to(getattr(torch, dtype)) if narrow else tensor
        assert same_bits(stored[name], expected), name
        assert name not in kept or kept[name], name


both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_kind = pytest.mark.parametrize("name", KINDS)


@both_dtypes
@every_kind
def test_tensors_are_those_that_transformers_stores(
    twins: Callable[[str, str], Twins], name: str, dtype: str
) -> None:
    """Names, dtypes and bits are those of a re-save by transformers; what is kept has a reason."""
    pair = twins(name, dtype)
    source, stored = tensors_of(pair.source), tensors_of(pair.converted)
    resaved = tensors_of(pair.resaved)
    assert_cast(stored, source, dtype, pair.kept)
    assert stored.keys() == resaved.keys()
    unlike = {key for key in stored if not same_bits(stored[key], resaved[key])}
    assert unlike == {key for key in source if matches(key, BEYOND.get(name, ()))}
    assert all(pair.kept[key].startswith("every model keeps ") for key in unlike)


@both_dtypes
@every_kind
def test_folder_is_the_one_that_transformers_saves(
    twins: Callable[[str, str], Twins], name: str, dtype: str
) -> None:
    """Weights and configs are byte for byte those of a re-save by transformers."""
    pair = twins(name, dtype)
    written, resaved = contents(pair.converted), contents(pair.resaved)
    assert written.keys() == resaved.keys()
    unlike = [each for each in written if written[each] != resaved[each]]
    assert unlike == (["model.safetensors"] if name in BEYOND else [])


@both_dtypes
@every_kind
def test_what_transformers_keeps_in_fp32_is_kept(
    twins: Callable[[str, str], Twins], name: str, dtype: str
) -> None:
    """Exactly the tensors named here are stored in fp32 by transformers, and none by chance."""
    pair = twins(name, dtype)
    kept = KEPT.get((name, dtype), ())
    wide = {key for key, x in tensors_of(pair.resaved).items() if x.dtype is torch.float32}
    assert wide == {key for key in tensors_of(pair.source) if matches(key, kept)}
    assert bool(wide) is bool(kept)
    assert wide <= pair.kept.keys()


@pytest.mark.parametrize("told", [{}, {"dtype": "auto"}], ids=["untold", "auto"])
@both_dtypes
@every_kind
def test_loads_as_the_model_cast_in_memory(
    twins: Callable[[str, str], Twins], name: str, dtype: str, told: dict[str, str]
) -> None:
    """Loaded without being told a dtype, the result is the fp32 model cast in memory, exactly."""
    pair, kind = twins(name, dtype), KINDS[name]
    loaded, loading = kind.loader.from_pretrained(pair.converted, output_loading_info=True, **told)
    assert {what: keys for what, keys in loading.items() if keys} == {}
    assert loaded.dtype is getattr(torch, dtype)
    assert_same_model(loaded, pair.cast)
    inputs = kind.inputs(loaded.config)
    found, expected = outputs(loaded, inputs), outputs(pair.cast, inputs)
    assert len(found) == len(expected) > 0
    assert all(map(torch.equal, found, expected))
    assert found[0].float().std() > 0


@both_dtypes
@every_kind
def test_safetensors_reads_every_file(
    twins: Callable[[str, str], Twins], name: str, dtype: str
) -> None:
    """Each weights file is open to safetensors' own readers, and says that torch wrote it."""
    pair = twins(name, dtype)
    paths = list(pair.converted.glob("*.safetensors"))
    assert [path.name for path in paths] == ["model.safetensors"]
    loaded = load_file(paths[0])
    with safe_open(paths[0], framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == loaded.keys()
        assert all(same_bits(file.get_tensor(key), loaded[key]) for key in loaded)


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_sharded_folder_is_the_one_that_transformers_saves(tmp_path: Path, name: str) -> None:
    """Shards, their names and the index are those of a re-save into shards of half the size."""
    kind = KINDS[name]
    source = save(kind, tmp_path / "sharded", max_shard_size="100KB")
    pair = narrowed(source, "bfloat16", kind.loader, resave="50KB")
    written, resaved = contents(pair.converted), contents(pair.resaved)
    shards = sorted(each for each in written if each.endswith(".safetensors"))
    assert shards == [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, 4)]
    assert written.keys() == resaved.keys()
    assert [each for each in written if written[each] != resaved[each]] == []


def test_index_stays_and_adds_up(tmp_path: Path) -> None:
    """Only total_size changes in an index: to the bytes of all tensors, kept ones too."""
    kind = KINDS["deepseek_v3"]
    source = save(kind, tmp_path / "sharded", max_shard_size="100KB")
    pair = narrowed(source, "bfloat16", kind.loader)
    name = "model.safetensors.index.json"
    before, after = (json.loads((f / name).read_text()) for f in (source, pair.converted))
    assert list(after["weight_map"].items()) == list(before["weight_map"].items())
    assert len(set(after["weight_map"].values())) > 1
    stored = tensors_of(pair.converted)
    assert {x.dtype for x in stored.values()} == {torch.bfloat16, torch.float32}
    assert after["metadata"].pop("total_size") == sum(x.nbytes for x in stored.values())
    assert before["metadata"].pop("total_size") == sum(2 * x.numel() * 2 for x in stored.values())
    assert after["metadata"] == before["metadata"]
    assert not (pair.converted / "model.safetensors").exists()
    loaded, loading = kind.loader.from_pretrained(pair.converted, output_loading_info=True)
    assert {what: keys for what, keys in loading.items() if keys} == {}
    assert_same_model(loaded, pair.cast)


def test_dtype_in_an_index_is_true(tmp_path: Path) -> None:
    """Without a dtype in the config, loaders go by the index; that one says what is stored."""
    kind = KINDS["llama"]
    source = save(kind, tmp_path / "sharded", max_shard_size="100KB")
    name = "model.safetensors.index.json"
    index = json.loads((source / name).read_text())
    index["metadata"]["dtype"] = "float32"
    checkpoints.write_json(source / name, index)
    target = recast.convert(source, "bfloat16").target
    config = json.loads((target / "config.json").read_text())
    del config["dtype"]
    checkpoints.write_json(target / "config.json", config)
    assert kind.loader.from_pretrained(target).dtype is torch.bfloat16


def test_variant_loads_by_its_name(source: Callable[[str], Path], tmp_path: Path) -> None:
    """Weights saved as a variant stay one, and load as such, index included."""
    kind = KINDS["llama"]
    model = kind.loader.from_pretrained(source("llama"), dtype="float32")
    model.save_pretrained(tmp_path / "ema", variant="ema", max_shard_size="100KB")
    target = recast.convert(tmp_path / "ema", "bfloat16").target
    assert (target / "model.safetensors.index.ema.json").is_file()
    loaded = kind.loader.from_pretrained(target, variant="ema")
    cast = kind.loader.from_pretrained(source("llama"), dtype="bfloat16")
    assert_same_model(loaded, cast)


def with_next_token_layer(tensors: Tensors) -> Tensors:
    """Add the multi-token-prediction layer that DeepSeek-V3 is published with."""
    layer = {
        name.replace("layers.1.", "layers.61."): tensor + 1
        for name, tensor in tensors.items()
        if "layers.1." in name
    }
    own = {
        "eh_proj.weight": noise(64, 128),
        "enorm.weight": noise(64),
        "shared_head.head.weight": noise(128, 64),
    }
    return tensors | layer | {f"model.layers.61.{name}": x for name, x in own.items()}


def with_inverse_frequencies(tensors: Tensors) -> Tensors:
    """Add what early transformers stored with a llama: buffers, and the tied head once more."""
    buffers = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": noise(8) for n in range(2)}
    return tensors | buffers | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}


def with_masks(tensors: Tensors) -> Tensors:
    """Name tensors as OpenAI's GPT-2 does, and add the masks it is published with."""
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 16, 16).tril() for n in range(2)}
    masks |= {"h.0.attn.masked_bias": torch.tensor(-1e4)}
    return {name.removeprefix("transformer."): x for name, x in tensors.items()} | masks


def with_gamma_and_beta(tensors: Tensors) -> Tensors:
    """Name tensors as Google's BERT does, and add the position numbers of early transformers."""
    named = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    return named | {"bert.embeddings.position_ids": torch.arange(256).unsqueeze(0)}


def with_repeated_embeddings(tensors: Tensors) -> Tensors:
    """Add the copies of its embeddings, and the bias without a use, that T5 is published with."""
    copies = {f"{name}.embed_tokens.weight": tensors["shared.weight"].clone() for name in ENDS}
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return tensors | copies | {unused: noise(32, 4)}


ENDS = ("encoder", "decoder")
# By kind: how published checkpoints differ from those of transformers 5, and the patterns of
# the names that are not there any more when it has loaded and saved them.
PUBLISHED = {
    "bert": (with_gamma_and_beta, ("*.position_ids",)),
    "deepseek_v3": (with_next_token_layer, ("model.layers.61.*",)),
    "gpt2": (with_masks, ("h.*", "wte.weight", "wpe.weight", "ln_f.*")),
    "llama-tied": (with_inverse_frequencies, ("*.inv_freq", "lm_head.weight")),
    "t5": (with_repeated_embeddings, ("*.embed_tokens.weight", "*EncDec*.relative_att*")),
}


@both_dtypes
@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_that_transformers_drops_is_lost(
    altered: Callable[..., Path], name: str, dtype: str
) -> None:
    """Tensors that a re-save drops or renames are all there, by their names, cast as any other."""
    change, gone = PUBLISHED[name]
    pair = narrowed(altered(name, change), dtype, KINDS[name].loader)
    source, stored = tensors_of(pair.source), tensors_of(pair.converted)
    assert_cast(stored, source, dtype, pair.kept)
    lost = {key for key in source if matches(key, gone)}
    assert stored.keys() - tensors_of(pair.resaved).keys() == lost
    assert [pattern for pattern in gone if not any(matches(key, [pattern]) for key in lost)] == []
    loaded, loading = KINDS[name].loader.from_pretrained(pair.converted, output_loading_info=True)
    assert loading == pair.loading
    assert_same_model(loaded, pair.cast)


# By model type: a layer, and the layer of its multi-token predictor as published, which
# transformers does not know.
PREDICTORS = {
    "deepseek_v3": ("model.layers.1.", "model.layers.61."),
    "deepseek_v4": ("model.layers.3.", "mtp.0."),
    "exaone_moe": ("model.layers.1.", "mtp.layers.0."),
    "hy_v4": ("model.layers.1.", "model.mtp_layers.0."),
    "mimo_v2_flash": ("model.layers.1.", "model.mtp.layers.0."),
    "nemotron_h": ("backbone.layers.1.", "mtp.layers.0."),
}


@pytest.mark.parametrize("model_type", PREDICTORS)
def test_rules_hold_for_layers_that_transformers_drops(tmp_path: Path, model_type: str) -> None:
    """In a layer unknown to transformers stays fp32 what it keeps in one that it knows."""
    known, unknown = PREDICTORS[model_type]
    source = save(Kind(model_type), tmp_path / "source")
    tensors = tensors_of(source)
    layer = {
        n.replace(known, unknown): x.clone() for n, x in tensors.items() if n.startswith(known)
    }
    checkpoints.save_shard(source / "model.safetensors", tensors | layer)
    pair = narrowed(source, "bfloat16", Kind(model_type).loader)
    assert layer.keys().isdisjoint(tensors_of(pair.resaved))
    dtypes = {n.replace(known, unknown): x.dtype for n, x in tensors_of(pair.resaved).items()}
    stored = tensors_of(pair.converted)
    assert {n: stored[n].dtype for n in layer} == {n: dtypes[n] for n in layer}
    assert set(map(dtypes.get, layer)) == {torch.bfloat16, torch.float32}


HARD = [
    *(0.0, -0.0, float("inf"), float("-inf"), float("nan"), -float("nan")),
    *(3.4028234663852886e38, 3.3961775292304957e38, 3.396e38, -3.3961776e38),
    *(65504.0, 65519.996, 65520.0, -65520.0),  # the last of these are infinite in fp16
    *(1.00390625, 1.01171875, 1.0039063692092896),  # halfway to the next bf16, and just past it
    *(1.00048828125, 1.00146484375, 1.0004884004592896),  # likewise in fp16
    *(1e-40, -1e-45, 6e-8, 2.98e-8, 1.1754943508222875e-38, 9.2e-41),  # subnormal in one or both
]


@both_dtypes
def test_hard_values_are_cast_as_transformers_casts_them(
    altered: Callable[..., Path], dtype: str
) -> None:
    """NaN, infinities, zeros, ties, subnormals and values out of range become what they should."""

    def change(tensors: Tensors) -> Tensors:
        embeddings = tensors["model.embed_tokens.weight"]
        embeddings[-1, : len(HARD)] = torch.tensor(HARD)
        payloads = torch.tensor([0x7F800001, 0x7FFFFFFF, -0x7FFFFF, 0x7FC00000], dtype=torch.int32)
        embeddings[-2, : len(payloads)] = payloads.view(torch.float32)
        return tensors

    pair = narrowed(altered("llama", change), dtype, KINDS["llama"].loader, allow="overflow")
    source, stored = tensors_of(pair.source), tensors_of(pair.converted)
    assert_cast(stored, source, dtype, {})
    resaved = tensors_of(pair.resaved)
    assert all(same_bits(stored[name], resaved[name]) for name in resaved)
    assert stored["model.embed_tokens.weight"].isnan().sum() == 6
    model = KINDS["llama"].loader.from_pretrained(pair.converted)
    inputs = text(model.config)
    assert all(map(torch.equal, outputs(model, inputs), outputs(pair.cast, inputs)))


STALE = {
    "dtype": {"dtype": "float32"},
    "torch_dtype": {"torch_dtype": "float32"},
    "both": {"dtype": "float32", "torch_dtype": "bfloat16"},
    "neither": {},
    "null": {"torch_dtype": None},
}


@pytest.mark.parametrize("claims", STALE.values(), ids=STALE)
@pytest.mark.parametrize("name", ["llama", "llava"])
def test_no_config_undoes_a_conversion(
    altered: Callable[..., Path], name: str, claims: dict[str, str | None]
) -> None:
    """Whatever the config said, and though the tensor seen first is fp32, the model is bf16."""
    folder, loader = altered(name), KINDS[name].loader
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    checkpoints.write_json(folder / "config.json", config | claims)
    first = min(tensors_of(folder))
    conversion = recast.convert(folder, "bfloat16", keep=(first,))
    assert tensors_of(conversion.target)[first].dtype is torch.float32
    written = json.loads((conversion.target / "config.json").read_text(), object_pairs_hook=list)
    said = [each for each in written if each[0] in ("dtype", "torch_dtype")]
    assert said == [(key, "bfloat16") for key in claims or ["torch_dtype"]]
    cast = loader.from_pretrained(folder, dtype="bfloat16")
    assert cast.dtype is torch.bfloat16
    for told in ({}, {"dtype": "auto"}):
        assert_same_model(loader.from_pretrained(conversion.target, **told), cast)


@pytest.mark.parametrize(
    ("name", "dtype"), [("deepseek_v3", "bfloat16"), ("llava", "bfloat16"), ("t5", "float16")]
)
def test_widening_equals_a_re_save_in_fp32(
    twins: Callable[[str, str], Twins], tmp_path: Path, name: str, dtype: str
) -> None:
    """A narrow checkpoint, partly fp32, becomes the fp32 one that transformers makes of it."""
    narrow = shutil.copytree(twins(name, dtype).resaved, tmp_path / "narrow")
    pair = narrowed(narrow, "float32", KINDS[name].loader)
    assert contents(pair.converted) == contents(pair.resaved)
    loaded = KINDS[name].loader.from_pretrained(pair.converted)
    assert loaded.dtype is torch.float32
    assert_same_model(loaded, pair.cast)
