"""Faults planted in a sound conversion: each is found, and named; clean ones are silent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import recast
from tests import checkpoints

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
EMBED, LM_HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
Tensors = dict[str, torch.Tensor]
Fault = Callable[[Path, Path], object]  # given the source and the result


def alter(shard: str, change: Callable[[Tensors], object]) -> Fault:
    """Return a fault: other tensors in one shard of the result."""

    def plant(_source: Path, result: Path) -> None:
        tensors = load_file(result / shard)
        change(tensors)
        checkpoints.save_shard(result / shard, tensors)

    return plant


def rewrite(name: str, change: Callable[[dict[str, Any]], object]) -> Fault:
    """Return a fault: a config or index that says something else."""

    def plant(_source: Path, result: Path) -> None:
        document = json.loads((result / name).read_text(encoding="utf-8"))
        change(document)
        checkpoints.write_json(result / name, document)

    return plant


def old(name: str) -> Fault:
    """Return a fault: a file that was not rewritten."""
    return lambda source, result: (result / name).write_bytes((source / name).read_bytes())


def flip(tensors: Tensors) -> None:
    """Flip the lowest bit of one value."""
    bits = tensors[LM_HEAD].view(torch.int16)
    bits[3, 5] ^= 1


def swap(tensors: Tensors) -> None:
    """Exchange two tensors of one shape."""
    tensors["a.weight"], tensors["b.weight"] = tensors["b.weight"], tensors["a.weight"]


def swap_across(_source: Path, result: Path) -> None:
    """Exchange two tensors of one shape that lie in different shards."""
    first, second = load_file(result / FIRST), load_file(result / SECOND)
    first[EMBED], second[LM_HEAD] = second[LM_HEAD], first[EMBED]
    checkpoints.save_shard(result / FIRST, first)
    checkpoints.save_shard(result / SECOND, second)


def misplace(source: Path, result: Path) -> None:
    """Move a tensor into the other shard."""
    duplicate(source, result)
    tensors = load_file(result / FIRST)
    del tensors[NORM]
    checkpoints.save_shard(result / FIRST, tensors)


def truncate(source: Path, result: Path) -> None:
    """Cut the mantissas off, as a careless cast does."""
    tensors = load_file(source / FIRST)
    cut = {
        name: (each.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)
        for name, each in tensors.items()
    }
    checkpoints.save_shard(result / FIRST, cut)


def duplicate(source: Path, result: Path) -> None:
    """Store a tensor in both shards."""
    tensors = load_file(result / SECOND) | {NORM: load_file(result / FIRST)[NORM]}
    checkpoints.save_shard(result / SECOND, tensors)
    assert NORM in load_file(source / FIRST)


# Each fault, and where it is found: file, tensor, words of the problem.
FAULTS: dict[str, tuple[Fault, tuple[str, str, str]]] = {
    "one bit": (alter(SECOND, flip), (SECOND, LM_HEAD, "element 29: one flipped bit")),
    "zeros": (
        alter(FIRST, lambda tensors: tensors[EMBED].zero_()),
        (FIRST, EMBED, "all of its 256 values are zero"),
    ),
    "half zeros": (
        alter(FIRST, lambda tensors: tensors[EMBED][16:].zero_()),
        (FIRST, EMBED, "128 of 256 values are not the cast"),
    ),
    "swapped": (
        alter(SECOND, swap),
        (SECOND, "a.weight", "holds the values of tensor 'b.weight'"),
    ),
    "swapped across shards": (
        swap_across,
        (FIRST, EMBED, f"holds the values of tensor {LM_HEAD!r} of {SECOND}"),
    ),
    "dropped": (
        alter(SECOND, lambda tensors: tensors.pop(LM_HEAD)),
        (SECOND, LM_HEAD, "is missing"),
    ),
    "duplicated": (duplicate, (SECOND, NORM, f"belongs in {FIRST}, not here")),
    "in the wrong shard": (misplace, (FIRST, NORM, f"lies in {SECOND}")),
    "new": (
        alter(SECOND, lambda tensors: tensors.update(new=torch.ones(2))),
        (SECOND, "new", "is not in the source"),
    ),
    "truncated": (truncate, (FIRST, EMBED, "cut off instead of rounded")),
    "stale config": (old("config.json"), ("config.json", "", "does not say what it should")),
    "stale index": (
        rewrite(INDEX, lambda document: document["weight_map"].update({NORM: SECOND})),
        (INDEX, "", "does not say what it should"),
    ),
    "wrong total_size": (old(INDEX), (INDEX, "", "total_size")),
    "no header metadata": (
        lambda _source, result: checkpoints.save_shard(
            result / SECOND, load_file(result / SECOND), {}
        ),
        (SECOND, "", "header metadata"),
    ),
    "no tokenizer": (
        lambda _source, result: (result / "tokenizer.json").unlink(),
        ("tokenizer.json", "", "is missing"),
    ),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of two shards, with two tensors of one shape in the second."""
    first = checkpoints.random_tensors(**{EMBED: (32, 8), NORM: (8,)})
    second = checkpoints.random_tensors(
        **{LM_HEAD: (32, 8), "a.weight": (8, 8), "b.weight": (8, 8)}
    )
    second = {name: -each for name, each in second.items()}  # or both would hold the same noise
    folder = checkpoints.save_sharded(tmp_path / "source", {FIRST: first, SECOND: second})
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_named(fault: str, source: Path, tmp_path: Path) -> None:
    """A planted fault does not hold, and is named by its file, its tensor and what it is."""
    result = tmp_path / "result"
    recast.convert(source, "bf16", out=result)
    plant, (file, tensor, words) = FAULTS[fault]
    plant(source, result)
    verdict = recast.verify(result, against=source)
    assert not verdict.holds
    [named] = [
        each
        for each in verdict.differences
        if (each.file, each.tensor) == (file, tensor) and words in each.problem
    ]
    # An index adds up what is stored: with a tensor more or less it is wrong, too.
    both = fault in {"swapped across shards", "in the wrong shard"}
    touched = {FIRST, SECOND} if both else {named.file}
    assert {each.file for each in verdict.differences} <= touched | {INDEX}
    broken = {shard.name for shard in verdict.shards if not shard.holds}
    assert broken == touched & {FIRST, SECOND}
    mended = fault in {"stale config", "wrong total_size"}
    assert (f"recast {result} --fix-config" if mended else str(source)) in verdict.remedy


