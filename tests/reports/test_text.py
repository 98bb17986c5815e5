"""What the command prints for people: units, words, tables, and nothing that a name smuggles in."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file

import recast
from recast.execution.reader import inspect_base
from recast.planning.publication import Destination, make_publication
from recast.reports import text
from recast.reports.publication import commit_message
from recast.reports.verification import Difference, ShardVerdict, Verification
from tests import checkpoints

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1234, "1.23 kB"),
        (999_994, "999.99 kB"),
        (999_996, "1.00 MB"),
        (14_483_464_192, "14.48 GB"),
        (10**12, "1.00 TB"),
        (10**15, "1.00 PB"),
        (10**19, "10,000.00 PB"),
    ],
)
def test_bytes_have_the_unit_that_people_would_choose(count: int, said: str) -> None:
    """Sizes are given in decimal units, as file managers and the Hub's pages give them."""
    assert text.nbytes(count) == said


@given(st.integers(0, 10**18))
@example(999)
@example(999_995)
def test_bytes_can_be_read_back(count: int) -> None:
    """A size, read back, is the number to the last digit shown, which is never four long."""
    number, unit = text.nbytes(count).split()
    assert abs(float(number.replace(",", "")) * UNITS[unit] - count) <= 0.0051 * UNITS[unit]
    assert float(number.replace(",", "")) < 1000 or unit == "PB"
    assert ("." in number) == (unit != "B")


@given(st.text())
@example("a\nb\x1b[31m\x00\udcff\u202e\x85\u2028")
def test_nothing_is_printed_that_a_terminal_acts_on(name: str) -> None:
    """Control characters, line ends and unpaired surrogates are escaped, all else stays."""
    shown = text.printable(name)
    assert shown.isprintable()
    shown.encode()
    assert text.printable(shown) == shown
    if name.isprintable():
        assert shown == name
    assert len(text.printable(f"{name}x").splitlines()) == 1


def inspected(path: Path) -> str:
    """Return what is printed for a checkpoint, without its folder."""
    return text.inspection(recast.inspect(path)).replace(f"{path.parent}/", "")


def test_an_inspection(ckpt: Path) -> None:
    """An inspection of a checkpoint with which all is well reads like this."""
    assert (
        inspected(ckpt)
        == """\
ckpt
  stored    model.safetensors.index.json: 2 shards, 2.46 kB

  dtype    tensors  parameters    bytes   share
  float32        4         521  2.08 kB  100.0%

  claimed   config.json: torch_dtype = float32
            model.safetensors.index.json: total_size = 2084
  to bf16   1.43 kB, saves 1.03 kB (42%)

  loaded by                  as it is   as bf16
  transformers 5              float32  bfloat16
  transformers 4.57           float32   float32
  transformers 4.57, "auto"   float32  bfloat16
  transformers 4.44           float32   float32
  transformers 4.44, "auto"   float32  bfloat16
  vLLM                       bfloat16  bfloat16
  SGLang                      float16  bfloat16"""
    )


def test_an_inspection_beside_the_base_that_it_names(ckpt: Path) -> None:
    """Where the config names a folder here as the base, what is wider than there is a finding."""
    base = recast.convert(ckpt, "bf16", out=ckpt.with_name("base")).target
    config = {"model_type": "llama", "torch_dtype": "float32", "_name_or_path": str(base)}
    checkpoints.write_json(ckpt / "config.json", config)
    checkpoint = recast.inspect(ckpt)
    said = text.inspection(checkpoint, inspect_base(checkpoint))
    assert f"wider than {base} does" in said
    assert f"convert it to the dtypes of its base: recast {ckpt} --like {base} [oversized]" in said
    (base / "config.json").write_text("no JSON", encoding="utf-8")
    assert inspect_base(checkpoint) is None
    assert "oversized" not in text.inspection(checkpoint, None)


