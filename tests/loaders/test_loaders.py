"""What would load: the rules say what transformers does, over a grid of checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import recast
from recast.dtypes import Dtype
from recast.reports import documents, text
from recast.reports.loaders import Loading, loadings
from tests import checkpoints
from tests.loaders import grid

VERSIONS = {"5": "", "4.57": "RECAST_TRANSFORMERS_4_57", "4.44": "RECAST_TRANSFORMERS_4_44"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint for each case of the grid."""
    folder = tmp_path_factory.mktemp("grid")
    for number, case in enumerate(grid.cases()):
        grid.save(folder / str(number), *case)
    for name, damage in {**grid.CURABLE, **grid.INCURABLE}.items():
        damage(grid.save(folder / name, {"dtype": grid.BF16}, grid.BF16, ""))
    for number, claims in enumerate(grid.SAID_OF_A_PART):
        grid.save_parts(folder / f"part {number}", claims)
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rules_are_those_of_transformers(version: str, folder: Path) -> None:
    """For each case, by default and with "auto", the rule says what from_pretrained does."""
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
    if (variable := VERSIONS[version]) and not (place := os.environ.get(variable)):
        pytest.skip(f"{variable} names no folder with transformers {version}: make loaders")
    elif variable:
        environment["PYTHONPATH"] = f"{place}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, grid.__file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wrong = []
    for name, by_option in json.loads(done.stdout).items():
        rules = {
            each.option: each.before
            for each in loadings(recast.inspect(folder / name))
            if each.loader == f"transformers {version}"
        }
        said = {option: dtype and dtype.torch_name for option, dtype in rules.items()}
        if said != by_option:
            wrong.append(f"{described(name)}: {by_option}, not {said}")
    assert not wrong, "\n".join(wrong)


def test_what_is_converted_is_loaded_as_it_will_be_stored(folder: Path, tmp_path: Path) -> None:
    """What is said of a conversion beforehand is said of its result afterwards."""
    names = [*map(str, range(0, len(list(grid.cases())), 5)), *grid.CURABLE]
    names += [f"part {number}" for number in range(len(grid.SAID_OF_A_PART))]
    for name in names:
        source = folder / name
        before = loadings(recast.inspect(source))
        target = recast.convert(source, "bf16", out=tmp_path / name).target
        after = loadings(recast.inspect(target or source))
        assert [each.after for each in before] == [each.before for each in after]


def described(name: str) -> str:
    """Return what the case of this name is."""
    if name.isdigit():
        return str(list(grid.cases())[int(name)])
    kind, _, number = name.rpartition(" ")
    return str(grid.SAID_OF_A_PART[int(number)]) if kind == "part" else name


@pytest.mark.parametrize("claims", grid.ODD, ids=str)
def test_what_no_loader_understands_is_found_and_made_true(
    claims: dict[str, object], tmp_path: Path
) -> None:
    """Whatever stands under a dtype key: once it is made true, transformers loads what is stored.

    Both --fix-config and a conversion do so; and what is true is found to be.
    """
    folder = grid.save(tmp_path / "x", claims, grid.BF16, None)
    assert [each.name for each in recast.findings(recast.inspect(folder))] == ["config-mismatch"]
    converted = recast.convert(folder, "fp16").target
    recast.fix_config(folder)
    for place, dtype in ((folder, grid.BF16), (converted, grid.FP16)):
        assert not recast.findings(recast.inspect(place))
        assert grid.loaded(place, "default") == dtype


def test_the_index_will_say_what_most_is_stored_in(ckpt: Path, tmp_path: Path) -> None:
    """What loads once it is converted is what the index will say, also where that is not bf16."""
    kept = {f"{number}.A_log": torch.ones(64) for number in range(9)}
    (ckpt / grid.FIRST).unlink()
    (ckpt / grid.SECOND).unlink()
    shards = {"x.safetensors": {"a": torch.ones(4), "0.D": torch.ones(1), **kept}}
    checkpoints.save_sharded(ckpt, shards, {"model_type": "x"})
    index = json.loads((ckpt / grid.INDEX).read_text())
    index["metadata"]["dtype"] = "bfloat16"
    checkpoints.write_json(ckpt / grid.INDEX, index)
    before = loadings(recast.inspect(ckpt))
    target = recast.convert(ckpt, "bf16", out=tmp_path / "out").target
    assert json.loads((target / grid.INDEX).read_text())["metadata"]["dtype"] == "float32"
    assert [each.after for each in before] == [
        each.before for each in loadings(recast.inspect(target))
    ]


