"""The dtype keys of a config, as literal texts and before the library that reads them."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.utils import logging

from recast import CheckpointError, Dtype
from recast.dtypes import TARGETS
from recast.formats.config import Config, DtypeClaim

# As one writes them, and what they become in bf16. What is not one of these stays as it is.
TOLD = [
    # At the root: either key, both, in any spelling.
    ('{"model_type": "t5", "dtype": "float32"}', '{"model_type": "t5", "dtype": "bfloat16"}'),
    ('{"torch_dtype": "float32", "n": []}', '{"torch_dtype": "bfloat16", "n": []}'),
    (
        '{"torch_dtype": "float32", "a": 1e-05, "dtype": "float16"}',
        '{"torch_dtype": "bfloat16", "a": 1e-05, "dtype": "bfloat16"}',
    ),
    ('{"dtype": "auto"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": "torch.float32"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": "torch.bfloat16"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": "bf16"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": "FP32"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": "double"}', '{"dtype": "bfloat16"}'),
    ('{"dtype": null, "torch_dtype": null}', '{"dtype": "bfloat16", "torch_dtype": "bfloat16"}'),
    # None: one is added where a loader looks first, if the config is a model's.
    ('{"model_type": "llama"}', '{"model_type": "llama","torch_dtype": "bfloat16"}'),
    (
        '{\n  "model_type": "x",\n  "a": 1E5\n}\n',
        '{\n  "model_type": "x",\n  "a": 1E5,\n  "torch_dtype": "bfloat16"\n}\n',
    ),
    (
        '{"model_type": "x", "text_config": {"dtype": "float32"}}',
        '{"model_type": "x", "text_config": {"dtype": "bfloat16"}, "torch_dtype": "bfloat16"}',
    ),
    # In sub-configs, at any depth, known by their name or by what they hold.
    (
        '{"dtype": "float32", "text_config": {"dtype": "float32"}, "vision_config": {"a": 1}}',
        '{"dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}, "vision_config": {"a": 1}}',
    ),
    (
        '{"thinker_config": {"text_config": {"torch_dtype": "float32"}}}',
        '{"thinker_config": {"text_config": {"torch_dtype": "bfloat16"}}}',
    ),
    (
        '{"decoder": {"model_type": "bert", "dtype": null}}',
        '{"decoder": {"model_type": "bert", "dtype": "bfloat16"}}',
    ),
    # By part, where the main part has the empty name.
    (
        '{"dtype": {"": "float32", "vision_config": "float16", "n": 7}}',
        '{"dtype": {"": "bfloat16", "vision_config": "bfloat16", "n": 7}}',
    ),
    (
        '{"model_type": "x", "dtype": {"": "mixed", "a": "int8", "b": 7}}',
        '{"model_type": "x", "dtype": {"": "bfloat16", "a": "bfloat16", "b": 7}}',
    ),
    # Without it, transformers 5 loads fp32.
    (
        '{"model_type": "x", "dtype": {"text_config": "float32"}}',
        '{"model_type": "x", "dtype": {"text_config": "bfloat16","": "bfloat16"}}',
    ),
    (
        '{"torch_dtype": {\n  "a": 1\n}, "model_type": "x", "dtype": {}}',
        (
            '{"torch_dtype": {\n  "a": 1,\n  "": "bfloat16"\n}, "model_type": "x", '
            '"dtype": {"": "bfloat16"}}'
        ),
    ),
    # Whatever else stands where the config of a model, or of a part of one, says its dtype.
    *(
        (
            f'{{"model_type": "x", "{key}": {value}}}',
            f'{{"model_type": "x", "{key}": "bfloat16"}}',
        )
        for key in ("dtype", "torch_dtype")
        for value in ('"float8_e4m3fn"', '"int8"', '""', "5", "false", '["float32"]')
    ),
    (
        '{"dtype": "bfloat16", "text_config": {"model_type": "x", "dtype": "fp8"}}',
        '{"dtype": "bfloat16", "text_config": {"model_type": "x", "dtype": "bfloat16"}}',
    ),
    # The spelling of a key does not matter, and of two with one key the last counts.
    (r'{"\u0064type": "float32"}', r'{"\u0064type": "bfloat16"}'),
    ('{"dtype": "x", "dtype": "float32"}', '{"dtype": "x", "dtype": "bfloat16"}'),
]

LEFT_ALONE = [
    "{}",
    '{"_class_name": "UNet2DConditionModel", "sample_size": 64}',
    '{"model_type": "llama", "dtype": "bfloat16"}',
    '{"model_type": "x", "torch_dtype": "bfloat16", "n": [{"dtype": "float32"}]}',
    # What only looks like a dtype key.
    '{"vocabulary_map": {"dtype": 12, "torch_dtype": 13}}',
    '{"vocabulary_map": {"dtype": "float32"}, "label2id": {"dtype": null}}',
    '{"mamba_ssm_cache_dtype": "float32", "router_dtype": "float32"}',
    '{"text_config": {"mamba_ssm_cache_dtype": "float32"}}',
    '{"dtype": 7}',
    '{"dtype": "int8"}',
    '{"dtype": ["float32"]}',
    '{"model_type": "x", "torch_dtype": "bfloat16", "cache_config": {"dtype": "int8"}}',
    '{"model_type": "x", "dtype": "bfloat16", "vocabulary_map": {"model_type": 1, "dtype": 2}}',
    '{"model_type": "x", "dtype": "bfloat16", "part": {"model_type": "y", "dtype": {}}}',
    '{"text_config": "float32", "vision_config": null, "audio_config": [{"dtype": "float32"}]}',
    # How a model is quantized is not what its dtype is.
    '{"quantization_config": {"bnb_4bit_compute_dtype": "float32", "dtype": "float32"}}',
    '{"compression_config": {"torch_dtype": "float32"}}',
    # Nor what words are right for one that is quantized.
    '{"model_type": "x", "dtype": "int8", "quantization_config": {"quant_method": "q"}}',
    '{"model_type": "x", "dtype": {"a": "int8"}, "quantization": {"bits": 4}}',
]

# Composite and plain, with dicts and keys of every kind that the library's configs have.
MODEL_TYPES = [
    *("llama", "t5", "bert", "clip", "emu3", "nemotron_h", "qwen2_5_omni", "musicgen", "whisper"),
    *("encoder-decoder", "llava", "deepseek_v3", "gemma3", "xlstm"),
]
Edit = Callable[[dict[str, Any]], object]
STALE: dict[str, Edit] = {
    "dtype": lambda root: root.update(dtype="float32"),
    "torch_dtype": lambda root: root.update(torch_dtype=root.pop("dtype")),
    "both": lambda root: root.update(torch_dtype="float16"),
    "neither": lambda root: root.pop("dtype"),
    "null": lambda root: root.update(dtype=None),
    "misspelt": lambda root: root.update(dtype="fp32"),
    "auto": lambda root: root.update(dtype="auto"),
    "of codes": lambda root: root.update(dtype="float8_e4m3fn"),
    "nothing": lambda root: root.update(dtype=""),
    "a number": lambda root: root.update(dtype=5),
}


def config(text: str) -> Config:
    """Return the config of this text."""
    return Config.parse("config.json", text.encode())


@pytest.mark.parametrize(("before", "after"), TOLD)
def test_every_dtype_key_is_put_right_and_nothing_else(before: str, after: str) -> None:
    """The keys that loaders read say the new dtype; all other characters are as they were."""
    assert config(before).retold(Dtype.BF16) == after
    assert json.loads(after)  # the table itself is sound


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_no_dtype_key_is_left_alone(text: str) -> None:
    """Nothing changes in a config that says what it should, or in keys of other meaning."""
    assert config(text).retold(Dtype.BF16) == text


@pytest.mark.parametrize("text", [*(after for _, after in TOLD), *LEFT_ALONE])
def test_retelling_twice_is_retelling_once(text: str) -> None:
    """A config that was put right needs nothing more, and can be told another dtype and back."""
    assert config(text).retold(Dtype.BF16) == text
    assert config(config(text).retold(Dtype.F16)).retold(Dtype.BF16) == text


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["float32", "bfloat16", "bf16", "auto", "é"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["dtype", "torch_dtype", "model_type", "text_config", "a", ""]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["dtype", "torch_dtype", "model_type", "a_config", "b"]), JSON),
    st.sampled_from(TARGETS),
)
def test_only_dtype_keys_change(document: dict[str, Any], target: Dtype) -> None:
    """Whatever a config holds: without its dtype keys it is what it was, in the same order."""
    retold = json.loads(config(json.dumps(document)).retold(target))
    assert list(walk(retold)) == list(walk(document))
    root = {key: retold[key] for key in ("dtype", "torch_dtype") if key in retold}
    if isinstance(document.get("model_type"), str):
        assert root
    for value in root.values():
        assert value not in (None, "float64", "auto", "bf16")
        assert not isinstance(value, str) or value in (target.torch_name, "é")


def walk(document: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield all there is in a JSON document, save the values of dtype keys, in its order."""
    match document:
        case dict():
            for key, value in document.items():
                if key not in ("dtype", "torch_dtype"):
                    yield from walk(value, (*path, key))
        case list():
            for number, value in enumerate(document):
                yield from walk(value, (*path, number))
        case _:
            yield *path, document