def test_an_inspection_of_one_with_which_much_is_wrong(ckpt: Path) -> None:
    """Every kind of line of an inspection reads like this, and all lines are aligned."""
    tensors = {"a": torch.zeros(1500).bfloat16(), "b": torch.zeros(1, dtype=torch.int64)}
    for name in ("x", "y", "z"):
        checkpoints.save_shard(ckpt / f"{name}.safetensors", {**tensors, name: torch.zeros(1)}, {})
    (ckpt / "model-00002-of-00002.safetensors").unlink()
    (ckpt / "optimizer.pt").write_bytes(bytes(12_345))
    checkpoints.two_shards(ckpt / "checkpoint-10")
    config = {"model_type": "llama", "text_config": {"dtype": "float16"}}
    checkpoints.write_json(ckpt / "config.json", config)
    assert (
        inspected(ckpt)
        == """\
ckpt
  stored    model.safetensors.index.json: 1 of 2 shards, 1.26 kB
            x.safetensors: 3.20 kB
            y.safetensors: 3.20 kB
            z.safetensors: 3.20 kB

  dtype     tensors  parameters    bytes  share
  bfloat16        3       4,500  9.00 kB  89.2%
  float32         5         267  1.07 kB  10.6%
  I64             3           3     24 B   0.2%

  claimed   config.json: text_config.dtype = float16
            model.safetensors.index.json: total_size = 2084
  left out  checkpoint-10/ (a checkpoint of its own, 2.83 kB)
            optimizer.pt (trainer state, 12.35 kB)

  loaded by          as it is
  transformers 5        fails
  transformers 4.57     fails
  transformers 4.44     fails
  vLLM                float16
  SGLang              float16

  error     model-00002-of-00002.safetensors: is named in model.safetensors.index.json but is \
not there
            download or copy it again [missing-shard]
  warning   config.json: says text_config.dtype = float16, but most of what is stored is bfloat16
            make it true: recast ckpt --fix-config [config-mismatch]
  note      config.json: says no dtype, so that loaders guess
            add torch_dtype: recast ckpt --fix-config [no-dtype-key]
  note      x.safetensors: stores 1 of its tensors as float32, most as bfloat16: 'x'
            well so where it is known to be needed; convert the rest: recast ckpt --to bf16 \
[mixed-dtypes]
  note      y.safetensors: stores 1 of its tensors as float32, most as bfloat16: 'y'
            well so where it is known to be needed; convert the rest: recast ckpt --to bf16 \
[mixed-dtypes]
  note      z.safetensors: stores 1 of its tensors as float32, most as bfloat16: 'z'
            well so where it is known to be needed; convert the rest: recast ckpt --to bf16 \
[mixed-dtypes]
  note      x.safetensors (and 2 more): has no format in its header metadata, without which \
transformers 4 fails
            converting adds it: recast ckpt --to bf16 [no-format-metadata]
  note      optimizer.pt: is trainer state: 12,345 bytes that no loader reads
            keep it: while anything blocks a conversion, it may be all there is [trainer-state]"""
    )


def test_an_inspection_of_a_bare_file(tmp_path: Path) -> None:
    """What has neither config nor index nor tensors is told without gaps where they would be."""
    checkpoints.save_shard(tmp_path / "x.safetensors", {})
    assert (
        inspected(tmp_path / "x.safetensors")
        == """\
x.safetensors
  stored    x.safetensors: 40 B

  no tensors

  to bf16   saves nothing"""
    )


def test_little_is_not_shown_as_nothing(tmp_path: Path) -> None:
    """A dtype that takes a ten-thousandth of the bytes does not seem to take none."""
    tensors = {"a": torch.zeros(10_000), "b": torch.zeros(2).half(), "c": torch.zeros(0).bfloat16()}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    shares = re.findall(r"^  (\w+) .* (\S+%)$", inspected(tmp_path / "x.safetensors"), re.MULTILINE)
    assert shares == [("float32", "100.0%"), ("float16", "<0.1%"), ("bfloat16", "0.0%")]


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (torch.float32, "saves 40.00 kB (50%)"),
        (torch.bfloat16, "saves nothing"),
        (torch.float64, "saves 120.00 kB (75%)"),
    ],
)
def test_savings_are_told_beforehand(tmp_path: Path, dtype: torch.dtype, said: str) -> None:
    """An inspection says what converting to bf16 would save, if anything."""
    checkpoints.save_shard(tmp_path / "x.safetensors", {"a": torch.zeros(20_000, dtype=dtype)})
    assert inspected(tmp_path / "x.safetensors").endswith(said)


def test_a_conversion_that_grows_is_no_saving(tmp_path: Path) -> None:
    """A header that gets longer, with nothing to narrow, takes more instead of saving less."""
    checkpoints.save_shard(tmp_path / "x.safetensors", {"a": torch.zeros(2).half()}, {})
    grown = recast.plan(tmp_path / "x.safetensors", "bf16").size
    before = (tmp_path / "x.safetensors").stat().st_size
    last = inspected(tmp_path / "x.safetensors").splitlines()[2 + 3 + 1]
    assert grown > before
    assert last == f"  to bf16   {grown} B, takes {grown - before} B more"


