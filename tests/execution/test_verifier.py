"""verify(): silent on what is right, and loud on every fault that is planted."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, load_file

import recast
from recast import CheckpointError, RecastError, Verification
from tests.checkpoints import (
    Tensors,
    bytes_of,
    random_tensors,
    save_shard,
    save_sharded,
    state_dicts,
    write_json,
)
from tests.execution.test_converter import INDEX, LEFT_OUT, SHAPES, many_dtypes

FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
Plant = Callable[[Path], None]


@pytest.fixture
def out(ckpt: Path) -> Path:
    """The bf16 of the checkpoint ``ckpt``, as it should be, beside it."""
    target = ckpt.with_name("out")
    recast.convert(ckpt, "bf16", out=target)
    return target


def found(verification: Verification) -> set[tuple[str, str]]:
    """Return in which files, and in which of their tensors, something is wrong."""
    assert verification.holds is bool(verification) is (not verification.differences)
    return {(each.file, each.tensor) for each in verification.differences}


def resave(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Save a weights file again, after a change to its tensors."""
    tensors = load_file(path)
    change(tensors)
    save_shard(path, tensors)


# What is right


@pytest.mark.parametrize("target", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("make", SHAPES)
def test_clean_conversions(tmp_path: Path, make: Callable[[Path], Path], target: str) -> None:
    """Of what was converted, nothing is said but how much was compared."""
    source, out = make(tmp_path / "source"), tmp_path / "out"
    if recast.convert(source, target, out=out).target is None:
        shutil.copytree(source, out)
    verification = recast.verify(out, against=source)
    assert found(verification) == set()
    assert verification.path == out
    assert verification.against == source
    stored = [load_file(out / shard.name) for shard in verification.shards]
    assert [shard.tensors for shard in verification.shards] == list(map(len, stored))
    weights = {path.relative_to(out).as_posix() for path in out.rglob("model*.safetensors")}
    assert {shard.name for shard in verification.shards} >= weights - LEFT_OUT
    assert {shard.differing for shard in verification.shards} == {0}


@settings(max_examples=60)
@given(
    tensors=state_dicts(),
    target=st.sampled_from(["bf16", "fp16", "fp32"]),
    kept=st.lists(st.sampled_from(["*a*", "[!a]*", "?"]), max_size=1),
    workers=st.integers(1, 3),
)
def test_any_clean_conversion(tensors: Tensors, target: str, kept: list[str], workers: int) -> None:
    """Whatever is stored, and whatever is kept: a conversion verifies, with any threads."""
    with TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        save_shard(source / "model.safetensors", tensors, {})
        keep = [each for each in kept if any(fnmatchcase(name, each) for name in tensors)]
        recast.convert(source, target, out=out, keep=keep, allow=["overflow"])
        assert found(recast.verify(out, against=source, workers=workers)) == set()


@pytest.mark.parametrize(
    ("tensors", "keep"),
    [
        ({"ids": torch.arange(4)}, []),
        ({"large": torch.randn(99), "small": torch.randn(2).bfloat16()}, ["large"]),
        ({"large": torch.randn(99), "small": torch.randn(2)}, ["large"]),
        ({"a": torch.randn(9)}, ["*"]),
        ({}, []),
    ],
)
def test_config_of_what_mostly_stays(tmp_path: Path, tensors: Tensors, keep: list[str]) -> None:
    """A config says the dtype of most parameters, and so it is, if most or all of them stay."""
    source, out = tmp_path / "source", tmp_path / "out"
    save_shard(source / "model.safetensors", tensors, {})  # there is something to write
    write_json(source / "config.json", {"torch_dtype": "float32"})
    recast.convert(source, "bf16", out=out, keep=keep)
    assert json.loads((out / "config.json").read_text()) == {"torch_dtype": "float32"}
    assert {each.name for each in recast.findings(recast.inspect(out))} <= {"mixed-dtypes"}
    assert found(recast.verify(out, against=source)) == set()


def test_files_and_checkpoints(ckpt: Path, out: Path, tmp_path: Path) -> None:
    """Two bare files may be compared, of any name, and what inspect() returned; no mixture."""
    save_shard(tmp_path / "one.safetensors", random_tensors(a=(5,)))
    one = recast.convert(tmp_path / "one.safetensors", "bf16").target
    assert recast.verify(one, against=tmp_path / "one.safetensors").holds
    assert recast.verify(str(out), against=recast.inspect(ckpt)).holds
    assert recast.verify(recast.inspect(out), against=str(ckpt)).holds
    with pytest.raises(CheckpointError, match="name two folders, or two files"):
        recast.verify(one, against=ckpt)


def test_payloads_of_nan_that_was_cast(tmp_path: Path) -> None:
    """A NaN that was cast is right with any payload; a number in its place is not."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_shard(source, {"x": torch.tensor([torch.nan, 1.0])})
    for payload, right in ((0x7FC0, True), (0x7F81, True), (-1, True), (0x7F80, False)):
        bits = torch.tensor([payload, 0x3F80], dtype=torch.int16)
        save_shard(out, {"x": bits.view(torch.bfloat16)})
        assert recast.verify(out, against=source).holds is right


def test_payloads_of_nan_that_was_not_cast(tmp_path: Path) -> None:
    """A tensor that is stored as it was must be the same bit for bit, NaN and all."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for bits, path in ((0x7FC00000, source), (0x7FC00001, out)):
        save_shard(path, {"x": torch.tensor([bits], dtype=torch.int32).view(torch.float32)})
    assert found(recast.verify(out, against=source)) == {("b.safetensors", "x")}


def test_progress_adds_up(ckpt: Path, out: Path) -> None:
    """What progress is told of adds up to the bytes of the source's tensors."""
    calls = []
    lock = Lock()

    def progress(done: int) -> None:
        with lock:
            calls.append(done)

    recast.verify(out, against=ckpt, workers=3, progress=progress)
    tensors = [each for path in ckpt.glob("*.safetensors") for each in load_file(path).values()]
    assert sum(calls) == sum(each.nbytes for each in tensors)


# Faults in the bits


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint ``source`` of tensors of all kinds, and ``out``, its bf16."""
    folder = tmp_path_factory.mktemp("kinds")
    recast.convert(many_dtypes(folder / "source"), "bf16", out=folder / "out")
    return folder


@contextmanager
def flipped(path: Path, position: int, bit: int) -> Iterator[int]:
    """Flip one bit of a file, for a while. Yields the size of its header."""
    right = path.read_bytes()
    content = bytearray(right)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    try:
        yield header_size(right)
    finally:
        path.write_bytes(right)


def header_size(content: bytes) -> int:
    """Return where the data of a weights file begin."""
    return 8 + int.from_bytes(content[:8], "little")


@settings(max_examples=100)
@given(data=st.data(), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_tensor(kinds: Path, data: st.DataObject, bit: int) -> None:
    """One bit of one value, anywhere, is found, in its tensor and nowhere else."""
    path = kinds / "out" / FIRST
    content = path.read_bytes()
    size = header_size(content)
    offsets = {
        name: each["data_offsets"]
        for name, each in json.loads(content[8:size]).items()
        if name != "__metadata__"
    }
    position = data.draw(st.integers(size, len(content) - 1))
    (name,) = (name for name, (begin, end) in offsets.items() if begin <= position - size < end)
    with flipped(path, position, bit):
        verification = recast.verify(kinds / "out", against=kinds / "source")
        stored = load(path.read_bytes())[name]
    # The one NaN there is was cast, and may remain a NaN.
    was_nan = name == "j.special" and position - size - offsets[name][0] < 2
    if was_nan and stored[0].isnan():
        assert verification.holds
    else:
        assert found(verification) == {(FIRST, name)}
        assert [shard.differing for shard in verification.shards] == [1, 0]


@settings(max_examples=150)
@given(data=st.data(), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_header(kinds: Path, data: st.DataObject, bit: int) -> None:
    """One bit of a header, anywhere, is found, unless the file still says the very same."""
    source, path = kinds / "source" / FIRST, kinds / "out" / FIRST
    right = load(path.read_bytes())
    position = data.draw(st.integers(0, header_size(path.read_bytes()) - 1))
    with flipped(path, position, bit):
        try:
            holds = recast.verify(path, against=source).holds
        except RecastError:
            return
        stored = load(path.read_bytes())
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
    same = metadata == {"format": "pt"} and {
        name: (each.dtype, each.shape, bytes_of(each)) for name, each in stored.items()
    } == {name: (each.dtype, each.shape, bytes_of(each)) for name, each in right.items()}
    assert holds is same


def test_truncation_instead_of_rounding(ckpt: Path, out: Path) -> None:
    """Values whose low bits were dropped are told from rounded ones, and counted."""
    original = load_file(ckpt / FIRST)["model.embed_tokens.weight"]
    truncated = (original.view(torch.int32) & ~0xFFFF).view(torch.float32).bfloat16()
    resave(out / FIRST, lambda tensors: tensors.update({"model.embed_tokens.weight": truncated}))
    wrong = (truncated != original.bfloat16()).flatten()
    (difference,) = recast.verify(out, against=ckpt).differences
    assert (difference.file, difference.tensor) == (FIRST, "model.embed_tokens.weight")
    assert f"{int(wrong.sum())} of 256 values" in difference.problem
    assert f"element {int(wrong.int().argmax())}:" in difference.problem


def test_faults_far_inside_a_large_tensor(tmp_path: Path) -> None:
    """In a tensor that is compared piece by piece, faults are counted from its beginning."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    values = torch.randn(700_001)
    save_shard(source, {"x": values})
    wrong = values.bfloat16()
    wrong[[300_000, 300_001, 700_000]] += 1
    save_shard(out, {"x": wrong})
    (difference,) = recast.verify(out, against=source, workers=2).differences
    assert "3 of 700,001 values" in difference.problem
    assert difference.problem.endswith("element 300,000")


def test_a_tensor_that_the_cast_itself_makes_zero(tmp_path: Path) -> None:
    """It holds, and is named; one that was zero before, or of which one value is left, is not."""
    faint = torch.full((700_001,), 1e-9) * torch.where(torch.arange(700_001) % 2 == 0, 1, -1)
    survivor = faint.clone()
    survivor[-1] = 1.0
    tensors = {
        "faint": faint,
        "survivor": survivor,
        "zero": torch.zeros(9),
        "negative zero": -torch.zeros(9),
        "nan": torch.tensor([torch.nan]),
        "none": torch.zeros(0),
        "ids": torch.zeros(3, dtype=torch.int64),
    }
    assert not tensors["faint"].half().any()
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_shard(source, tensors)
    recast.convert(source, "fp16", out=out)
    for workers in (1, 3):
        verification = recast.verify(out, against=source, workers=workers)
        assert found(verification) == set()
        (note,) = verification.notes
        assert (note.file, note.tensor) == (out.name, "faint")
        assert note.problem.startswith("all of its 700,001 values are zero since the cast")
    recast.convert(source, "bf16", out=tmp_path / "c.safetensors")
    assert recast.verify(tmp_path / "c.safetensors", against=source).notes == ()
    resave(out, lambda each: each["faint"].add_(1))
    verification = recast.verify(out, against=source)
    assert (found(verification), verification.notes) == ({(out.name, "faint")}, ())


def swap(tensors: dict[str, torch.Tensor]) -> None:
    """Exchange two tensors of the same shape and dtype."""
    tensors["a"], tensors["b"] = tensors["b"], tensors["a"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda tensors: tensors["a"].zero_(), {"a"}),
        (swap, {"a", "b"}),
        (lambda tensors: tensors.pop("a"), {"a"}),
        (lambda tensors: tensors.update(new=torch.ones(1)), {"new"}),
        (lambda tensors: tensors.update(a=tensors["a"].reshape(2, 6)), {"a"}),
        (lambda tensors: tensors.update(a=tensors["a"].flatten()), {"a"}),
        (lambda tensors: tensors.update(ids=tensors["ids"].int()), {"ids"}),
        (lambda tensors: tensors.update(ids=tensors["ids"].double()), {"ids"}),
        (lambda tensors: tensors.update(mask=tensors["mask"].byte()), {"mask"}),
        (lambda tensors: tensors.update(a=tensors["a"].short()), {"a"}),
        (lambda tensors: tensors.update(a=tensors["a"].half()), {"a"}),
        (lambda tensors: tensors.update(renamed=tensors.pop("a")), {"a", "renamed"}),
        (lambda tensors: tensors.clear(), {"a", "b", "ids", "mask"}),
    ],
)
def test_faults_in_a_file(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], wrong: set[str]
) -> None:
    """A tensor that is zero, swapped, gone, new, of another shape or dtype is found by name."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = random_tensors(a=(3, 4), b=(3, 4))
    save_shard(source, tensors | {"ids": torch.arange(3), "mask": torch.tensor([True, False])})
    recast.convert(source, "bf16", out=out)
    resave(out, change)
    assert found(recast.verify(out, against=source)) == {(out.name, name) for name in wrong}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_tensor_that_was_cast_to_another_dtype(ckpt: Path, out: Path, dtype: torch.dtype) -> None:
    """Among what is bf16, the cast of one tensor to fp16, or to fp64, is none of recast's."""
    wrong = load_file(ckpt / FIRST)["model.norm.weight"].to(dtype)
    resave(out / FIRST, lambda tensors: tensors.update({"model.norm.weight": wrong}))
    size = sum(each.nbytes for name in (FIRST, SECOND) for each in load_file(out / name).values())
    index = json.loads((out / INDEX).read_text())
    write_json(out / INDEX, index | {"metadata": {"total_size": size}})
    verification = recast.verify(out, against=ckpt)
    assert (FIRST, "model.norm.weight") in found(verification)
    problem = next(each.problem for each in verification.differences if each.tensor)
    assert problem.startswith(f"is F{wrong.itemsize * 8} instead of BF16")
    assert dict(verification.casts) == {
        recast.Dtype.BF16: 3,
        recast.Dtype(f"F{wrong.itemsize * 8}"): 1,
    }


