"""`recast -r` and its companions: what they print, where, and the exit status."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from safetensors.torch import load_file

import recast
from recast import cli
from recast.execution.fleets import discovery, trainer_state
from recast.execution.fleets.survey import survey_all
from recast.execution.lock import Lock
from recast.reports.text import fleets as fleet_text
from tests.checkpoints import save_shard, write_json
from tests.fleet import runs
from tests.test_cli import on_a_terminal

SCHEMA = Path(__file__).parents[2] / "docs" / "recast.schema.json"
SHARD = "model-00001-of-00002.safetensors"


def run(*arguments: object) -> Result:
    """Run the command inside this process."""
    return CliRunner().invoke(cli.command, list(map(str, arguments)))


def result(done: Result) -> dict[str, Any]:
    """Return the only result of a document, which is as the schema describes it."""
    document = json.loads(done.stdout)
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)
    (only,) = document["results"]
    return dict(only)


def lines(done: Result) -> list[dict[str, Any]]:
    """Return the lines of JSON, each of which is as the schema describes it."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parsed = [json.loads(line) for line in done.stdout.splitlines()]
    for each in parsed:
        name = each["kind"].replace(" ", "_")
        rooted = {"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}
        Draft202012Validator(rooted).validate(each)
    return parsed


@pytest.fixture
def mixed(root: Path) -> Path:
    """Runs of which one checkpoint is right, one is torn, and one is quantized."""
    paths = list(recast.discover(root))
    recast.convert(paths[0], "bf16", in_place=True)
    os.truncate(paths[1] / SHARD, 500)
    write_json(paths[2] / "config.json", {"quantization_config": {"quant_method": "fp8"}})
    (paths[3] / "optimizer.pt").write_bytes(bytes(1000))
    (paths[3] / "global_step5").mkdir()
    (paths[3] / "global_step5" / "mp_rank_00_model_states.pt").write_bytes(bytes(100))
    (paths[1] / "optimizer.pt").write_bytes(bytes(10))
    return runs.age(root)


def test_the_table(mixed: Path) -> None:
    """Each checkpoint has its line, those with the most to gain first, then the totals."""
    done = run(mixed, "-r")
    assert done.exit_code == 1
    assert done.stderr == ""
    first, header, *rows = done.stdout.splitlines()
    assert first == f"{mixed}: 6 checkpoints"
    assert header.split() == ["checkpoint", "stored", "findings", "bytes", "bf16", "saves"]
    named = [row.split()[0] for row in rows[:6]]
    assert named[:3] == ["run-1/checkpoint-200", "run-2/checkpoint-100", "run-2/checkpoint-200"]
    assert set(named[3:5]) == {"run-0/checkpoint-100", "run-1/checkpoint-100"}
    assert named[5] == "in"
    assert "run-0/checkpoint-200: model-00001-of-00002.safetensors: is not a valid" in done.stdout
    assert "the model is quantized (fp8)" in done.stdout
    assert "3 checkpoints would become smaller" in done.stdout
    assert "1.10 kB of trainer state" in done.stdout


def test_links_lead_to_nothing_that_is_written(root: Path) -> None:
    """What a link makes part of a run, such as its base, is looked at, and never changed there."""
    base = root.parent / "elsewhere" / "base"
    shutil.copytree(root / "run-0" / "checkpoint-100", base)
    (base / "optimizer.pt").touch()
    (root / "run-0" / "base").symlink_to(base)
    runs.age(root)
    runs.age(base.parent)
    before = runs.contents(base.parent)
    assert "run-0/base" in run(root, "-r").stdout
    line = f"left alone, since links lead out of {root} to run-0/base (at {base}): name that folder"
    for arguments in (
        ("--to", "bf16", "-n"),
        ("--to", "bf16"),
        ("--to", "bf16", "--in-place"),
        ("--delete-trainer-state",),
    ):
        done = run(root, "-r", *arguments)
        assert done.exit_code == 0
        assert line in done.stdout
        outside = result(run(root, "-r", *arguments, "--json"))["outside"]
        assert outside == [{"path": str(root / "run-0" / "base"), "leads_to": str(base)}]
        assert runs.contents(base.parent) == before
        assert not (root / "run-0" / "base-bf16").exists()
    (base / "optimizer.pt").unlink()  # which no result has
    out = root.parent / "out"
    assert run(root, "-r", "--to", "bf16", "-o", out).exit_code == 0
    runs.check_repaired(base, out / "run-0" / "base")


def test_weights_that_recast_does_not_read(root: Path) -> None:
    """They are named by every look and every repair, with the way out; they are no failure."""
    for number in range(7):
        (root / f"old-{number}").mkdir()
        (root / f"old-{number}" / "pytorch_model.bin").touch()
    expected = "  unread    pickled weights in old-0, old-1, old-2, old-3, old-4 and 2 more: load "
    for arguments in (["-r"], ["-r", "--to", "bf16", "-n"], ["-r", "--to", "bf16", "--in-place"]):
        done = run(root, *arguments)
        assert expected in done.stdout
        assert done.exit_code == 0
        unread = result(run(root, *arguments, "--json"))["unread"]
        assert [each["path"] for each in unread] == [str(root / f"old-{n}") for n in range(7)]
    assert expected in run(root, "-r", "--check").stdout
    assert lines(run(root, "-r", "--jsonl"))[-1]["unread"] == unread


@pytest.mark.parametrize("mode", [[], ["--check"], ["--to", "bf16"], ["--delete-trainer-state"]])
def test_patterns_that_leave_nothing(root: Path, mode: list[str]) -> None:
    """A pattern that was mistyped does not pass for a fleet in which all is well."""
    done = run(root, "-r", "--include", "chekpoint-*", *mode)
    assert done.exit_code == 1
    assert done.stderr == (
        f"recast: {root}: holds no checkpoint that --include and --exclude leave; "
        f"look at what there is: recast {root} -r\n"
    )


def test_the_table_tells_what_converting_saves(root: Path) -> None:
    """The bytes that -n announces are those that a repair frees."""
    announced = result(run(root, "-r", "--to", "bf16", "-n", "--in-place", "--json"))
    before = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
    assert announced["kind"] == "fleet"
    assert announced["totals"]["bytes"] == before
    assert announced["estimate"]["seconds"] > 0
    assert announced["estimate"]["bytes_read"] == 2 * before  # looked at, and then cast
    assert run(root, "-r", "--to", "bf16", "--in-place").exit_code == 0
    after = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
    assert announced["totals"]["saved_bytes"] == before - after > 0
    assert announced["estimate"]["bytes_written"] == after


def test_an_estimate_by_rates_and_prices_of_ones_own(root: Path, tmp_path: Path) -> None:
    """What a file says decides the estimate: a slow disk, and what is billed."""
    rates = tmp_path / "rates.json"
    write_json(
        rates,
        {
            "disk": 1000,
            "prices": {"currency": "CHF", "terabyte_read": 1e12, "terabyte_written": 2e12},
        },
    )
    asked = (root, "-r", "--to", "bf16", "-n", "--workers", 8, "--rates", rates)
    estimate = result(run(*asked, "--json"))["estimate"]
    read, written = estimate["bytes_read"], estimate["bytes_written"]
    files = [path for path in root.rglob("*") if path.suffix == ".safetensors"]
    texts = sum(path.stat().st_size for path in root.rglob("tokenizer.json"))
    assert read == sum(path.stat().st_size for path in files) + texts
    assert estimate["limit"] == "disk"
    assert estimate["seconds"] >= (read + written) / 1000
    assert estimate["enough_workers"] == 1
    assert estimate["cost"] == pytest.approx(read + 2 * written)
    said = run(*asked).stdout
    assert "; the disk decides, and 1 would be enough" in said
    assert f"{read + 2 * written:,}.00 CHF" in said
    plain = run(root, "-r", "--to", "bf16", "-n").stdout
    assert "  takes     at least " in plain
    assert "if the disk keeps up" in plain
    assert "costs" not in plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no JSON object"),
        ('{"speed": 1}', "'speed' is no rate; use some of cast"),
        ('{"cast": -1}', "cast is -1; it is more than 0"),
        ('{"disk": 0}', "disk is 0; it is more than 0"),
        ('{"look": "fast"}', "look is no number: 'fast'"),
        ('{"look": true}', "look is no number: True"),
        ('{"look": NaN}', "is no JSON: NaN"),
        ('{"look": 1e999}', "look is no number: inf"),
        ('{"prices": {"hour": 1}}', "'hour' is no price; use some of currency"),
        ('{"prices": {"currency": 1}}', "names no currency"),
    ],
)
def test_a_file_of_rates_that_makes_no_sense(
    root: Path, tmp_path: Path, content: str, said: str
) -> None:
    """What is wrong with a file of rates is said in one line, and nothing is estimated."""
    rates = tmp_path / "rates.json"
    rates.write_text(content)
    done = run(root, "-r", "--to", "bf16", "-n", "--rates", rates)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"recast: {rates}: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_of_rates_goes_with_an_estimate(root: Path, tmp_path: Path) -> None:
    """Rates that would decide nothing are a wrong command line; a missing file is named."""
    missing = tmp_path / "none.json"
    for arguments in (("-r",), ("-r", "--to", "bf16"), ("--to", "bf16", "-n")):
        assert run(root, *arguments, "--rates", missing).exit_code == 2
    done = run(root, "-r", "--to", "bf16", "-n", "--rates", missing)
    assert done.exit_code == 1
    assert f"{missing}: No such file" in done.stderr


