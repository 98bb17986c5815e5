"""What the stored values are, beside torch's arithmetic."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import recast
from recast.cli import command as main_command
from recast.execution.values import native
from tests.checkpoints import Tensors, save_shard, state_dicts, two_shards
from tests.execution.test_shard import small_pieces


@pytest.fixture(params=["native", "numpy"], autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look with the kernel in C, and as where it could not be built."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(native, "library", lambda: None)
        yield


@settings(max_examples=80)
@given(tensors=state_dicts(), workers=st.integers(1, 3))
def test_every_floating_tensor_is_what_torch_finds(tensors: Tensors, workers: int) -> None:
    """However the pieces are cut: NaN, infinity, zeros, magnitude, and whether bf16 suffices."""
    with TemporaryDirectory() as folder, small_pieces(64, 128):
        source = Path(folder, "model.safetensors")
        save_shard(source, tensors)
        found = recast.scan(source, workers=workers)
    floating = {name: each for name, each in tensors.items() if each.is_floating_point()}
    assert {each.name for each in found.tensors} == set(floating)
    assert found.nbytes == sum(each.nbytes for each in floating.values())
    for each in found.tensors:
        values = floating[each.name].double().flatten()
        finite = values[values.isfinite()]
        assert each.parameters == len(values)
        assert (each.nan, each.infinite) == (values.isnan().sum(), values.isinf().sum())
        assert each.magnitude == (finite.abs().max().item() if len(finite) else 0)
        assert each.is_zero == bool(len(values) and (values == 0).all())
        assert each.fits_bf16 == torch.equal(finite, finite.bfloat16().double())
        assert each.fits_fp16 == torch.equal(finite, finite.half().double())


def test_a_model_that_is_bf16_stored_wide(tmp_path: Path) -> None:
    """Values that were rounded to bf16 before they were saved in fp32 are told from others."""
    noise = torch.randn(1000)
    tensors = {"narrow": noise.bfloat16().float(), "zero": torch.zeros(5), "half": noise.half()}
    save_shard(tmp_path / "model.safetensors", tensors)
    found = recast.scan(tmp_path / "model.safetensors")
    bits = {each.name: each.mantissa_bits for each in found.tensors}
    assert bits == {"narrow": 7, "zero": 0, "half": 10}
    assert [each.name for each in found.wide] == ["narrow", "zero"]
    (finding,) = found.findings
    assert (finding.name, finding.tensors) == ("oversized", ("narrow", "zero"))
    save_shard(tmp_path / "model.safetensors", tensors | {"noise": noise[:99]})
    (finding,) = recast.scan(tmp_path / "model.safetensors").findings
    assert finding.problem == (
        "stores 2 of 4 floating tensors in float32, and bf16 holds every value exactly, but those "
        "of 'noise', 'half'"
    )
    save_shard(tmp_path / "model.safetensors", tensors | {"noise": torch.randn(2000)})
    assert list(recast.scan(tmp_path / "model.safetensors").findings) == []


NARROW, HALF = torch.randn(99).bfloat16().float(), torch.randn(99).half().float()


@pytest.mark.parametrize(
    ("tensors", "command", "dtypes"),
    [
        ({"a": NARROW, "b": NARROW * 2**-20}, "--to bf16 --lossless", {"BF16"}),
        ({"a": NARROW, "b[0].w": torch.randn(9)}, "--keep=b", {"BF16", "F32"}),
        ({"a": HALF, "b": NARROW.half().float()}, "--to fp16 --lossless", {"F16"}),
        ({"a": HALF.double()}, "--to fp16 --lossless", {"F16"}),
        ({"a": NARROW.bfloat16(), "b": NARROW[:9].clone()}, "--to bf16 --lossless", {"BF16"}),
    ],
)
def test_what_is_stored_wider_than_its_values_need_is_narrowed_by_the_command(
    tensors: Tensors, command: str, dtypes: set[str], tmp_path: Path
) -> None:
    """The command of the finding, typed as it stands, loses nothing, and then there is none."""
    source = tmp_path / "x.safetensors"
    save_shard(source, {name: each.clone() for name, each in tensors.items()})
    (finding,) = recast.scan(source).findings
    assert command in finding.command, finding
    answer = CliRunner().invoke(main_command, shlex.split(finding.command)[1:])
    assert answer.exit_code == 0, answer.output
    (target,) = set(tmp_path.glob("*.safetensors")) - {source}
    stored = load_file(target)
    assert all(torch.equal(stored[name].to(each.dtype), each) for name, each in tensors.items())
    assert {share.dtype.value for share in recast.inspect(target).dtypes} == dtypes
    assert [each for each in recast.scan(target).findings if each.tensors != ("b[0].w",)] == []


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_what_is_narrow_is_narrow_in_any_dtype(kind: torch.dtype, tmp_path: Path) -> None:
    """Zeros, bf16 values and nothing at all need no more than bf16; fp16's subnormals may not."""
    tensors = {
        "zeros": torch.zeros(3, dtype=kind),
        "empty": torch.zeros(0, dtype=kind),
        "bf16": torch.tensor([1.0, 2.5, -2e-3]).bfloat16().to(kind),
        "subnormal": torch.tensor([2.0**-24, 3 * 2.0**-24], dtype=kind),
        "fine": torch.tensor([257 * 2.0**-24], dtype=kind),
    }
    save_shard(tmp_path / "x.safetensors", tensors)
    found = {each.name: each.fits_bf16 for each in recast.scan(tmp_path / "x.safetensors").tensors}
    assert found == {name: name != "fine" for name in tensors}