def test_a_plan(ckpt: Path) -> None:
    """A plan reads like this, and its columns are aligned."""
    (ckpt / "scheduler.pt").write_bytes(bytes(5))
    plan = recast.plan(ckpt, "bf16", keep=["*.norm.*"])
    assert (
        text.plan(plan, Path("there"))
        == f"""\
{ckpt} to bfloat16, into there
           file                               before    after
  convert  model-00001-of-00002.safetensors  1.26 kB    744 B
  convert  model-00002-of-00002.safetensors  1.20 kB    698 B
  rewrite  config.json                          56 B     57 B
  rewrite  model.safetensors.index.json        314 B    314 B
  copy     tokenizer.json                        2 B      2 B
           in all                            2.83 kB  1.81 kB
  kept      model.norm.weight: float32 (--keep *.norm.*)
  left out  scheduler.pt (trainer state, 5 B)"""
    )


def test_a_plan_in_place(ckpt: Path) -> None:
    """Where files are replaced, those that stay are left, not copied."""
    lines = text.plan(recast.plan(ckpt, "bf16"), ckpt).splitlines()
    assert lines[0] == f"{ckpt} to bfloat16, in place"
    assert [line.split()[0] for line in lines[2:-1]] == [
        *("convert", "convert", "rewrite", "rewrite"),
        "leave",
    ]


def test_a_plan_without_changes(ckpt: Path) -> None:
    """Where nothing is to be done, plan and conversion say so in the same words."""
    plan = recast.plan(ckpt, "fp32")
    said = f"{ckpt}: nothing to do, converting to float32 would change no byte"
    assert text.plan(plan, Path("there")) == said
    assert text.conversion(recast.convert(plan)) == said


def converted(path: Path, dtype: str, **options: object) -> str:
    """Convert, and return what is printed of it, as if it had taken two seconds."""
    done = replace(recast.convert(path, dtype, **options), seconds=2.0)
    return text.conversion(done).replace(f"{path.parent}/", "")


def test_a_conversion(ckpt: Path) -> None:
    """A conversion that rounds reads like this."""
    (ckpt / "scheduler.pt").write_bytes(bytes(5))
    said = converted(ckpt, "bf16", keep=["*.norm.*", "*.scale"])
    tensors = checkpoints.random_tensors(**{"model.embed_tokens.weight": (32, 8)})
    [worst] = [(each - each.bfloat16()).abs().max().item() for each in tensors.values()]
    assert (
        said
        == f"""\
ckpt-bf16: bfloat16, 2.83 kB to 1.81 kB in 2.0 s
  kept      1 tensor: --keep *.norm.*
            1 tensor: --keep *.scale
  left out  scheduler.pt (trainer state, 5 B)
  rounded   2 of 2 tensors, largest error {worst:.3g} in model.embed_tokens.weight"""
    )


def test_a_conversion_that_was_begun_before(ckpt: Path) -> None:
    """What an unfinished run had left, used or not, is told; so is a result that was there."""
    done = recast.convert(ckpt, "bf16")
    lines = text.conversion(replace(done, resumed=1, discarded=True)).splitlines()
    left = "what an unfinished conversion of another source, or with other options, had left"
    assert lines[1:3] == [
        f"  discarded {left}",
        "  resumed   1 of 2 shards had been converted before",
    ]
    assert text.conversion(recast.convert(ckpt, "bf16")) == (
        f"{ckpt}-bf16: there already, made from {ckpt}; nothing to do"
    )


def test_a_lossless_conversion(tmp_path: Path) -> None:
    """Where no value changed, that is said, since it is the best that can be said."""
    checkpoints.save_shard(tmp_path / "x.safetensors", {"a": torch.ones(9), "b": torch.ones(2)})
    assert converted(tmp_path / "x.safetensors", "bf16").splitlines()[1:] == [
        "  lossless  no value changed in 2 tensors"
    ]


def test_an_overflow(tmp_path: Path) -> None:
    """An overflow that was allowed stands out, is counted, and leads to the tensors."""
    tensors = {"a": torch.tensor([1e5, 1.0]), "b": torch.tensor([1e5, -1e5]), "c": torch.ones(1)}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    assert converted(tmp_path / "x.safetensors", "fp16", allow="overflow").splitlines()[1:] == [
        "  overflow  3 values became infinite, most in b",
        "  warning   x.safetensors: finite values that became infinite in float16: 3, in 'a', 'b'",
        "            convert again, and keep these tensors as they are [non-finite-values]",
    ]


