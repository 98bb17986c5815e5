"""The index: what it says, what it must not say, and how it is told anew."""

import json
import posixpath
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.hub import get_checkpoint_shard_files

from recast import CheckpointError, Dtype
from recast.formats.index import Index
from tests import checkpoints

NAME = "model.safetensors.index.json"
MAP = '"weight_map": {"b": "2.safetensors", "a": "1.safetensors"}'


def index(text: str, name: str = NAME) -> Index:
    """Return the index of this text."""
    return Index.parse(name, text.encode())


def placed(shard: object) -> str:
    """Return the text of an index that places one tensor in *shard*."""
    return json.dumps({"metadata": {"total_size": 4}, "weight_map": {"lm_head.weight": shard}})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # The size is put right, wherever it stands and however it was written.
        (f'{{"metadata": {{"total_size": 9}}, {MAP}}}', '"metadata": {"total_size": 7}'),
        (f'{{{MAP}, "metadata": {{"total_size": 9}}}}', '"metadata": {"total_size": 7}'),
        (f'{{"metadata": {{"total_size": "7"}}, {MAP}}}', '"metadata": {"total_size": 7}'),
        (f'{{"metadata": {{"total_size": null}}, {MAP}}}', '"metadata": {"total_size": 7}'),
        # All else stays: other keys, their order, numbers that Python would spell otherwise.
        (
            f'{{"metadata": {{"total_parameters": 1E2, "total_size": 9, "x": null}}, {MAP}}}',
            '"metadata": {"total_parameters": 1E2, "total_size": 7, "x": null}',
        ),
        # A dtype is told anew where one is told, in whatever words; transformers reads it if the
        # config has none.
        (
            f'{{"metadata": {{"dtype": "float32", "total_size": 9}}, {MAP}}}',
            '"metadata": {"dtype": "bfloat16", "total_size": 7}',
        ),
        (
            f'{{"metadata": {{"total_size": 7, "dtype": "torch.float32"}}, {MAP}}}',
            '"metadata": {"total_size": 7, "dtype": "bfloat16"}',
        ),
        (
            f'{{"metadata": {{"total_size": 7, "dtype": "mixed"}}, {MAP}}}',
            '"metadata": {"total_size": 7, "dtype": "bfloat16"}',
        ),
        (
            f'{{"metadata": {{"dtype": null, "total_size": 7}}, {MAP}}}',
            '"metadata": {"dtype": "bfloat16", "total_size": 7}',
        ),
        (
            f'{{"metadata": {{"dtype": 5, "total_size": 7}}, {MAP}}}',
            '"metadata": {"dtype": "bfloat16", "total_size": 7}',
        ),
        # What transformers needs is there afterwards.
        (f'{{"metadata": {{}}, {MAP}}}', '"metadata": {"total_size": 7}'),
        (f'{{"metadata": null, {MAP}}}', '"metadata": {"total_size": 7}'),
        (
            f'{{"metadata": {{"mergekit_version": "0.1"}}, {MAP}}}',
            '"metadata": {"mergekit_version": "0.1","total_size": 7}',
        ),
    ],
)
def test_size_and_dtype_are_told_anew_and_nothing_else(before: str, after: str) -> None:
    """The bytes of all tensors are said where they belong; all other characters stay."""
    begin = before.index('"metadata"')
    length = len(before) - len(MAP) - len("{, }")
    expected = before[:begin] + after + before[begin + length :]
    retold = index(before).retold(7, Dtype.BF16)
    assert retold == expected
    assert index(retold).retold(7, Dtype.BF16) == retold
    assert json.loads(retold)["metadata"]["total_size"] == 7


def test_metadata_is_added_to_an_index_without_any() -> None:
    """An index without metadata, on which transformers fails, gets some as its last member."""
    before = '{\n  "weight_map": {\n    "a": "1.safetensors"\n  }\n}\n'
    after = (
        '{\n  "weight_map": {\n    "a": "1.safetensors"\n  },\n  "metadata": {"total_size": 7}\n}\n'
    )
    assert index(before).retold(7, Dtype.F16) == after


def test_an_index_that_is_right_stays_as_it_is() -> None:
    """Nothing changes if nothing has to, however the file is laid out."""
    text = (
        '{"metadata":\t{"dtype":"float16","total_size":7},\r\n"weight_map":{"a":"1.safetensors"}}'
    )
    assert index(text).retold(7, Dtype.F16) == text


