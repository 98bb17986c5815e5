"""A shard that recast writes, beside the one that safetensors saves."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import copy2
from tempfile import TemporaryDirectory
from threading import Lock
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

import recast
from recast import Dtype, ShardError, StorageError
from recast.execution.shard import Effort, convert_shard, scan_shard
from recast.execution.values import native, pieces
from recast.execution.values.facts import FACTS
from recast.reports.conversion import ShardConversion
from tests.checkpoints import Tensors, cast_all, save_shard, state_dicts, write_laid_out
from tests.execution.values.test_examine import by_torch

_NOT_TOLD = ("bits", "lost")  # by evidence
TARGETS = st.sampled_from([Dtype.BF16, Dtype.F16, Dtype.F32])


@contextmanager
def small_pieces(piece_bytes: int, batch_bytes: int) -> Iterator[None]:
    """Cut tensors into pieces of so many bytes, so that small ones are cut as well."""
    with (
        patch.object(pieces, "PIECE_BYTES", piece_bytes),
        patch.object(pieces, "BATCH_BYTES", batch_bytes),
    ):
        yield


def converted(source: Path, target: Dtype, workers: int = 1) -> tuple[bytes, ShardConversion]:
    """Return the content of the file that recast makes of *source*, and what it says of it."""
    plan = recast.plan(source, target).shards[0]
    if not plan.changes:  # then it would be copied
        return source.read_bytes(), ShardConversion(plan.name, plan.size, ())
    out = source.with_name("out.safetensors")
    done = convert_shard(plan, source, out, effort=Effort(workers))
    content = out.read_bytes()
    out.unlink()
    return content, done


@settings(max_examples=80)
@given(
    tensors=state_dicts(),
    target=TARGETS,
    metadata=st.none() | st.fixed_dictionaries({"format": st.text(max_size=3)}),
    limits=st.tuples(st.sampled_from([64, 192, 1 << 20]), st.sampled_from([1, 500])),
    workers=st.integers(2, 4),
)
@example({"ünï \"\\\n😀'": torch.ones(3)}, Dtype.BF16, {"format": "pt"}, (64, 1), 2)
def test_same_bytes_as_the_reference_writer(
    tensors: Tensors,
    target: Dtype,
    metadata: dict[str, str] | None,
    limits: tuple[int, int],
    workers: int,
) -> None:
    """A streamed shard equals what safetensors itself would have saved, with any threads."""
    expected = save(cast_all(tensors, target), metadata or {"format": "pt"})
    with TemporaryDirectory() as folder, small_pieces(*limits):
        source = Path(folder, "model.safetensors")
        save_shard(source, tensors, metadata or {})
        for threads in (1, workers):
            content, done = converted(source, target, threads)
            assert content == expected
            assert done.size == len(expected)


@settings(max_examples=80)
@given(tensors=state_dicts(), target=TARGETS, data=st.data())
def test_whatever_the_layout_of_the_source(
    tensors: Tensors, target: Dtype, data: st.DataObject
) -> None:
    """A valid file in another order, whose header is not padded, becomes the same shard."""
    expected = save(cast_all(tensors, target), {"format": "pt"})
    described, lies = (data.draw(st.permutations(sorted(tensors))) for _ in range(2))
    with TemporaryDirectory() as folder, small_pieces(64, 300):
        source = Path(folder, "model.safetensors")
        write_laid_out(source, tensors, header=described, data=lies)
        content, _ = converted(source, target, 2)
    assert content == expected


@settings(max_examples=60)
@given(tensors=state_dicts(), target=TARGETS, workers=st.integers(1, 3))
def test_evidence(tensors: Tensors, target: Dtype, workers: int) -> None:
    """Of each tensor that was cast, and of no other, it is said what torch finds."""
    with TemporaryDirectory() as folder, small_pieces(64, 64):
        source = Path(folder, "model.safetensors")
        save_shard(source, tensors)
        _, done = converted(source, target, workers)
    cast = cast_all(tensors, target)
    found = {
        each.name: {name: getattr(each, name) for name in FACTS.names if name not in _NOT_TOLD}
        for each in done.evidence
    }
    assert found == {
        name: {
            fact: value
            for fact, value in asdict(by_torch(tensor.flatten(), target)).items()
            if fact not in _NOT_TOLD
        }
        for name, tensor in tensors.items()
        if tensor.dtype is not cast[name].dtype
    }
    for each in done.evidence:
        assert each.dtype is target
        assert str(tensors[each.name].dtype) == f"torch.{each.source.torch_name}"


def test_evidence_can_be_left_out(tmp_path: Path) -> None:
    """Without evidence the same bytes are written, and of nothing but overflow is anything said."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    tensors = {"a": torch.randn(99), "b": torch.tensor([1 / 3, -1e5, 2e5, torch.inf, torch.nan])}
    save_shard(source, tensors)
    for target, overflowed in ((Dtype.F16, {"b": (2, 2e5)}), (Dtype.BF16, {})):
        expected, _ = converted(source, target)
        plan = recast.plan(source, target).shards[0]
        with small_pieces(64, 64):
            done = convert_shard(plan, source, out, effort=Effort(2, evidence=False))
        assert out.read_bytes() == expected
        assert {
            each.name: (each.overflowed, each.largest_overflow) for each in done.evidence
        } == overflowed
        out.unlink()