def test_other_findings_of_an_inspection(source: Path, tmp_path: Path) -> None:
    """What contradicts itself is found without the source, too."""
    result = tmp_path / "result"
    for fault, name in (
        ("stale config", "config-mismatch"),
        ("wrong total_size", "wrong-total-size"),
        ("stale index", "missing-tensors"),
        ("dropped", "missing-tensors"),
        ("duplicated", "unindexed-tensors"),
    ):
        recast.convert(source, "bf16", out=result)
        FAULTS[fault][0](source, result)
        assert name in [each.name for each in recast.findings(recast.inspect(result))], fault
        for path in result.iterdir():
            path.unlink()
        result.rmdir()


def test_zeros_that_were_zeros(tmp_path: Path) -> None:
    """A tensor of zeros is what a tensor of zeros becomes."""
    checkpoints.save_shard(tmp_path / "a.safetensors", {"a": torch.zeros(9), "b": torch.zeros(0)})
    recast.convert(tmp_path / "a.safetensors", "bf16", out=tmp_path / "b.safetensors")
    assert recast.verify(tmp_path / "b.safetensors", against=tmp_path / "a.safetensors").holds


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_a_clean_conversion_is_silent(dtype: str, source: Path, tmp_path: Path) -> None:
    """Nothing is found in what recast makes, in any dtype, shard by shard."""
    recast.convert(source, dtype, out=tmp_path / "result", keep=["a.weight"])
    if not (tmp_path / "result").exists():  # there was nothing to do
        return
    verdict = recast.verify(tmp_path / "result", against=source)
    assert verdict.holds
    assert verdict.remedy == ""
    assert [shard.holds for shard in verdict.shards] == [True, True]
