"""The benchmarks: that they measure what they say, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmarks import checkpoints, fitting, fleet, growth, measure, ways
from recast.planning.estimate import Rates, Work, estimate
from recast.planning.rates import parse
from tests import processes
from tests.checkpoints import random_tensors, save_sharded
from tools import scale

ROOT = Path(__file__).parent.parent
_MB, _GB = 1e6, 1e9
_LONG = 120  # seconds: whatever takes longer is taken to hang


def _benchmark(*arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks", *map(str, arguments))


def _measured(tmp_path: Path, *arguments: object) -> tuple[str, dict]:
    """Run the benchmarks in a folder, and return their tables and their JSON."""
    folder, report = tmp_path / "here", tmp_path / "figures.json"
    folder.mkdir()
    places = ("--folder", folder, "--disk-folder", folder)
    done = subprocess.run(
        _benchmark("--quick", *places, "--json", report, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done.stdout, json.loads(report.read_text())


def _check_figures(rows: list[dict]) -> None:
    """Check that no process took less time or memory than any process does."""
    for row in rows:
        for run in row["runs"]:
            assert run["cpu"] > 0
            assert 0 < run["wall"] < 600
            assert 5 * _MB < run["peak_rss"] < 10 * _GB
            assert run["inner"] is None or 0 < run["inner"] < run["wall"]


def test_every_way_to_convert_is_measured(tmp_path: Path) -> None:
    """Every way has its row, every round its figures, and the ratio is of the same rounds."""
    text, figures = _measured(tmp_path, "--size", 0.02, "--rounds", 2)
    rows = {row["name"]: row["runs"] for row in figures["rows"]}
    names = {value for key, value in vars(ways).items() if key.isupper() and key[0] != "_"}
    assert rows.keys() == names - {ways.TRANSFORMERS}
    assert all(len(runs) == 2 for runs in rows.values())
    _check_figures(figures["rows"])
    timed = {name for name, runs in rows.items() if runs[0]["inner"] is not None}
    assert timed >= {ways.FLOOR, ways.FROM_PYTHON, ways.NO_EVIDENCE}
    walls = {name: [run["wall"] for run in runs] for name, runs in rows.items()}
    ratios = [a / b for a, b in zip(walls[ways.RECAST], walls[ways.COPY], strict=True)]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {ways.RECAST} |")]
    assert line.endswith(f" {median(ratios):.2f} |")
    assert f"| {median(walls[ways.RECAST]):.3f} s | {min(walls[ways.RECAST]):.3f} s |" in line


def test_everything_that_grows_is_measured(tmp_path: Path) -> None:
    """Each quantity has its rows, of more and more units."""
    _, figures = _measured(tmp_path, "--growth", "--rounds", 1)
    cases = [(each["case"]["quantity"], each["case"]["units"]) for each in figures["cases"]]
    assert cases == [(each.quantity, each.units) for each in growth.QUICK_CASES]
    full = {each.quantity for each in growth.CASES}
    assert {quantity for quantity, _ in cases} == full
    for each in figures["cases"]:
        _check_figures(each["rows"])


def test_fleets_are_measured_and_their_rates_fitted(tmp_path: Path) -> None:
    """Every fleet has its rows, and the rates that are written are those that a user can give."""
    written = tmp_path / "rates.json"
    text, figures = _measured(tmp_path, "--fleet", "--rounds", 1, "--rates", written)
    rows = [(each["fleet"], each["way"], each["workers"]) for each in figures["rows"]]
    assert rows == [(each.name, *way) for each in fleet.QUICK_CASES for way in each.ways]
    _check_figures(figures["rows"])
    assert all(each["predicted"] > 0 for each in figures["rows"])
    rates = parse(written.read_text(), "rates.json")
    assert asdict(rates) == figures["rates"]
    assert scale.recorded(f"<!-- fleet -->\n{text}\n<!-- end of fleet -->") == rates


def test_recorded_rates_become_the_defaults() -> None:
    """What is recorded is put where the model has its defaults, and nothing else changes."""
    source = scale.MODEL.read_text(encoding="utf-8")
    assert scale.with_defaults(source, Rates()) == source
    other = scale.with_defaults(source, Rates(start=0.5, cast=2.5e9))
    changed = set(other.splitlines()) - set(source.splitlines())
    assert changed == {"    start: float = 0.5", "    cast: float = 2.5e9"}


@given(
    rates=st.builds(
        Rates,
        *[st.floats(1e-3, 1)] * 5,
        cast=st.floats(1e8, 1e10),
        scan=st.floats(1e8, 1e10),
    )
)
def test_rates_are_found_again(rates: Rates) -> None:
    """Fitted to rows that the model itself has made, the rates are those that made them."""
    works = (
        Work(checkpoints=1, weights_files=1),
        Work(checkpoints=1000, weights_files=1000),
        Work(checkpoints=1000, weights_files=9000),
        Work(checkpoints=1000, weights_files=1000, changing=1000, shards=1000),
        Work(checkpoints=1000, weights_files=9000, changing=1000, shards=9000),
        Work(checkpoints=9, weights_files=9, changing=9, shards=9, bytes_cast=10**11),
        Work(9, 9, 0, 9, 9, bytes_cast=10**11, bytes_scanned=10**11, in_place=True),
    )
    rows = [_Row(work, 2, estimate(work, 2, rates).seconds) for work in works]
    found = fitting.fit(rows)
    for row in rows:
        assert fitting.predicted(row, found) == pytest.approx(row.seconds, rel=0.02)


@dataclass(frozen=True)
class _Row:
    """A row as the fit sees it."""

    todo: Work
    workers: int
    seconds: float
    is_whole: bool = True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """What was made is removed, and what was started has ended, when somebody has seen enough."""
    place = ("--folder", tmp_path, "--disk-folder", tmp_path)
    with processes.started(
        _benchmark("--quick", *place, "--size", 0.02),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        end = time.monotonic() + _LONG
        while process.poll() is None and not list(tmp_path.glob("*/source")):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=_LONG)
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert not list(tmp_path.iterdir())
    assert not _children_in(tmp_path)


def test_an_interrupt_at_the_very_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has just been started is ended as well."""
    begun: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):
        """A process with whose start an interrupt comes."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.run([sys.executable, "-c", "import time; time.sleep(600)"])
    assert [each.returncode for each in begun] == [-signal.SIGKILL]


def test_an_interrupt_at_the_very_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a process has ended already is no error of its own."""
    wait4 = os.wait4

    def interrupted(*arguments: int) -> None:
        wait4(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.run([sys.executable, "-c", ""])


def _children_in(folder: Path) -> list[bytes]:
    """Return the command lines of living processes that name *folder*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if os.fsencode(folder) in command:
            found.append(command)
    return found


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """A checkpoint for which there is no room is refused in one line."""
    done = subprocess.run(
        _benchmark("--folder", tmp_path, "--size", 10**6),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"benchmarks: {tmp_path}: 5000000.0 GB are needed")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["map", "read"])
def test_the_bare_cast_casts(tmp_path: Path, how: str) -> None:
    """The rows without plan or checks write every byte that torch's cast gives."""
    tensors = random_tensors(a=(3000, 1001), b=(5,), c=(2_000_001,))
    save_sharded(tmp_path / "source", {"model-00001-of-00001.safetensors": tensors})
    out = tmp_path / "out"
    subprocess.run(
        ways.script("mapped", how, tmp_path / "source", out, "--workers", 2), check=True, cwd=ROOT
    )
    expected = b"".join(
        tensor.bfloat16().view(torch.int16).numpy().tobytes() for tensor in tensors.values()
    )
    assert (out / "model-00001-of-00001.safetensors").read_bytes() == expected


@pytest.mark.parametrize("way", ["by_hand", "by_transformers", "by_recast"])
def test_the_other_ways_cast(tmp_path: Path, way: str) -> None:
    """What recast is compared with really converts: every tensor is torch's cast."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    checkpoints.llama(source, 10**6, 2)
    subprocess.run(ways.script(way, source, out), check=True, cwd=ROOT)
    before, after = _tensors(source), _tensors(out)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor.bfloat16())


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return all that a checkpoint's shards hold."""
    shards = [load_file(path) for path in folder.glob("*.safetensors")]
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def test_the_floor_moves_the_bytes_of_a_conversion(tmp_path: Path) -> None:
    """The I/O floor writes half of each byte count that it reads."""
    save_sharded(tmp_path / "source", {"model-00001-of-00001.safetensors": random_tensors(a=(9,))})
    (tmp_path / "source" / "more.safetensors").write_bytes(bytes(40_000_001))
    out = tmp_path / "out"
    subprocess.run(
        ways.script("floor", tmp_path / "source", out, "--workers", 2), check=True, cwd=ROOT
    )
    for path in (tmp_path / "source").iterdir():
        assert (out / path.name).stat().st_size == path.stat().st_size // 2


@pytest.mark.parametrize(("size", "shards"), [(10**6, 1), (10**7, 4)])
def test_transformers_loads_the_checkpoint(tmp_path: Path, size: int, shards: int) -> None:
    """The Llama is of the size asked for, whole, and not exact in bf16."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - takes seconds to load

    checkpoints.llama(tmp_path, size, shards)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == shards
    assert sum(path.stat().st_size for path in files) == pytest.approx(size, rel=0.1)
    model, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading.values())
    for parameter in model.parameters():
        tensor = parameter.detach()
        assert not (tensor.bfloat16().float() == tensor).any()
        assert tensor.std().item() == pytest.approx(checkpoints.SPREAD, rel=0.5)
