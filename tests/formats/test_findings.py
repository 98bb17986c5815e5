"""Findings: each fires on the fault it is named after, and none on a sound checkpoint."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.file_download import repo_folder_name
from hypothesis import given, settings
from safetensors.torch import load_file

import recast
from recast import Severity
from recast.formats import findings
from tests import checkpoints

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
ERROR, WARNING, NOTE = Severity


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    checkpoints.write_json(path, document)


def configure(**keys: object) -> Callable[[Path], None]:
    """Return a fault: other keys in the config."""
    return lambda folder: edit(folder / "config.json", lambda document: document.update(keys))


def index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a fault: a changed index."""
    return lambda folder: edit(folder / INDEX, change)


def copy(source: str, target: str) -> Callable[[Path], None]:
    """Return a fault: a file that is there a second time."""
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())


def add(name: str, dtype: torch.dtype = torch.int32) -> Callable[[Path], None]:
    """Return a fault: a model of one file in which a tensor of this name lies."""

    def plant(folder: Path) -> None:
        for path in (folder / INDEX, folder / FIRST, folder / SECOND):
            path.unlink()
        tensors = {"a": torch.randn(4, 4), name: torch.zeros(2, dtype=torch.float32).to(dtype)}
        checkpoints.save_shard(folder / "model.safetensors", tensors)

    return plant


def coded(
    name: str, scale: str, dtype: torch.dtype, scale_dtype: torch.dtype = torch.float32
) -> Callable[[Path], None]:
    """Return a fault: two shards, of which one holds integers, and the other a tensor beside."""

    def plant(folder: Path) -> None:
        shards = {
            FIRST: {name: torch.ones(4, 4, dtype=dtype), "b": torch.randn(4)},
            SECOND: {scale: torch.ones(4, dtype=scale_dtype), "c": torch.randn(4)},
        }
        checkpoints.save_sharded(folder, shards)

    return plant


def say(**metadata: str) -> Callable[[Path], None]:
    """Return a fault: more header metadata in the first shard."""

    def plant(folder: Path) -> None:
        tensors = load_file(folder / FIRST)
        checkpoints.save_shard(folder / FIRST, tensors, {"format": "pt", **metadata})

    return plant


def place(shard: str) -> Callable[[Path], None]:
    """Return a fault: the second shard lies elsewhere in the folder, and the index says so."""

    def plant(folder: Path) -> None:
        (folder / shard).parent.mkdir(parents=True)
        (folder / SECOND).rename(folder / shard)
        text = (folder / INDEX).read_text(encoding="utf-8")
        (folder / INDEX).write_text(text.replace(SECOND, shard), encoding="utf-8")

    return plant


def unmark(name: str) -> Callable[[Path], None]:
    """Return a fault: a shard without header metadata."""

    def plant(folder: Path) -> None:
        tensors = checkpoints.random_tensors(**{"lm_head.weight": (32, 8), "lm_head.scale": ()})
        checkpoints.save_shard(folder / name, tensors, {})

    return plant


