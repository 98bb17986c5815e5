"""What inspect() makes of folders and files, sound ones and others."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

import recast
from recast import CheckpointError, Dtype, RecastError, RefusedError, ShardError, StorageError
from recast.execution.reader import read_header
from tests.checkpoints import (
    TORCH_DTYPES,
    Tensors,
    bytes_of,
    random_tensors,
    save_shard,
    save_sharded,
    state_dicts,
    write_json,
    write_laid_out,
)

INDEX = "model.safetensors.index.json"


def shard_bytes(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    """Return a weights file whose header is *header*, and says it is of *size* bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def tensor(**changes: object) -> dict[str, object]:
    """Return the description of a sound tensor of eight bytes, but for *changes*."""
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def refused(path: Path, kind: type[RecastError]) -> RecastError:
    """Return the error that inspecting *path* ends with: of exactly this class, with a way out."""
    with pytest.raises(kind) as caught:
        recast.inspect(path)
    assert type(caught.value) is kind
    assert caught.value.subject
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


# Sound files


@settings(max_examples=80)
@given(tensors=state_dicts(), data=st.data())
def test_header_is_what_safetensors_reads(tensors: Tensors, data: st.DataObject) -> None:
    """Names, dtypes, shapes and the place of every byte are those that safetensors finds."""
    own_layout = data.draw(st.booleans())
    metadata = data.draw(
        st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1)
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        if own_layout:
            save_shard(path, tensors, metadata or {})
        else:
            orders = [data.draw(st.permutations(sorted(tensors))) for _ in range(2)]
            write_laid_out(path, tensors, header=orders[0], data=orders[1], metadata=metadata)
        header = read_header(path, "model.safetensors")
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
    assert header.tensors.keys() == stored.keys()
    for name, info in header.tensors.items():
        begin, end = (header.size + offset for offset in info.data_offsets)
        assert TORCH_DTYPES[info.dtype] is stored[name].dtype
        assert info.shape == tuple(stored[name].shape)
        assert info.parameters == stored[name].numel()
        assert content[begin:end] == bytes_of(stored[name])
    assert header.metadata == metadata
    assert header.file_size == len(content)