def model(folder: Path, dtypes: dict[str, torch.dtype], **config: object) -> Path:
    """Save a checkpoint of one file."""
    tensors = {name: torch.ones(4, dtype=dtype) for name, dtype in dtypes.items()}
    checkpoints.save_shard(folder / "model.safetensors", tensors)
    checkpoints.write_json(folder / "config.json", {"model_type": "llama", **config})
    return folder


FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("dtypes", "config", "vllm", "sglang"),
    [
        ([FP32], {"torch_dtype": "float32"}, "BF16", "F16"),
        ([FP32], {"torch_dtype": "bfloat16"}, "BF16", "BF16"),
        ([BF16], {"dtype": "float16"}, "F16", "F16"),
        ([BF16], {}, "BF16", "F16"),
        ([FP16], {}, "F16", "F16"),
        ([FP16, BF16], {}, "BF16", "F16"),
        ([BF16], {"text_config": {"dtype": "float16"}}, "F16", "F16"),
        ([BF16], {"vision_config": {"torch_dtype": "float16"}}, "F16", "F16"),
        ([FP32], {"model_type": "gemma3_text"}, "BF16", "BF16"),
        ([FP16], {"model_type": "gemma2", "dtype": "float16"}, "BF16", "F16"),
        # To embed or to classify, vLLM prefers fp16; what is stored in bf16 stays so.
        ([FP32], {"architectures": ["BertModel"]}, "F16", "F16"),
        ([FP32], {"architectures": ["LlamaForSequenceClassification"]}, "F16", "F16"),
        ([FP32], {"architectures": ["GPT2LMHeadModel"]}, "BF16", "F16"),
        ([FP32], {"architectures": ["LlamaForCausalLM"]}, "BF16", "F16"),
        ([BF16], {"architectures": ["BertModel"], "dtype": "bfloat16"}, "BF16", "BF16"),
        # Of a model with parts, SGLang asks the language model's config, and no other.
        ([BF16], {"dtype": "bfloat16", "text_config": {}}, "BF16", "F16"),
        ([BF16], {"dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}, "BF16", "BF16"),
        ([BF16], {"llm_config": {"torch_dtype": "bfloat16"}}, "BF16", "BF16"),
        ([FP32], {"text_config": {"model_type": "gemma3_text"}}, "BF16", "BF16"),
    ],
)
def test_servers(
    dtypes: list[torch.dtype], config: dict[str, object], vllm: str, sglang: str, tmp_path: Path
) -> None:
    """The servers look at their own places, and never serve fp32 by themselves."""
    named = {f"t{number}": dtype for number, dtype in enumerate(dtypes)}
    checkpoint = recast.inspect(model(tmp_path, named, **config))
    said = {each.loader: each.before for each in loadings(checkpoint)}
    assert (said["vLLM"], said["SGLang"]) == (vllm, sglang)


def test_a_sentence_model_is_one_to_embed_with(tmp_path: Path) -> None:
    """To vLLM, a model with sentence-transformers' modules.json is one to embed with: fp16."""
    folder = model(tmp_path, {"a": FP32}, architectures=["LlamaForCausalLM"])
    checkpoints.write_json(folder / "modules.json", [])
    said = {each.loader: each.before for each in loadings(recast.inspect(folder))}
    assert said["vLLM"] is Dtype.F16


def test_nothing_is_said_of_what_they_do_not_load(ckpt: Path, tmp_path: Path) -> None:
    """Adapters, bare files and quantized models have no such table."""
    checkpoints.save_shard(tmp_path / "adapter" / "adapter_model.safetensors", {"a": torch.ones(1)})
    assert loadings(recast.inspect(tmp_path / "adapter")) == ()
    quantized = model(tmp_path / "q", {"a": FP32}, quantization_config={"quant_method": "gptq"})
    assert loadings(recast.inspect(quantized)) == ()
    (ckpt / "config.json").unlink()
    assert loadings(recast.inspect(ckpt)) == ()


def test_one_that_cannot_be_converted(ckpt: Path) -> None:
    """Where a conversion is refused, only what loads now is said."""
    (ckpt / "model-00002-of-00002.safetensors").unlink()
    first = loadings(recast.inspect(ckpt))[0]
    assert first == Loading("transformers 5", "default", None, None)
    assert "once" not in text.inspection(recast.inspect(ckpt))


def test_the_table_is_in_the_document(ckpt: Path) -> None:
    """JSON has a row for each loader and option."""
    document = documents.inspection(recast.inspect(ckpt))
    assert document["loads"][0] == {
        "loader": "transformers 5",
        "option": "default",
        "as_is": "F32",
        "converted": "BF16",
    }
    assert len(document["loads"]) == 8