def test_looking_writes_nothing(mixed: Path) -> None:
    """A table, a dry run, a check and what would be deleted change no file."""
    before = runs.contents(mixed)
    for arguments in (
        ("-r",),
        ("-r", "--to", "bf16", "-n"),
        ("-r", "--to", "bf16", "-n", "--in-place"),
        ("-r", "--check"),
        ("-r", "--delete-trainer-state", "-n"),
        ("-r", "--jsonl"),
    ):
        run(mixed, *arguments)
        assert runs.contents(mixed) == before


def test_repair(mixed: Path, saved: Path) -> None:
    """What can be repaired is, what cannot is named with its reason, and the status says so."""
    done = run(mixed, "-r", "--to", "bf16", "--in-place")
    assert done.exit_code == 1
    head, *said = done.stdout.splitlines()
    assert head.startswith(f"{mixed}: 3 repaired, 1 already right, 2 failed in ")
    assert said[0].split()[0] == "freed"
    failed = [line.split(":")[0].split()[-1] for line in said if "failed" in line or ": is" in line]
    assert {"run-0/checkpoint-200"} <= set(failed)
    assert "the model is quantized (fp8)" in done.stdout
    for path in list(recast.discover(saved))[4:]:
        runs.check_repaired(path, mixed / path.relative_to(saved))