def test_a_commit_says_what_was_lost(tmp_path: Path) -> None:
    """An overflow or an underflow alone is neither lossless nor an error of size 0."""
    tensors = {"a": torch.tensor([1e5, 1.0]), "b": torch.tensor([1e-9])}
    new = make_publication(Destination("x", exists=False, private=True), {}, frozenset())
    for name, expected in (
        ("a", ["- overflow: 1 finite values became infinite"]),
        ("b", ["- rounded: 1 of 1 tensors, largest error 1e-09 in `b`"]),
    ):
        checkpoints.save_shard(tmp_path / f"{name}.safetensors", {name: tensors[name]})
        done = recast.convert(tmp_path / f"{name}.safetensors", "fp16", allow=["overflow"])
        _, said = commit_message(done.plan.checkpoint, done, new)
        assert said.splitlines()[:1] == expected
    assert said.splitlines()[1:] == ["- underflow: 1 values became zero"]


def test_a_tensor_whose_name_is_no_name_alone(tmp_path: Path) -> None:
    """The components of a pipeline share names: the file is told as well, but only then."""
    noise = checkpoints.random_tensors(a=(9,))["a"]
    for folder, tensors in (("unet", {"a": noise * 8, "b": noise}), ("text_encoder", {"a": noise})):
        checkpoints.save_shard(tmp_path / "pipe" / folder / "model.safetensors", tensors)
    checkpoints.write_json(tmp_path / "pipe" / "model_index.json", {})
    worst = (noise * 8 - (noise * 8).bfloat16()).abs().max().item()
    rounded = (
        f"  rounded   3 of 3 tensors, largest error {worst:.3g} in a of unet/model.safetensors"
    )
    assert converted(tmp_path / "pipe", "bf16").splitlines()[1:] == [rounded]
    checkpoints.save_shard(tmp_path / "pipe" / "unet" / "model.safetensors", {"b": noise * 8})
    said = converted(tmp_path / "pipe", "bf16", out=tmp_path / "out")
    assert said.endswith(f"largest error {worst:.3g} in b")


def test_values_that_became_zero(tmp_path: Path) -> None:
    """They are counted, and a tensor that holds nothing else any more is a warning."""
    tensors = {"a": torch.tensor([1e-9, 0.1]), "b": torch.full((4095,), 1e-9), "c": torch.zeros(9)}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    error = (tensors["a"] - tensors["a"].half()).abs().max().item()
    what = "every value that was not zero became zero in float16, in 'b'"
    expected = [
        f"  rounded   2 of 3 tensors, largest error {error:.3g} in a",
        "  zeroed    4,096 values became zero, most in b",
        f"  warning   x.safetensors: {what}",
        "            convert again, and keep these tensors as they are [vanished-values]",
    ]
    assert converted(tmp_path / "x.safetensors", "fp16").splitlines()[1:] == expected
    assert converted(tmp_path / "x.safetensors", "fp16", in_place=True).splitlines()[1:] == expected


def test_a_verification() -> None:
    """A verification that holds and one that does not read like this."""
    shards = (ShardVerdict("a", 1200, 0), ShardVerdict("b", 34, 0))
    verdict = Verification(Path("out"), Path("src"), shards, 1, ())
    assert text.verification(verdict) == (
        "out: verified, 1,234 tensors in 2 shards and 1 other file are what src becomes"
    )
    verdict = replace(verdict, shards=(ShardVerdict("a", 1, 0),), files=0)
    assert text.verification(verdict) == "out: verified, 1 tensor in 1 shard are what src becomes"
    said = text.verification(replace(verdict, shards=()))
    assert said == "out: verified, 0 tensors in 0 shards are what src becomes"
    differences = (Difference("b", "w\n", "is missing"), Difference("c.json", "", "is missing"))
    assert (
        text.verification(replace(verdict, differences=differences))
        == """\
out: NOT what src becomes, 2 differences; compared 1 tensor in 1 shard
  b: tensor 'w\\n': is missing
  c.json: is missing
  do not use out; convert src again, into a new folder"""
    )


def test_a_verification_names_what_the_cast_has_made_zero(tmp_path: Path) -> None:
    """Though all is as the cast makes it, a tensor of which nothing is left is named."""
    checkpoints.save_shard(tmp_path / "a.safetensors", {"x": torch.full((3,), 1e-9)})
    target = recast.convert(tmp_path / "a.safetensors", "fp16").target
    verdict = recast.verify(target, against=tmp_path / "a.safetensors")
    cast, note = text.verification(verdict).splitlines()[1:]
    assert cast == "  cast      1 to float16, of 1 tensor"
    why = "all of its 3 values are zero since the cast: the source's are too small"
    assert note == f"  note      {target.name}: tensor 'x': {why}"