def test_every_dtype_that_safetensors_knows(tmp_path: Path) -> None:
    """Each tag that the library lists as known is read as a dtype of as many bits."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard_bytes({"a": tensor(dtype="?")}, bytes(8)))
    _, _, known = str(refused(path, ShardError)).partition("expected one of ")
    tags = known.partition(" at line")[0].replace("`", "").split(", ")
    assert len(tags) >= 22
    for tag in tags:
        bits = Dtype.of_tag(tag).bits
        path.write_bytes(
            shard_bytes({"a": tensor(dtype=tag, shape=[8], data_offsets=[0, bits])}, bytes(bits))
        )
        assert read_header(path, "").tensors["a"].dtype == tag


def test_folder_with_an_index(ckpt: Path) -> None:
    """An index with its shards is one set of weights; config and tokenizer lie beside it."""
    found = recast.inspect(ckpt)
    (weights,) = found.weights
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert found.path == ckpt
    assert weights.name == INDEX
    assert [shard.name for shard in weights.shards] == shards
    assert [shard.size for shard in weights.shards] == [
        (ckpt / name).stat().st_size for name in shards
    ]
    assert not weights.missing_shards
    assert list(found.configs) == ["config.json"]
    assert [(file.name, file.size) for file in found.files] == [("tokenizer.json", 2)]
    assert not found.left_out
    assert not found.is_file


def test_folder_with_one_file(tmp_path: Path) -> None:
    """A file without an index is a set of weights of its own; no config is none."""
    save_shard(tmp_path / "model.safetensors", {"a": torch.ones(3)})
    found = recast.inspect(tmp_path)
    assert [(each.name, each.index) for each in found.weights] == [("model.safetensors", None)]
    assert found.configs == {}
    assert found.dtypes[0].dtype is Dtype.F32


def test_several_sets_of_weights(ckpt: Path) -> None:
    """One file beside an index that does not name it is a second set of weights."""
    save_shard(ckpt / "consolidated.safetensors", {"tok_embeddings.weight": torch.ones(3)})
    found = recast.inspect(ckpt)
    assert [each.name for each in found.weights] == [INDEX, "consolidated.safetensors"]


def test_one_file_alone(ckpt: Path) -> None:
    """A bare file is a checkpoint, whatever lies beside it."""
    path = ckpt / "model-00002-of-00002.safetensors"
    found = recast.inspect(path)
    assert found.is_file
    assert found.path == path
    assert [shard.name for shard in found.shards] == [path.name]
    assert found.size == path.stat().st_size
    assert found.configs == {}
    assert found.files == ()


def test_weights_in_subfolders(tmp_path: Path) -> None:
    """Modules of sentence-transformers and components of diffusers are weights with a config."""
    save_shard(tmp_path / "model.safetensors", {"a": torch.ones(3)})
    save_shard(tmp_path / "2_Dense/model.safetensors", {"linear.weight": torch.ones(3)})
    write_json(tmp_path / "2_Dense/config.json", {"in_features": 3})
    write_json(tmp_path / "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    part = tmp_path / "text_encoder"
    save_sharded(part, {"model-00001-of-00001.safetensors": {"b": torch.ones(3)}})
    found = recast.inspect(tmp_path)
    assert {each.name for each in found.weights} == {
        "model.safetensors",
        "2_Dense/model.safetensors",
        f"text_encoder/{INDEX}",
    }
    # A config.json without weights beside it says nothing about a dtype.
    assert set(found.configs) == {"2_Dense/config.json", "text_encoder/config.json"}
    assert [file.name for file in found.files] == ["1_Pooling/config.json"]
    assert found.config_of("2_Dense/model.safetensors") is found.configs["2_Dense/config.json"]
    assert found.config_of("model.safetensors") is None


def test_what_is_no_part_of_the_model(ckpt: Path) -> None:
    """Trainer state, checkpoints of their own and caches are named and left out, unread."""
    left_out = {
        "optimizer.pt": "trainer state",
        "rng_state_0.pth": "trainer state",
        "global_step500/mp_rank_00_model_states.pt": "trainer state",
        "checkpoint-500/model.safetensors": "a checkpoint of its own",
        "checkpoint-500/config.json": "a checkpoint of its own",
        ".cache/huggingface/download/model.safetensors": "download cache",
        ".git/HEAD": "download cache",
    }
    for name in left_out:
        (ckpt / name).parent.mkdir(parents=True, exist_ok=True)
        (ckpt / name).write_bytes(b"not to be read")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(ckpt)  # the name of a socket must be short
        listener.bind("socket")
        os.chdir(here)
        os.mkfifo(ckpt / "pipe")
        found = recast.inspect(ckpt)
    left_out |= {"socket": "no regular file", "pipe": "no regular file"}
    assert {file.name: file.role for file in found.left_out} == left_out
    assert {file.size for file in found.left_out} == {14, 0}
    assert [file.name for file in found.files] == ["tokenizer.json"]


def test_original_files_are_files(ckpt: Path) -> None:
    """What a publisher keeps under original/ is copied as it is, even if it looks like weights."""
    (ckpt / "original").mkdir()
    for name in ("consolidated.safetensors", "params.json", "config.json", INDEX):
        (ckpt / "original" / name).write_text("whatever it is")
    found = recast.inspect(ckpt)
    assert [each.name for each in found.weights] == [INDEX]
    assert {file.name for file in found.files} == {
        "tokenizer.json",
        "original/config.json",
        "original/consolidated.safetensors",
        f"original/{INDEX}",
        "original/params.json",
    }


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("below", ["", "sub/"])
def test_hub_cache(ckpt: Path, tmp_path: Path, hops: int, below: str) -> None:
    """A snapshot of links into blobs is a checkpoint; blobs may be links into a store of xet's."""
    snapshot = tmp_path / "hub/models--org--name/snapshots/0123abcd"
    blobs = snapshot.parent.parent / "blobs"
    store = tmp_path / "store"
    for folder in (snapshot / below, blobs, store):
        folder.mkdir(parents=True)
    expected = recast.inspect(ckpt)
    for number, path in enumerate(sorted(ckpt.iterdir())):
        blob = blobs / f"{number:064x}"
        if hops == 2:
            path.rename(store / blob.name)
            blob.symlink_to(store / blob.name)
        else:
            path.rename(blob)
        link = snapshot / below / path.name
        link.symlink_to(os.path.relpath(blob, link.parent))
    found = recast.inspect(snapshot)
    assert {shard.name: shard.header for shard in found.shards} == {
        f"{below}{shard.name}": shard.header for shard in expected.shards
    }
    assert [(file.name, file.size) for file in found.files] == [(f"{below}tokenizer.json", 2)]
    (tmp_path / "link").symlink_to(snapshot)
    assert recast.inspect(tmp_path / "link").shards == found.shards