def test_json_and_json_lines_say_the_same(mixed: Path, tmp_path: Path) -> None:
    """One document at the end, or a line for each checkpoint and one for the totals."""
    whole = result(run(mixed, "-r", "--json"))
    *each, total = lines(run(mixed, "-r", "--jsonl"))
    assert whole.pop("checkpoints") == each
    assert total.pop("checkpoints") == []
    assert whole == total
    outs = [("-o", tmp_path / name) for name in ("one", "two")]
    whole = result(run(mixed, "-r", "--to", "bf16", *outs[0], "--json"))
    *each, total = lines(run(mixed, "-r", "--to", "bf16", *outs[1], "--jsonl"))
    fates = [{one["path"]: one["fate"] for one in many} for many in (whole["checkpoints"], each)]
    assert fates[0] == fates[1]
    assert whole["totals"] == total["totals"]
    assert total["totals"]["repaired"] == 3
    assert total["totals"]["failed"] == 2


def test_errors_go_to_stderr_when_stdout_is_for_machines(mixed: Path) -> None:
    """With --json, --jsonl and -q each failure is one line on stderr."""
    for option in ("--json", "--jsonl", "-q"):
        done = run(mixed, "-r", "--to", "bf16", "-o", mixed.parent / option, option)
        assert len(done.stderr.splitlines()) == 2
        assert all(line.startswith(f"recast: {mixed}/run-") for line in done.stderr.splitlines())
        assert (done.stdout == "") is (option == "-q")


