"""What docs/why-fp32.md says of accelerate's FSDP, of TRL and of DeepSpeed, asked of them."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

import recast
from recast.dtypes import Dtype
from recast.formats.forms import Unread
from tests import checkpoints
from tests.frameworks import fsdp

HERE = Path(fsdp.__file__).parent


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip a test of a library that make test does not install, since it brings many others."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: make frameworks")


def run(*command: str, **environment: str) -> None:
    """Run a command without a network; what it says is shown if it fails."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command,
        env=os.environ | offline | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("precision", "stored"), [("bf16", Dtype.F32), ("no", Dtype.BF16)])
def test_fsdp_upcasts_what_it_trains_in_mixed_precision(
    precision: str, stored: Dtype, tmp_path: Path
) -> None:
    """A weight loaded in bf16 is saved in fp32, by two processes that share it; in bf16 without."""
    path = tmp_path / "model.safetensors"
    run(sys.executable, str(HERE / "fsdp.py"), str(path), precision)
    (share,) = recast.inspect(path).dtypes
    assert share.dtype is stored
    if stored is Dtype.F32:  # and these are true fp32 values, no bf16 stored wide
        assert not recast.scan(path).wide


def test_what_fsdp_saves_in_shards_is_merged(tmp_path: Path) -> None:
    """The command that recast names for a distributed checkpoint makes safetensors of it."""
    whole = checkpoints.random_tensors(**{"a.weight": (8, 4), "b.weight": (6,)})
    folder = tmp_path / "run" / "pytorch_model_fsdp_0"
    with pytest.warns(UserWarning, match="save in a single process"):
        dcp.save({"model": whole}, checkpoint_id=folder, no_dist=True)  # as accelerate does
    told = list[Unread]()
    assert not list(recast.discover(tmp_path, unread=told.append))
    (unread,) = told
    command = unread.form.remedy.split(": ")[1].split(",")[0]
    assert command == "accelerate merge-weights DIR OUT"
    here = Path(sys.executable).parent / "accelerate"
    run(str(here), "merge-weights", str(folder), str(tmp_path / "merged"))
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged.keys() == whole.keys()
    assert all(torch.equal(merged[name], each) for name, each in whole.items())


@needs("trl", "datasets")
@pytest.mark.parametrize(("dtype", "stored"), [([], Dtype.F32), (["auto"], Dtype.BF16)])
def test_trl_loads_in_fp32_unless_told(dtype: list[str], stored: Dtype, tmp_path: Path) -> None:
    """SFTTrainer, given the path of a bf16 model, trains and saves fp32; "auto" leaves it bf16."""
    run(sys.executable, str(HERE / "sft.py"), str(tmp_path), *dtype)
    assert [each.dtype for each in recast.inspect(tmp_path / "base").dtypes] == [Dtype.BF16]
    assert [each.dtype for each in recast.inspect(tmp_path / "tuned").dtypes] == [stored]


@needs("deepspeed", "hjson", "cpuinfo", "einops")
def test_deepspeed_gathers_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained in bf16 under ZeRO-3, a model is hollow when it is saved, and fp32 when gathered.

    The command in the finding, typed as it stands, gathers the master weights; cast to bf16, they
    are the weights that DeepSpeed itself gathers and writes in bf16.
    """
    folder = tmp_path / "checkpoint-2"
    run(sys.executable, str(HERE / "zero3.py"), str(folder), DS_ACCELERATOR="cpu")
    found = {each.name: each for each in recast.findings(recast.inspect(folder))}
    assert list(found) == ["empty-tensors", "trainer-state"]
    assert found["trainer-state"].command == ""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    run(*shlex.split(found["empty-tensors"].command), DS_ACCELERATOR="cpu")
    whole = Path(f"{folder}-whole")
    assert [each.dtype for each in recast.inspect(whole).dtypes] == [Dtype.F32]
    assert not recast.scan(whole).wide
    shutil.copy(folder / "config.json", whole)
    narrow = load_file(f"{recast.convert(whole, 'bf16').target}/model.safetensors")
    gathered = torch.load(folder / "gathered" / "pytorch_model.bin")
    assert narrow.keys() == gathered.keys() == set(found["empty-tensors"].tensors)
    assert all(torch.equal(narrow[name], each) for name, each in gathered.items())
