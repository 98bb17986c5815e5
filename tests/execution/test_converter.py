"""convert(): whole checkpoints, beside what torch, safetensors and json make of them."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from subprocess import run
from sys import executable
from tempfile import TemporaryDirectory
from threading import Lock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

import recast
from recast import (
    CheckpointError,
    Conversion,
    Dtype,
    DtypeError,
    LossError,
    RecastError,
    RefusedError,
    ShardError,
    StorageError,
    TargetError,
)
from tests.checkpoints import (
    TORCH_DTYPES,
    Tensors,
    bytes_of,
    cast_all,
    random_tensors,
    save_shard,
    save_sharded,
    state_dicts,
    two_shards,
    write_json,
    write_laid_out,
)

INDEX = "model.safetensors.index.json"
TARGETS = [Dtype.BF16, Dtype.F16, Dtype.F32]
Seen = dict[str, tuple[str, int, int]]


def seen(folder: Path) -> Seen:
    """Return all that lies in *folder*: for each file what it holds, its permissions and time."""
    return {
        path.relative_to(folder).as_posix(): (
            sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


def contents(folder: Path) -> dict[str, str]:
    """Return what the files in *folder* hold, whatever their times."""
    return {name: digest for name, (digest, _, _) in seen(folder).items() if digest}


# Checkpoints of many shapes, each made in a folder


def many_dtypes(folder: Path) -> Path:
    """Save shards of all kinds of tensors, the second of which is bf16 already."""
    generator = torch.Generator().manual_seed(1)
    shards = {
        "model-00001-of-00002.safetensors": {
            "a.single": torch.randn(7, 5, generator=generator),
            "b.double": torch.randn(11, generator=generator, dtype=torch.float64),
            "c.half": torch.randn(3, generator=generator).half(),
            "d.brain": torch.randn(3, generator=generator).bfloat16(),
            "e.scalar": torch.tensor(1 / 3),
            "f.nothing": torch.ones(0, 4),
            "g.ids": torch.arange(5),
            "h.mask": torch.tensor([True, False, True]),
            "i.complex": torch.randn(2, generator=generator, dtype=torch.complex64),
            "j.special": torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-40]),
        },
        "model-00002-of-00002.safetensors": {
            "k.brain": torch.randn(9, generator=generator).bfloat16(),
        },
    }
    config = {
        "architectures": ["AnyForCausalLM"],
        "dtype": "float32",
        "text_config": {"torch_dtype": "float64", "hidden_size": 7},
        "vocab": {"dtype": 7},
        "rope_theta": 1e6,
    }
    return save_sharded(folder, shards, config)


def one_file(folder: Path) -> Path:
    """Save a checkpoint of one file, whose config has no dtype."""
    save_shard(folder / "model.safetensors", random_tensors(a=(9, 2), b=(3,)))
    write_json(folder / "config.json", {"model_type": "any", "hidden_size": 2})
    return folder


def no_config(folder: Path) -> Path:
    """Save nothing but a weights file."""
    save_shard(folder / "adapter_model.safetensors", random_tensors(lora_A=(4, 2)))
    return folder


def no_header_metadata(folder: Path) -> Path:
    """Save a file that does not say which framework wrote it, laid out in an order of its own."""
    folder.mkdir()
    tensors = random_tensors(a=(5,), b=(3, 3), c=(1,))
    orders = {"header": ["c", "a", "b"], "data": ["b", "c", "a"]}
    write_laid_out(folder / "model.safetensors", tensors, **orders)
    return folder


def two_sets(folder: Path) -> Path:
    """Save the same weights twice, under an index and in one file, as Mistral does."""
    two_shards(folder)
    save_shard(folder / "consolidated.safetensors", random_tensors(tok_embeddings=(6, 6)))
    return folder


def components(folder: Path) -> Path:
    """Save a pipeline: weights with their configs in folders."""
    two_shards(folder / "text_encoder")
    save_shard(folder / "vae/diffusion_pytorch_model.safetensors", random_tensors(conv=(2, 3)))
    write_json(folder / "vae/config.json", {"_class_name": "AutoencoderKL"})
    write_json(folder / "model_index.json", {"_class_name": "AnyPipeline"})
    return folder


def with_leftovers(folder: Path) -> Path:
    """Save a checkpoint of a run: with files that are copied, and others that are left out."""
    two_shards(folder)
    for name, mode in {
        "merges.txt": 0o640,
        "train.sh": 0o755,
        "training_args.bin": 0o444,
        "1_Pooling/config.json": 0o644,
        "original/consolidated.safetensors": 0o644,
        "optimizer.pt": 0o644,
        "checkpoint-5/model.safetensors": 0o644,
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 9)
        path.chmod(mode)
        os.utime(path, ns=(1_000_000_007, 1_234_567_891_011_121_314))
    (folder / "vocab.json").symlink_to("tokenizer.json")
    return folder


def hub_snapshot(folder: Path) -> Path:
    """Save a checkpoint of links into blobs, as the Hub's cache holds it."""
    blobs = folder / "models--org--name/blobs"
    snapshot = folder / "models--org--name/snapshots/0123"
    snapshot.mkdir(parents=True)
    two_shards(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


SHAPES: list[Callable[[Path], Path]] = [
    *(two_shards, many_dtypes, one_file, no_config, no_header_metadata),
    *(two_sets, components, with_leftovers, hub_snapshot),
]
LEFT_OUT = {"optimizer.pt", "checkpoint-5/model.safetensors"}


def assert_converted(
    source: Path, out: Path, target: Dtype, kept: frozenset[str] = frozenset()
) -> None:
    """Fail unless *out* is what *source* becomes in *target*, by rules written down here anew."""
    names = {
        path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()
    } - LEFT_OUT
    assert {
        path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()
    } == names
    for name in names:
        old, new = source / name, out / name
        assert not new.is_symlink()
        assert new.stat().st_mode == old.stat().st_mode
        if name.endswith(".safetensors") and "original" not in name:
            assert_cast(old, new, target, kept)
        elif name.endswith(".index.json"):
            assert_index(old, new)
        elif new.read_bytes() == old.read_bytes():
            assert new.stat().st_mtime_ns == old.stat().st_mtime_ns
        else:
            assert Path(name).name == "config.json"
            before, after = (json.loads(each.read_text()) for each in (old, new))
            assert list(flattened(after).items()) == list(
                expected_config(flattened(before), main_dtype(new.parent, target)).items()
            )


def main_dtype(folder: Path, otherwise: Dtype) -> Dtype:
    """Return in which floating dtype most of what lies directly in *folder* is, counted by torch.

    Of equals the narrower one, and rather bf16 than fp16; *otherwise* if there is nothing floating.
    """
    counts: dict[torch.dtype, int] = {}
    for path in folder.glob("*.safetensors"):
        for tensor in load_file(path).values():
            if tensor.is_floating_point():
                counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    ranked = sorted(counts, key=lambda each: (-counts[each], each.itemsize, str(each)))
    by_torch = {torch_dtype: dtype for dtype, torch_dtype in TORCH_DTYPES.items()}
    return by_torch[ranked[0]] if ranked else otherwise


def assert_cast(old: Path, new: Path, target: Dtype, kept: frozenset[str]) -> None:
    """Fail unless one weights file holds what torch makes of the tensors of the other."""
    tensors, found = load_file(old), load_file(new)
    expected = cast_all(tensors, target) | {name: tensors[name] for name in kept & tensors.keys()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is tensor.dtype
        assert found[name].shape == tensor.shape
        if tensor.dtype is tensors[name].dtype or not tensor.isnan().any():
            assert bytes_of(found[name]) == bytes_of(tensor)
        else:
            assert torch.equal(found[name].isnan(), tensor.isnan())
            assert torch.equal(found[name].nan_to_num(0.5), tensor.nan_to_num(0.5))
    with safe_open(old, framework="pt") as before, safe_open(new, framework="pt") as after:
        assert after.metadata() == {"format": "pt"} | (before.metadata() or {})


def assert_index(old: Path, new: Path) -> None:
    """Fail unless an index says what it said, but for the bytes there are now."""
    before, after = (json.loads(path.read_text()) for path in (old, new))
    stored = {}
    for shard in set(after["weight_map"].values()):
        stored |= load_file(new.parent / shard)
    assert list(after["weight_map"].items()) == list(before["weight_map"].items())
    assert set(stored) == set(after["weight_map"])
    assert after["metadata"]["total_size"] == sum(each.nbytes for each in stored.values())
    before["metadata"]["total_size"] = after["metadata"]["total_size"]
    assert after == before
    assert list(after) == list(before)


def flattened(document: Mapping[str, object], path: str = "") -> dict[str, object]:
    """Return every value of a document, in order, by the keys that lead to it."""
    flat: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{path}{key}/")
        else:
            flat[path + key] = value
    return flat


def expected_config(before: dict[str, object], target: Dtype) -> dict[str, object]:
    """Return what a config of these tests should say."""
    claims = {"dtype", "torch_dtype", "text_config/torch_dtype"}
    after = {key: target.torch_name if key in claims else value for key, value in before.items()}
    if "model_type" in after and not claims & after.keys():
        after["torch_dtype"] = target.torch_name
    return after


# What is written


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", SHAPES)
def test_checkpoints_of_many_shapes(
    tmp_path: Path, make: Callable[[Path], Path], target: Dtype
) -> None:
    """Every tensor is cast, everything else stays, the sizes are those of the plan.

    The source is as it was; nothing lies beside the result; and converting the result has
    nothing to do.
    """
    (tmp_path / "work").mkdir()
    source = make(tmp_path / "source")
    out = tmp_path / "work/out"
    before = seen(tmp_path / "source")
    plan = recast.plan(source, target)
    done = recast.convert(source, target, out=out)
    assert seen(tmp_path / "source") == before
    if not plan.changes:
        assert done.target is None
        assert list((tmp_path / "work").iterdir()) == []
        return
    assert done.target == out
    assert_converted(source, out, target)
    assert {file.name: file.size for file in plan.files} == {
        name: (out / name).stat().st_size for name in contents(out)
    }
    assert plan.size == sum((out / name).stat().st_size for name in contents(out))
    assert plan.size_before == sum((source / name).stat().st_size for name in contents(out))
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["out"]
    after = seen(tmp_path)
    assert not recast.plan(out, target).changes
    assert recast.convert(out, target).target is None
    assert recast.convert(out, target, out=tmp_path / "again").target is None
    assert seen(tmp_path) == after


@settings(max_examples=60)
@given(
    tensors=state_dicts(), target=st.sampled_from(TARGETS), shards=st.integers(1, 3), data=st.data()
)
def test_any_tensors_in_any_shards(
    tensors: Tensors, target: Dtype, shards: int, data: st.DataObject
) -> None:
    """Whatever lies in however many shards, and whatever is kept of it, comes out as it should."""
    names = list(tensors)
    kept = data.draw(st.sets(st.sampled_from(names))) if names else set()
    parts = {
        f"model-{number:05}-of-00003.safetensors": {name: tensors[name] for name in part}
        for number in range(shards)
        if (part := names[number::shards])
    }
    with TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        if parts:
            save_sharded(source, parts)
        else:
            save_shard(source / "model.safetensors", {}, {})
        # A name is a pattern of itself, once its wildcards are bracketed.
        keep = ["".join(f"[{each}]" if each in "*?[" else each for each in name) for name in kept]
        before = seen(source)
        done = recast.convert(source, target, out=out, keep=keep, allow=["overflow"], workers=2)
        assert seen(source) == before
        if done.target is None:
            assert all(
                name in kept or not each.is_floating_point() or each.dtype is TORCH_DTYPES[target]
                for name, each in tensors.items()
            )
            return
        assert_converted(source, out, target, frozenset(kept))
        assert {file.name: file.size for file in done.plan.files} == {
            name: (out / name).stat().st_size for name in contents(out)
        }


def test_keep(ckpt: Path, tmp_path: Path) -> None:
    """A tensor that a pattern names keeps its dtype and its bits, and is said to be kept."""
    done = recast.convert(ckpt, "bf16", out=tmp_path / "out", keep=["*.norm.*", "lm_head.scale"])
    kept = {"model.norm.weight", "lm_head.scale"}
    assert {tensor.name for _, tensor in done.plan.kept} == kept
    assert {each.name for each in done.evidence} == {"model.embed_tokens.weight", "lm_head.weight"}
    assert_converted(ckpt, tmp_path / "out", Dtype.BF16, frozenset(kept))


def test_dtypes_by_any_name(ckpt: Path, tmp_path: Path) -> None:
    """A target may be said in the words of torch, numpy or the command line."""
    for number, name in enumerate(["bf16", "BFloat16", "torch.bfloat16", torch.bfloat16]):
        recast.convert(ckpt, name, out=tmp_path / str(number))
    assert len({json.dumps(contents(tmp_path / str(number))) for number in range(4)}) == 1


@pytest.mark.parametrize(
    ("target", "name"), [("bf16", "ckpt-bf16"), ("fp16", "ckpt-fp16"), ("fp32", "ckpt-fp32")]
)
def test_beside_the_source(ckpt: Path, target: str, name: str) -> None:
    """Unless told otherwise, the result lies beside the source, with the dtype in its name."""
    if target == "fp32":  # there is something to do only if something is narrower
        recast.convert(ckpt, "bf16", out=ckpt.parent / "narrow")
        shutil.rmtree(ckpt)
        (ckpt.parent / "narrow").rename(ckpt)
    done = recast.convert(str(ckpt), target)
    assert done.target == ckpt.with_name(name)
    assert sorted(path.name for path in ckpt.parent.iterdir()) == ["ckpt", name]
    assert_converted(ckpt, ckpt.with_name(name), done.plan.policy.target)


def test_one_bare_file(ckpt: Path, tmp_path: Path) -> None:
    """One file becomes one file, beside it or under the name given, and nothing else."""
    source = tmp_path / "lora.safetensors"
    tensors = random_tensors(a=(4, 4), b=())
    save_shard(source, tensors)
    source.chmod(0o640)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = recast.convert(source, "bf16")
    assert done.target == tmp_path / "lora-bf16.safetensors"
    named = recast.convert(source, "bf16", out=tmp_path / "new/any name.safetensors")
    assert named.target == tmp_path / "new/any name.safetensors"
    for path in (done.target, named.target):
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.stat().st_size == done.plan.size
        assert_cast(source, path, Dtype.BF16, frozenset())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["any name.safetensors"]
    after = sorted(path.name for path in tmp_path.iterdir())
    assert after == sorted([*before, "lora-bf16.safetensors", "new"])
    assert recast.convert(done.target, "bf16").target is None
    with pytest.raises(TargetError, match="is no name for one weights file"):
        recast.convert(source, "bf16", out=tmp_path / "folder")
    assert ckpt.is_dir()


def test_checkpoints_and_plans_may_be_given(ckpt: Path, tmp_path: Path) -> None:
    """What inspect() and plan() returned leads to the same as the path does."""
    checkpoint = recast.inspect(ckpt)
    plan = recast.plan(checkpoint, "bf16", keep=["*.norm.*"])
    sources = {
        "path": recast.convert(ckpt, "bf16", out=tmp_path / "path", keep=["*.norm.*"]),
        "checkpoint": recast.convert(
            checkpoint, "bf16", out=tmp_path / "checkpoint", keep=["*.norm.*"]
        ),
        "plan": recast.convert(plan, out=tmp_path / "plan"),
    }
    assert sources["plan"].plan is plan
    assert len({json.dumps(contents(tmp_path / name)) for name in sources}) == 1
    with pytest.raises(DtypeError, match=r"^bf16: is given beside a plan; "):
        recast.convert(plan, "bf16")


def test_nothing_to_do(ckpt: Path, tmp_path: Path) -> None:
    """What is fp32 already is not written again as fp32."""
    before = seen(tmp_path)
    done = recast.convert(ckpt, "fp32")
    assert (done.target, done.shards, done.total.tensors) == (None, (), 0)
    assert seen(tmp_path) == before


def test_an_empty_folder_is_filled(ckpt: Path, tmp_path: Path) -> None:
    """An empty folder may be the target, and a link to one: then that folder is filled."""
    for name in ("empty", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("linked")
    for name in ("empty", "link"):
        assert recast.convert(ckpt, "bf16", out=tmp_path / name).target == tmp_path / name
        assert_converted(ckpt, tmp_path / name, Dtype.BF16)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "empty", "link", "linked"]


def test_a_folder_named_like_a_file(tmp_path: Path) -> None:
    """A folder becomes a folder, even under the name of the only file in it."""
    source, out = no_config(tmp_path / "source"), tmp_path / "adapter_model.safetensors"
    recast.convert(source, "bf16", out=out)
    assert_converted(source, out, Dtype.BF16)


def test_any_number_of_threads(tmp_path: Path) -> None:
    """The number of threads, and whether the values are looked at, change no byte."""
    source = many_dtypes(tmp_path / "source")
    save_shard(source / "large.safetensors", {"x": torch.randn(1500, 1500)})
    expected = None
    for number, (workers, evidence) in enumerate([(1, True), (2, True), (5, True), (3, False)]):
        out = tmp_path / str(number)
        done = recast.convert(source, "bf16", out=out, workers=workers, evidence=evidence)
        assert expected in (None, contents(out))
        expected = contents(out)
        assert done.plan.changes
    assert_converted(source, out, Dtype.BF16)


@pytest.mark.parametrize("make", SHAPES)
def test_progress_adds_up(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """What progress is told of adds up to the bytes of all files that are read."""
    source = make(tmp_path / "source")
    calls = []
    lock = Lock()

    def progress(done: int) -> None:
        with lock:
            calls.append(done)

    done = recast.convert(source, "bf16", out=tmp_path / "out", workers=3, progress=progress)
    read = sum((source / name).stat().st_size for name in contents(tmp_path / "out"))
    assert sum(calls) == done.plan.size_before == read
    assert min(calls) >= 0


# What is not


def bad_dtype(_: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Ask for a dtype that is none."""
    return DtypeError, {"dtype": "int8"}


def quantized(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Quantize the source."""
    write_json(source / "config.json", {"quantization_config": {"quant_method": "gptq"}})
    return RefusedError, {}


def missing_shard(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Lose a shard."""
    (source / "model-00001-of-00002.safetensors").unlink()
    return CheckpointError, {}


def truncated_shard(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Cut a shard off."""
    os.truncate(source / "model-00002-of-00002.safetensors", 500)
    return ShardError, {}


def overflowing(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Store a value in the second shard that fp16 has not."""
    path = source / "model-00002-of-00002.safetensors"
    save_shard(path, load_file(path) | {"lm_head.scale": torch.tensor(1e5)})
    return LossError, {"dtype": "fp16"}


def lossy(_: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Allow no value to change."""
    return LossError, {"lossless": True}


def taken_file(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Have a file in the way."""
    (source.parent / "out").write_text("mine")
    return TargetError, {}


def taken_folder(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Have a folder in the way that is not empty."""
    (source.parent / "out/mine").mkdir(parents=True)
    return TargetError, {}


def taken_link(source: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Have a link to nothing in the way."""
    (source.parent / "out").symlink_to("nothing")
    return TargetError, {}


def two_places(_: Path) -> tuple[type[RecastError], dict[str, object]]:
    """Ask for two places at once."""
    return TargetError, {"in_place": True}


REFUSALS = [
    *(bad_dtype, quantized, missing_shard, truncated_shard, overflowing, lossy),
    *(taken_file, taken_folder, taken_link, two_places),
]


@pytest.mark.parametrize("spoil", REFUSALS)
def test_nothing_is_left_of_what_is_refused(
    ckpt: Path, tmp_path: Path, spoil: Callable[[Path], tuple[type[RecastError], dict[str, object]]]
) -> None:
    """A conversion that cannot be done is an error with a way out, and writes nothing anywhere."""
    kind, options = spoil(ckpt)
    before = seen(tmp_path)
    with pytest.raises(kind) as caught:
        recast.convert(ckpt, **({"dtype": "bf16", "out": tmp_path / "out"} | options))
    assert type(caught.value) is kind
    assert caught.value.subject
    assert caught.value.remedy
    assert seen(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_in_place_the_owner_stays(ckpt: Path) -> None:
    """What root repairs for its users stays theirs: every file keeps its owner and its group."""
    for path in ckpt.iterdir():
        os.chown(path, 1234, 2345)
    recast.convert(ckpt, "bf16", in_place=True)
    assert {(each.stat().st_uid, each.stat().st_gid) for each in ckpt.iterdir()} == {(1234, 2345)}


def test_nothing_is_left_in_new_folders_either(ckpt: Path, tmp_path: Path) -> None:
    """Folders that were made on the way to the target go away with it."""
    overflowing(ckpt)
    before = seen(tmp_path)
    with pytest.raises(RefusedError, match=r"'lm_head\.scale': 1 finite value"):
        recast.convert(ckpt, "fp16", out=tmp_path / "new/and/deep/out")
    assert seen(tmp_path) == before


def test_what_is_allowed(ckpt: Path, tmp_path: Path) -> None:
    """Overflow that is allowed happens as in torch, and is counted."""
    overflowing(ckpt)
    done = recast.convert(ckpt, "fp16", out=tmp_path / "out", allow=["overflow"])
    assert done.total.overflowed == 1
    assert_converted(ckpt, tmp_path / "out", Dtype.F16)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "tokenizer.json", INDEX])
def test_a_source_that_disappears(ckpt: Path, tmp_path: Path, name: str) -> None:
    """A file that is gone before it was read is an error that names it, and leaves nothing."""
    plan = recast.plan(ckpt, "bf16")
    (ckpt / name).unlink()
    with pytest.raises(StorageError) as caught:
        recast.convert(plan, out=tmp_path / "out")
    assert caught.value.subject == str(ckpt / name)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


@pytest.mark.parametrize("name", ["write", "pwrite", "fsync"])
def test_a_disk_that_is_full(
    ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """When the kernel says that the disk is full, all that was written is removed again."""
    if name == "write":  # the copies
        monkeypatch.setattr(shutil, "copy2", full)
    else:
        monkeypatch.setattr(os, name, full)
    before = seen(tmp_path)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        recast.convert(ckpt, "bf16", out=tmp_path / "out")
    assert seen(tmp_path) == before


def full(*_: object) -> None:
    """Fail as the kernel does when there is no space."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_done_twice(ckpt: Path, tmp_path: Path) -> None:
    """The second time, the result is found to be there, and no byte of it is touched."""
    first = recast.convert(ckpt, "bf16", out=tmp_path / "out")
    before = seen(tmp_path)
    second = recast.convert(ckpt, "bf16", out=tmp_path / "out")
    assert (first.found, second.found) == (False, True)
    assert second.target == tmp_path / "out"
    assert seen(tmp_path) == before


def test_settings_of_the_process(ckpt: Path, tmp_path: Path) -> None:
    """A conversion leaves the settings of the process that asks for it alone."""
    before = (torch.get_num_threads(), torch.get_default_dtype(), Path.cwd(), os.umask(0o022))
    try:
        for target in ("fp16", "bf16"):
            recast.convert(ckpt, target, out=tmp_path / target)
        umask = os.umask(0o022)
        assert (torch.get_num_threads(), torch.get_default_dtype(), Path.cwd()) == before[:3]
        assert umask == 0o022
    finally:
        os.umask(before[3])


def test_evidence_is_of_every_tensor(ckpt: Path, tmp_path: Path) -> None:
    """The conversion says of every tensor what torch finds, and sums it up."""
    done: Conversion = recast.convert(ckpt, "bf16", out=tmp_path / "out")
    tensors = {
        name: tensor
        for path in ckpt.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    errors = {
        name: (tensor.double() - tensor.bfloat16().double()).abs().max().item()
        for name, tensor in tensors.items()
    }
    assert {each.name: each.largest_error for each in done.evidence} == errors
    assert (done.total.tensors, done.total.lossless) == (4, 0)
    assert done.total.worst.name == max(errors, key=errors.__getitem__)


# Memory

PEAK = r"""
import re, sys
from pathlib import Path
import recast

def peak():
    print(int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]))

call, source, out = sys.argv[1:]
if call == "convert":
    assert recast.convert(source, "bf16", out=out).total.lossless == 0
else:
    assert recast.verify(out, against=source).holds
peak()
"""


def sparse_file(path: Path, size: int) -> None:
    """Save one fp32 tensor of *size* bytes: zeros, and in each megabyte a third."""
    header = {"weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        begin = file.tell()
        file.truncate(begin + size)
        for position in range(0, size, 1 << 20):
            os.pwrite(file.fileno(), bytes_of(torch.tensor(1 / 3)), begin + position)


def peak_of(call: str, source: Path, out: Path) -> int:
    """Return the most memory, in bytes, that a process of its own held to do one call."""
    command = [executable, "-c", PEAK, call, str(source), str(out)]
    return 1024 * int(run(command, capture_output=True, check=True, text=True).stdout)


def test_memory_does_not_grow_with_a_tensor(tmp_path: Path) -> None:
    """To convert 2 GB takes no more memory than 64 MB do, under 200 MB; nor does to verify."""
    memory = Path("/dev/shm")  # noqa: S108 - files there are made by tempfile
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    converting, verifying = [], []
    with TemporaryDirectory(dir=memory if roomy else tmp_path) as folder:
        source, out = Path(folder, "source.safetensors"), Path(folder, "out.safetensors")
        for size in (64 << 20, 256 << 20, 2 << 30):
            sparse_file(source, size)
            converting.append(peak_of("convert", source, out))
            assert out.stat().st_size < size * 0.51
            if size < 1 << 30:
                verifying.append(peak_of("verify", source, out))
            out.unlink()
    for peaks in (converting, verifying):
        assert max(peaks) < 200 << 20
        assert max(peaks) - min(peaks) < 20 << 20


def test_options_of_the_plan_come_too_late(ckpt: Path) -> None:
    """A plan that is made already does not take options that it would have to heed."""
    plan = recast.plan(ckpt, "bf16")
    for options in ({"lossless": True}, {"keep": ["*norm*"]}, {"allow": ["overflow"]}):
        with pytest.raises(RefusedError, match="is planned already"):
            recast.convert(plan, **options)
    assert sorted(path.name for path in ckpt.parent.iterdir()) == ["ckpt"]


def test_a_pattern_that_keeps_nothing(ckpt: Path) -> None:
    """A misspelt --keep is refused rather than rounding what it was meant for."""
    with pytest.raises(RefusedError, match=r"no tensor matches --keep \*nrom\*; mend"):
        recast.convert(ckpt, "bf16", keep=["*norm*", "*nrom*"])
    assert sorted(path.name for path in ckpt.parent.iterdir()) == ["ckpt"]