def test_check(root: Path) -> None:
    """The status is 1 while a checkpoint is larger than it has to be, and 0 afterwards."""
    one = root / "run-0" / "checkpoint-100"
    assert run(root, "-r", "--check").exit_code == 1
    assert run(one, "--check").exit_code == 1
    assert run(root, "-r", "--check", "--to", "fp32").exit_code == 0
    run(root, "-r", "--to", "bf16", "--in-place")
    assert run(root, "-r", "--check").exit_code == 0
    assert run(one, "--check").exit_code == 0
    write_json(one / "config.json", {"quantization_config": {"quant_method": "fp8"}})
    assert run(root, "-r", "--check").exit_code == 0
    os.truncate(one / SHARD, 100)
    assert run(root, "-r", "--check").exit_code == 1


def test_lossless(root: Path) -> None:
    """Only what loses nothing is repaired; the others are named, and are no failures."""
    exact = root / "run-1" / "checkpoint-100"
    for path in exact.glob("*.safetensors"):
        tensors = load_file(path)
        save_shard(path, {name: each.bfloat16().float() for name, each in tensors.items()})
    runs.age(root)
    done = run(root, "-r", "--to", "bf16", "--in-place", "--lossless")
    assert done.exit_code == 0
    assert f"{root}: 1 repaired, 5 skipped in " in done.stdout
    assert done.stdout.count("would lose values in bfloat16") == 5


def test_a_tensor_of_which_nothing_is_left(root: Path) -> None:
    """Each checkpoint that holds one is named, with how many there are, and so does the JSON."""
    path = root / "run-0" / "checkpoint-100" / "model-00002-of-00002.safetensors"
    save_shard(path, load_file(path) | {"b": torch.full((8,), 1e-9)})
    runs.age(root)
    done = run(root, "-r", "--to", "fp16", "-o", root.parent / "out")
    (warning,) = [line for line in done.stdout.splitlines() if "warning" in line]
    assert warning == (
        "  warning   run-0/checkpoint-100: every value that was not zero became zero in 1 tensor "
        "[vanished-values]"
    )
    lost = [
        each["evidence"]["vanished_tensors"]
        for each in result(run(root, "-r", "--to", "fp16", "--in-place", "--json"))["checkpoints"]
    ]
    assert sorted(lost) == [0] * (len(lost) - 1) + [1]


def test_trainer_state_is_deleted_when_that_is_asked_for(mixed: Path) -> None:
    """Beside sound checkpoints it goes, and nothing else does; a broken one keeps its own."""
    before = runs.contents(mixed)
    planned = result(run(mixed, "-r", "--delete-trainer-state", "-n", "--json"))
    assert not planned["deleted"]
    done = run(mixed, "-r", "--delete-trainer-state", "--json")
    deleted = result(done)
    assert done.exit_code == 1
    assert deleted["deleted"]
    assert deleted["checkpoints"] == planned["checkpoints"]
    assert deleted["totals"] == planned["totals"]
    assert deleted["totals"] == {"checkpoints": 1, "files": 2, "bytes": 1100, "errors": 1}
    after = runs.contents(mixed)
    gone = before.keys() - after.keys()
    home = "run-1/checkpoint-200"
    assert gone == {
        f"{home}/optimizer.pt",
        f"{home}/global_step5/mp_rank_00_model_states.pt",
    }
    assert {name: before[name] for name in after} == after
    assert not (mixed / home / "global_step5").exists()
    assert "run-0/checkpoint-200/optimizer.pt" in after


