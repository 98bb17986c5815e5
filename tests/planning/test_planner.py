"""The plan: every byte that will be written, known before anything is done."""

import builtins
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

import recast
from recast.dtypes import TARGETS, Dtype
from recast.formats.findings import Finding, Severity
from recast.planning.plan import Action
from recast.planning.planner import make_plan, refuse_blocked
from recast.planning.policy import Kind, Policy
from tests import checkpoints

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def planned_dtypes(plan: recast.Plan) -> dict[str, Dtype]:
    """Return the dtype that each tensor will have."""
    return {each.name: each.dtype for shard in plan.shards for each in shard.tensors}


@settings(max_examples=80)
@given(checkpoints.state_dicts(), st.sampled_from(TARGETS), st.text('é"{ ', max_size=3))
def test_a_planned_shard_is_what_safetensors_would_write(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: checkpoints.Tensors,
    target: Dtype,
    framework: str,
) -> None:
    """Size, data size, order and the bytes before the data are the reference's, to the byte."""
    path = tmp_path_factory.mktemp("planned") / "model.safetensors"
    metadata = {"format": framework}
    checkpoints.save_shard(path, tensors, metadata)
    [shard] = recast.plan(path, target, keep_rules=False).shards
    reference = save(checkpoints.cast_all(tensors, target), metadata)
    begin = 8 + int.from_bytes(reference[:8], "little")
    assert shard.size == len(reference)
    assert shard.data_size == len(reference) - begin
    assert shard.size_before == path.stat().st_size
    written = json.loads(reference[8:begin])
    written.pop("__metadata__")
    assert [each.name for each in shard.tensors] == list(written)
    for each in shard.tensors:
        begins, ends = written[each.name]["data_offsets"]
        assert each.nbytes == ends - begins
        assert each.dtype.value == written[each.name]["dtype"]
        assert each.changes == (each.dtype is not each.source.dtype)
    if shard.changes:
        assert shard.head == reference[:begin]
    else:
        assert reference == path.read_bytes()


@settings(max_examples=40)
@given(checkpoints.state_dicts().filter(lambda tensors: len(tensors) > 1), st.sampled_from(TARGETS))
def test_the_index_will_say_what_the_tensors_take(
    tmp_path_factory: pytest.TempPathFactory, tensors: checkpoints.Tensors, target: Dtype
) -> None:
    """The planned total_size is the sum of torch's own sizes of the cast tensors."""
    names = list(tensors)
    shards = {
        FIRST: {name: tensors[name] for name in names[:1]},
        SECOND: {name: tensors[name] for name in names[1:]},
    }
    folder = checkpoints.save_sharded(tmp_path_factory.mktemp("total"), shards)
    plan = recast.plan(folder, target)
    texts = {document.name: document.text for document in plan.documents}
    text = texts.get(INDEX, (folder / INDEX).read_text(encoding="utf-8"))
    cast = checkpoints.cast_all(tensors, target)
    assert json.loads(text)["metadata"]["total_size"] == sum(each.nbytes for each in cast.values())
    assert json.loads(text)["weight_map"] == {
        name: shard for shard, held in shards.items() for name in held
    }


def test_every_file_is_planned_once(ckpt: Path) -> None:
    """Shards are converted, texts that lie rewritten, all else copied; sizes add up."""
    (ckpt / "LICENSE").write_text("é", encoding="utf-8")
    (ckpt / "optimizer.pt").write_bytes(b"state")
    plan = recast.plan(ckpt, "bf16")
    assert {file.name: file.action.value for file in plan.files} == {
        FIRST: "convert",
        SECOND: "convert",
        "config.json": "rewrite",
        INDEX: "rewrite",
        "LICENSE": "copy",
        "tokenizer.json": "copy",
    }
    assert [document.name for document in plan.documents] == ["config.json", INDEX]
    assert len([*plan.files]) == 6
    for file in plan.files:
        assert file.size_before == (ckpt / file.name).stat().st_size
        if file.action is Action.COPY:
            assert file.size == file.size_before
    assert plan.size_before == sum(file.size_before for file in plan.files)
    assert plan.size == sum(file.size for file in plan.files)
    assert plan.changes