def test_values_too_small_for_fp16_are_not_like_fp16(tmp_path: Path) -> None:
    """They have its precision, and the command that the finding would have would fail."""
    save_shard(tmp_path / "x.safetensors", {"a": HALF * 2**-20})
    assert list(recast.scan(tmp_path / "x.safetensors").findings) == []


def test_what_rules_keep_is_not_called_oversized(tmp_path: Path) -> None:
    """A state-space layer's few fp32 tensors stay so: to convert would be to do nothing."""
    tensors = {"x.A_log": torch.ones(9), "x.D": torch.ones(9), "x.w": torch.randn(99).bfloat16()}
    save_shard(tmp_path / "x.safetensors", tensors)
    assert not recast.plan(tmp_path / "x.safetensors", "bf16").shards[0].changes
    assert list(recast.scan(tmp_path / "x.safetensors").findings) == []
    save_shard(tmp_path / "x.safetensors", tensors | {"x.b": torch.ones(9)})
    (finding,) = recast.scan(tmp_path / "x.safetensors").findings
    assert finding.problem.startswith("stores 1 of 4 floating tensors in float32, and bf16 holds")


def test_many_small_tensors_that_need_fp32_do_not_hide_the_rest(tmp_path: Path) -> None:
    """They are kept by kind, and the command does it; where the kinds are many, there is none."""
    norms = {f"layers.{each}.norm": torch.randn(9) / 3 for each in range(6)}
    save_shard(tmp_path / "x.safetensors", {"embed": NARROW} | norms)
    (finding,) = recast.scan(tmp_path / "x.safetensors").findings
    assert "'layers.0.norm', 'layers.1.norm', 'layers.2.norm' and 3 more" in finding.problem
    answer = CliRunner().invoke(main_command, shlex.split(finding.command)[1:])
    assert answer.exit_code == 0, answer.output
    stored = load_file(tmp_path / "x-bf16.safetensors")
    wide = {name for name, each in stored.items() if each.dtype == torch.float32}
    assert wide == set(norms)
    many = {f"{each}.norm": torch.randn(3) / 3 for each in "abcdef"}
    save_shard(tmp_path / "x.safetensors", {"embed": NARROW} | many)
    (finding,) = recast.scan(tmp_path / "x.safetensors").findings
    assert (finding.name, finding.command) == ("oversized", "")


def test_a_scan_tells_of_what_is_not_there(tmp_path: Path) -> None:
    """A missing shard is an error of a scan as well, and no command could convert what is left."""
    folder = two_shards(tmp_path / "ckpt")
    for shard in folder.glob("*.safetensors"):
        save_shard(shard, {name: torch.ones(each.shape) for name, each in load_file(shard).items()})
    (folder / "model-00002-of-00002.safetensors").unlink()
    answer = CliRunner().invoke(main_command, [str(folder), "--scan"])
    assert answer.exit_code == 1
    assert "[missing-shard]" in answer.output
    by_name = {each.name: each.command for each in recast.scan(folder).findings}
    assert by_name["oversized"] == ""