LARGE, SMALL, ROUTER = "layers.0.w.weight", "layers.0.b.weight", "layers.0.gate.weight"


@pytest.mark.parametrize(
    ("stored", "base", "options"),
    [
        (torch.float32, None, {"dtype": "bf16", "keep": ["*.w.*"]}),
        (torch.float32, None, {"dtype": "fp16", "keep": ["*.w.*", "*.b.*"]}),
        (torch.float64, None, {"dtype": "bf16"}),
        (torch.bfloat16, None, {"dtype": "fp16"}),
        (torch.bfloat16, None, {"dtype": "fp32", "keep": ["*.gate.*"]}),
        (torch.float32, (torch.bfloat16, torch.float16, torch.float32), {}),
        (torch.float32, (torch.float16, torch.bfloat16, torch.bfloat16), {}),
        (torch.float32, (torch.float16, torch.float16, torch.bfloat16), {"dtype": "fp32"}),
        (torch.bfloat16, (torch.float32, torch.float16, torch.bfloat16), {}),
        (torch.float64, (torch.float32, torch.bfloat16, torch.float16), {}),
        (torch.float32, (torch.bfloat16,) * 3, {"dtype": "fp16", "cast": ["*.w.*"]}),
        (torch.float32, (torch.bfloat16,) * 3, {"dtype": "fp16", "cast": ["*.b.*"]}),
        (torch.float32, (torch.bfloat16, torch.bfloat16, None), {"dtype": "fp16"}),
    ],
)
def test_mixtures_that_are_right(
    tmp_path: Path,
    stored: torch.dtype,
    base: tuple[torch.dtype | None, ...] | None,
    options: dict[str, object],
) -> None:
    """Whatever --keep, --cast, rules and a base model of several dtypes make is no difference."""
    tensors = random_tensors(**{LARGE: (9, 9), SMALL: (9,), ROUTER: (3, 3)})
    tensors = {name: each.to(stored) for name, each in tensors.items()}
    save_shard(tmp_path / "source" / "model.safetensors", tensors)
    like = None
    if base is not None:
        like = tmp_path / "base"
        pairs = zip(tensors.items(), base, strict=True)
        theirs = {name: each.to(dtype) for (name, each), dtype in pairs if dtype is not None}
        save_shard(like / "model.safetensors", theirs)
    done = recast.convert(
        tmp_path / "source", out=tmp_path / "out", like=like, allow=["overflow"], **options
    )
    assert done.target is not None
    verification = recast.verify(done.target, against=tmp_path / "source", like=like)
    assert found(verification) == set()
    after = load_file(done.target / "model.safetensors")
    cast = [each.dtype for each in after.values() if each.dtype is not stored]
    counted = {f"torch.{dtype.torch_name}": count for dtype, count in verification.casts}
    assert counted == {str(dtype): cast.count(dtype) for dtype in set(cast)}


