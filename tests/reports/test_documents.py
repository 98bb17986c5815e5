"""What --json prints is what docs/recast.schema.json describes, and what the files hold."""

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from safetensors.torch import load_file

import recast
from recast import cli, errors
from recast.dtypes import Dtype
from recast.execution.fleets.cluster import connected
from recast.execution.lock import Lock
from recast.formats.hub_path import HubFile
from recast.planning.publication import Destination, make_publication
from recast.reports import documents
from tests import checkpoints

Json = Any
Schema = dict[str, Any]

SCHEMA: Schema = json.loads(
    (Path(__file__).parents[2] / "docs" / "recast.schema.json").read_text(encoding="utf-8")
)
INDEX = "model.safetensors.index.json"
TORCH_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def edit_index(folder: Path, **changes: object) -> Path:
    """Change members of a checkpoint's index; None takes a member away."""
    path = folder / INDEX
    document = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in document.items() if value is not None}
    checkpoints.write_json(path, kept)
    return folder


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

# Each of the following makes checkpoints in a folder and yields what recast says of them.


def converted_and_verified(root: Path) -> Iterator[Json]:
    """Go through all modes with a checkpoint as most are, and take one tensor from the result."""
    source = checkpoints.two_shards(root / "ckpt")
    yield documents.inspection(recast.inspect(source))
    yield documents.scan(recast.scan(source))
    plan = recast.plan(source, "bf16")
    yield documents.plan_document(plan, plan.default_target)
    done = recast.convert(plan)
    assert done.target is not None
    yield documents.conversion(done)
    yield documents.verification(recast.verify(done.target, against=source))
    again = recast.plan(done.target, "bf16")
    yield documents.plan_document(again, again.default_target)
    yield documents.conversion(recast.convert(again))
    shard = done.target / "model-00002-of-00002.safetensors"
    checkpoints.save_shard(shard, {"lm_head.scale": torch.tensor(7, dtype=torch.bfloat16)})
    (done.target / "tokenizer.json").unlink()
    yield documents.verification(recast.verify(done.target, against=source))
    checkpoints.save_shard(root / "faint.safetensors", {"a": torch.full((3,), 1e-9)})
    faint = recast.convert(root / "faint.safetensors", "fp16").target
    assert faint is not None
    yield documents.verification(recast.verify(faint, against=root / "faint.safetensors"))


def one_file(root: Path) -> Iterator[Json]:
    """Convert a bare file with a value that overflows and one that only rounds, one of zeros."""
    checkpoints.save_shard(root / "tiny.safetensors", {"a": torch.tensor([1e-9, 0.0])})
    yield documents.conversion(recast.convert(root / "tiny.safetensors", "fp16"))
    tensors = {"big": torch.tensor([3.4e38, 1.0]), "small": torch.tensor([0.1])}
    checkpoints.save_shard(root / "x.safetensors", tensors)
    yield documents.inspection(recast.inspect(root / "x.safetensors"))
    checkpoints.save_shard(root / "nan.safetensors", {"nan": torch.tensor([torch.nan, 1.0])})
    yield documents.scan(recast.scan(root / "nan.safetensors"))
    yield documents.conversion(recast.convert(root / "x.safetensors", "bf16", allow=["overflow"]))
    yield documents.conversion(recast.convert(root / "x.safetensors", "bf16", allow=["overflow"]))


def kept_tensors(root: Path) -> Iterator[Json]:
    """Keep tensors by a rule and by a pattern."""
    names = ["encoder.block.0.layer.1.DenseReluDense.wo.weight", "shared.weight", "other.weight"]
    tensors = checkpoints.random_tensors(**dict.fromkeys(names, (4, 4)))
    checkpoints.save_shard(root / "t5" / "model.safetensors", tensors)
    checkpoints.write_json(root / "t5" / "config.json", {"model_type": "t5"})
    yield documents.inspection(recast.inspect(root / "t5"))
    plan = recast.plan(root / "t5", "fp16", keep=["shared.*"])
    yield documents.plan_document(plan, root / "elsewhere")
    yield documents.conversion(recast.convert(plan, out=root / "elsewhere"))
    plan = recast.plan(root / "elsewhere", "fp32")
    yield documents.plan_document(plan, root / "back")


