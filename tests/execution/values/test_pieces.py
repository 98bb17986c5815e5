"""How a shard's work is cut up, beside the offsets in the headers of real files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import recast
from recast import Dtype
from recast.execution.values import pieces
from recast.planning.plan import ShardPlan
from tests.checkpoints import Tensors, cast_all, save_shard, state_dicts, write_laid_out

Offsets = dict[str, tuple[int, int]]


def offsets_in(content: bytes) -> Offsets:
    """Return where each tensor's data begin and end, as the header of a file says."""
    size = int.from_bytes(content[:8], "little")
    document = json.loads(content[8 : 8 + size])
    document.pop("__metadata__", None)
    return {name: tuple(each["data_offsets"]) for name, each in document.items()}


@contextmanager
def planned(
    tensors: Tensors, target: Dtype, order: list[str] | None = None
) -> Iterator[tuple[ShardPlan, Offsets, Offsets]]:
    """Yield the plan for these tensors' file, and the offsets before and after."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        if order is None:
            save_shard(path, tensors)
        else:
            write_laid_out(path, tensors, header=sorted(tensors), data=order)
        after = offsets_in(save(cast_all(tensors, target), {"format": "pt"}))
        yield recast.plan(path, target).shards[0], offsets_in(path.read_bytes()), after


@settings(max_examples=100)
@given(
    tensors=state_dicts(),
    target=st.sampled_from([Dtype.BF16, Dtype.F16, Dtype.F32]),
    limits=st.tuples(st.sampled_from([64, 128, 1 << 20]), st.sampled_from([1, 200, 1 << 24])),
    data=st.data(),
)
def test_every_byte_of_the_output_once(
    tensors: Tensors, target: Dtype, limits: tuple[int, int], data: st.DataObject
) -> None:
    """The pieces make each element of the output once, from where the source's header has it.

    They also say whose elements they are.
    """
    order = data.draw(st.none() | st.permutations(sorted(tensors)))
    with (
        planned(tensors, target, order) as (plan, before, after),
        patch.object(pieces, "PIECE_BYTES", limits[0]),
        patch.object(pieces, "BATCH_BYTES", limits[1]),
    ):
        cut = [piece for batch in pieces.batches(plan.tensors) for piece in batch]
        found = []
        for piece in cut:
            width, out_width = piece.run.source.bits // 8, piece.run.target.bits // 8
            elements = piece.end - piece.begin
            assert 0 < piece.source_bytes == elements * width <= limits[0]
            starts, numbers = piece.tensors()
            assert starts[0] == 0
            ends = [*starts[1:], elements]
            for number, start, end in zip(numbers, starts, ends, strict=True):
                assert start < end
                found += [
                    (
                        piece.out_position + at * out_width,
                        piece.source_position + at * width,
                        plan.tensors[number].name,
                    )
                    for at in range(start, end)
                ]
    cast = cast_all(tensors, target)
    assert found == sorted(
        (
            after[name][0] + at * cast[name].itemsize,
            before[name][0] + at * tensors[name].itemsize,
            name,
        )
        for name in tensors
        for at in range(tensors[name].numel())
    )


@settings(max_examples=50)
@given(tensors=state_dicts(), limits=st.tuples(st.sampled_from([64, 256]), st.integers(1, 999)))
def test_batches_are_as_large_as_they_should_be(tensors: Tensors, limits: tuple[int, int]) -> None:
    """Every batch but the last reaches its size with its last piece, and none is empty."""
    with (
        planned(tensors, Dtype.BF16) as (plan, before, _),
        patch.object(pieces, "PIECE_BYTES", limits[0]),
        patch.object(pieces, "BATCH_BYTES", limits[1]),
    ):
        sizes = [[piece.source_bytes for piece in batch] for batch in pieces.batches(plan.tensors)]
    assert all(sizes)
    assert all(sum(each[:-1]) < limits[1] for each in sizes)
    assert all(sum(each) >= limits[1] for each in sizes[:-1])
    assert sum(map(sum, sizes)) == sum(end - begin for begin, end in before.values())


def test_tensors_alike_are_one_run() -> None:
    """Tensors that lie together and are treated alike are one run: few calls, however many."""
    tensors = {f"layers.{layer:03}.bias": torch.ones(3) for layer in range(500)}
    with planned(tensors | {"ids": torch.arange(4)}, Dtype.BF16) as (plan, _, _):
        runs = list(pieces.runs(plan.tensors))
    assert [(run.source, run.elements) for run in runs] == [(Dtype.I64, 4), (Dtype.F32, 1500)]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        # As what is kept is of the wider dtype, it comes first in the output.
        ("a", [(Dtype.F32, 0, 0, 4), (Dtype.BF16, 16, 16, 8)]),
        ("b", [(Dtype.F32, 16, 0, 4), (Dtype.BF16, 0, 16, 4), (Dtype.BF16, 32, 24, 4)]),
        ("c", [(Dtype.F32, 32, 0, 4), (Dtype.BF16, 0, 16, 8)]),
    ],
)
def test_a_run_ends_where_the_treatment_does(
    tmp_path: Path, kept: str, expected: list[tuple[Dtype, int, int, int]]
) -> None:
    """A tensor that is kept is in no run with those that are cast, even if it lies before them."""
    path = tmp_path / "model.safetensors"
    save_shard(path, {name: torch.ones(4) for name in "abc"})
    plan = recast.plan(path, "bf16", keep=[kept]).shards[0]
    runs = [(run.target, run.begin, run.out, run.elements) for run in pieces.runs(plan.tensors)]
    assert runs == expected


def test_a_tensor_that_begins_where_a_piece_ends() -> None:
    """A piece says of no tensor that it holds some of it, unless it does."""
    tensors = {name: torch.ones(16) for name in "abc"}
    with planned(tensors, Dtype.BF16) as (plan, _, _), patch.object(pieces, "PIECE_BYTES", 64):
        (batch,) = pieces.batches(plan.tensors)
        held = [[array.tolist() for array in piece.tensors()] for piece in batch]
    assert held == [[[0], [0]], [[0], [1]], [[0], [2]]]


def test_nothing_to_do() -> None:
    """A shard of empty tensors, or of none, is no work."""
    with planned({"a": torch.ones(0), "b": torch.ones(0, 3)}, Dtype.BF16) as (plan, _, _):
        assert list(pieces.batches(plan.tensors)) == []
    with planned({}, Dtype.BF16) as (plan, _, _):
        assert list(pieces.batches(plan.tensors)) == []