def test_pieces_of_their_real_size(tmp_path: Path) -> None:
    """Tensors larger than a batch, and many small ones, equal torch's; their ends do too."""
    tensors = {
        "large": torch.randn(5_000_003),
        "wide": torch.randn(700_001, dtype=torch.float64),
        "ids": torch.arange(300_007),
        **{f"small.{number}": torch.randn(number) for number in range(300)},
    }
    source = tmp_path / "model.safetensors"
    save_shard(source, tensors)
    content, _ = converted(source, Dtype.BF16, 2)
    assert content == save(cast_all(tensors, Dtype.BF16), {"format": "pt"})


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o444, 0o755])
def test_permission_bits_and_time_of_the_source(tmp_path: Path, mode: int) -> None:
    """A shard may be read by whom its source may be read, whatever the umask, and is as old."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_shard(source, {"a": torch.ones(3)})
    source.chmod(mode)
    before = os.umask(0o077)
    try:
        convert_shard(recast.plan(source, "bf16").shards[0], source, out)
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o7777 == mode
    assert out.stat().st_mtime_ns == source.stat().st_mtime_ns


@settings(max_examples=40)
@given(tensors=state_dicts(), workers=st.integers(1, 4))
def test_progress_adds_up(tensors: Tensors, workers: int) -> None:
    """What progress is told of adds up to the bytes of the source's file."""
    calls = []
    lock = Lock()

    def progress(done: int) -> None:
        with lock:
            calls.append(done)

    with TemporaryDirectory() as folder, small_pieces(64, 64):
        source, out = Path(folder, "model.safetensors"), Path(folder, "out.safetensors")
        save_shard(source, tensors, {})  # so that even without tensors there is a change
        plan = recast.plan(source, "bf16").shards[0]
        convert_shard(plan, source, out, effort=Effort(workers, progress=progress))
        assert sum(calls) == source.stat().st_size
    assert min(calls) > 0


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_remains_of_a_failure_in_the_middle(tmp_path: Path, workers: int) -> None:
    """An error in any thread reaches the caller, and no file remains, under whatever name."""
    source, out = tmp_path / "model.safetensors", tmp_path / "new" / "out.safetensors"
    save_shard(source, {"a": torch.ones(1000)})
    plan = recast.plan(source, "bf16").shards[0]

    def fail(done: int) -> None:
        partial = [each.name for each in out.parent.iterdir()]
        assert partial  # there is something to be left
        assert out.name not in partial
        if done == 64:
            raise RuntimeError("enough")

    with small_pieces(64, 64), pytest.raises(RuntimeError, match="enough"):
        convert_shard(plan, source, out, effort=Effort(workers, progress=fail))
    assert list(out.parent.iterdir()) == []


def shrink(path: Path) -> None:
    """Cut a file off."""
    os.truncate(path, 2000)