def test_fresh_trainer_state_stays(mixed: Path) -> None:
    """Who has just written an optimizer is training on."""
    optimizer = mixed / "run-1" / "checkpoint-200" / "optimizer.pt"
    os.utime(optimizer)
    done = run(mixed, "-r", "--delete-trainer-state", "--include", "run-1/checkpoint-200")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{mixed}: no trainer state deleted\n")
    assert "may be resumed from: checkpoint-200/optimizer.pt is 1 min old" in done.stdout
    assert optimizer.exists()


@pytest.mark.parametrize(
    "log",
    [
        "runs/Nov25_host/events.out.tfevents.1",
        *("train.log", "slurm-77.out", "metrics.jsonl", "checkpoint-300/optimizer.pt.tmp"),
    ],
)
def test_trainer_state_of_a_run_that_goes_on_stays(mixed: Path, log: str) -> None:
    """Between two checkpoints only its logs show that a trainer is alive."""
    file = mixed / "run-1" / log
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    before = runs.contents(mixed)
    options = ("-r", "--delete-trainer-state", "--include", "run-1/checkpoint-200")
    for more in (("-n",), ()):
        done = run(mixed, *options, *more)
        assert done.exit_code == 1
        assert f"may be resumed from: {log} is 1 min old" in done.stdout
        assert runs.contents(mixed) == before
    runs.age(mixed)
    assert run(mixed, *options).exit_code == 0
    assert not (mixed / "run-1" / "checkpoint-200" / "optimizer.pt").exists()


@pytest.mark.parametrize("name", ["step_100", "epoch-3", "best", "checkpoint-best", "0042"])
def test_trainer_state_of_checkpoints_by_any_name(root: Path, name: str) -> None:
    """Whatever a trainer calls its checkpoints, the logs beside them are those of their run."""
    home = root / "run-0" / "checkpoint-100"
    home = home.rename(home.with_name(name))
    (home / "optimizer.bin").touch()
    runs.age(root)
    log = root / "run-0" / "logs" / "events.out.tfevents.1"
    log.parent.mkdir()
    log.touch()
    options = (root, "-r", "--delete-trainer-state", "--include", f"run-0/{name}")
    assert "may be resumed from: logs/events.out.tfevents.1 is 1 min old" in run(*options).stdout
    assert (home / "optimizer.bin").exists()
    log.rename(root / "run-1" / "train.log")  # the neighbour's
    assert run(*options).exit_code == 0
    assert not (home / "optimizer.bin").exists()


def test_what_recast_itself_has_written_is_no_sign_of_a_trainer(mixed: Path) -> None:
    """Right after a repair in place, the trainer state of runs that are over can be deleted."""
    options = ("-r", "--include", "run-1/checkpoint-200")
    assert run(mixed, *options, "--to", "bf16", "--in-place").exit_code == 0
    assert run(mixed, *options, "--delete-trainer-state").exit_code == 0
    assert not (mixed / "run-1" / "checkpoint-200" / "optimizer.pt").exists()


def test_a_run_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of checkpoints of one run do not cost a search each, but a search in all."""
    for home in recast.discover(root):
        (home / "optimizer.pt").touch()
    runs.age(root)
    looked = []
    walk = os.walk

    def noting(folder: Path, **options: object) -> object:
        looked.append(folder)
        return walk(folder, **options)

    monkeypatch.setattr(trainer_state.os, "walk", noting)
    assert run(root, "-r", "--delete-trainer-state").exit_code == 0
    searched = [each for each in looked if each.name.startswith("run-")]
    assert sorted(searched) == [root / name for name in ("run-0", "run-1", "run-2")]


@pytest.mark.parametrize("name", [".", "..", "link"])
def test_trainer_state_of_a_run_that_goes_on_stays_by_any_name(
    mixed: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's logs are found also where the name does not say that it is a checkpoint of one."""
    home = mixed / "run-1" / "checkpoint-200"
    (mixed / "run-1" / "train.log").touch()
    (home / "assets").mkdir()
    (mixed.parent / "link").symlink_to(home)
    monkeypatch.chdir({".": home, "..": home / "assets", "link": mixed.parent}[name])
    done = run(name, "--delete-trainer-state")
    assert done.exit_code == 1
    assert "may be resumed from: train.log is 1 min old" in done.stdout
    assert (home / "optimizer.pt").exists()
    runs.age(mixed)
    assert run(name, "--delete-trainer-state").exit_code == 0
    assert not (home / "optimizer.pt").exists()