def test_a_mixture_is_right_if_the_base_model_is_named(tmp_path: Path) -> None:
    """What a base that mixes bf16 and fp16 has made is told from a mistake by that base alone."""
    tensors = random_tensors(a=(9, 9), b=(9,))
    save_shard(tmp_path / "source" / "model.safetensors", tensors)
    theirs = {"a": tensors["a"].bfloat16(), "b": tensors["b"].half()}
    save_shard(tmp_path / "base" / "model.safetensors", theirs)
    source, like = tmp_path / "source", tmp_path / "base"
    out = recast.convert(source, like=like, out=tmp_path / "out").target
    verification = recast.verify(out, against=source)
    assert found(verification) == {("model.safetensors", "b")}
    assert "name it with --like" in str(verification.differences[0])
    assert recast.verify(out, against=source, like=like).holds


def test_components_may_have_been_converted_each_by_itself(tmp_path: Path) -> None:
    """One folder in bf16 beside another in fp16 is right; in each, casts are to one dtype."""
    source, out = tmp_path / "source", tmp_path / "out"
    for name, dtype in (("unet", "fp16"), ("text_encoder", "bf16")):
        save_shard(source / name / "model.safetensors", random_tensors(a=(9, 9), b=(9,)))
        recast.convert(source / name, dtype, out=out / name)
    assert recast.verify(out, against=source).holds
    wrong = load_file(source / "unet" / "model.safetensors")["b"].bfloat16()
    resave(out / "unet" / "model.safetensors", lambda tensors: tensors.update(b=wrong))
    assert found(recast.verify(out, against=source)) == {("unet/model.safetensors", "b")}


