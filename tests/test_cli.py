"""The command: its modes, its exit status, and what it prints where."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from safetensors.torch import load_file

import recast
from recast import cli
from tests import checkpoints

Snapshot = Mapping[str, tuple[int, int, bytes]]

SCHEMA = Path(__file__).parents[1] / "docs" / "recast.schema.json"
COMMAND = [sys.executable, "-m", "recast"]
# Output is written at once if this is set, and most users have not set it.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
INDEX = "model.safetensors.index.json"


def run(*arguments: object) -> Result:
    """Run the command inside this process."""
    return CliRunner().invoke(cli.command, list(map(str, arguments)))


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    line = [*COMMAND, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def snapshot(folder: Path) -> Snapshot:
    """Return every entry below *folder*: its mode, time of change in ns, and content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def document(printed: str) -> dict[str, Any]:
    """Return the one JSON document that *printed* is, which is as the schema describes it."""
    parsed: dict[str, Any] = json.loads(printed)
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(parsed)
    return parsed


def kinds(printed: str) -> list[str]:
    """Return the kind of each result in a printed JSON document."""
    return [result["kind"] for result in document(printed)["results"]]


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A checkpoint of which one shard was cut short, ``tmp_path / "torn"``."""
    folder = checkpoints.two_shards(tmp_path / "torn")
    os.truncate(folder / "model-00002-of-00002.safetensors", 500)
    return folder


def test_the_modes_as_a_user_runs_them(ckpt: Path) -> None:
    """Inspect, plan, convert, verify: each says so on stdout, is silent on stderr, and exits 0."""
    done = [
        start(ckpt),
        start(ckpt, "--to", "bf16", "-n"),
        start(ckpt, "--to", "bf16"),
        start(f"{ckpt}-bf16", "--against", ckpt),
    ]
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 4
    inspected, planned, converted, verified = (each.stdout for each in done)
    assert inspected.startswith(f"{ckpt}\n  stored ")
    assert planned.startswith(f"{ckpt} to bfloat16, into {ckpt}-bf16\n")
    assert converted.startswith(f"{ckpt}-bf16: bfloat16, ")
    assert verified.startswith(f"{ckpt}-bf16: verified, 4 tensors in 2 shards ")
    assert all(each.stdout.count("\n\n\n") == 0 for each in done)


def test_a_conversion_holds_what_torch_casts(ckpt: Path) -> None:
    """What lies in PATH-bf16 is what torch makes of the tensors of PATH."""
    assert run(ckpt, "--to", "bf16").exit_code == 0
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        before, after = load_file(ckpt / name), load_file(Path(f"{ckpt}-bf16") / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key].bfloat16(), after[key]) for key in before)


def test_modes_but_converting_write_nothing(ckpt: Path, tmp_path: Path) -> None:
    """Inspecting, planning and verifying change no file, and no time of one."""
    run(ckpt, "--to", "bf16")
    before = snapshot(tmp_path)
    for arguments in (
        (ckpt,),
        (ckpt, "--json"),
        (ckpt, "--to", "fp16", "-n"),
        (ckpt, "--to", "fp16", "-n", "-o", tmp_path / "new" / "deep"),
        (ckpt, "--to", "fp16", "-n", "--in-place"),
        (ckpt, "--to", "fp32"),
        (f"{ckpt}-bf16", "--against", ckpt),
    ):
        assert run(*arguments).exit_code == 0
        assert snapshot(tmp_path) == before


def test_converting_leaves_its_source_alone(ckpt: Path, tmp_path: Path) -> None:
    """A conversion adds its result, under the name that was asked for, and changes nothing."""
    before = snapshot(ckpt)
    result = run(ckpt, "--to", "bf16", "-o", tmp_path / "new" / "deep")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{tmp_path / 'new' / 'deep'}: ")
    assert snapshot(ckpt) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ckpt", "new"]
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["deep"]
    assert (tmp_path / "new" / "deep" / INDEX).is_file()


def test_converting_in_place(ckpt: Path, tmp_path: Path) -> None:
    """With --in-place the result is where the source was, and nothing lies beside it."""
    expected = tmp_path / "expected"
    run(ckpt, "--to", "bf16", "-o", expected)
    assert run(ckpt, "--to", "bf16", "--in-place").exit_code == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ckpt", "expected"]
    found, wanted = (
        {each.name: each.read_bytes() for each in path.iterdir()} for path in (ckpt, expected)
    )
    assert found == wanted


@pytest.mark.parametrize(
    ("spelling", "folder"),
    [("bf16", "bf16"), ("bfloat16", "bf16"), ("torch.float16", "fp16"), ("Half", "fp16")],
)
def test_dtypes_may_be_spelt_in_many_ways(ckpt: Path, spelling: str, folder: str) -> None:
    """Whatever people call a dtype, the plan names the folder after its short name."""
    result = run(ckpt, "--to", spelling, "-n")
    assert f"into {ckpt}-{folder}\n" in result.stdout


def test_options_reach_the_plan(tmp_path: Path) -> None:
    """--keep and --no-keep-rules decide which tensors are kept."""
    names = ["encoder.block.0.layer.1.DenseReluDense.wo.weight", "shared.weight", "other.weight"]
    tensors = checkpoints.random_tensors(**dict.fromkeys(names, (4, 4)))
    checkpoints.save_shard(tmp_path / "t5" / "model.safetensors", tensors)
    checkpoints.write_json(tmp_path / "t5" / "config.json", {"model_type": "t5"})
    for arguments, kept in (
        ((), {names[0]}),
        (("--no-keep-rules",), set()),
        (("--keep", "other.*", "--keep", "shared*"), set(names)),
        (("--no-keep-rules", "--keep", "s*"), {names[1]}),
    ):
        result = run(tmp_path / "t5", "--to", "fp16", "-n", "--json", *arguments)
        [plan] = document(result.stdout)["results"]
        assert {each["tensor"] for each in plan["kept"]} == kept


def test_losses_are_refused_or_allowed(tmp_path: Path) -> None:
    """Overflow fails unless allowed, rounding fails only with --lossless; nothing is left then."""
    for name, value in (("big", 1e6), ("odd", 0.1), ("even", 0.5)):
        checkpoints.save_shard(tmp_path / f"{name}.safetensors", {"a": torch.tensor([value])})
    before = snapshot(tmp_path)
    for name, options, status in (
        ("big", (), 1),
        ("odd", ("--lossless",), 1),
        ("even", ("--lossless",), 0),
        ("odd", (), 0),
        ("big", ("--allow", "overflow"), 0),
    ):
        result = run(tmp_path / f"{name}.safetensors", "--to", "fp16", *options)
        assert result.exit_code == status
        if status:
            assert result.stderr.startswith(f"recast: {tmp_path / name}.safetensors: tensor 'a'")
            assert snapshot(tmp_path) == before
        else:
            before = snapshot(tmp_path)
    assert len(before) == 6


def test_one_document_on_stdout(ckpt: Path, torn: Path) -> None:
    """--json prints one document, with one result a PATH in their order, also if some fail."""
    result = start(ckpt, torn, "nowhere", ckpt, "--json")
    assert result.returncode == 1
    results = document(result.stdout)["results"]
    assert [each["kind"] for each in results] == ["inspection", "error", "error", "inspection"]
    assert [each["path"] for each in results] == [str(ckpt), str(torn), "nowhere", str(ckpt)]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    for line, error in zip(lines, results[1:3], strict=True):
        assert line == f"recast: {error['subject']}: {error['problem']}; {error['remedy']}"


def test_every_mode_prints_its_document(ckpt: Path, torn: Path) -> None:
    """The documents of all modes are as the schema describes them, and stand alone on stdout."""
    target = f"{ckpt}-bf16"
    for arguments, expected in (
        ((ckpt,), ["inspection"]),
        ((ckpt, torn, "--to", "bf16", "-n"), ["plan", "error"]),
        ((ckpt, torn, "--to", "bf16"), ["conversion", "error"]),
        ((ckpt, ckpt, "--to", "bf16"), ["conversion", "conversion"]),
        ((target, "--against", ckpt), ["verification"]),
        ((ckpt, "--against", target), ["verification"]),
        ((ckpt, "--against", torn), ["error"]),
    ):
        assert kinds(run(*arguments, "--json").stdout) == expected


def test_documents_are_ascii(tmp_path: Path) -> None:
    """A document can be printed whatever the encoding of stdout, names included."""
    folder = checkpoints.two_shards(tmp_path / "ü\udcff\n")
    printed = run(folder, "--json").stdout
    assert printed.isascii()
    assert document(printed)["results"][0]["path"] == str(folder)


def test_text_of_several_paths(ckpt: Path, torn: Path) -> None:
    """What is said of several checkpoints is said in their order, an empty line between them."""
    alone = run(ckpt).stdout
    result = run(ckpt, torn, ckpt)
    assert result.stdout == f"{alone}\n{alone}"
    assert result.exit_code == 1
    assert re.fullmatch(r"recast: .*torn.*model-00002-of-00002\.safetensors: .*\n", result.stderr)


def test_a_failure_does_not_keep_others_from_being_converted(ckpt: Path, torn: Path) -> None:
    """Of several checkpoints, those that can be converted are."""
    result = run(torn, ckpt, "--to", "bf16")
    assert result.exit_code == 1
    assert Path(f"{ckpt}-bf16").is_dir()
    assert not Path(f"{torn}-bf16").exists()


def test_errors_say_whose_file_it_is(ckpt: Path, torn: Path, monkeypatch) -> None:
    """A file is named by its whole path, whether PATH or SRC holds it, and from where one is."""
    shard = "model-00002-of-00002.safetensors"
    checkpoints.write_json(ckpt / "config.json", {"quantization_config": {"quant_method": "awq"}})
    for arguments, named in (
        ((torn,), torn / shard),
        ((ckpt, "--to", "bf16"), ckpt / "config.json"),
        ((ckpt, "--against", torn), torn / shard),
        ((torn, "--against", ckpt), torn / shard),
        ((torn / shard,), torn / shard),
        ((torn / shard, "--to", "bf16"), torn / shard),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"recast: {named}: ")
        assert result.stderr.count("\n") == 1
    monkeypatch.chdir(torn)
    for path in (".", torn.name and f"../{torn.name}"):
        named = Path(path, shard)
        assert run(path).stderr.startswith(f"recast: {named}: ")


def test_the_exit_status_of_an_inspection(ckpt: Path) -> None:
    """Notes and warnings are told, and exit with 0; what stops a conversion exits with 1."""
    checkpoints.write_json(ckpt / "config.json", {"model_type": "llama", "dtype": "float16"})
    result = run(ckpt)
    assert (result.exit_code, "[config-mismatch]" in result.stdout) == (0, True)
    (ckpt / "model-00001-of-00002.safetensors").unlink()
    result = run(ckpt)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "  error     model-00001-of-00002.safetensors: is named in" in result.stdout
    assert "float32" in result.stdout
    assert kinds(run(ckpt, "--json").stdout) == ["inspection"]
    assert run(ckpt, "--json").exit_code == 1


def test_the_exit_status_of_a_verification(ckpt: Path) -> None:
    """What is not what its source becomes is told on stdout, and exits with 1."""
    run(ckpt, "--to", "bf16")
    assert run(f"{ckpt}-bf16", "--against", ckpt).exit_code == 0
    (Path(f"{ckpt}-bf16") / "tokenizer.json").write_text("[]")
    result = run(f"{ckpt}-bf16", "--against", ckpt)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "  tokenizer.json: differs from the source's\n" in result.stdout


def test_a_verification_beside_the_base_model(ckpt: Path, tmp_path: Path) -> None:
    """What has the dtypes of a base that mixes them is verified by naming that base again."""
    shutil.copytree(ckpt, tmp_path / "base")
    for number, dtype in ((1, torch.bfloat16), (2, torch.float16)):
        path = tmp_path / "base" / f"model-0000{number}-of-00002.safetensors"
        tensors = {name: each.to(dtype) for name, each in load_file(path).items()}
        checkpoints.save_shard(path, tensors)
    like = ("--like", tmp_path / "base")
    assert run(ckpt, *like, "-o", tmp_path / "out").exit_code == 0
    assert run(tmp_path / "out", "--against", ckpt).exit_code == 1
    result = run(tmp_path / "out", "--against", ckpt, *like)
    assert result.exit_code == 0
    assert result.stdout.endswith("\n  cast      2 to bfloat16, 2 to float16, of 4 tensors\n")


def test_quiet_says_nothing_but_errors(ckpt: Path, torn: Path) -> None:
    """With -q there is no output, save the errors and the exit status."""
    for arguments, status in (
        ((ckpt,), 0),
        ((ckpt, "--to", "bf16", "-n"), 0),
        ((ckpt, "--to", "bf16"), 0),
        ((f"{ckpt}-bf16", "--against", ckpt), 0),
        ((ckpt, "--against", f"{ckpt}-bf16"), 1),
    ):
        result = run(*arguments, "-q")
        assert (result.exit_code, result.output) == (status, "")
    result = run(torn, "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == run(torn).stderr


def test_version() -> None:
    """--version says the version, and needs no PATH."""
    result = start("--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"recast, version {recast.__version__}\n"


def test_help() -> None:
    """--help names every option, keeps the examples on their lines, and fits a terminal."""
    result = start("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for parameter in cli.command.params:
        assert all(option in result.stdout for option in parameter.opts if option[0] == "-")
    lines = result.stdout.splitlines()
    assert "  recast ./ckpt --to bf16                convert into ./ckpt-bf16" in lines
    assert "\b" not in result.stdout
    assert max(map(len, lines)) <= 80
    assert run("-h").stdout.endswith(lines[-1] + "\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "Missing argument 'PATH...'"),
        ("ckpt --nope", "No such option '--nope'"),
        ("ckpt -o x", "-o goes with --to"),
        ("ckpt -n", "-n goes with --to"),
        ("ckpt --in-place", "--in-place goes with --to"),
        ("ckpt --keep x", "--keep goes with --to"),
        ("ckpt --no-keep-rules", "--no-keep-rules goes with --to"),
        ("ckpt --lossless", "--lossless goes with --to"),
        ("ckpt --allow overflow", "--allow goes with --to"),
        (
            "ckpt --to bf16 --allow quantized",
            "'quantized' stops a conversion, and cannot be allowed",
        ),
        ("ckpt --to bf16 --allow oversized", "'oversized' stops no conversion"),
        ("ckpt --to bf16 --against x", "--against verifies what --to has made"),
        ("ckpt --against x --like y -o z", "-o goes with --to or --like"),
        ("ckpt --to bf16 --in-place -o x", "give one of them"),
        ("ckpt ckpt --to bf16 -o x", "go with one PATH"),
        ("ckpt ckpt --against x", "go with one PATH"),
        ("ckpt --to bf16 --workers 0", "'--workers'"),
        ("ckpt --to bf16 --workers many", "'--workers'"),
        ("ckpt --to", "Option '--to' requires an argument"),
        ("ckpt --to int8", "bf16 (bfloat16), fp16 (float16), fp32 (float32)"),
        ("ckpt --to fp64", "bf16 (bfloat16), fp16 (float16), fp32 (float32)"),
        ("ckpt nowhere --to bf17", "bf17: is not a dtype recast converts to"),
    ],
)
def test_wrong_command_lines(ckpt: Path, monkeypatch, arguments: str, named: str) -> None:
    """What makes no sense exits with 2, says what to do instead, and does nothing."""
    monkeypatch.chdir(ckpt.parent)
    before = snapshot(ckpt.parent)
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr.splitlines()[-1]
    assert snapshot(ckpt.parent) == before


def test_an_empty_path_is_not_the_current_folder(ckpt: Path, monkeypatch) -> None:
    """A shell variable that is not set does not have the current folder converted."""
    monkeypatch.chdir(ckpt)
    result = run("", "--to", "bf16")
    assert result.exit_code == 2
    assert "a PATH is empty" in result.stderr
    assert not Path(f"{ckpt}-bf16").exists()


def test_a_reader_that_leaves(ckpt: Path) -> None:
    """A pipe whose reader has seen enough, such as head, ends the command without a word."""
    for arguments in ([ckpt], [ckpt, "--json"], ["--help"]):
        line = [*COMMAND, *map(str, arguments)]
        pipe = subprocess.PIPE
        with subprocess.Popen(line, stdout=pipe, stderr=pipe, env=BUFFERED) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_output_that_cannot_be_written(ckpt: Path) -> None:
    """A full disk, to which the output is redirected, is an error of one line."""
    line = [*COMMAND, str(ckpt)]
    pipe = subprocess.PIPE
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            line, stdout=full, stderr=pipe, text=True, check=False, env=BUFFERED
        )
    assert result.returncode == 1
    assert result.stderr == "recast: output: No space left on device\n"


def test_names_that_stdout_cannot_encode(tmp_path: Path) -> None:
    """A name beyond the terminal's encoding, or that is not text at all, is escaped."""
    folder = checkpoints.two_shards(tmp_path / "ü\N{RIGHTWARDS ARROW}\udcff")
    result = subprocess.run(
        [*COMMAND, os.fsencode(folder)],
        env={**os.environ, "PYTHONIOENCODING": "latin-1:strict", "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.splitlines()[0].endswith(b"/\xfc\\u2192\\udcff")


def test_closed_streams(ckpt: Path) -> None:
    """Without stdout and stderr, the work is done all the same."""
    line = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, str(ckpt), "--to", "bf16"]
    assert subprocess.run(line, check=False, timeout=60).returncode == 0
    assert Path(f"{ckpt}-bf16").is_dir()


def on_a_terminal(*arguments: object) -> tuple[int, str]:
    """Run the command with a terminal as stderr; return its status and what it shows there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, 80))
    line = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += (part := os.read(ours, 4096))
            except OSError:  # what Linux says when the other side is closed
                break
            if not part:  # what others say
                break
        status = process.wait(60)
    os.close(ours)
    return status, shown.decode()


def test_progress_on_a_terminal(ckpt: Path) -> None:
    """A terminal sees a bar in bytes, with the checkpoint's name, which is gone at the end."""
    total = sum(each.stat().st_size for each in ckpt.iterdir())
    status, shown = on_a_terminal(ckpt, "--to", "bf16")
    assert status == 0
    assert re.search(rf"\rckpt: +0%\| +\| 0\.00/{total / 1000:.2f}k \[", shown)
    assert "B/s]" in shown
    assert shown.rpartition("\r")[2] == ""
    assert shown.rstrip("\r").rpartition("\r")[2].strip() == ""
    status, shown = on_a_terminal(f"{ckpt}-bf16", "--against", ckpt)
    assert (status, "B/s]" in shown) == (0, True)


def test_no_progress_where_none_is_wanted(ckpt: Path) -> None:
    """Neither -q nor a mode that is done at once shows a bar."""
    assert on_a_terminal(ckpt, "--to", "bf16", "-q") == (0, "")
    assert on_a_terminal(ckpt) == (0, "")
    assert on_a_terminal(ckpt, "--to", "bf16", "-n") == (0, "")


def sparse(path: Path, nbytes: int) -> None:
    """Write a weights file whose one fp32 tensor of *nbytes* is a hole, which takes no space."""
    tensor = {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": tensor}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + nbytes)


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 once it has gone, as small ones do at once."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def interrupted(arguments: list[str], number: int, when: Callable[[], bool]) -> tuple[int, str]:
    """Run the command and send it a signal, twice, as soon as *when* is true.

    Returns its status and what it says on stderr.
    """
    line = [*COMMAND, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        deadline = time.monotonic() + 60
        while not when() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert stdout == ""
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_an_interrupted_conversion(tmp_path: Path, number: int, status: int) -> None:
    """Ctrl-C or a kill ends a conversion with one line; nothing half-made has a name of its own."""
    sparse(tmp_path / "ckpt" / "model.safetensors", 1 << 31)
    before = (tmp_path / "ckpt" / "model.safetensors").stat()
    result = interrupted(
        [str(tmp_path / "ckpt"), "--to", "bf16", "--workers", "1"],
        number,
        lambda: any(size_of(each) for each in tmp_path.rglob("*.partial")),
    )
    assert result == (status, "recast: interrupted; run the same command again to go on\n")
    shown = [each.name for each in tmp_path.iterdir() if not each.name.startswith(".")]
    assert shown == ["ckpt"]
    assert list(tmp_path.rglob("*.partial")) == []
    after = (tmp_path / "ckpt" / "model.safetensors").stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)


def doing(work: str) -> subprocess.CompletedProcess[str]:
    """Run main() with other work to do: the body of a function, in which kill() sends a signal."""
    code = f"""
import os, signal, sys
from recast import cli
def kill(number):
    os.kill(os.getpid(), number)
def work():
{textwrap.indent(work, "    ")}
cli.command.main = work
if "nohup" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
cli.main()
"""
    line = [sys.executable, "-c", code, *(["nohup"] if "nohup" in work else [])]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """What nohup protects from a signal is not ended by it."""
    result = doing("kill(signal.SIGINT)  # under nohup\nprint('went on')\nsys.exit(7)")
    assert (result.returncode, result.stdout, result.stderr) == (7, "went on\n", "")


def test_impatience_does_not_cut_the_tidying_short() -> None:
    """A second signal, as from a terminal and from a parent, does not leave things half removed."""
    work = """
try:
    kill(signal.SIGINT)
    print("never")
finally:
    kill(signal.SIGINT)
    kill(signal.SIGTERM)
    print("tidied")
"""
    result = doing(work)
    assert (result.returncode, result.stdout) == (130, "tidied\n")
    assert result.stderr.startswith("recast: interrupted")