def both(*faults: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return several faults as one."""

    def plant(folder: Path) -> None:
        for fault in faults:
            fault(folder)

    return plant


def replace(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    """Return a fault: another tensor in the second shard, and the index put right."""

    def plant(folder: Path) -> None:
        tensors = load_file(folder / SECOND) | {name: tensor}
        checkpoints.save_shard(folder / SECOND, tensors)
        stored = [*tensors.values(), *load_file(folder / FIRST).values()]
        total = sum(each.nbytes for each in stored)
        edit(folder / INDEX, lambda document: document["metadata"].update(total_size=total))

    return plant


def widen(name: str) -> Callable[[Path], None]:
    """Return a fault: one tensor in fp64."""
    return replace(name, torch.tensor(0.1, dtype=torch.float64))


def hollow(*names: str) -> Callable[[Path], None]:
    """Return a fault: tensors as DeepSpeed's ZeRO-3 leaves them on each rank."""
    return both(*(put(name, torch.empty(0)) for name in names))


def put(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    """Return a fault: another tensor in the second shard, which the index places there."""
    placed = index(lambda document: document["weight_map"].update({name: SECOND}))
    return both(replace(name, tensor), placed)


def merge(folder: Path) -> None:
    """Make the checkpoint one of a single file, with an index nonetheless."""
    tensors = {**load_file(folder / FIRST), **load_file(folder / SECOND)}
    for name in (FIRST, SECOND):
        (folder / name).unlink()
    checkpoints.save_shard(folder / "model.safetensors", tensors)
    weight_map = dict.fromkeys(tensors, "model.safetensors")
    edit(folder / INDEX, lambda document: document.update(weight_map=weight_map))


IDLE = "trainer state"  # what a conversion cannot undo, as it leaves its source alone
Expected = tuple[str, Severity, str]  # the finding's name and severity, and its subject
QUANTIZED = ("quantized", ERROR, "config.json")
PACKED = ("quantized", ERROR, "model.safetensors")
OVERSIZED = ("oversized", WARNING, "config.json")
TRAINER_STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
CODED = ("quantized", ERROR, FIRST)
MISMATCH = ("config-mismatch", WARNING, "config.json")
TOTAL = ("wrong-total-size", WARNING, INDEX)

FAULTS: dict[str, tuple[Callable[[Path], object], list[Expected]]] = {
    "quantized config": (configure(quantization_config={"quant_method": "gptq"}), [QUANTIZED]),
    "quantized part": (
        configure(text_config={"quantization_config": {"quant_method": "fp8"}}),
        [QUANTIZED],
    ),
    "8 bits": (add("b", torch.float8_e4m3fn), [PACKED]),
    "GPTQ": (add("layers.0.qweight"), [PACKED]),
    "compressed": (add("layers.0.weight_packed"), [PACKED]),
    "bitsandbytes 8": (add("layers.0.SCB", torch.float32), [PACKED]),
    "bitsandbytes 4": (add("weight.quant_state.bitsandbytes__nf4", torch.uint8), [PACKED]),
    "DeepSeek": (add("layers.0.weight_scale_inv", torch.float32), [PACKED]),
    "int8": (coded("x.kernel", "x.kernel_scale", torch.int8), [CODED]),
    "int8 of another kind": (coded("x.kernel_int8", "x.kernel_scale", torch.int8), [CODED]),
    "uint8": (coded("x.qw", "x.zeros", torch.uint8, torch.bfloat16), [CODED]),
    "int16": (coded("x.weight", "x.scale", torch.int16), [CODED]),
    "uint16": (coded("x.kernel", "x.kernel_zero_point", torch.uint16), [CODED]),
    "int32": (coded("x.weight", "x.weight.zeros", torch.int32), [CODED]),
    "uint32 of MLX": (coded("x.weight", "x.scales", torch.uint32, torch.float16), [CODED]),
    "MLX": (configure(quantization={"group_size": 64, "bits": 4}), [QUANTIZED]),
    "said in a header": (say(quantization="int4"), [CODED]),
    "method in a header": (say(quant_method="AWQ"), [CODED]),
    "two formats": (
        copy(FIRST, "model.safetensors"),
        [("ambiguous-weights", ERROR, "model.safetensors")],
    ),
    "two formats of a variant": (
        both(
            copy(FIRST, "model.fp16.safetensors"),
            lambda folder: (folder / INDEX).rename(folder / "model.safetensors.index.fp16.json"),
        ),
        [("ambiguous-weights", ERROR, "model.fp16.safetensors")],
    ),
    "no shard": (
        lambda folder: (folder / SECOND).unlink(),
        [("missing-shard", ERROR, SECOND)],
    ),
    "shard in a checkpoint of its own": (
        place("checkpoint-5/x.safetensors"),
        [("missing-shard", ERROR, "checkpoint-5/x.safetensors")],
    ),
    "no index": (
        lambda folder: (folder / INDEX).unlink(),
        [("unindexed-tensors", ERROR, FIRST), ("unindexed-tensors", ERROR, SECOND)],
    ),
    "stale shard": (
        copy(FIRST, "model-00003-of-00003.safetensors"),
        [("unindexed-tensors", ERROR, "model-00003-of-00003.safetensors")],
    ),
    "tensor without place": (
        index(lambda document: document["weight_map"].pop("lm_head.scale")),
        [("unindexed-tensors", ERROR, SECOND)],
    ),
    "place without tensor": (
        index(lambda document: document["weight_map"].update(more=FIRST)),
        [("missing-tensors", ERROR, INDEX)],
    ),
    "wrong place": (
        index(lambda document: document["weight_map"].update({"lm_head.scale": FIRST})),
        [("unindexed-tensors", ERROR, SECOND), ("missing-tensors", ERROR, INDEX)],
    ),
    "narrow claim": (configure(torch_dtype="bfloat16"), [OVERSIZED, MISMATCH]),
    "one wrong claim of two": (configure(dtype="float16"), [OVERSIZED, MISMATCH]),
    "mixed dtypes": (widen("lm_head.scale"), [("mixed-dtypes", NOTE, INDEX)]),
    "ZeRO-3": (hollow("lm_head.weight"), [("empty-tensors", ERROR, SECOND)]),
    "ZeRO-3 of other names": (
        hollow("experts.gate_up_proj", "cls_token"),
        [("empty-tensors", ERROR, SECOND)],
    ),
    "trainer state": (
        lambda folder: [(folder / name).write_bytes(b"\0" * 9) for name in TRAINER_STATE],
        [("trainer-state", NOTE, "optimizer.pt")],
    ),
    "wrong claim of a part": (configure(text_config={"dtype": "bfloat16"}), [MISMATCH]),
    "empty claim": (configure(torch_dtype=None), [MISMATCH]),
    "no real claim": (configure(torch_dtype="auto"), [MISMATCH]),
    "claim of codes": (configure(dtype="float8_e4m3fn"), [MISMATCH]),
    "a number as claim": (configure(torch_dtype=5), [MISMATCH]),
    "claim of parts alone": (configure(torch_dtype={"text_config": "float32"}), [MISMATCH]),
    "unknown claim in an index": (
        index(lambda document: document["metadata"].update(dtype="mixed")),
        [("config-mismatch", WARNING, INDEX)],
    ),
    "null in an index": (
        index(lambda document: document["metadata"].update(dtype=None)),
        [("config-mismatch", WARNING, INDEX)],
    ),
    "claim in other words": (configure(torch_dtype="torch.float32"), [MISMATCH]),
    "no claim": (
        lambda folder: checkpoints.write_json(folder / "config.json", {"model_type": "llama"}),
        [("no-dtype-key", NOTE, "config.json")],
    ),
    "wrong size": (index(lambda document: document["metadata"].update(total_size=1)), [TOTAL]),
    "size as text": (
        index(lambda document: document["metadata"].update(total_size="2084")),
        [TOTAL],
    ),
    "no size": (index(lambda document: document["metadata"].clear()), [TOTAL]),
    "no metadata": (index(lambda document: document.pop("metadata")), [TOTAL]),
    "null metadata": (index(lambda document: document.update(metadata=None)), [TOTAL]),
    "no header metadata": (unmark(SECOND), [("no-format-metadata", NOTE, SECOND)]),
}

HARMLESS: dict[str, Callable[[Path], object]] = {
    "nothing": both(),
    "null quantization": configure(quantization_config=None),
    "empty quantization": configure(quantization_config={}),
    "both claims": configure(dtype="float32"),
    "other dtype keys": configure(mamba_ssm_cache_dtype="bfloat16", vocabulary_map={"dtype": 1}),
    "another variant": copy(FIRST, "model.fp16.safetensors"),
    "an index of one file": merge,
    "an empty buffer": hollow("inv_freq"),
    "empty buffers of a model that is there": both(
        hollow("0.inv_freq", "1.inv_freq"), put("big", torch.ones(400, 300))
    ),
    "bytes": add("b", torch.uint8),
    "like a packed name": add("qweight.bias", torch.float32),
    "also like one": add("my_weight_scale", torch.float32),
    "scale of something else": coded("position_ids", "logit_scale", torch.int32),
    "scale elsewhere": coded("x.ids", "y.scale", torch.int32),
    "scale of a parent": coded("x.y.ids", "x.scale", torch.int32),
    "long integers": coded("x.num_batches_tracked", "x.scale", torch.int64),
    "no scale": coded("x.ids", "x.ids_bias", torch.int32),
    "a mask in a module with a scale": both(
        put("attn.scale", torch.randn(1)),
        put("attn.bias", torch.ones(40, 40, dtype=torch.uint8)),
        put("attn.weight", torch.randn(8, 8)),
    ),
    "a small table in a module with a scale": both(
        put("attn.scale", torch.randn(1)),
        put("attn.relative_index", torch.ones(4, 4, dtype=torch.int32)),
        put("attn.weight", torch.randn(8, 8)),
    ),
    "integer scale": coded("x.ids", "x.scale", torch.int32, torch.int32),
    "not quantized": say(quantization="None", quant_method=""),
    "said otherwise": configure(quantization="none"),
    "another quantization": configure(quantization={"codebooks": 4}),
    "shard in a folder": place("weights/x.safetensors"),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "other metadata": index(lambda document: document["metadata"].update(dtype="float32", x=1)),
}


def found(folder: Path) -> list[Expected]:
    """Return the findings on a checkpoint."""
    checked = recast.findings(recast.inspect(folder))
    return [(each.name, each.severity, each.subject) for each in checked]


@pytest.mark.parametrize("harmless", HARMLESS)
def test_a_sound_checkpoint_has_no_findings(harmless: str, ckpt: Path) -> None:
    """What is as it should be raises no alarm, though it may look like a fault."""
    HARMLESS[harmless](ckpt)
    assert found(ckpt) == []


@settings(max_examples=40)
@given(checkpoints.state_dicts().filter(bool))
def test_nothing_is_found_in_what_was_saved_properly(
    tmp_path_factory: pytest.TempPathFactory, tensors: checkpoints.Tensors
) -> None:
    """Any tensors, saved as transformers saves them, are no reason for a finding but one note."""
    folder = checkpoints.save_sharded(
        tmp_path_factory.mktemp("sound"), {"model-00001-of-00001.safetensors": tensors}, config={}
    )
    floating = {each.dtype for each in tensors.values() if each.is_floating_point()}
    assert [name for name, *_ in found(folder)] == ["mixed-dtypes"] * (len(floating) - 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str, ckpt: Path) -> None:
    """A planted fault is found under its name, on the file concerned, and nothing else is."""
    plant, expected = FAULTS[fault]
    plant(ckpt)
    assert found(ckpt) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_each_finding_is_one_sentence_with_the_way_out(fault: str, ckpt: Path) -> None:
    """A finding reads as one line that names the file, the problem and what to do."""
    FAULTS[fault][0](ckpt)
    for each in recast.findings(recast.inspect(ckpt)):
        assert str(each) == f"{each.subject}: {each.problem}; {each.remedy}"
        assert all((each.subject, each.problem, each.remedy))
        assert "\n" not in str(each)
        assert len(str(each)) < 200


@pytest.mark.parametrize(
    "fault", [name for name, (_, [first, *_]) in FAULTS.items() if first[1] == ERROR]
)
def test_errors_stop_a_conversion(fault: str, ckpt: Path) -> None:
    """What is an error among the findings is the error that planning raises, word for word."""
    FAULTS[fault][0](ckpt)
    first = recast.findings(recast.inspect(ckpt))[0]
    kind = recast.RefusedError if first.name == "quantized" else recast.CheckpointError
    with pytest.raises(kind) as error:
        recast.plan(ckpt, "bf16")
    assert type(error.value) is kind
    assert str(error.value) == str(first)
    before = sorted(ckpt.parent.rglob("*"))
    with pytest.raises(kind):
        recast.convert(ckpt, "bf16")
    assert sorted(ckpt.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "fault",
    [name for name, (_, [first, *_]) in FAULTS.items() if first[1] != ERROR and name != IDLE],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_conversion_puts_the_rest_right(fault: str, dtype: str, ckpt: Path) -> None:
    """What is no error is gone once the checkpoint is converted, even to the dtype it has."""
    FAULTS[fault][0](ckpt)
    done = recast.convert(ckpt, dtype)
    assert done.target is not None
    assert found(done.target) == []


def test_a_shard_where_it_is_left_out_is_told_as_such(ckpt: Path) -> None:
    """Who is told that a file is not there looks for it; this one is there, and not looked at."""
    place("checkpoint-5/x.safetensors")(ckpt)
    [finding] = recast.findings(recast.inspect(ckpt))
    assert "is not there" not in finding.problem
    assert "left out as a checkpoint of its own" in finding.problem


def test_a_shard_named_by_itself_needs_no_index(ckpt: Path) -> None:
    """Who names one file of several means that one, and gets it."""
    for name in (FIRST, SECOND):
        assert found(ckpt / name) == []
        target = recast.convert(ckpt / name, "bf16", out=ckpt.with_name(name)).target
        cast = checkpoints.cast_all(load_file(ckpt / name), recast.Dtype.BF16)
        stored = load_file(target)
        assert stored.keys() == cast.keys()
        assert all(torch.equal(stored[key], cast[key]) for key in cast)


ALLOWED = {
    "two formats": "ambiguous-weights",
    "no index": "unindexed-tensors",
    "stale shard": "unindexed-tensors",
    "tensor without place": "unindexed-tensors",
}


@pytest.mark.parametrize("fault", ALLOWED)
def test_what_a_user_allows_is_converted_where_it_lies(fault: str, ckpt: Path) -> None:
    """Told which finding to pass over, recast converts every tensor there is, and loses none."""
    FAULTS[fault][0](ckpt)
    first = recast.findings(recast.inspect(ckpt))[0]
    assert first.name == ALLOWED[fault]
    assert f"--allow {first.name}" in first.remedy
    target = recast.convert(ckpt, "bf16", allow=[first.name]).target
    assert recast.verify(target, against=ckpt).holds
    paths = sorted(ckpt.glob("*.safetensors"))
    assert [path.name for path in sorted(target.glob("*.safetensors"))] == [p.name for p in paths]
    for path in paths:
        cast = checkpoints.cast_all(load_file(path), recast.Dtype.BF16)
        stored = load_file(target / path.name)
        assert stored.keys() == cast.keys()
        assert all(torch.equal(stored[key], cast[key]) for key in cast)
    if (ckpt / INDEX).exists():
        places = [json.loads((f / INDEX).read_text())["weight_map"] for f in (ckpt, target)]
        assert places[0] == places[1]


ABSENT = {
    "no shard": "missing-shard",
    "place without tensor": "missing-tensors",
    "ZeRO-3": "empty-tensors",
}


@pytest.mark.parametrize("fault", ABSENT)
def test_what_is_there_is_converted_if_a_user_allows_it(fault: str, ckpt: Path) -> None:
    """What is missing stays missing; every tensor that is stored is cast."""
    FAULTS[fault][0](ckpt)
    target = recast.convert(ckpt, "bf16", allow=[ABSENT[fault]]).target
    assert recast.verify(target, against=ckpt).holds
    for path in ckpt.glob("*.safetensors"):
        cast = checkpoints.cast_all(load_file(path), recast.Dtype.BF16)
        stored = load_file(target / path.name)
        assert stored.keys() == cast.keys()
        assert all(torch.equal(stored[key], cast[key]) for key in cast)


@pytest.mark.parametrize("error", ["quantized config", "tensor without place", "no shard"])
def test_no_command_is_one_that_an_error_stops(error: str, ckpt: Path) -> None:
    """While an error blocks them, a warning has no command, or one that works."""
    (ckpt / INDEX).write_text((ckpt / INDEX).read_text().replace("2084", "1"))
    for fault in ("no claim", "no header metadata", "unknown claim in an index"):
        FAULTS[fault][0](ckpt)
    FAULTS[error][0](ckpt)
    _, *others = recast.findings(recast.inspect(ckpt))
    assert others
    for command in [each.command for each in others if each.command]:
        type_in(command)


def test_everything_that_has_no_value_is_named(ckpt: Path) -> None:
    """Of a ZeRO-3 save, all empty tensors are listed, and not the weights alone."""
    hollow("lm_head.weight", "experts.gate_up_proj", "pos")(ckpt)
    [finding] = recast.findings(recast.inspect(ckpt))
    assert set(finding.tensors) == {"lm_head.weight", "experts.gate_up_proj", "pos"}


def test_trainer_state_of_broken_weights_is_to_be_kept(ckpt: Path) -> None:
    """Nobody is told to delete what may be the only copy: ZeRO-3's weights lie in it."""
    (ckpt / "optimizer.pt").touch()
    *_, state = recast.findings(recast.inspect(ckpt))
    assert state.name == "trainer-state"
    assert "--delete-trainer-state" in state.command
    hollow("lm_head.weight")(ckpt)
    *_, state = recast.findings(recast.inspect(ckpt))
    assert (state.name, state.command) == ("trainer-state", "")
    assert "keep it" in state.remedy


def test_what_stops_a_conversion_comes_first(ckpt: Path) -> None:
    """Of many findings the errors stand first, then the warnings, then the notes."""
    for fault in ("no header metadata", "wrong size", "no real claim", "tensor without place"):
        FAULTS[fault][0](ckpt)
    assert found(ckpt) == [
        ("unindexed-tensors", ERROR, SECOND),
        MISMATCH,
        TOTAL,
        FAULTS["no header metadata"][1][0],
    ]


def test_long_lists_are_cut_short(tmp_path: Path) -> None:
    """Of many tensors the first three are named, and the others counted."""
    tensors = checkpoints.random_tensors(**{f"t{number:03}": (1,) for number in range(100)})
    folder = checkpoints.save_sharded(tmp_path / "ckpt", {FIRST: tensors})
    index(lambda document: document.update(weight_map={"t000": FIRST}))(folder)
    [finding] = recast.findings(recast.inspect(folder))
    assert "holds 't001', 't002', 't003' and 96 more, which" in finding.problem


def test_the_words_are_those_of_the_files(ckpt: Path) -> None:
    """A finding says what stands in the file, as the file has it, and what is stored."""
    configure(torch_dtype=None, text_config={"dtype": "bfloat16"})(ckpt)
    _, mismatch = recast.findings(recast.inspect(ckpt))
    assert "torch_dtype = null, text_config.dtype = bfloat16" in mismatch.problem
    assert "float32" in mismatch.problem
    index(lambda document: document["metadata"].update(total_size=12))(ckpt)
    _, _, total = recast.findings(recast.inspect(ckpt))
    tensors = [each for name in (FIRST, SECOND) for each in load_file(ckpt / name).values()]
    stored = sum(each.nbytes for each in tensors)
    assert f"says total_size = 12, but the tensors take {stored} bytes" in total.problem


@pytest.mark.parametrize("fault", FAULTS)
def test_severities_are_those_of_the_table(fault: str, ckpt: Path) -> None:
    """A name has one severity, by which people know whether it stops them."""
    FAULTS[fault][0](ckpt)
    for each in recast.findings(recast.inspect(ckpt)):
        assert findings.SEVERITIES[each.name] is each.severity


def type_in(command: str, **environment: str) -> None:
    """Run a command as it stands, as its reader would; what it says is shown if it fails."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        shlex.split(command),
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# No command can put these right: what is missing is elsewhere, or nobody knows which is meant.
WITHOUT_COMMAND = {"quantized", "missing-shard", "missing-tensors"}
NOBODY_KNOWS = ("no index", "tensor without place", "wrong place", "two formats", "ZeRO-3")
NOBODY_KNOWS += ("two formats of a variant", "ZeRO-3 of other names")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_resolves_it(fault: str, ckpt: Path, tmp_path: Path) -> None:
    """What a finding says to type is typed, as it stands: then the finding is gone."""
    FAULTS[fault][0](ckpt)
    for path in ckpt.rglob("*"):
        os.utime(path, (1e9, path.stat().st_mtime - 1e4))  # nobody is writing here
    shutil.copytree(ckpt, tmp_path / "pristine")
    for number, (name, *_) in enumerate(found(ckpt)):
        shutil.rmtree(ckpt)
        shutil.copytree(tmp_path / "pristine", ckpt)
        command = recast.findings(recast.inspect(ckpt))[number].command
        if not command:
            assert name in WITHOUT_COMMAND or fault in NOBODY_KNOWS
            continue
        type_in(command)
        made = [path for path in ckpt.parent.glob(f"{ckpt.name}-*") if path.is_dir()]
        assert name not in [each for each, *_ in found(*(made or [ckpt]))]
        for path in made:
            shutil.rmtree(path)


def test_what_is_older_is_moved_away(ckpt: Path) -> None:
    """Of a file and an index beside it, the file is moved away if it is the older one."""
    copy(FIRST, "model.safetensors")(ckpt)
    os.utime(ckpt / "model.safetensors", (1e9, 1e9))
    [finding] = recast.findings(recast.inspect(ckpt))
    assert "older than they are" in finding.remedy
    type_in(finding.command)
    assert found(ckpt) == []
    assert (ckpt.parent / "ckpt-stale-model.safetensors").is_file()


def test_what_an_interrupted_download_lacks_is_fetched_again(ckpt: Path, tmp_path: Path) -> None:
    """In the Hub's cache, the command names repository, revision and cache as the client does."""
    cache = tmp_path / "hub"
    snapshot = cache / "models--org--tiny-name" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    ckpt.rename(snapshot)
    (snapshot / SECOND).unlink()
    [finding] = recast.findings(recast.inspect(snapshot))
    assert finding.tensors == ("lm_head.weight", "lm_head.scale")
    assert cached_snapshot(finding.command) == snapshot / SECOND


def cached_snapshot(command: str) -> Path:
    """Return the file that an `hf download` command is about, from huggingface_hub's own rules."""
    program, verb, repo, name, *options = shlex.split(command)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (program, verb, set(given)) == ("hf", "download", {"--revision", "--cache-dir"})
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    return Path(given["--cache-dir"]) / folder / "snapshots" / given["--revision"] / name


def test_a_cached_config_is_not_replaced(ckpt: Path, tmp_path: Path) -> None:
    """In the Hub's cache, where configs are links into a store, a conversion makes them true."""
    snapshot = tmp_path / "hub" / "models--tiny" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    configure(torch_dtype=None)(ckpt)
    ckpt.rename(snapshot)
    [finding] = recast.findings(recast.inspect(snapshot))
    assert finding.command == f"recast {snapshot} --to fp32"


def test_what_its_base_stores_narrower_is_oversized(ckpt: Path) -> None:
    """Beside its base, a checkpoint that nothing gives away is known to be too wide."""
    base = recast.inspect(
        recast.convert(ckpt, "bf16", keep=["lm_head.scale"], out=ckpt.with_name("base")).target
    )
    first, second = recast.findings(recast.inspect(ckpt), base=base)
    assert (first.name, first.subject, second.subject) == ("oversized", FIRST, SECOND)
    assert first.tensors == ("model.embed_tokens.weight", "model.norm.weight")
    assert second.tensors == ("lm_head.weight",)
    assert first.command == f"recast {ckpt} --like {base.path}"
    assert recast.findings(base, base=base)[0].name == "mixed-dtypes"
    type_in(first.command)
    repaired = recast.inspect(ckpt.with_name("ckpt-bf16"))
    assert [each.name for each in recast.findings(repaired, base=base)] == ["mixed-dtypes"]


def test_the_tensors_of_a_mixture(ckpt: Path) -> None:
    """All tensors are listed, and layers that are alike are told as one."""
    tensors = {f"model.layers.{number}.gate.bias": torch.ones(2).half() for number in range(5)}
    checkpoints.save_shard(ckpt / "other" / "model.safetensors", {"a": torch.ones(99), **tensors})
    [finding] = recast.findings(recast.inspect(ckpt / "other"))
    assert finding.tensors == tuple(tensors)
    assert finding.problem == (
        "stores 5 of its tensors as float16, most as float32: 'model.layers.*.gate.bias'"
    )


def test_every_finding_has_its_page() -> None:
    """The page explains the names that exist, and no others: symptom, cause and cure of each."""
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    by_name = {section.split("`")[1]: section for section in sections}
    assert list(by_name) == sorted(findings.SEVERITIES)
    for name, section in by_name.items():
        assert section.startswith(f"`{name}` ({findings.SEVERITIES[name]})\n"), name
        for part in ("**Symptom.**", "**Cause.**", "**Cure.**"):
            assert section.count(part) == 1, (name, part)