def with_a_base(root: Path) -> Iterator[Json]:
    """Follow a base model that knows all tensors but one, and insist on a cast."""
    base = checkpoints.two_shards(root / "base")
    tuned = checkpoints.two_shards(root / "tuned")
    card = f"---\nbase_model: {base}\n---\n# A model\n"
    (tuned / "README.md").write_text(card, encoding="utf-8")
    yield documents.inspection(recast.inspect(tuned))
    head = checkpoints.random_tensors(**{"value_head.weight": (1, 8), "other.weight": (8,)})
    checkpoints.save_shard(tuned / "value_head.safetensors", head)
    plan = recast.plan(tuned, "bf16", like=base, cast=["value_head.*"])
    yield documents.plan_document(plan, plan.default_target)
    yield documents.conversion(recast.convert(plan))
    yield documents.conversion(recast.fix_config(tuned))


def published(root: Path) -> Iterator[Json]:
    """Plan and make commits to repositories that are there and that are not."""
    plan = recast.plan(checkpoints.two_shards(root / "ckpt"), "bf16")
    sizes = {file.name: file.size for file in plan.files} | {"README.md": 1}
    new = Destination("ckpt", exists=False, private=True)
    yield documents.plan_document(plan, root / "out", make_publication(new, sizes, frozenset()))
    names = ("README.md", "model.safetensors", "config.json", "tokenizer.json")
    files = {name: HubFile(name, 1, "0" * 40) for name in names}
    there = Destination("org/name", exists=True, private=False, owned=True, parent="1", files=files)
    made = make_publication(there, sizes, frozenset({"tokenizer.json"}))
    yield documents.conversion(recast.convert(plan), made, "https://hub/org/name/commit/2")


def hollow(root: Path) -> Iterator[Json]:
    """Inspect what a ZeRO-3 rank saves when nothing is gathered."""
    checkpoints.save_shard(root / "zero3.safetensors", {"a.weight": torch.zeros(0)})
    yield documents.inspection(recast.inspect(root / "zero3.safetensors"))
    mixed = {"a": torch.zeros(9), "b": torch.zeros(1).half()}
    checkpoints.save_shard(root / "mixed.safetensors", mixed)
    yield documents.inspection(recast.inspect(root / "mixed.safetensors"))


def unloadable(root: Path) -> Iterator[Json]:
    """Inspect one whose config no program can read."""
    folder = checkpoints.two_shards(root / "ckpt")
    checkpoints.write_json(folder / "config.json", {"model_type": "gemma", "torch_dtype": "auto"})
    yield documents.inspection(recast.inspect(folder))