def test_links_inside_the_folder(ckpt: Path) -> None:
    """A link to another file of the same folder is that file once more."""
    (ckpt / "vocab.json").symlink_to("tokenizer.json")
    found = recast.inspect(ckpt)
    assert [(file.name, file.size) for file in found.files] == [
        ("tokenizer.json", 2),
        ("vocab.json", 2),
    ]


def test_nothing_is_changed(ckpt: Path) -> None:
    """Inspecting leaves the folder, its files and their times as they were."""

    def seen() -> list[tuple[str, bytes, int]]:
        return [
            (str(path), path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(ckpt.rglob("*"))
        ]

    before, folder_before = seen(), ckpt.stat().st_mtime_ns
    recast.inspect(ckpt)
    assert (seen(), ckpt.stat().st_mtime_ns) == (before, folder_before)


# No checkpoint


def test_no_such_path(tmp_path: Path) -> None:
    """A path that does not exist, and one below a file, say so, whole."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "ckpt", tmp_path / "model.safetensors", tmp_path / "file/ckpt"):
        assert str(refused(path, CheckpointError)).startswith(f"{path}: does not exist")


def test_other_file(tmp_path: Path) -> None:
    """A file that is no weights file says what to name instead."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"pickle")
    error = refused(path, CheckpointError)
    assert error.subject == str(path)
    assert ".safetensors" in error.problem


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ([], "model.safetensors"),
        (["config.json"], "model.safetensors"),
        (["config.json", "pytorch_model.bin"], "(pytorch_model.bin): load them and save"),
        (["epoch=3.ckpt"], "(epoch=3.ckpt): load them and save"),
        (["checkpoint-500/model.safetensors", "optimizer.pt"], "checkpoint-500"),
        (["original/consolidated.safetensors"], "model.safetensors"),
    ],
)
def test_folder_without_weights(tmp_path: Path, names: list[str], hint: str) -> None:
    """A folder without weights says so, with a hint that fits what does lie in it."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    error = refused(tmp_path, CheckpointError)
    assert error.subject == str(tmp_path)
    assert error.problem == "holds no safetensors weights"
    assert hint in error.remedy


def test_folder_named_like_a_weights_file(tmp_path: Path) -> None:
    """A folder with the name of a weights file holds weights, or does not, like any other."""
    (tmp_path / "model.safetensors").mkdir()
    assert refused(tmp_path, CheckpointError).subject == str(tmp_path)
    refused(tmp_path / "model.safetensors", CheckpointError)
    save_shard(tmp_path / "model.safetensors/model.safetensors", {"a": torch.ones(1)})
    assert recast.inspect(tmp_path / "model.safetensors").shards[0].name == "model.safetensors"


# Broken weights files

SOUND = shard_bytes({"a": tensor()}, bytes(8))
BROKEN = {
    "empty": b"",
    "shorter than its own length": b"\x10\x00\x00",
    "header longer than the file": shard_bytes(b"{}", size=1000),
    "header longer than any file": shard_bytes(b"{}", size=(1 << 64) - 1),
    "pickle": b"\x80\x02}q\x00." + bytes(100),
    "no data": SOUND[:-8],
    "truncated data": SOUND[:-1],
    "trailing bytes": SOUND + b"\0",
    "header not JSON": shard_bytes(b"{hello}"),
    "header not UTF-8": shard_bytes(b'{"\xff": 1}'),
    "header not an object": shard_bytes([1, 2]),
    "header nested too deep": shard_bytes(b'{"a":' + b"[" * 9999),
    "tensor not an object": shard_bytes({"a": 1}),
    "unknown dtype": shard_bytes({"a": tensor(dtype="Q7")}, bytes(8)),
    "negative shape": shard_bytes({"a": tensor(shape=[-2])}, bytes(8)),
    "shape too large": shard_bytes({"a": tensor(shape=[1 << 62, 1 << 62])}, bytes(8)),
    "shape not of the data": shard_bytes({"a": tensor(shape=[3])}, bytes(8)),
    "end before begin": shard_bytes({"a": tensor(data_offsets=[8, 0])}, bytes(8)),
    "overlap": shard_bytes({"a": tensor(), "b": tensor(data_offsets=[4, 12])}, bytes(12)),
    "same bytes twice": shard_bytes({"a": tensor(), "b": tensor()}, bytes(8)),
    "gap": shard_bytes({"a": tensor(), "b": tensor(data_offsets=[9, 17])}, bytes(17)),
    "does not begin at 0": shard_bytes({"a": tensor(data_offsets=[1, 9])}, bytes(9)),
    "header metadata not strings": shard_bytes({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_weights_file(tmp_path: Path, content: bytes) -> None:
    """A file that safetensors rejects is an error that names it, alone or in a folder."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafetensorError), safe_open(path, framework="np"):
        pass  # the library thinks so, too
    for given_path, subject in ((path, str(path)), (tmp_path, path.name)):
        error = refused(given_path, ShardError)
        assert error.subject == subject
        assert error.problem.startswith("is not a valid safetensors file (")
        assert error.remedy == "download or copy it again"