def test_claims_are_listed_root_first() -> None:
    """Each claim has the path to it and what stands there, in the order of the file."""
    text = (
        '{"b_config": {"c_config": {"dtype": null}}, "a_config": {"dtype": {"": "half"}},'
        ' "torch_dtype": "auto", "dtype": "float64"}'
    )
    claims = config(text).claims
    assert claims == (
        DtypeClaim(("dtype",), "float64"),
        DtypeClaim(("torch_dtype",), "auto"),
        DtypeClaim(("b_config", "c_config", "dtype"), None),
        DtypeClaim(("a_config", "dtype", ""), "half"),
    )
    assert [claim.dtype for claim in claims] == [Dtype.F64, None, None, Dtype.F16]
    assert [str(claim) for claim in config('{"model_type": "x", "dtype": ""}').claims] == [
        'dtype = ""'
    ]
    assert [str(claim) for claim in config('{"model_type": "x", "dtype": [5]}').claims] == [
        "dtype = [5]"
    ]
    assert [str(claim) for claim in claims] == [
        "dtype = float64",
        "torch_dtype = auto",
        "b_config.c_config.dtype = null",
        "a_config.dtype.(main) = half",
    ]


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ('{"quantization_config": {"quant_method": "gptq"}}', "gptq"),
        ('{"quantization_config": {"bits": 4}}', "quantization_config"),
        ('{"compression_config": {"quant_method": "compressed-tensors"}}', "compressed-tensors"),
        ('{"text_config": {"quantization_config": {"quant_method": "fp8"}}}', "fp8"),
        ('{"a_config": {"b_config": {"quantization_config": {"quant_method": "awq"}}}}', "awq"),
        ('{"decoder": {"model_type": "x", "quantization_config": {"quant_method": "q"}}}', "q"),
        ('{"quantization_config": null}', None),
        ('{"quantization_config": {}}', None),
        ('{"quantization": "none", "vocabulary_map": {"quantization_config": {"a": 1}}}', None),
        ("{}", None),
    ],
)
def test_quantization_is_found_wherever_it_is_declared(text: str, method: str | None) -> None:
    """A model is quantized if its config or a sub-config says how; null and {} say nothing."""
    assert config(text).quantization == method