def test_what_is_not_looked_at_is_counted(tmp_path: Path) -> None:
    """Codes of 8 bits and complex numbers are skipped, and said to be; of nothing, nothing is."""
    codes = {"a": torch.ones(2).to(torch.float8_e4m3fn), "b": torch.ones(2, dtype=torch.complex64)}
    save_shard(tmp_path / "x.safetensors", codes | {"c": torch.zeros(0)})
    answer = CliRunner().invoke(main_command, [str(tmp_path / "x.safetensors"), "--scan"])
    assert re.search(
        r"skipped   2 tensors not looked at: (C64, F8_E4M3|F8_E4M3, C64)", answer.output
    )
    save_shard(tmp_path / "x.safetensors", {"c": torch.zeros(0), "d": torch.ones(2).bfloat16()})
    assert list(recast.scan(tmp_path / "x.safetensors").findings) == []


def test_a_conversion_finds_what_is_no_number(tmp_path: Path) -> None:
    """NaN and infinity that were there, and infinity that a cast has made, are told apart."""
    tensors = {"a": torch.tensor([torch.nan, 1.0]), "b": torch.tensor([7e4, 2.0])}
    save_shard(tmp_path / "x.safetensors", tensors)
    done = recast.convert(tmp_path / "x.safetensors", "fp16", allow=["overflow"])
    old, new = done.findings
    assert {old.name, new.name} == {"non-finite-values"}
    assert (old.tensors, new.tensors) == (("a",), ("b",))
    assert old.problem == "NaN or infinite values: 1, in 'a'"
    assert new.problem == "finite values that became infinite in float16: 1, in 'b'"
    assert list(recast.convert(tmp_path / "x.safetensors", "bf16").findings) == [old]
    (found,) = recast.scan(done.target).findings
    assert found.tensors == ("a", "b")


def test_what_is_only_copied_is_not_looked_at(tmp_path: Path) -> None:
    """A conversion speaks of the tensors that it casts, as the documents say; a scan, of all."""
    tensors = {"a": torch.tensor([torch.nan]), "b": torch.ones(2)}
    save_shard(tmp_path / "x.safetensors", tensors)
    done = recast.convert(tmp_path / "x.safetensors", "bf16", keep=["a"])
    assert list(done.findings) == []
    found = recast.scan(done.target).findings
    assert [each.tensors for each in found if each.name == "non-finite-values"] == [("a",)]


def test_values_that_are_no_numbers_are_a_finding(tmp_path: Path) -> None:
    """NaN and infinity are counted, named, and never taken for a reason to narrow."""
    tensors = {"a": torch.tensor([1 / 3, torch.nan, -torch.inf, torch.inf]), "b": torch.ones(2)}
    save_shard(tmp_path / "model.safetensors", tensors)
    found = recast.scan(tmp_path / "model.safetensors")
    (finding,) = found.findings
    assert finding.name == "non-finite-values"
    assert "'a'" in finding.problem
    (first, _) = found.tensors
    assert (first.nan, first.infinite, first.magnitude) == (1, 2, torch.tensor(1 / 3).item())


def test_all_shards_are_scanned(tmp_path: Path) -> None:
    """Each tensor of a sharded checkpoint is named with its file, and progress ends at the sum."""
    folder = two_shards(tmp_path / "ckpt")
    done: list[int] = []
    found = recast.scan(folder, progress=done.append)
    stored = {
        name: shard.name for shard in folder.glob("*.safetensors") for name in load_file(shard)
    }
    assert {each.name: each.shard for each in found.tensors} == stored
    assert sum(done) == found.nbytes


@pytest.mark.parametrize("flags", [["--to", "bf16"], ["--against", "x"]])
def test_a_scan_is_asked_for_alone(tmp_path: Path, flags: list[str]) -> None:
    """With flags of another mode, the command line is wrong."""
    answer = CliRunner().invoke(
        main_command, [str(two_shards(tmp_path / "ckpt")), "--scan", *flags]
    )
    assert answer.exit_code == 2


def test_the_command_says_what_the_values_need(tmp_path: Path) -> None:
    """It names the dtype, the bits in use, the largest value, and what is all zero."""
    tensors = {"a": torch.ones(3), "b": torch.zeros(2), "c": torch.tensor([-2.5, torch.nan])}
    save_shard(tmp_path / "x.safetensors", tensors)
    answer = CliRunner().invoke(main_command, [str(tmp_path / "x.safetensors"), "--scan"])
    assert answer.exit_code == 0
    assert "3 tensors, up to 2 mantissa bits in use; bf16 holds every value" in answer.output
    for line in ("largest   2.5 in c", "NaN       1 in c", "all zero  b", "--to bf16 --lossless"):
        assert line in answer.output