def test_documents_are_counted_in_bytes(ckpt: Path) -> None:
    """The size of a text is that of its UTF-8, as it will lie on the disk."""
    (ckpt / "config.json").write_bytes('{"é": "😀", "dtype": "float32"}\r\n'.encode())
    document = recast.plan(ckpt, "bf16").documents[0]
    assert document.size_before == (ckpt / "config.json").stat().st_size
    assert document.text == '{"é": "😀", "dtype": "bfloat16"}\r\n'
    assert document.size == document.size_before + 1


def test_nothing_is_planned_for_what_is_right_already(ckpt: Path) -> None:
    """A checkpoint in the target dtype, with config and index that say so, needs nothing."""
    plan = recast.plan(ckpt, "fp32")
    assert not plan.changes
    assert not plan.documents
    assert {file.action for file in plan.files} == {Action.COPY}
    assert plan.size == plan.size_before
    assert {each.reason.kind for shard in plan.shards for each in shard.tensors} == {Kind.ALREADY}


def test_a_shard_that_is_right_is_copied_as_it_is(tmp_path: Path) -> None:
    """Of two shards only the one that changes is written anew; layout alone is no reason."""
    done = {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.zeros(2, dtype=torch.int64)}
    folder = checkpoints.save_sharded(
        tmp_path / "ckpt", {FIRST: done, SECOND: checkpoints.random_tensors(c=(2,))}
    )
    checkpoints.write_laid_out(
        folder / FIRST, done, header=["a", "b"], data=["a", "b"], metadata={"format": "pt"}
    )
    first, second = recast.plan(folder, "bf16").shards
    assert (first.changes, second.changes) == (False, True)
    assert first.size == (folder / FIRST).stat().st_size
    assert first.head == b""


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {"format": "pt"}),
        ({"format": "np"}, {"format": "np"}),
        ({"a": "1"}, {"a": "1", "format": "pt"}),
        ({"z": "é", "format": "pt", "a": ""}, {"a": "", "format": "pt", "z": "é"}),
    ],
)
def test_header_metadata_is_kept_and_completed(
    tmp_path: Path, metadata: dict[str, str], expected: dict[str, str]
) -> None:
    """Every key stays; ``format`` is added where it is missing; their order is fixed."""
    path = tmp_path / "model.safetensors"
    checkpoints.save_shard(path, checkpoints.random_tensors(a=(2,)), metadata)
    [shard] = recast.plan(path, "bf16").shards
    written = json.loads(shard.head[8:])["__metadata__"]
    assert list(written.items()) == list(expected.items())
    [unchanged] = recast.plan(path, "fp32").shards
    assert unchanged.changes == ("format" not in metadata)


def test_what_is_kept_is_listed_with_its_reason(ckpt: Path) -> None:
    """Kept tensors come with their shards and reasons; what cannot be cast is no such tensor."""
    save_file(
        {"lm_head.weight": torch.zeros(2), "lm_head.scale": torch.zeros(1, dtype=torch.int64)},
        ckpt / SECOND,
        {"format": "pt"},
    )
    plan = recast.plan(ckpt, "bf16", keep=["*.norm.*", "lm_head.*"])
    assert [(shard, each.name, str(each.reason)) for shard, each in plan.kept] == [
        (FIRST, "model.norm.weight", "--keep *.norm.*"),
        (SECOND, "lm_head.weight", "--keep lm_head.*"),
    ]
    assert planned_dtypes(plan) == {
        "model.embed_tokens.weight": Dtype.BF16,
        "model.norm.weight": Dtype.F32,
        "lm_head.weight": Dtype.F32,
        "lm_head.scale": Dtype.I64,
    }