@settings(max_examples=150)
@given(data=st.data())
def test_no_content_ends_in_anything_else(data: st.DataObject) -> None:
    """Whatever the bytes, they are a header that safetensors accepts, or a ShardError."""
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=9))
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        try:
            header = recast.inspect(path).shards[0].header
        except ShardError:
            return
        with safe_open(path, framework="pt") as file:
            assert sorted(file.keys()) == sorted(header.tensors)
        assert header.file_size == len(content)


def test_broken_shard_of_an_index(ckpt: Path) -> None:
    """The error about one shard of several names that one."""
    os.truncate(ckpt / "model-00002-of-00002.safetensors", 300)
    assert refused(ckpt, ShardError).subject == "model-00002-of-00002.safetensors"


def test_pipe_named_like_weights(tmp_path: Path) -> None:
    """A pipe is refused at once; nobody waits for something to come out of it."""
    path = tmp_path / "model.safetensors"
    os.mkfifo(path)
    for given_path, subject in ((path, str(path)), (tmp_path, path.name)):
        error = refused(given_path, ShardError)
        assert (error.subject, error.problem) == (subject, "is not a regular file")


def test_missing_shard(ckpt: Path) -> None:
    """A shard that only the index knows is not an error yet: what is there can be inspected."""
    (ckpt / "model-00001-of-00002.safetensors").unlink()
    (weights,) = recast.inspect(ckpt).weights
    assert weights.missing_shards == ("model-00001-of-00002.safetensors",)
    assert [shard.name for shard in weights.shards] == ["model-00002-of-00002.safetensors"]


# Links


def test_broken_link(ckpt: Path) -> None:
    """A link to nothing in a folder names itself, be it a shard or any other file."""
    for name in ("special_tokens_map.json", "model-00001-of-00002.safetensors"):
        (ckpt / name).unlink(missing_ok=True)
        (ckpt / name).symlink_to("blobs/gone")
        error = refused(ckpt, CheckpointError)
        assert (error.subject, error.problem) == (name, "is a link to nothing")
        (ckpt / name).unlink()


@pytest.mark.parametrize("name", ["ckpt", "model.safetensors"])
def test_path_that_is_a_broken_link(tmp_path: Path, name: str) -> None:
    """A path that links to nothing says so."""
    path = tmp_path / name
    path.symlink_to("gone")
    error = refused(path, CheckpointError)
    assert (error.subject, error.problem) == (str(path), "is a link to nothing")


def test_links_in_a_circle(ckpt: Path) -> None:
    """A link to itself is an error, as a path and in a folder, and no endless search."""
    loop = ckpt / "loop"
    loop.symlink_to("loop")
    assert refused(loop, StorageError).subject == str(loop)
    assert refused(ckpt, CheckpointError).subject == "loop"
    loop.unlink()
    (ckpt / "above").symlink_to(ckpt)  # a folder in itself: links to folders are not followed
    found = recast.inspect(ckpt)
    assert len(found.shards) == 2
    assert [file.name for file in found.left_out] == ["above"]


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "config.json", INDEX, "model-00001-of-00002.safetensors", "folder"]
)
@pytest.mark.parametrize("absolute", [True, False])
def test_link_out_of_the_folder(ckpt: Path, name: str, *, absolute: bool) -> None:
    """A link that leads out of a folder is refused, whatever it is, with its destination."""
    outside = ckpt.parent / "outside"
    if (ckpt / name).exists():
        (ckpt / name).rename(outside)
    else:
        outside.mkdir()
    (ckpt / name).symlink_to(outside if absolute else "../outside")
    error = refused(ckpt, RefusedError)
    assert error.subject == name
    assert "outside" in error.problem


def test_link_into_the_blobs_of_another(ckpt: Path, tmp_path: Path) -> None:
    """In a snapshot of the Hub's cache, too, a link to anywhere but its own blobs is refused."""
    snapshot = tmp_path / "models--org--name/snapshots/main"
    snapshot.parent.mkdir(parents=True)
    ckpt.rename(snapshot)
    for blobs in ("models--org--name/blobs", "models--org--other/blobs"):
        (tmp_path / blobs).mkdir(parents=True)
        (tmp_path / blobs / "00").write_text("{}")
    (snapshot / "vocab.json").symlink_to("../../blobs/00")
    assert len(recast.inspect(snapshot).files) == 2
    (snapshot / "merges.txt").symlink_to("../../../models--org--other/blobs/00")
    assert refused(snapshot, RefusedError).subject == "merges.txt"