def test_trainer_state_stays_where_logs_cannot_be_read(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot see whether a run goes on does not delete what it would be resumed from."""
    closed = mixed / "run-1" / "runs"
    closed.mkdir()
    runs.age(mixed)
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    home = mixed / "run-1" / "checkpoint-200"
    done = run(home, "--delete-trainer-state")
    assert done.exit_code == 1
    assert "Permission denied" in done.stdout
    assert (home / "optimizer.pt").exists()


def test_trainer_state_of_a_run_whose_files_come_and_go(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that goes while it is looked at is as good as new; a folder that goes holds none."""
    walk = os.walk

    def pass_by(top: Path, **options: object) -> Iterator[tuple[str, list[str], list[str]]]:
        """List what is there in the run's folder, and what is there no more, too."""
        for parent, folders, names in walk(top, **options):
            if Path(parent) == mixed / "run-1":
                folders.append("logs")
                names.append("train.log")
            yield parent, folders, names

    monkeypatch.setattr(os, "walk", pass_by)
    home = mixed / "run-1" / "checkpoint-200"
    done = run(home, "--delete-trainer-state")
    assert done.exit_code == 1
    assert "may be resumed from: train.log is 1 min old" in done.stdout
    assert (home / "optimizer.pt").exists()


def test_trainer_state_that_is_a_link(mixed: Path) -> None:
    """What is kept elsewhere stays there: only the link goes, and the model can be repaired."""
    home = mixed / "run-1" / "checkpoint-200"
    elsewhere = mixed.parent / "elsewhere" / "global_step7"
    elsewhere.mkdir(parents=True)
    (elsewhere / "states.pt").write_bytes(bytes(100))
    (home / "global_step7").symlink_to(elsewhere)
    runs.age(mixed)
    options = ("-r", "--include", "run-1/checkpoint-200")
    assert run(mixed, *options, "--to", "bf16", "-o", mixed.parent / "out").exit_code == 0
    assert run(mixed, *options, "--delete-trainer-state").exit_code == 0
    assert not os.path.lexists(home / "global_step7")
    assert runs.contents(elsewhere) == {"states.pt": bytes(100)}


def test_folders_that_cannot_be_read_are_named_in_every_mode(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is 1 and says why, in a text, on stderr, and as a line of JSON."""
    closed = root / "run-1"
    scandir = os.scandir

    def refuse(path: Path | int) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(discovery.os, "scandir", refuse)
    for mode in ((), ("--check",), ("--delete-trainer-state",), ("--to", "bf16", "--in-place")):
        said = run(root, "-r", *mode)
        assert said.exit_code == 1
        assert "run-1: Permission denied; check its permissions" in said.stdout
        streamed = run(root, "-r", *mode, "--jsonl")
        assert streamed.exit_code == 1
        assert streamed.stderr.startswith(f"recast: {closed}: Permission denied")
        assert [each["path"] for each in lines(streamed) if each.get("error")] == [str(closed)]


def test_a_name_that_is_no_text(root: Path, saved: Path) -> None:
    """A run whose name is bytes that are no UTF-8 is repaired like any other."""
    named = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    (root / "run-0").rename(named)
    done = run(root, "-r", "--to", "bf16", "-o", root.parent / "out")
    assert done.exit_code == 0, done.output
    assert run(root, "-r", "--to", "bf16", "--in-place").exit_code == 0
    for step in ("checkpoint-100", "checkpoint-200"):
        runs.check_repaired(saved / "run-0" / step, named / step)
        runs.check_repaired(saved / "run-0" / step, root.parent / "out" / named.name / step)


def test_another_recast_at_work(root: Path) -> None:
    """A checkpoint that another process holds is skipped and named, and is no failure."""
    held = root / "run-0" / "checkpoint-100"
    (held / ".recast").mkdir()
    with Lock(held / ".recast" / "lock", held):
        runs.age(root)
        done = run(root, "-r", "--to", "bf16", "--in-place")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{root}: 5 repaired, 1 skipped in ")
    assert f"run-0/checkpoint-100: is being written by process {os.getpid()}" in done.stdout
    assert run(root, "-r", "--to", "bf16", "--in-place").stdout.startswith(f"{root}: 1 repaired")


def test_the_table_on_a_narrow_terminal(root: Path) -> None:
    """A path that leaves no room for its figures stands above them, whole."""
    deep = Path("a-long-name-of-an-experiment", "with-a-learning-rate-of-1e-3", "checkpoint-5")
    (root / deep).parent.mkdir(parents=True)
    (root / "run-0" / "checkpoint-100").rename(root / deep)
    surveys = list(survey_all(recast.discover(root), "bf16"))
    told = fleet_text.survey(root, surveys, recast.Dtype.BF16, width=80).splitlines()[1:]
    assert told.count(f"  {deep}") == 1
    under = told[told.index(f"  {deep}") + 1]
    assert under.split()[0] == "float32"
    assert all(len(line) <= 80 for line in told)
    wide = fleet_text.survey(root, surveys, recast.Dtype.BF16).splitlines()
    assert sum(line.startswith(f"  {deep}  float32 ") for line in wide) == 1


def test_own_bases_are_counted(root: Path) -> None:
    """With --like auto it is said which checkpoints have a base here, and which have none."""
    base = root.parent / "base"
    shutil.copytree(root / "run-0" / "checkpoint-100", base)
    write_json(base / "config.json", {"model_type": "llama"})
    own = root / "run-0" / "checkpoint-100"
    write_json(own / "config.json", {"model_type": "llama", "_name_or_path": str(base)})
    write_json(
        root / "run-0" / "checkpoint-200" / "config.json",
        {"model_type": "llama", "_name_or_path": "org/elsewhere"},
    )
    runs.age(root)
    options = ("-r", "--include", "run-0", "--to", "bf16", "--like", "auto")
    line = "1 of 2 checkpoints found their base; no folder here is that of run-0/checkpoint-200"
    assert line in run(root, *options, "-n").stdout
    planned = result(run(root, *options, "-n", "--json"))["checkpoints"]
    assert line in run(root, *options, "-o", root.parent / "out").stdout
    done = result(run(root, *options, "--in-place", "--json"))["checkpoints"]
    for told in (planned, done):
        assert {each["path"]: each["base"] for each in told} == {
            str(own): str(base),
            str(own.with_name("checkpoint-200")): None,
        }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--include", "a"),
        ("--exclude", "a"),
        ("--scheduler", "tcp://a:1"),
        ("-r", "--scheduler", "tcp://a:1"),
        ("-r", "--to", "bf16", "-n", "--scheduler", "tcp://a:1"),
        ("-r", "--to", "bf16", "--scheduler", "tcp://a:1", "--scheduler-file", "b"),
        ("-r", "--against", "a"),
        ("-r", "-n"),
        ("-r", "-o", "out"),
        ("--jsonl",),
        ("-r", "--json", "--jsonl"),
        ("-r", "--check", "--to", "bf16", "-n"),
        ("-r", "--check", "--to", "bf16", "--in-place"),
        ("-r", "--delete-trainer-state", "--to", "bf16"),
        ("-r", "--delete-trainer-state", "--check"),
    ],
)
def test_flags_that_do_not_go_together(arguments: tuple[str, ...], root: Path) -> None:
    """The command line is wrong: status 2, and nothing is done."""
    before = runs.contents(root)
    done = run(root, *arguments)
    assert done.exit_code == 2
    assert runs.contents(root) == before


def test_no_checkpoints(tmp_path: Path) -> None:
    """A folder without any says so, in every mode."""
    for arguments in ((), ("--to", "bf16"), ("--to", "bf16", "-n"), ("--check",)):
        done = run(tmp_path, "-r", *arguments)
        assert done.exit_code == 0
        assert done.stdout == f"{tmp_path}: no checkpoints\n"
    assert run(tmp_path / "missing", "-r").exit_code == 1


def test_a_cluster_on_the_command_line(root: Path, saved: Path, scheduler_file: Path) -> None:
    """With --scheduler-file, or the address in it, the workers of a cluster repair."""
    address = json.loads(scheduler_file.read_text())["address"]
    half = ("--include", "run-0/*")
    first = run(root, "-r", "--to", "bf16", "--in-place", *half, "--scheduler", address)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith(f"{root}: 2 repaired in ")
    rest = run(root, "-r", "--to", "bf16", "--in-place", "--scheduler-file", scheduler_file)
    assert rest.exit_code == 0, rest.output
    assert rest.stdout.startswith(f"{root}: 4 repaired, 2 already right in ")
    for path in recast.discover(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


def test_a_terminal_shows_one_bar(root: Path) -> None:
    """Progress over all bytes, with a checkpoint's name, goes to a terminal and nowhere else."""
    status, shown = on_a_terminal(root, "-r", "--to", "bf16", "--in-place")
    assert status == 0
    assert "B/s" in shown
    assert "checkpoint-" in shown


def test_what_a_trainer_has_not_finished_is_not_broken(root: Path) -> None:
    """A shard that is there before its index is no fault yet: it is named, and left alone."""
    one = root / "run-0" / "checkpoint-100"
    (one / "model.safetensors.index.json").unlink()
    os.utime(one / SHARD)
    os.truncate(root / "run-1" / "checkpoint-100" / SHARD, 500)
    for mode in ((), ("--check",)):
        said = run(root, "-r", *mode)
        assert said.exit_code == 1
        assert said.stdout.count("is being written: its files are new, and not whole yet (") == 2
        assert "--allow" not in said.stdout
    done = run(root, "-r", "--to", "bf16", "--in-place")
    assert done.exit_code == 0
    assert "4 repaired, 2 skipped" in done.stdout
    runs.age(root)
    assert "2 failed" in run(root, "-r", "--to", "bf16", "--in-place").stdout


def test_what_cannot_be_judged_is_not_passed_over(root: Path) -> None:
    """Only a quantized checkpoint is rightly as large as it is; one that is refused may not be."""
    assert run(root, "-r", "--to", "bf16", "--in-place").exit_code == 0
    assert run(root, "-r", "--check").exit_code == 0
    (root / "run-0" / "checkpoint-100" / "base").symlink_to(root.parent)
    done = run(root, "-r", "--check")
    assert "is a link out of the folder" in done.stdout
    assert done.exit_code == 1


def test_trainer_state_that_a_run_has_elsewhere(mixed: Path) -> None:
    """A run that keeps a checkpoint on another disk, behind a link, is known by both places."""
    home = mixed / "run-1" / "checkpoint-200"
    home.rename(mixed.parent / "elsewhere")
    home.symlink_to(mixed.parent / "elsewhere")
    runs.age(mixed.parent)
    (mixed / "run-1" / "train.log").touch()
    done = run(home, "--delete-trainer-state")
    assert done.exit_code == 1
    assert "may be resumed from: train.log is 1 min old" in done.stdout
    assert (home / "optimizer.pt").exists()


@pytest.mark.parametrize("address", ["tls://127.0.0.1:1", "foo://127.0.0.1:1"])
def test_an_address_that_dask_cannot_use(root: Path, address: str) -> None:
    """Whatever Dask raises is one line, and nothing is waited for or said when the process ends."""
    command = [sys.executable, "-m", "recast", root, "-r", "--to", "bf16", "--in-place"]
    done = subprocess.run(
        [*command, "--scheduler", address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"recast: {address}: no scheduler answers there (")
    assert len(done.stderr.splitlines()) == 1