def test_rules_are_those_of_the_config_beside_the_shard(tmp_path: Path) -> None:
    """In a pipeline, each component has the rules of its own architecture."""
    name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    for folder, model_type in (("text_encoder", "t5"), ("other", "llama"), ("none", None)):
        tensors = checkpoints.random_tensors(**{f"{folder}.{name}": (2,), name: (2,)})
        checkpoints.save_shard(tmp_path / folder / "model.safetensors", tensors)
        if model_type:
            checkpoints.write_json(tmp_path / folder / "config.json", {"model_type": model_type})
    kept = {shard for shard, _ in recast.plan(tmp_path, "fp16").kept}
    assert kept == {"text_encoder/model.safetensors"}
    assert not list(recast.plan(tmp_path, "fp16", keep_rules=False).kept)
    assert not list(recast.plan(tmp_path, "bf16").kept)


@pytest.mark.parametrize(
    ("dtypes", "target", "may_lose"),
    [
        ([torch.float32], "bf16", True),
        ([torch.bfloat16], "fp16", True),
        ([torch.float16], "bf16", True),
        ([torch.float64], "fp32", True),
        ([torch.bfloat16, torch.float16], "fp32", False),
        ([torch.float32, torch.int64], "fp32", False),
        ([torch.bfloat16, torch.float32], "fp32", False),
    ],
)
def test_only_a_wider_dtype_cannot_lose(
    tmp_path: Path,
    dtypes: list[torch.dtype],
    target: str,
    may_lose: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Whether values may change follows from the dtypes alone."""
    path = tmp_path / "model.safetensors"
    checkpoints.save_shard(path, {str(each): torch.ones(2, dtype=each) for each in dtypes})
    assert recast.plan(path, target).may_lose is may_lose


@pytest.mark.parametrize(
    ("source", "is_file", "target"),
    [
        ("/models/ckpt", False, "/models/ckpt-bf16"),
        ("/models/Llama-3.1", False, "/models/Llama-3.1-bf16"),
        ("models/ckpt/", False, "models/ckpt-bf16"),
        ("ckpt", False, "ckpt-bf16"),
        ("/models/a.safetensors", True, "/models/a-bf16.safetensors"),
        ("a.b.safetensors", True, "a.b-bf16.safetensors"),
        ("/models/dir.safetensors", False, "/models/dir.safetensors-bf16"),
    ],
)
def test_the_output_goes_beside_the_source(
    ckpt: Path,
    source: str,
    is_file: bool,  # noqa: FBT001 - a column of the table
    target: str,
) -> None:
    """The default target is the source's own name with the dtype in it, beside it."""
    plan = recast.plan(ckpt, "bf16")
    checkpoint = replace(plan.checkpoint, path=Path(source), is_file=is_file)
    assert replace(plan, checkpoint=checkpoint).default_target == Path(target)


@pytest.mark.parametrize("here", [".", "..", "sub/.."])
def test_the_current_folder_has_a_name_too(
    ckpt: Path, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    """A path without a name of its own stands for the folder that it leads to."""
    plan = recast.plan(ckpt, "fp16")
    (ckpt / "sub").mkdir()
    monkeypatch.chdir(ckpt / "sub" if here == ".." else ckpt)
    there = replace(plan, checkpoint=replace(plan.checkpoint, path=Path(here)))
    assert there.default_target == ckpt.with_name("ckpt-fp16")


def test_a_link_lends_its_own_name(ckpt: Path) -> None:
    """The output of a linked checkpoint goes beside the link, not beside what it leads to."""
    link = ckpt.parent / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(ckpt)
    assert recast.plan(link, "bf16").default_target == link.with_name("link-bf16")


def test_planning_touches_no_disk(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a checkpoint was inspected, planning needs nothing but what was found.

    Every way to look at a file fails, and so would any look at the checkpoint: it is gone.
    """
    policy = Policy(Dtype.F16, keep=("*norm*",))
    checkpoint = recast.inspect(ckpt)
    before = make_plan(checkpoint, policy)
    shutil.rmtree(ckpt)

    def fail(*arguments: object, **_: object) -> None:
        raise AssertionError(f"planning looks at {arguments}")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", fail)
        patch.setattr(io, "open", fail)
        for name in ("open", "stat", "lstat", "listdir", "scandir", "access", "readlink", "mkdir"):
            patch.setattr(os, name, fail)
        after = make_plan(checkpoint, policy)
        sizes = after.size, after.size_before, after.changes, after.may_lose
        files = list(after.files)
        kept = list(after.kept)
    assert after == before
    assert sizes == (before.size, before.size_before, True, True)
    assert files == list(before.files)
    assert len(kept) == 1


def test_planning_is_repeatable_and_changes_nothing(ckpt: Path) -> None:
    """The same checkpoint and policy give the same plan, and the folder is as it was."""
    before = {path: path.read_bytes() for path in ckpt.rglob("*")}
    first, second = recast.plan(ckpt, "bf16"), recast.plan(ckpt, "bf16")
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert {path: path.read_bytes() for path in ckpt.parent.rglob("*") if path != ckpt} == before


def test_a_fingerprint_tells_plans_apart(ckpt: Path) -> None:
    """Whatever would make the output another one makes the fingerprint another one."""
    prints = [recast.plan(ckpt, dtype).fingerprint for dtype in TARGETS]
    prints += [recast.plan(ckpt, "bf16", keep=["*norm*"]).fingerprint]
    prints += [recast.plan(ckpt, "bf16", keep_rules=False).fingerprint]
    os.utime(ckpt / FIRST, ns=(1, 1))
    prints += [recast.plan(ckpt, "bf16").fingerprint]
    checkpoints.write_json(ckpt / "config.json", {"model_type": "t5", "torch_dtype": "float32"})
    prints += [recast.plan(ckpt, "bf16").fingerprint]
    (ckpt / "tokenizer.json").write_text("{ }", encoding="utf-8")
    prints += [recast.plan(ckpt, "bf16").fingerprint]
    shutil.copytree(ckpt, ckpt.with_name("other"))
    prints += [recast.plan(ckpt.with_name("other"), "bf16").fingerprint]
    assert len(set(prints)) == len(prints) == 9


def finding(name: str, severity: Severity) -> Finding:
    """Return a finding."""
    return Finding(name, severity, "a file", "is wrong", "mend it")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([("quantized", Severity.ERROR)], recast.RefusedError),
        ([("missing-shard", Severity.ERROR)], recast.CheckpointError),
        (
            [("x", Severity.NOTE), ("y", Severity.ERROR), ("quantized", Severity.ERROR)],
            recast.CheckpointError,
        ),
    ],
)
def test_the_first_error_stops_the_plan(
    names: list[tuple[str, Severity]], kind: type[recast.RecastError]
) -> None:
    """The first finding that is an error is raised, with its own words."""
    with pytest.raises(kind) as error:
        refuse_blocked(finding(*each) for each in names)
    assert type(error.value) is kind
    assert error.value.args == ("a file", "is wrong", "mend it")


def test_warnings_and_notes_stop_nothing() -> None:
    """What a conversion puts right is no reason not to convert."""
    refuse_blocked([finding("a", Severity.WARNING), finding("b", Severity.NOTE)])


@pytest.mark.parametrize(
    "allow", ["missing-shard", ["missing-shard"], ("overflow", "missing-shard")]
)
def test_what_is_allowed_stops_nothing(ckpt: Path, allow: object) -> None:
    """A finding that the user has seen is passed over, and what is there is planned."""
    (ckpt / SECOND).unlink()
    with pytest.raises(recast.CheckpointError):
        recast.plan(ckpt, "bf16", allow="another-finding")
    plan = recast.plan(ckpt, "bf16", allow=allow)
    assert [shard.name for shard in plan.shards] == [FIRST]
    total = json.loads(plan.documents[1].text)["metadata"]["total_size"]
    assert total == plan.shards[0].data_size == (32 * 8 + 8) * 2


@pytest.mark.parametrize("dtype", ["int8", "", None, "fp64", torch.float8_e4m3fn])
def test_an_unknown_dtype_is_refused_before_the_disk_is_read(dtype: object) -> None:
    """What cannot be a target is an error of its own, also for a checkpoint that is not there."""
    with pytest.raises(recast.DtypeError):
        recast.plan("/no/such/folder", dtype)