def test_header_metadata(tmp_path: Path) -> None:
    """Header metadata that is missing, changed or added is a difference."""
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_shard(source, random_tensors(a=(3,)), {"format": "pt", "step": "7"})
    recast.convert(source, "bf16", out=out)
    assert recast.verify(out, against=source).holds
    for metadata in (
        *({}, {"format": "pt"}, {"format": "pt", "step": "8"}),
        *({"format": "pt", "step": "7", "more": ""}, {"step": "7"}),
    ):
        save_shard(out, load_file(out), metadata)
        assert found(recast.verify(out, against=source)) == {(out.name, "")}


# Faults in the folder


def edit(name: str, old: str, new: str) -> Plant:
    """Return what replaces some text in a file."""

    def plant(out: Path) -> None:
        text = (out / name).read_text()
        assert text.count(old) == 1
        (out / name).write_text(text.replace(old, new))

    return plant


def write(name: str, content: str = "new") -> Plant:
    """Return what writes a file."""
    return lambda out: (out / name).write_text(content)


def remove(name: str) -> Plant:
    """Return what removes a file."""
    return lambda out: (out / name).unlink()


def add_weights(out: Path) -> None:
    """Put more weights into the folder."""
    save_shard(out / "more.safetensors", {"more": torch.ones(1)})