def test_a_verification_of_a_shard_whose_tensors_hold(ckpt: Path) -> None:
    """If it is but the header metadata, no count of tensors is given, which would be zero."""
    target = recast.convert(ckpt, "bf16").target
    assert target is not None
    shard = target / "model-00002-of-00002.safetensors"
    checkpoints.save_shard(shard, load_file(shard), {"format": "pt", "step": "8"})
    said = text.verification(recast.verify(target, against=ckpt))
    assert "    model-00002-of-00002.safetensors, its header metadata alone\n" in said


def test_long_lists_are_shortened(tmp_path: Path) -> None:
    """Of files, tensors, findings and differences the first twenty are shown, the rest counted."""
    folder = tmp_path / "many"
    names = [f"tensor-{number:02}" for number in range(25)]
    tensors = dict.fromkeys(names)
    for number, name in enumerate(names):
        tensors[name] = torch.full((number + 1,), 0.1)
    shards = {
        f"model-{n:05}-of-00025.safetensors": {name: tensors[name]} for n, name in enumerate(names)
    }
    checkpoints.save_sharded(folder, shards)
    for number in range(5):
        (folder / f"notes-{number}.txt").write_bytes(bytes(100))
    plan = recast.plan(folder, "bf16", keep=["*"])
    lines = text.plan(recast.plan(folder, "bf16"), Path("there")).splitlines()
    sizes = [each.size_before for each in recast.plan(folder, "bf16").files]
    assert len(lines) == 1 + 1 + 20 + 2
    assert re.fullmatch(
        rf" +and 12 more; --json lists them all +{text.nbytes(sum(sizes[20:]))} .*", lines[-2]
    )
    lines = text.plan(plan, Path("there")).splitlines()
    kept = [line for line in lines if "(--keep *)" in line]
    assert len(kept) == 20
    assert lines[-1] == "            and 5 more; --json lists them all"

    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    index["weight_map"] = {name: f"{name}.safetensors" for name in names}
    index["weight_map"] |= {"tensor-00": "model-00000-of-00025.safetensors"}
    checkpoints.write_json(folder / INDEX, index)
    lines = inspected(folder).splitlines()
    assert any(
        line.startswith("  error     tensor-01.safetensors (and 23 more): ") for line in lines
    )

    differences = tuple(Difference(name, "", "is missing") for name in names)
    verdict = Verification(Path("out"), Path("src"), (), 0, differences)
    lines = text.verification(verdict).splitlines()
    assert lines[20:] == [
        "  tensor-19: is missing",
        "  and 5 more; --json lists them all",
        "  do not use out; convert src again, into a new folder",
    ]


def test_many_findings_are_shortened(tmp_path: Path) -> None:
    """Of findings that are not alike, the first twenty are shown and the rest counted."""
    for number in range(25):
        tensors = {f"layer-{number}.qweight": torch.zeros(1, dtype=torch.int32)}
        checkpoints.save_shard(tmp_path / "q" / f"{number:02}.safetensors", tensors)
    lines = inspected(tmp_path / "q").splitlines()
    assert len([line for line in lines if line.startswith("  error     ")]) == 20
    assert lines[-1] == "            and 5 more; --json lists them all"


def test_names_from_strangers_stay_on_their_line(tmp_path: Path) -> None:
    """A tensor's or file's name neither breaks a line, nor a table, nor reaches the terminal."""
    tensors = {"a\nb\x1b[31m": torch.full((300,), 0.1)}
    checkpoints.save_shard(tmp_path / "x\ry" / "model.safetensors", tensors)
    (tmp_path / "x\ry" / "\x1b]0;hi").write_bytes(b"")
    plan = recast.plan(tmp_path / "x\ry", "bf16")
    done = recast.convert(plan)
    said = [text.inspection(plan.checkpoint), text.plan(plan, Path("a\nb")), text.conversion(done)]
    for each in said:
        assert all(line.isprintable() for line in each.split("\n"))
        assert r"x\ry" in each
    assert r"largest error" in said[2]
    assert r"in a\nb\x1b[31m" in said[2]
    table = [line for line in said[1].splitlines() if line.endswith(" B")]
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1
