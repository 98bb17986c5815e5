"""fix_config(): configs and indexes tell the truth about what is stored; no tensor is written."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import recast
from recast import cli
from tests import checkpoints

INDEX = "model.safetensors.index.json"


@pytest.fixture
def stale(ckpt: Path) -> Path:
    """A bf16 checkpoint whose config and index still speak of fp32."""
    done = recast.convert(ckpt, "bf16")
    folder = done.target
    config = {
        "model_type": "x",
        "dtype": "float32",
        "text_config": {"torch_dtype": "fp32"},
        "b_config": {"dtype": {"": None, "part": "auto"}},
    }
    checkpoints.write_json(folder / "config.json", config)
    index = json.loads((folder / INDEX).read_text())
    index["metadata"] |= {"total_size": 1, "dtype": "float32", "other": 7}
    checkpoints.write_json(folder / INDEX, index)
    return folder


def weights(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return what a weights file holds, when it was modified, and which file it is."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.glob("*.safetensors")
    }


def test_all_that_is_said_becomes_true(stale: Path) -> None:
    """Nested keys, dicts by part and index metadata are put right; weights are not touched."""
    before = weights(stale)
    assert len(recast.findings(recast.inspect(stale))) == 3
    done = recast.fix_config(stale)
    assert [each.name for each in done.plan.documents] == ["config.json", INDEX]
    assert json.loads((stale / "config.json").read_text()) == {
        "model_type": "x",
        "dtype": "bfloat16",
        "text_config": {"torch_dtype": "bfloat16"},
        "b_config": {"dtype": {"": "bfloat16", "part": "bfloat16"}},
    }
    tensors = [each for path in stale.glob("*.safetensors") for each in load_file(path).values()]
    metadata = json.loads((stale / INDEX).read_text())["metadata"]
    size = sum(each.nbytes for each in tensors)
    assert metadata == {"total_size": size, "dtype": "bfloat16", "other": 7}
    assert weights(stale) == before
    assert not recast.findings(recast.inspect(stale))
    assert {path.name for path in stale.iterdir()} == {
        *before,
        *("config.json", INDEX, "tokenizer.json"),
    }
    assert recast.fix_config(stale).target is None


def test_the_command_shows_before_it_does(stale: Path) -> None:
    """-n writes nothing; then it is done; then there is nothing to do."""
    before = {path.name: path.read_bytes() for path in stale.iterdir()}
    run = CliRunner().invoke
    shown = run(cli.command, [str(stale), "--fix-config", "-n"])
    assert shown.exit_code == 0
    assert "no tensor written" in shown.stdout
    assert {path.name: path.read_bytes() for path in stale.iterdir()} == before
    document = json.loads(run(cli.command, [str(stale), "--fix-config", "--json"]).stdout)
    [done] = document["results"]
    assert (done["kind"], done["only_documents"], done["tensors"]) == ("conversion", True, [])
    assert "nothing to do" in run(cli.command, [str(stale), "--fix-config"]).stdout


def test_a_shard_without_format_is_left_as_it_is(tmp_path: Path) -> None:
    """What converting would add to a header is no config, and stays undone."""
    path = tmp_path / "m" / "model.safetensors"
    checkpoints.save_shard(path, {"a": torch.ones(2)}, {})
    checkpoints.write_json(tmp_path / "m" / "config.json", {"model_type": "x"})
    before = path.read_bytes()
    recast.fix_config(tmp_path / "m")
    assert path.read_bytes() == before
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config == {"model_type": "x", "torch_dtype": "float32"}


def test_of_a_quantized_model_only_the_size_is_known(stale: Path) -> None:
    """The bytes are those of the tensors; what it computes in stays as its maker has said it."""
    config = {"model_type": "x", "dtype": "int8", "quantization_config": {"quant_method": "gptq"}}
    checkpoints.write_json(stale / "config.json", config)
    before = (stale / "config.json").read_bytes()
    _, total = recast.findings(recast.inspect(stale))
    assert (total.name, total.command) == ("wrong-total-size", f"recast {stale} --fix-config")
    done = recast.fix_config(stale)
    assert [each.name for each in done.plan.documents] == [INDEX]
    tensors = [each for path in stale.glob("*.safetensors") for each in load_file(path).values()]
    metadata = json.loads((stale / INDEX).read_text())["metadata"]
    size = sum(each.nbytes for each in tensors)
    assert metadata == {"total_size": size, "dtype": "float32", "other": 7}
    assert (stale / "config.json").read_bytes() == before
    assert [each.name for each in recast.findings(recast.inspect(stale))] == ["quantized"]


def test_what_is_allowed_does_not_stop_it(stale: Path) -> None:
    """What stops a conversion stops it too, unless it is allowed, in the same words."""
    index = json.loads((stale / INDEX).read_text())
    index["weight_map"].popitem()
    checkpoints.write_json(stale / INDEX, index)
    run = CliRunner().invoke
    stopped = run(cli.command, [str(stale), "--fix-config"])
    assert stopped.exit_code == 1
    assert "--allow unindexed-tensors" in stopped.stderr
    options = ["--fix-config", "--allow", "unindexed-tensors"]
    assert run(cli.command, [str(stale), *options]).exit_code == 0
    assert [each.name for each in recast.findings(recast.inspect(stale))] == ["unindexed-tensors"]
    assert run(cli.command, [str(stale), *options, "--push"]).exit_code == 2


def test_links_are_not_written_through(stale: Path) -> None:
    """A config that is a link belongs to somebody else."""
    elsewhere = stale / "real.json"
    (stale / "config.json").rename(elsewhere)
    (stale / "config.json").symlink_to("real.json")
    with pytest.raises(recast.RefusedError, match="is a link"):
        recast.fix_config(stale)
    assert not (stale / ".recast").exists()


@pytest.mark.parametrize("options", ["--to bf16", "--like x", "--scan", "--against x"])
def test_it_goes_alone(stale: Path, options: str) -> None:
    """Together with what casts, compares or looks, it would not be plain what is meant."""
    result = CliRunner().invoke(cli.command, [str(stale), "--fix-config", *options.split()])
    assert result.exit_code == 2
    assert "--fix-config changes no tensor" in result.stderr


def test_a_misspelling_is_called_one(ckpt: Path) -> None:
    """A claim that means what is stored is no mismatch of dtypes, but of spelling."""
    checkpoints.write_json(ckpt / "config.json", {"torch_dtype": "torch.float32"})
    [finding] = recast.findings(recast.inspect(ckpt))
    assert "where loaders expect float32" in finding.problem
    assert "most of" not in finding.problem


def test_pythons_float_is_no_dtype(ckpt: Path) -> None:
    """The builtin has 64 bits, torch's name 32: recast does not guess."""
    with pytest.raises(recast.DtypeError, match="float"):
        recast.plan(ckpt, float)
    assert recast.plan(ckpt, torch.float).policy.target is recast.Dtype.F32
