"""What a checkpoint amounts to, beside torch's and the file system's own counts."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

import recast
from recast import Dtype
from recast.formats.checkpoint import main_dtype
from recast.formats.names import Role
from tests import checkpoints


def sharded(folder: Path, tensors: checkpoints.Tensors) -> recast.Checkpoint:
    """Save tensors alternately in two shards, and inspect the checkpoint."""
    names = list(tensors)
    shards = {
        "model-00001-of-00002.safetensors": {name: tensors[name] for name in names[::2]},
        "model-00002-of-00002.safetensors": {name: tensors[name] for name in names[1::2]},
    }
    return recast.inspect(checkpoints.save_sharded(folder, shards))


@settings(max_examples=50)
@given(checkpoints.state_dicts().filter(lambda tensors: len(tensors) > 1))
def test_shares_add_up_to_what_torch_counts(
    tmp_path_factory: pytest.TempPathFactory, tensors: checkpoints.Tensors
) -> None:
    """Tensors, parameters and bytes of each dtype are torch's; the most bytes come first."""
    checkpoint = sharded(tmp_path_factory.mktemp("shares"), tensors)
    [weights] = checkpoint.weights
    assert dict(weights.tensors).keys() == tensors.keys()
    assert weights.data_size == sum(tensor.nbytes for tensor in tensors.values())
    for share in checkpoint.dtypes:
        dtype = checkpoints.TORCH_DTYPES[share.dtype]
        same = [tensor for tensor in tensors.values() if tensor.dtype is dtype]
        counts = len(same), sum(map(torch.numel, same)), sum(tensor.nbytes for tensor in same)
        assert (share.tensors, share.parameters, share.nbytes) == counts
    assert sum(share.tensors for share in checkpoint.dtypes) == len(tensors)
    sizes = [share.nbytes for share in checkpoint.dtypes]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"F32": 10, "BF16": 3}, Dtype.F32),
        ({"F32": 10, "BF16": 30}, Dtype.BF16),
        ({"F32": 10, "BF16": 11}, Dtype.BF16),  # parameters count, not bytes
        ({"F32": 10, "BF16": 10}, Dtype.BF16),
        ({"F32": 10, "BF16": 9}, Dtype.F32),
        ({"I64": 100, "F16": 1}, Dtype.F16),
        ({"U8": 100, "I8": 3}, None),
        ({"BF16": 4, "F16": 4}, Dtype.BF16),
        ({}, None),
    ],
)
def test_the_main_dtype_is_that_of_the_most_parameters(
    tmp_path: Path, stored: dict[str, int], expected: Dtype | None
) -> None:
    """Of the floating dtypes, the one of the most parameters is what a checkpoint is said to be."""
    tensors = {
        tag: torch.zeros(size, dtype=checkpoints.TORCH_DTYPES[Dtype.of_tag(tag)])
        for tag, size in stored.items()
    }
    path = tmp_path / "model.safetensors"
    checkpoints.save_shard(path, tensors)
    assert main_dtype(recast.inspect(path).shards) is expected


def test_files_are_all_that_lies_in_the_folder(ckpt: Path) -> None:
    """Every file is listed once, weights first, with the size that the file system gives it."""
    for name in ("LICENSE", "1_Pooling/config.json", "original/params.json", "optimizer.pt"):
        (ckpt / name).parent.mkdir(exist_ok=True)
        (ckpt / name).write_text('{"é": 1}', encoding="utf-8")
    checkpoint = recast.inspect(ckpt)
    found = {file.name: file.size for file in checkpoint.all_files}
    on_disk = {
        path.relative_to(ckpt).as_posix(): path.stat().st_size
        for path in ckpt.rglob("*")
        if path.is_file()
    }
    assert found == {name: size for name, size in on_disk.items() if name != "optimizer.pt"}
    assert len(checkpoint.all_files) == len(found)
    assert [file.name for file in checkpoint.left_out] == ["optimizer.pt"]
    assert [file.role for file in checkpoint.all_files[:2]] == [Role.WEIGHTS] * 2
    assert checkpoint.size == sum(
        size for name, size in on_disk.items() if name.endswith(".safetensors")
    )


def test_shards_of_two_indexes_count_once(ckpt: Path) -> None:
    """Two indexes that name the same shards do not make twice the bytes."""
    index = (ckpt / "model.safetensors.index.json").read_bytes()
    (ckpt / "other.safetensors.index.json").write_bytes(index)
    checkpoint = recast.inspect(ckpt)
    assert len(checkpoint.weights) == 2
    assert len(checkpoint.shards) == 2
    assert checkpoint.size == sum(path.stat().st_size for path in ckpt.glob("*.safetensors"))


def test_a_config_speaks_for_the_weights_beside_it(tmp_path: Path) -> None:
    """Components in folders of their own have configs of their own, or none."""
    tensors = checkpoints.random_tensors(a=(2,))
    for folder in (".", "unet", "vae", "deep/er"):
        checkpoints.save_shard(tmp_path / folder / "model.safetensors", tensors)
    for folder in (".", "unet", "deep", "scheduler"):
        checkpoints.write_json(tmp_path / folder / "config.json", {"model_type": folder})
    checkpoint = recast.inspect(tmp_path)
    types = {}
    for shard in checkpoint.shards:
        config = checkpoint.config_of(shard.name)
        types[shard.name] = None if config is None else config.model_type
    assert types == {
        "model.safetensors": ".",
        "unet/model.safetensors": "unet",
        "vae/model.safetensors": None,
        "deep/er/model.safetensors": None,
    }
    assert checkpoint.configs.keys() == {"config.json", "unet/config.json"}
    beside = [checkpoint.shards_of(config) for config in checkpoint.configs.values()]
    assert [[shard.name for shard in shards] for shards in beside] == [
        ["model.safetensors"],
        ["unet/model.safetensors"],
    ]


def test_a_bare_file_is_a_checkpoint(tmp_path: Path) -> None:
    """One weights file is one set of weights, with nothing around it, whatever lies beside it."""
    path = tmp_path / "model.safetensors"
    checkpoints.save_shard(path, checkpoints.random_tensors(a=(2, 3)))
    checkpoints.write_json(tmp_path / "config.json", {})
    checkpoint = recast.inspect(path)
    assert checkpoint.is_file
    assert (checkpoint.path, checkpoint.size) == (path, path.stat().st_size)
    assert [file.name for file in checkpoint.all_files] == ["model.safetensors"]
    assert not checkpoint.configs
    assert checkpoint.weights[0].index is None