# Indexes and configs

BROKEN_JSON = {
    "empty": b"",
    "not JSON": b"{'weight_map': {}}",
    "not UTF-8": b'{"weight_map": {"a": "\xff.safetensors"}}',
    "UTF-16": '{"weight_map": {}}'.encode("utf-16"),
    "nested too deep": b'{"weight_map":' + b"[" * 100_000,
    "list": b'[{"weight_map": {}}]',
    "string": b'"weight_map"',
    "cut off": b'{"weight_map": {"a": "model',
}


@pytest.mark.parametrize("name", [INDEX, "config.json"])
@pytest.mark.parametrize("content", BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_broken_json(ckpt: Path, name: str, content: bytes) -> None:
    """An index or config that is no JSON object is an error that names it."""
    (ckpt / name).write_bytes(content)
    assert refused(ckpt, CheckpointError).subject == name


@pytest.mark.parametrize("document", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_index_of_nothing(ckpt: Path, document: object) -> None:
    """An index must say where tensors lie."""
    write_json(ckpt / INDEX, document)
    error = refused(ckpt, CheckpointError)
    assert (error.subject, error.problem) == (INDEX, "has no weight_map")


@pytest.mark.parametrize(
    "shard",
    [
        *("../x.safetensors", "sub/../../x.safetensors", "/etc/passwd", "..", ".", ""),
        *("..\\x.safetensors", "C:\\x.safetensors", "C:x.safetensors", "\\x.safetensors"),
        *("\\\\server\\share\\x.safetensors", "x\0.safetensors", None, 7, ["x"], {}),
    ],
)
def test_index_that_leaves_its_folder(ckpt: Path, shard: object) -> None:
    """An index that places a tensor outside the folder, on any system, is refused unread."""
    save_shard(ckpt.parent / "x.safetensors", {"a": torch.ones(1)})
    write_json(ckpt / INDEX, {"weight_map": {"lm_head.weight": shard}})
    error = refused(ckpt, CheckpointError)
    assert error.subject == INDEX
    assert "'lm_head.weight'" in error.problem


def test_index_metadata_that_is_none(ckpt: Path) -> None:
    """Index metadata of another kind than an object is an error."""
    index = json.loads((ckpt / INDEX).read_text()) | {"metadata": [1]}
    write_json(ckpt / INDEX, index)
    assert refused(ckpt, CheckpointError).subject == INDEX


def test_index_in_a_subfolder(tmp_path: Path) -> None:
    """An index names shards beside itself, and may place them further down."""
    tensors = random_tensors(a=(3,), b=(3,))
    shards = {"one.safetensors": {"a": tensors["a"]}, "deep/two.safetensors": {"b": tensors["b"]}}
    save_sharded(tmp_path / "unet", shards)
    (weights,) = recast.inspect(tmp_path).weights
    stored = {shard.name: list(shard.header.tensors) for shard in weights.shards}
    assert stored == {"unet/one.safetensors": ["a"], "unet/deep/two.safetensors": ["b"]}
    assert weights.index.weight_map == {
        "a": "unet/one.safetensors",
        "b": "unet/deep/two.safetensors",
    }


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["config.json", INDEX])
def test_special_files_in_the_place_of_json(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    """A pipe or folder named like a config or an index is not read as one."""
    save_shard(tmp_path / "model.safetensors", {"a": torch.ones(1)})
    make(tmp_path / name)
    found = recast.inspect(tmp_path)
    assert found.configs == {}
    assert found.weights[0].index is None


def test_names_of_files(tmp_path: Path) -> None:
    """Names beyond ASCII, and even ones that are no text, are read, and told apart."""
    save_shard(tmp_path / "modèle.safetensors", {"a": torch.ones(1)})
    odd = os.fsdecode(b"\xff\xfe.txt")
    (tmp_path / odd).write_text("")
    found = recast.inspect(tmp_path)
    assert found.weights[0].name == "modèle.safetensors"
    assert [file.name for file in found.files] == [odd]


def test_a_pointer_of_git_lfs_is_told_from_a_broken_file(tmp_path: Path) -> None:
    """What a clone without LFS leaves is named as such, with the command that fetches the file."""
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in str(refused(path, ShardError))