@pytest.mark.parametrize(
    ("text", "model_type", "lacks"),
    [
        ('{"model_type": "llama"}', "llama", True),
        ('{"model_type": "llama", "torch_dtype": null}', "llama", False),
        ('{"model_type": "llama", "dtype": "float32"}', "llama", False),
        ('{"model_type": null}', None, False),
        ('{"model_type": 7}', None, False),
        ("{}", None, False),
    ],
)
def test_a_model_without_a_dtype_lacks_one(text: str, model_type: str | None, lacks: bool) -> None:  # noqa: FBT001 - a column of the table
    """Only a config that names an architecture lacks a dtype key if it has none."""
    assert config(text).model_type == model_type
    assert config(text).lacks_dtype is lacks


def test_the_size_is_that_of_the_file() -> None:
    """The size counts bytes, not characters."""
    content = '{"é": "😀"}\r\n'.encode()
    assert Config.parse("config.json", content).size == len(content)


@pytest.mark.parametrize("content", [b"[]", b"\xff", b"{", b""])
def test_what_is_no_config_is_an_error_that_names_it(content: bytes) -> None:
    """A config that cannot be read is an error about that file."""
    with pytest.raises(CheckpointError, match=r"^unet/config\.json: "):
        Config.parse("unet/config.json", content)


@pytest.mark.parametrize("depths", [(500,), range(850, 1000), (5000, 200_000)])
def test_depth_is_no_reason_to_crash(depths: Iterable[int]) -> None:
    """However deep a config is nested, it is read, or it is a CheckpointError that says so."""
    limit = "is not JSON (maximum recursion depth"
    for depth in depths:
        try:
            deep = config('{"a_config": ' * depth + '{"dtype": "half"}' + "}" * depth)
        except CheckpointError as error:
            problem = error.problem
        else:
            problem = limit
            assert deep.quantization is None
            assert [claim.value for claim in deep.claims] == ["half"]
        assert problem.startswith((limit, "is nested deeper than 512 levels"))


def test_a_claim_is_reached_at_any_depth() -> None:
    """A key under hundreds of objects is put right as one at the root would be."""
    text = '{"a_config": ' * 300 + '{"dtype": "half"}' + "}" * 300
    assert config(text).retold(Dtype.F32) == text.replace("half", "float32")


@pytest.fixture
def quiet() -> Iterator[None]:
    """Transformers without its opinions on the default values of its own configs."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(verbosity)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_transformers_reads_the_new_dtype(model_type: str, tmp_path: Path) -> None:
    """However stale a config was: retold, the library loads it, and all its parts say so.

    Apart from the dtype it loads what it would have loaded.
    """
    made = AutoConfig.for_model(model_type)
    text = made.to_json_string(use_diff=False)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    original = list(walk(AutoConfig.from_pretrained(tmp_path).to_dict()))
    for stale, edit in STALE.items():
        root = json.loads(text)
        edit(root)
        retold = config(json.dumps(root, indent=2)).retold(Dtype.BF16)
        (tmp_path / "config.json").write_text(retold, encoding="utf-8")
        loaded = AutoConfig.from_pretrained(tmp_path)
        assert loaded.dtype is torch.bfloat16, stale
        assert set(said(loaded.to_dict())) == {"bfloat16"}, stale
        assert list(walk(loaded.to_dict())) == original, stale


def said(document: object) -> Iterator[object]:
    """Yield every dtype that a config of the library's and its parts say."""
    match document:
        case dict():
            if document.get("dtype") is not None:
                yield document["dtype"]
            for value in document.values():
                yield from said(value)
