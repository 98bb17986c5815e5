"""Inspecting what lies on the Hub: the same values as for a folder, from kilobytes."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import parse_hf_uri

import recast as library
from recast.formats.hub_path import HubPath
from tests import checkpoints
from tests.hub.conftest import Run
from tests.hub.server import HubServer


def document(printed: str) -> dict[str, object]:
    """Return the one result that the command printed."""
    [result] = json.loads(printed)["results"]
    return result


def without_place(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without where its checkpoint lies, and without what one can type there."""
    for finding in result.get("findings", ()):
        del finding["command"]
    return {key: value for key, value in result.items() if key not in {"path", "target"}}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Checkpoints of many kinds: sharded, with variants, an adapter, diffusers' folders."""
    folder = tmp_path / "zoo"
    checkpoints.two_shards(folder / "sharded")
    (folder / "sharded" / "optimizer.pt").write_bytes(b"state")
    shutil.copytree(folder / "sharded", folder / "stale")
    checkpoints.save_shard(folder / "stale/model.safetensors", checkpoints.random_tensors(x=(2, 2)))
    weights = checkpoints.random_tensors(**{"a.weight": (4, 4)})
    checkpoints.save_shard(folder / "adapter/adapter_model.safetensors", weights)
    checkpoints.write_json(folder / "adapter/adapter_config.json", {"peft_type": "LORA"})
    for name in (
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ):
        checkpoints.save_shard(folder / "diffusers" / name, weights)
        checkpoints.write_json(folder / "diffusers" / Path(name).parent / "config.json", {})
    return folder


def test_the_same_as_for_a_folder(zoo: Path, hub: HubServer, recast: Run) -> None:
    """Findings, load table and plan of a repository are those of its folder, of whatever kind."""
    names = sorted(each.name for each in zoo.iterdir())
    for name in names:
        hub.add(f"lab/{name}", zoo / name)
    hub.add("lab/all", zoo)
    remote = [f"hf://lab/{name}" for name in names]
    inside = [f"hf://lab/all@main/{name}" for name in names]
    here = [zoo / name for name in names]
    printed = [recast(hub, *paths, "--json", token=None) for paths in (here, remote, inside)]
    local, *others = (
        [without_place(each) for each in json.loads(done.stdout)["results"]] for done in printed
    )
    assert others == [local, local]
    assert len({done.returncode for done in printed}) == 1
    plans = [recast(hub, path, "--to", "bf16", "-n", "--json") for path in (here[-2], remote[-2])]
    assert without_place(document(plans[0].stdout)) == without_place(document(plans[1].stdout))


def test_one_remote_file(zoo: Path, hub: HubServer, recast: Run) -> None:
    """One weights file of a repository is a checkpoint of its own, as on a disk."""
    hub.add("lab/all", zoo)
    name = "adapter/adapter_model.safetensors"
    results = [
        document(recast(hub, path, "--json").stdout)
        for path in (zoo / name, f"hf://lab/all/{name}")
    ]
    assert without_place(results[0]) == without_place(results[1])


def test_kilobytes_a_shard(tmp_path: Path, hub: HubServer, recast: Run) -> None:
    """Of eight shards of 2 MB, what is fetched is at most 40 kB each, and one long header whole."""
    shards = {
        f"model-{number:05}-of-00008.safetensors": checkpoints.random_tensors(
            **{f"layer.{number}.weight": (512, 1024)}
        )
        for number in range(1, 9)
    }
    many = {f"a.tensor.with.a.rather.long.name.{number:05}": (1,) for number in range(1000)}
    shards["model-00008-of-00008.safetensors"] = checkpoints.random_tensors(**many)
    hub.add("lab/big", checkpoints.save_sharded(tmp_path / "big", shards))
    size = sum(each.stat().st_size for each in (tmp_path / "big").iterdir())
    done = recast(hub, "lab/big", token=None)
    assert "9 shards" in done.stdout or "8 shards" in done.stdout
    fetched = hub.sent("lab/big")
    lists = sum(each.sent for each in hub.requests if each.path.startswith("/api/"))
    index = (tmp_path / "big/model.safetensors.index.json").stat().st_size
    assert fetched < 8 * 40_000 + 120_000 + lists + index
    assert fetched < size / 20
    assert not (tmp_path / "home/hf/hub").exists(), "the Hub's cache was filled"


@pytest.mark.parametrize(
    "uri",
    [
        "hf://org/name",
        "hf://org/name@v1.0",
        "hf://org/name@refs/pr/3/unet",
        "hf://org/name/unet/model.safetensors",
        "hf://models/org/name@main/a/b",
    ],
)
def test_paths_mean_what_the_client_means(uri: str) -> None:
    """A path on the Hub is read as huggingface_hub reads it, and written back the same."""
    ours, theirs = HubPath.parse(uri), parse_hf_uri(uri)
    assert (ours.repo, ours.revision, ours.folder) == (
        theirs.id,
        theirs.revision,
        theirs.path_in_repo,
    )
    assert HubPath.parse(str(ours)) == ours
    assert asdict(ours)["commit"] == ""


@pytest.mark.parametrize(
    "uri", ["hf://", "hf://name", "hf://datasets/org/name", "hf://org/name/../x", "hf://a b/c"]
)
def test_other_paths_are_refused(uri: str) -> None:
    """What names no model is an error that says how to write one."""
    with pytest.raises(library.CheckpointError) as error:
        library.inspect(uri)
    assert error.value.remedy


def test_what_cannot_be_inspected(tmp_path: Path, hub: HubServer, recast: Run) -> None:
    """Missing, private, gated, at no such revision, with a wrong token, offline: each said so."""
    folder = checkpoints.two_shards(tmp_path / "ckpt")
    hub.add("other/gated", folder, gated=True)
    hub.add("other/private", folder, private=True)
    hub.add("lab/damaged", folder)
    blobs = dict(hub.repositories["lab/damaged"].main.files)
    shard = "model-00001-of-00002.safetensors"
    blobs[shard] = hub.blob(shard, b"\xff" * 64)
    hub.repositories["lab/damaged"].commit("main", blobs, "damage")
    cases = [
        ("lab/none", {}, "is no path here; hf://lab/none: is not on the Hub"),
        ("hf://other/private", {}, "private and not yours to see"),
        ("hf://other/gated", {}, "is gated"),
        ("hf://lab/damaged@v9", {}, "has no such revision"),
        ("hf://lab/damaged/none", {}, "holds no files"),
        ("hf://lab/damaged", {}, f"hf://lab/damaged/{shard}: is not a valid safetensors file"),
        ("hf://lab/damaged", {"token": "hf_wrong"}, "does not accept your token"),
        ("lab/damaged", {"HF_HUB_OFFLINE": "1"}, "offline mode"),
        ("hf://lab/damaged", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ]
    for path, variables, said in cases:
        done = recast(hub, path, **variables)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert ";" in done.stderr