def every_dtype(root: Path) -> Iterator[Json]:
    """Inspect eight elements of each dtype that safetensors knows."""
    header, end = {}, 0
    for dtype in Dtype:  # eight elements of n bits are n bytes
        begin, end = end, end + dtype.bits
        header[dtype.value] = {"dtype": dtype, "shape": [8], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(end)
    (root / "all.safetensors").write_bytes(content)
    yield documents.inspection(recast.inspect(root / "all.safetensors"))
    yield documents.scan(recast.scan(root / "all.safetensors"))


def empty(root: Path) -> Iterator[Json]:
    """Inspect a file without tensors, and one whose only tensor has no elements."""
    checkpoints.save_shard(root / "none.safetensors", {})
    checkpoints.save_shard(root / "zero.safetensors", {"a": torch.zeros(0, 3)})
    for name in ("none.safetensors", "zero.safetensors"):
        yield documents.inspection(recast.inspect(root / name))
        yield documents.conversion(recast.convert(root / name, "bf16"))


def pipeline(root: Path) -> Iterator[Json]:
    """Inspect components side by side, whose configs say dtypes in many ways."""
    config = {
        "model_type": "x",
        "dtype": None,
        "torch_dtype": "auto",
        "text_config": {"dtype": "bfloat16", "torch_dtype": {"": "float32"}},
    }
    checkpoints.save_sharded(
        root / "pipe" / "text_encoder", {"model.safetensors": {"a": torch.zeros(2)}}, config
    )
    checkpoints.save_shard(root / "pipe" / "unet" / "model.safetensors", {"a": torch.zeros(2)}, {})
    checkpoints.write_json(root / "pipe" / "unet" / "config.json", {"_class_name": "UNet"})
    checkpoints.write_json(root / "pipe" / "model_index.json", {})
    yield documents.inspection(recast.inspect(root / "pipe"))


def wrong_indexes(root: Path) -> Iterator[Json]:
    """Inspect indexes that claim what is not so."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    changes: list[dict[str, object]] = [
        {"metadata": {"total_size": 7, "dtype": "float32"}},
        {"metadata": {"total_size": float("nan"), "dtype": "fast"}},
        {"metadata": {"total_size": 2084.0, "dtype": 3}},
        {"metadata": {"total_size": "2084"}},
        {"metadata": {"total_size": True}},
        {"metadata": None},
        {"weight_map": {"model.embed_tokens.weight": first, "nowhere": first, "gone": "gone"}},
    ]
    for number, change in enumerate(changes):
        source = checkpoints.two_shards(root / f"index-{number}")
        yield documents.inspection(recast.inspect(edit_index(source, **change)))
    checkpoints.save_shard(source / "model.safetensors", {"a": torch.zeros(2)})
    (source / second).unlink()
    yield documents.inspection(recast.inspect(source))


def run_folder(root: Path) -> Iterator[Json]:
    """Look at the folder of a training run, with all that lies in one."""
    run = checkpoints.two_shards(root / "run")
    checkpoints.two_shards(run / "checkpoint-500")
    (run / "optimizer.pt").write_bytes(bytes(9))
    (run / ".cache" / "huggingface").mkdir(parents=True)
    (run / ".cache" / "huggingface" / "x.lock").write_bytes(b"")
    os.mkfifo(run / "wandb.pipe")
    yield documents.inspection(recast.inspect(run))
    plan = recast.plan(run, "bf16")
    yield documents.plan_document(plan, plan.default_target)
    yield documents.conversion(recast.convert(plan))


def refused(root: Path) -> Iterator[Json]:
    """Gather each class of error, where it comes from."""
    quantized = checkpoints.two_shards(root / "quantized")
    checkpoints.write_json(quantized / "config.json", {"quantization_config": {"bits": 4}})
    yield documents.inspection(recast.inspect(quantized))
    torn = checkpoints.two_shards(root / "torn")
    (torn / "model-00001-of-00002.safetensors").write_bytes(b"torn")
    taken = checkpoints.two_shards(root / "taken")
    attempts: list[tuple[type[recast.RecastError], Callable[[], object]]] = [
        (recast.CheckpointError, lambda: recast.inspect(root / "nowhere")),
        (recast.ShardError, lambda: recast.inspect(torn)),
        (recast.StorageError, lambda: recast.inspect(root / ("x" * 300))),
        (recast.DtypeError, lambda: recast.plan(taken, "bf17")),
        (recast.RefusedError, lambda: recast.plan(quantized, "bf16")),
        (recast.TargetError, lambda: recast.convert(taken, "bf16", out=taken)),
        (recast.BusyError, lambda: Lock(root / "lock", taken)),
        (recast.LossError, lambda: recast.convert(taken, "bf16", lossless=True)),
        (recast.HubError, lambda: recast.inspect("hf://no--such/name--at-all")),  # no valid name
        (recast.WorkerError, lambda: connected("nowhere").__enter__()),
    ]
    for kind, attempt in attempts:
        with Lock(root / "lock", taken), pytest.raises(kind) as caught:
            attempt()
        yield documents.error("PATH", caught.value)


def fleets(root: Path) -> Iterator[Json]:
    """Look at fleets, repair them and delete trainer state, by the command itself."""
    right = checkpoints.two_shards(root / "runs" / "right")
    recast.convert(right, "bf16", in_place=True)
    wide = checkpoints.two_shards(root / "runs" / "wide")
    checkpoints.write_json(wide / "config.json", {"torch_dtype": "bfloat16"})
    exact = root / "runs" / "exact"
    checkpoints.save_sharded(exact, {"model.safetensors": {"a": torch.ones(4)}})
    torn = checkpoints.two_shards(root / "runs" / "torn")
    (torn / "model-00001-of-00002.safetensors").write_bytes(b"torn")
    busy = checkpoints.two_shards(root / "runs" / "busy")
    for path in (exact, torn):
        (path / "optimizer.pt").write_bytes(bytes(9))
    for name in ("zero/global_step1", "fsdp/pytorch_model_fsdp_0", "pickled"):
        (root / "runs" / name).mkdir(parents=True)
    (root / "runs" / "pickled" / "pytorch_model.bin").touch()
    (root / "runs" / "base").symlink_to(checkpoints.two_shards(root / "base"))
    for path in root.rglob("*"):
        os.utime(path, (10**9, 10**9))
    (busy / "x.tmp").touch()
    checkpoints.write_json(root / "disk.json", {"disk": 1, "prices": {"worker_hour": 1}})
    checkpoints.write_json(root / "workers.json", {"cast": 1})
    for arguments in (
        (),
        ("--to", "bf16", "-n"),
        ("--to", "bf16", "-n", "--rates", root / "disk.json"),
        ("--to", "bf16", "-n", "--rates", root / "workers.json"),
        ("--to", "bf16", "--like", right, "-n"),
        ("--to", "bf16", "--like", right, "-o", root / "alike"),
        ("--delete-trainer-state",),
        ("--to", "bf16", "--in-place"),
        ("--to", "fp16", "-o", root / "out", "--lossless"),
    ):
        line = list(map(str, (root / "runs", "-r", "--json", *arguments)))
        yield json.loads(CliRunner().invoke(cli.command, line).stdout)["results"][0]


GALLERY = (
    fleets,
    converted_and_verified,
    one_file,
    kept_tensors,
    with_a_base,
    published,
    hollow,
    unloadable,
    every_dtype,
    empty,
    pipeline,
    wrong_indexes,
    run_folder,
    refused,
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Json]]:
    """Every document of each of these, in what the command would print, by its maker's name."""
    return {
        make.__name__: [
            json.loads(json.dumps({"recast": recast.__version__, "results": [result]}))
            for result in make(tmp_path_factory.mktemp(make.__name__))
        ]
        for make in GALLERY
    }


@cache
def validator() -> Draft202012Validator:
    """Return what tells valid documents from others."""
    return Draft202012Validator(SCHEMA)


def objects(value: Json) -> Iterator[dict[str, Json]]:
    """Yield every object in a document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from objects(each)


def schemas(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all that it is made of."""
    yield schema
    for key in ("properties", "$defs"):
        for each in schema.get(key, {}).values():
            yield from schemas(each)
    for each in schema.get("oneOf", ()):
        yield from schemas(each)
    if "items" in schema:
        yield from schemas(schema["items"])


def test_the_schema_is_a_schema() -> None:
    """The schema obeys the rules of its draft, and refers to nothing that it does not define."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    used = {each["$ref"] for each in schemas(SCHEMA) if "$ref" in each}
    assert used == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}


def test_the_schema_is_strict_and_explains_everything() -> None:
    """Every object has all of its properties and no others, and a sentence on each of them."""
    for schema in schemas(SCHEMA):
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            for name, each in schema["properties"].items():
                assert each.get("description", "").endswith("."), name


def test_the_schema_knows_the_words_of_the_code() -> None:
    """The dtypes and errors that the schema lists are those that there are."""
    defs = SCHEMA["$defs"]
    assert defs["dtype"]["enum"] == list(Dtype)
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    names = {kind.__name__ for kind in kinds if issubclass(kind, errors.RecastError)}
    assert set(defs["error"]["properties"]["error"]["enum"]) == names - {"RecastError"}


@pytest.mark.parametrize("name", [make.__name__ for make in GALLERY])
def test_documents_are_valid(gallery: dict[str, list[Json]], name: str) -> None:
    """Whatever recast says of a checkpoint, of whatever shape, is as the schema describes it."""
    assert gallery[name]
    for document in gallery[name]:
        validator().validate(document)


def test_documents_say_neither_more_nor_less(gallery: dict[str, list[Json]]) -> None:
    """A document with one property more, or one fewer, anywhere, is not valid."""
    every = [document for made in gallery.values() for document in made]
    for document in {each["results"][0]["kind"]: each for each in every}.values():
        for number, members in enumerate(objects(document)):
            for key in (*members, None):
                changed = copy.deepcopy(document)
                place = list(objects(changed))[number]
                if key is None:
                    place["surprise"] = 1
                else:
                    del place[key]
                assert not validator().is_valid(changed), (key, members)


Fact = tuple[int, object]


def all_facts(schema: Schema) -> dict[Fact, object]:
    """Return all that the schema foresees: properties, alternatives, and listed values."""
    facts: dict[Fact, object] = {}
    for each in schemas(schema):
        facts |= {(id(each), name): name for name in each.get("properties", ())}
        facts |= {(id(each), value): (value, each["enum"]) for value in each.get("enum", ())}
        facts |= {(id(each), number): each for number, _ in enumerate(each.get("oneOf", ()))}
        if isinstance(each.get("type"), list):
            facts |= {(id(each), kind): (kind, each) for kind in each["type"]}
        if "items" in each:
            facts[id(each), "items"] = ("a list that is never filled", each)
    return facts


def seen_facts(schema: Schema, value: Json) -> Iterator[Fact]:
    """Yield which of them one valid document makes use of."""
    if "$ref" in schema:
        yield from seen_facts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if "enum" in schema:
        yield id(schema), value
    if isinstance(schema.get("type"), list):
        yield id(schema), "null" if value is None else "string"
    for number, each in enumerate(schema.get("oneOf", ())):
        if Draft202012Validator(SCHEMA).evolve(schema=each).is_valid(value):
            yield id(schema), number
            yield from seen_facts(each, value)
    for name, each in schema.get("properties", {}).items():
        yield id(schema), name
        yield from seen_facts(each, value[name])
    if "items" in schema:
        for each in value:
            yield id(schema), "items"
            yield from seen_facts(schema["items"], each)


def test_everything_that_the_schema_foresees_happens(gallery: dict[str, list[Json]]) -> None:
    """Each property, alternative and listed value stands in a document of a real checkpoint."""
    seen = {
        fact
        for made in gallery.values()
        for document in made
        for fact in seen_facts(SCHEMA, document)
    }
    assert [fact for key, fact in all_facts(SCHEMA).items() if key not in seen] == []


def test_an_inspection_counts_what_safetensors_loads(tmp_path: Path) -> None:
    """Tensors, parameters and bytes of each dtype are those of the tensors that load."""
    first = {"a": torch.zeros(3, 5), "b": torch.zeros(7).half(), "c": torch.zeros(2, 2)}
    second = {"d": torch.arange(4), "e": torch.zeros(9).bfloat16(), "f": torch.zeros(0).half()}
    shards = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    folder = checkpoints.save_sharded(tmp_path / "mixed", shards)
    (folder / "LICENSE").write_bytes(b"1234567")
    loaded = [each for name in shards for each in load_file(folder / name).values()]
    whole = sum(each.nbytes for each in loaded)
    document = documents.inspection(recast.inspect(folder))
    expected = []
    for dtype, tag in TORCH_DTYPES.items():
        these = [each for each in loaded if each.dtype is dtype]
        nbytes = sum(each.nbytes for each in these)
        expected.append(
            {
                "dtype": tag,
                "tensors": len(these),
                "parameters": sum(each.numel() for each in these),
                "bytes": nbytes,
                "share": pytest.approx(nbytes / whole),
            }
        )
    expected.sort(key=lambda share: -share["bytes"])
    sizes = {name: (folder / name).stat().st_size for name in shards}
    assert document["dtypes"] == expected
    assert document["bytes"] == sum(sizes.values())
    [weights] = document["weights"]
    assert weights["name"] == INDEX
    assert weights["dtypes"] == expected
    assert weights["bytes"] == sum(sizes.values())
    assert weights["tensor_bytes"] == weights["total_size"] == whole
    assert weights["shards"] == [
        {"name": name, "bytes": sizes[name], "tensors": len(tensors)}
        for name, tensors in shards.items()
    ]
    assert document["other_files"] == [{"name": "LICENSE", "bytes": 7}]


@pytest.mark.parametrize(
    ("claim", "said"),
    [(7, 7), (2084.0, 2084), (10**400, 10**400)]
    + [(claim, None) for claim in (1.5, float("nan"), float("inf"), "7", True, None, [7], {})],
)
def test_total_size_is_a_whole_number_or_null(ckpt: Path, claim: object, said: object) -> None:
    """Whatever an index claims, the document is JSON and says a number only where it is one."""
    edit_index(ckpt, metadata={"total_size": claim})
    document = documents.inspection(recast.inspect(ckpt))
    assert json.loads(json.dumps(document, allow_nan=False))["weights"][0]["total_size"] == said


def test_claims_are_what_stands_in_the_files(ckpt: Path) -> None:
    """Each claim leads, key by key, to its value in its file."""
    config = {"dtype": "float32", "a.b_config": {"torch_dtype": None}, "vision_config": {}}
    config["vision_config"] = {"dtype": {"": "bfloat16"}}
    checkpoints.write_json(ckpt / "config.json", config)
    edit_index(ckpt, metadata={"total_size": 1, "dtype": "float16"})
    claims = documents.inspection(recast.inspect(ckpt))["claims"]
    assert [(claim["file"], claim["value"], claim["dtype"]) for claim in claims] == [
        ("config.json", "float32", "F32"),
        ("config.json", None, None),
        ("config.json", "bfloat16", "BF16"),
        (INDEX, "float16", "F16"),
    ]
    for claim in claims:
        value = json.loads((ckpt / claim["file"]).read_text(encoding="utf-8"))
        for key in claim["key"]:
            value = value[key]
        assert value == claim["value"]


def test_a_plan_foretells_the_files_to_the_byte(ckpt: Path) -> None:
    """The files that a conversion leaves, and their sizes, are those that its plan names."""
    (ckpt / "optimizer.pt").write_bytes(bytes(100))
    plan = recast.plan(ckpt, "bf16")
    document = documents.plan_document(plan, plan.default_target)
    recast.convert(ckpt, "bf16")
    target = Path(document["target"])
    written = {each.name: each.stat().st_size for each in target.iterdir()}
    assert {each["name"]: each["bytes_after"] for each in document["files"]} == written
    assert document["bytes_after"] == sum(written.values())
    for each in document["files"]:
        before, after = ((folder / each["name"]).read_bytes() for folder in (ckpt, target))
        assert len(before) == each["bytes_before"]
        assert (before == after) == (each["action"] == "copy")
    assert document["bytes_before"] == sum(each["bytes_before"] for each in document["files"])
    assert document["left_out"] == [{"name": "optimizer.pt", "bytes": 100, "role": "trainer state"}]
    inspected = documents.inspection(recast.inspect(ckpt))
    shards = [each for each in document["files"] if each["action"] == "convert"]
    assert inspected["savings"] == {
        "dtype": "BF16",
        "bytes_before": sum(each["bytes_before"] for each in shards),
        "bytes_after": sum(each["bytes_after"] for each in shards),
    }


def mantissa_bits_of(tensor: torch.Tensor) -> int:
    """Return how many bits behind the leading one the values need: by shortening them."""
    mantissas = torch.frexp(tensor.double()).mantissa
    exact = (bits for bits in range(24) if torch.equal(*both_ways(mantissas, bits + 1)))
    return next(exact)


def both_ways(values: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return *values* scaled by 2**bits, and that without its fraction."""
    scaled = values * 2**bits
    return scaled, scaled.trunc()


def test_evidence_is_what_torch_finds(tmp_path: Path) -> None:
    """Losses, largest errors and overflows are those that torch's own casts show."""
    tensors = checkpoints.random_tensors(noise=(50, 50), more=(333,))
    tensors["more"][:3] *= 1e-9
    tensors |= {"exact": torch.tensor([1.0, -2.5]), "kept": torch.ones(2)}
    tensors |= {"huge": torch.tensor([1e5, -7e4, 65504.0]), "less": torch.tensor([1e6, 0.1])}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    source = tmp_path / "x.safetensors"
    done = recast.convert(source, "fp16", keep=["kept"], allow=["overflow"])
    document = documents.conversion(done)
    expected: dict[str, Mapping[str, object]] = {}
    for name, tensor in tensors.items():
        back = tensor.half().float()
        lost = (tensor - back).abs()[back.isfinite()]
        expected[name] = {
            "file": "x.safetensors",
            "tensor": name,
            "from": "F32",
            "to": "F16",
            "lossless": torch.equal(back, tensor),
            "changed_values": int((tensor != back).sum()),
            "largest_error": lost.max().item() if len(lost) else 0,
            "overflowed_values": int(back.isinf().sum()),
            "largest_overflow": tensor.abs()[back.isinf()].max().item()
            if back.isinf().any()
            else 0,
            "underflowed_values": int(((tensor != 0) & (back == 0)).sum()),
            "nan_values": 0,
            "infinite_values": 0,
            "largest_magnitude": tensor.abs().max().item(),
            "mantissa_bits": mantissa_bits_of(tensor),
        }
    del expected["kept"]
    assert {each["tensor"]: each for each in document["tensors"]} == expected
    worst = max(expected.values(), key=lambda each: each["largest_error"])
    most_underflowed = max(expected.values(), key=lambda each: each["underflowed_values"])
    assert document["evidence"] == {
        "tensors": 5,
        "lossless_tensors": 1,
        "changed_values": sum(int(each["changed_values"]) for each in expected.values()),
        "overflowed_values": 3,
        "underflowed_values": sum(int(each["underflowed_values"]) for each in expected.values()),
        "vanished_tensors": 0,
        "nan_values": 0,
        "infinite_values": 0,
        "largest_magnitude": 1e6,
        "mantissa_bits": max(int(each["mantissa_bits"]) for each in expected.values()),
        "worst": worst,
        "most_overflowed": expected["huge"],
        "most_underflowed": most_underflowed,
    }
    [kept] = document["kept"]
    assert (kept["tensor"], kept["dtype"], kept["reason"]) == ("kept", "F32", "keep")


def test_a_verification_names_what_was_tampered_with(tmp_path: Path) -> None:
    """The tensor, shard and file that somebody changed are named, and nothing else."""
    source = checkpoints.two_shards(tmp_path / "ckpt")
    target = recast.convert(source, "bf16").target
    assert target is not None
    shard = target / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["lm_head.weight"][3, 4] += 1
    checkpoints.save_shard(shard, tensors)
    (target / "tokenizer.json").write_text("[]", encoding="utf-8")
    document = documents.verification(recast.verify(target, against=source))
    assert document["holds"] is False
    assert document["other_files"] == 1
    assert document["shards"] == [
        {"name": FIRST, "holds": True, "tensors": 2, "differing_tensors": 0},
        {"name": SECOND, "holds": False, "tensors": 2, "differing_tensors": 1},
    ]
    assert str(source) in document["remedy"]
    named = [(each["file"], each["tensor"]) for each in document["differences"]]
    assert named == [(shard.name, "lm_head.weight"), ("tokenizer.json", None)]