def spoil(path: Path) -> None:
    """Write a byte into the middle of a file, and move its time on."""
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replace(path: Path) -> None:
    """Put a copy of a file, of the same time, in its place."""
    copy = path.with_name("copy")
    copy2(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (shrink, "ends at byte 2000, before its header says"),
        (spoil, "was changed while recast ran"),
        (replace, "was changed while recast ran"),
    ],
)
def test_a_source_that_changes_meanwhile(
    tmp_path: Path, change: Callable[[Path], None], problem: str
) -> None:
    """A source that changes under recast's hands is an error that names it, and leaves nothing."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_shard(source, {"a": torch.ones(1000)})
    plan = recast.plan(source, "bf16").shards[0]
    calls = []

    def progress(done: int) -> None:
        if not calls:
            change(source)
        calls.append(done)

    with small_pieces(64, 64), pytest.raises(StorageError, match=problem) as caught:
        convert_shard(plan, source, out, effort=Effort(progress=progress))
    assert caught.value.subject == str(source)
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("change", [shrink, spoil])
def test_a_source_that_changed_before(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A source that is not the one that was planned for is refused before a byte is written."""
    source, out = tmp_path / "model.safetensors", tmp_path / "new/out.safetensors"
    save_shard(source, {"a": torch.ones(1000)})
    plan = recast.plan(source, "bf16").shards[0]
    change(source)
    with pytest.raises(StorageError, match="was changed while recast ran"):
        convert_shard(plan, source, out)
    assert list(tmp_path.iterdir()) == [source]


@settings(max_examples=30)
@given(tensors=state_dicts(), target=TARGETS, workers=st.integers(1, 3))
def test_looking_without_writing(tensors: Tensors, target: Dtype, workers: int) -> None:
    """A scan finds what the conversion finds, and leaves the folder as it was."""
    with TemporaryDirectory() as folder, small_pieces(64, 64):
        source = Path(folder, "model.safetensors")
        save_shard(source, tensors)
        _, done = converted(source, target)
        plan = recast.plan(source, target).shards[0]
        assert scan_shard(plan, source, Effort(workers)) == done.evidence
        assert list(Path(folder).iterdir()) == [source]


@pytest.mark.parametrize(
    ("planned", "written", "problem"),
    [
        (b"X\0", b"\xff\xff", "is not a valid safetensors file"),
        (b'{"', b'["', "is not a valid safetensors file"),
        (b"[4]", b"[5]", "is not a valid safetensors file"),
        (b'"a"', b'"b"', "was not written as planned"),
        (b"BF16", b"F16 ", "is not a valid safetensors file"),
        (b'"BF16"', b'"F16" ', "was not written as planned"),
    ],
)
def test_what_was_written_is_read_again(
    tmp_path: Path, planned: bytes, written: bytes, problem: str
) -> None:
    """A shard whose header did not reach the disk as planned does not appear."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_shard(source, {"a": torch.ones(4)})
    plan = recast.plan(source, "bf16").shards[0]

    def garble(_: int) -> None:
        (partial,) = tmp_path.glob(".*.partial")
        content = partial.read_bytes()
        if planned in content:
            partial.write_bytes(content.replace(planned, written, 1))

    with pytest.raises(ShardError, match=rf"model\.safetensors: {problem}") as caught:
        convert_shard(plan, source, out, effort=Effort(progress=garble))
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == [source]


def test_an_existing_file_stays_until_it_is_replaced(tmp_path: Path) -> None:
    """What lies under the final name is whole at any time: the old file, then the new one."""
    source, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_shard(source, {"a": torch.ones(400)})
    out.write_text("as it was")
    plan = recast.plan(source, "bf16").shards[0]
    seen = []
    with small_pieces(64, 64):
        effort = Effort(progress=lambda _: seen.append(out.read_text()))
        convert_shard(plan, source, out, effort=effort)
    assert len(seen) > 10
    assert set(seen) == {"as it was"}
    assert load_file(out)["a"].dtype == torch.bfloat16


def test_without_the_native_kernel(tmp_path: Path) -> None:
    """Where no C compiler was at hand, the same bytes are written and the same evidence found."""
    source = tmp_path / "model.safetensors"
    values = {"a": torch.randn(5000), "b": torch.tensor([1 / 3, -3.4e38, torch.inf, torch.nan])}
    save_shard(source, values | {f"c{number}": torch.randn(number) for number in range(40)})
    expected, with_it = converted(source, Dtype.BF16, 2)
    with patch.object(native, "library", lambda: None):
        content, without_it = converted(source, Dtype.BF16, 2)
    assert content == expected
    assert without_it.evidence == with_it.evidence