def touch_in_time(out: Path) -> None:
    """Change a byte of a file, and neither its size nor its time."""
    path = out / "tokenizer.json"
    status = path.stat()
    path.write_text("[]")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("plant", "wrong"),
    [
        (edit("config.json", "bfloat16", "float32"), "config.json"),
        (edit("config.json", "llama", "mistral"), "config.json"),
        (edit("config.json", "\n}", ',\n  "more": 1\n}'), "config.json"),
        (remove("config.json"), "config.json"),
        (edit(INDEX, '"total_size": 1042', '"total_size": 2116'), INDEX),
        (edit(INDEX, "lm_head.scale", "lm_head.bias"), INDEX),
        (remove("tokenizer.json"), "tokenizer.json"),
        (write("tokenizer.json", "[]"), "tokenizer.json"),
        (write("tokenizer.json", "{}\n"), "tokenizer.json"),
        (write("tokenizer.json", ""), "tokenizer.json"),
        (touch_in_time, "tokenizer.json"),
        (write("added_tokens.json"), "added_tokens.json"),
        (add_weights, "more.safetensors"),
        (remove(SECOND), SECOND),
    ],
)
def test_faults_in_a_folder(ckpt: Path, out: Path, plant: Plant, wrong: str) -> None:
    """A stale or changed config or index, and a file that is changed, new or gone, are found."""
    assert recast.verify(out, against=ckpt).holds
    plant(out)
    verification = recast.verify(out, against=ckpt)
    assert (wrong, "") in found(verification)
    # Without a shard, the index is wrong about the bytes there are.
    assert found(verification) <= {(wrong, ""), (INDEX, "")}