@pytest.mark.parametrize(
    ("metadata", "loads"), [({"total_size": 1}, True), ({}, True), (None, False), ("absent", False)]
)
def test_transformers_reads_what_was_retold(
    tmp_path: Path,
    metadata: object,
    loads: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Also where it could not read the index before, transformers finds shards and size."""
    document = {"metadata": metadata, "weight_map": {"b": "2.safetensors", "a": "1.safetensors"}}
    if metadata == "absent":
        del document["metadata"]
    checkpoints.write_json(tmp_path / NAME, document)
    if not loads:
        with pytest.raises((KeyError, TypeError)):
            get_checkpoint_shard_files(tmp_path, tmp_path / NAME)
    read = Index.parse(NAME, (tmp_path / NAME).read_bytes())
    (tmp_path / NAME).write_text(read.retold(7, Dtype.BF16), encoding="utf-8")
    shards, found = get_checkpoint_shard_files(tmp_path, tmp_path / NAME)
    assert [Path(shard).name for shard in shards] == ["1.safetensors", "2.safetensors"]
    assert found["total_size"] == 7
    assert found["weight_map"] == read.weight_map


def test_the_size_is_that_of_the_tensors(tmp_path: Path) -> None:
    """The size that transformers itself writes is the one that recast would write."""
    tensors = {name: torch.zeros(3, 5) for name in "abc"}
    folder = checkpoints.save_sharded(tmp_path, {"1.safetensors": tensors})
    text = (folder / NAME).read_text(encoding="utf-8")
    assert index(text).retold(3 * 3 * 5 * 4, Dtype.F32) == text


def test_the_order_is_that_of_the_file() -> None:
    """Tensors stand in the file's order; shards stand once, and sorted."""
    names = {"z": "2.safetensors", "a": "3.safetensors", "m": "1.safetensors", "b": "2.safetensors"}
    read = index(json.dumps({"weight_map": names}))
    assert list(read.weight_map.items()) == list(names.items())
    assert read.shards == ("1.safetensors", "2.safetensors", "3.safetensors")
    assert (read.metadata, read.total_size, read.claim) == (None, None, None)


def test_shards_are_named_from_the_top_of_the_checkpoint() -> None:
    """An index in a component's folder places its shards in that folder."""
    name = "unet/diffusion_pytorch_model.safetensors.index.json"
    text = json.dumps({"weight_map": {"a": "x.safetensors", "b": "./deep//y.safetensors"}})
    assert list(index(text, name).weight_map.values()) == [
        "unet/x.safetensors",
        "unet/deep/y.safetensors",
    ]


@pytest.mark.parametrize(
    "shard",
    [
        *("../x.safetensors", "a/../../x.safetensors", "a/..", "..", "/x.safetensors", "//x"),
        *("C:\\x.safetensors", "c:x.safetensors", "C:/x.safetensors", "\\x.safetensors"),
        *("..\\x.safetensors", "a\\..\\x.safetensors", "a/..\\x.safetensors", "\\\\host\\share\\x"),
        *("", ".", "./", "/", "x\0.safetensors", "\0"),
        *(None, 7, True, ["x.safetensors"], {"x": 1}),
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(shard: object) -> None:
    """No index leads recast out of the checkpoint; the error names the tensor and the name."""
    with pytest.raises(CheckpointError) as error:
        index(placed(shard))
    assert error.value.subject == NAME
    assert "'lm_head.weight'" in error.value.problem
    assert repr(shard) in error.value.problem
    assert error.value.remedy
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)


@settings(max_examples=150)
@given(st.text(st.sampled_from("./\\:aC\0 ~%"), max_size=8), st.sampled_from(["", "unet/", "a/b/"]))
def test_every_name_stays_in_the_folder_or_is_refused(shard: str, home: str) -> None:
    """Wherever an index lies, no name in it leads above its own folder."""
    try:
        [name] = index(placed(shard), home + NAME).weight_map.values()
    except CheckpointError:
        return
    assert name == posixpath.normpath(name)
    assert name.startswith(home)
    assert name != home.rstrip("/")
    assert name.partition("/")[0] not in ("", "..")
    assert name == posixpath.normpath(home + shard)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "weight_map"),
        ('{"weight_map": {}}', "weight_map"),
        ('{"weight_map": null}', "weight_map"),
        ('{"weight_map": ["1.safetensors"]}', "weight_map"),
        ('{"metadata": [], "weight_map": {"a": "1.safetensors"}}', "metadata"),
        ('{"metadata": "x", "weight_map": {"a": "1.safetensors"}}', "metadata"),
        ('{"metadata": 0, "weight_map": {"a": "1.safetensors"}}', "metadata"),
        ("[]", "JSON object"),
        ('{"weight_map": {"a": "1.safe', "JSON"),
        ("", "JSON"),
    ],
)
def test_what_is_no_index_is_an_error_that_names_it(text: str, problem: str) -> None:
    """A file that maps no weights, or is cut off, is an error about that file."""
    with pytest.raises(CheckpointError, match=problem) as error:
        index(text, f"unet/{NAME}")
    assert error.value.subject == f"unet/{NAME}"
    assert error.value.remedy


def test_a_huge_index_is_read_and_told_anew() -> None:
    """A hundred thousand tensors in a file of tens of megabytes are no special case."""
    names = {
        f"model.layers.{layer}.mlp.experts.{expert}.{'x' * 100}.weight": f"{layer}.safetensors"
        for layer in range(100)
        for expert in range(1000)
    }
    text = json.dumps({"metadata": {"total_size": 1, "dtype": "float32"}, "weight_map": names})
    assert len(text) > 10_000_000
    read = index(text)
    assert read.weight_map == names
    assert len(read.shards) == 100
    assert read.size == len(text)
    retold = read.retold(2, Dtype.BF16)
    assert len(retold) == len(text) + len("bfloat16") - len("float32")
    assert json.loads(retold) == {
        "metadata": {"total_size": 2, "dtype": "bfloat16"},
        "weight_map": names,
    }