def test_a_shard_that_is_missing_has_a_verdict(ckpt: Path, out: Path) -> None:
    """Every shard of the source's has one, and that of a missing one counts all of its tensors."""
    remove(SECOND)(out)
    verdicts = recast.verify(out, against=ckpt).shards
    assert [(each.name, each.holds) for each in verdicts] == [(FIRST, True), (SECOND, False)]
    count = len(load_file(ckpt / SECOND))
    assert (verdicts[1].tensors, verdicts[1].differing) == (count, count)


def test_stale_dtype_of_an_index(tmp_path: Path) -> None:
    """A dtype that the index metadata claims must be the one that is stored."""
    source, out = tmp_path / "source", tmp_path / "out"
    save_sharded(source, {FIRST: random_tensors(a=(3,))})
    index = json.loads((source / INDEX).read_text())
    index["metadata"]["dtype"] = "float32"
    write_json(source / INDEX, index)
    recast.convert(source, "bf16", out=out)
    assert recast.verify(out, against=source).holds
    edit(INDEX, "bfloat16", "float32")(out)
    (difference,) = recast.verify(out, against=source).differences
    assert difference.file == INDEX
    assert difference.problem.endswith('"dtype": "float32" instead of "dtype": "bfloat16"')


def test_weights_that_were_never_converted(ckpt: Path, out: Path) -> None:
    """Beside a config that promises bf16, a copy of the source is found out by the config."""
    shutil.copytree(ckpt, out, dirs_exist_ok=True)
    edit("config.json", "float32", "bfloat16")(out)
    assert found(recast.verify(out, against=ckpt)) == {("config.json", "")}


def test_order_of_what_is_found(ckpt: Path, out: Path) -> None:
    """What differs is listed in the same order every time."""
    resave(out / FIRST, lambda tensors: tensors.clear())
    for name in ("z", "a", "m"):
        write(f"{name}.txt")(out)
    differences = recast.verify(out, against=ckpt).differences
    assert [each.tensor for each in differences if each.tensor] == [
        "model.embed_tokens.weight",
        "model.norm.weight",
    ]
    names = [each.file for each in differences if each.file.endswith(".txt")]
    assert names == ["a.txt", "m.txt", "z.txt"]
    assert recast.verify(out, against=ckpt).differences == differences


def test_packed_tensors(tmp_path: Path) -> None:
    """Tensors of less than a byte each can be compared, too, though not be converted."""
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]},
    }
    text = json.dumps(header).encode()
    for name, content in (("a", b"abc"), ("b", b"abc"), ("c", b"abd")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    source = tmp_path / "a.safetensors"
    assert recast.verify(tmp_path / "b.safetensors", against=source).holds
    assert found(recast.verify(tmp_path / "c.safetensors", against=source)) == {
        ("c.safetensors", "a")
    }


def test_every_difference_is_a_line(ckpt: Path, out: Path) -> None:
    """A difference names its file, and its tensor if there is one, in a line of text."""
    resave(out / FIRST, lambda tensors: tensors["model.norm.weight"].add_(1))
    remove("tokenizer.json")(out)
    tensor, file = map(str, recast.verify(out, against=ckpt).differences)
    assert tensor.startswith(f"{FIRST}: tensor 'model.norm.weight': 8 of 8 values are not")
    assert file == "tokenizer.json: is missing"


def test_a_file_that_goes_while_it_is_compared_is_named(ckpt: Path, out: Path) -> None:
    """An error names the file that is gone, whether the source's or the result's."""
    for gone in (ckpt / "tokenizer.json", out / "tokenizer.json"):
        before, after = recast.inspect(ckpt), recast.inspect(out)
        content = gone.read_bytes()
        gone.unlink()
        with pytest.raises(recast.StorageError) as caught:
            recast.verify(after, against=before)
        assert caught.value.subject == str(gone)
        gone.write_bytes(content)
