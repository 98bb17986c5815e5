"""What is wrong is told in one line that names the file, the tensor and the way out."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from recast import cli
from tests import checkpoints

FIRST = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
AGAIN = "download or copy it again"
NOT_VALID = "is not a valid safetensors file"

Make = Callable[[Path], Path]
Case = tuple[Make, str, Sequence[str]]  # makes what is bad; the file named, from there; the rest

COMMAND = [sys.executable, "-m", "recast"]
# Root may do anything, unless it drops the right to.
AS_OWNER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if not os.geteuid() else []
NEEDS_OWNER = pytest.mark.skipif(
    bool(AS_OWNER) and not shutil.which("setpriv"), reason="root needs setpriv to be refused a file"
)
DiskUsage = namedtuple("DiskUsage", "total used free")  # noqa: PYI024 - as shutil's own


def listing(root: Path) -> Mapping[str, object]:
    """Return every entry below *root* with its size, time of change in ns and link, if one."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        link = path.readlink() if path.is_symlink() else None
        found[str(path.relative_to(root))] = (status.st_size, status.st_mtime_ns, link)
    return found


def fails(root: Path, arguments: Sequence[object], said: Sequence[str]) -> None:
    """Run the command, which must fail with one line that holds *said*, and leave nothing."""
    before = listing(root)
    result = CliRunner().invoke(cli.command, list(map(str, arguments)))
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    one_line(result.stderr, said)
    assert listing(root) == before


def one_line(stderr: str, said: Sequence[str]) -> None:
    """Check that *stderr* is one printable line of recast's that holds all of *said*."""
    assert stderr.startswith("recast: ")
    assert stderr.endswith("\n")
    assert stderr[:-1].isprintable()
    for each in said:
        assert each in stderr


def every_mode(path: Path, good: Path) -> list[list[object]]:
    """Return the command lines of all modes for what cannot even be read."""
    return [
        [path],
        [path, "--to", "bf16", "-n"],
        [path, "--to", "bf16"],
        [path, "--to", "fp16", "-o", good.parent / "new" / "deep"],
        [path, "--to", "bf16", "--in-place"],
        [path, "--against", good],
        [good, "--against", path],
    ]


def with_index(change: object) -> Make:
    """Return what makes a checkpoint whose index is text, bytes, or has other members."""

    def make(root: Path) -> Path:
        folder = checkpoints.two_shards(root / "bad")
        place = folder / INDEX
        if isinstance(change, bytes):
            place.write_bytes(change)
        elif isinstance(change, dict):
            document = json.loads(place.read_text(encoding="utf-8")) | change
            checkpoints.write_json(place, document)
        return folder

    return make


def with_file(name: str, content: bytes) -> Make:
    """Return what makes a checkpoint in which one file holds *content*."""

    def make(root: Path) -> Path:
        folder = checkpoints.two_shards(root / "bad")
        (folder / name).write_bytes(content)
        return folder

    return make


def with_link(name: str, to: str) -> Make:
    """Return what makes a checkpoint in which one file is a link."""

    def make(root: Path) -> Path:
        folder = checkpoints.two_shards(root / "bad")
        checkpoints.save_shard(root / "elsewhere.safetensors", {"a": torch.zeros(2)})
        (folder / name).unlink()
        (folder / name).symlink_to(to)
        return folder

    return make


def cut_short(root: Path) -> Path:
    """Make a checkpoint whose second shard was not downloaded to its end."""
    folder = checkpoints.two_shards(root / "bad")
    os.truncate(folder / SECOND, 700)
    return folder


def folder_of(*names: str) -> Make:
    """Return what makes a folder of these files, which hold nothing to speak of."""

    def make(root: Path) -> Path:
        for name in ("", *names):
            path = root / "bad" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"?") if name else path.mkdir()
        return root / "bad"

    return make


def bare(content: bytes) -> Make:
    """Return what makes a bare weights file of this content."""

    def make(root: Path) -> Path:
        (root / "bad.safetensors").write_bytes(content)
        return root / "bad.safetensors"

    return make


def pipe_for_a_shard(root: Path) -> Path:
    """Make a checkpoint one of whose shards is a pipe, which nobody writes to."""
    folder = checkpoints.two_shards(root / "bad")
    (folder / FIRST).unlink()
    os.mkfifo(folder / FIRST)
    return folder


def link_to_nothing(root: Path) -> Path:
    """Make a link that leads nowhere."""
    (root / "bad").symlink_to("nowhere")
    return root / "bad"


def some_text(root: Path) -> Path:
    """Make a file that is no checkpoint."""
    (root / "bad.txt").write_text("?")
    return root / "bad.txt"


def outside(shard: str) -> Case:
    """Return the case of an index that places a tensor in *shard*."""
    make = with_index({"weight_map": {"lm_head.scale": FIRST, "lm_head.weight": shard}})
    said = ["tensor 'lm_head.weight'", repr(shard), "is not inside the folder", "move the shard"]
    return make, INDEX, said


UNREADABLE: dict[str, Case] = {
    "no such path": (lambda root: root / "bad", "", ["does not exist", "check the path"]),
    "a path below a file": (
        lambda root: some_text(root) / "x",
        "",
        ["does not exist", "check the path"],
    ),
    "a link to nothing": (link_to_nothing, "", ["is a link to nothing", "check the path"]),
    "a path too long": (lambda root: root / ("x" * 300), "", ["File name too long", "shorter"]),
    "some other file": (some_text, "", ["neither a folder nor", "name the checkpoint's folder"]),
    "an empty folder": (folder_of(), "", ["holds no safetensors weights", "name the folder that"]),
    "a pickle": (
        folder_of("pytorch_model.bin", "config.json"),
        "",
        ["holds no safetensors weights", "(pytorch_model.bin): load them and save them as safe"],
    ),
    "a run without a final model": (
        folder_of("checkpoint-5/model.safetensors", "trainer_state.json"),
        "",
        ["holds no safetensors weights", "name one of the checkpoints in it: checkpoint-5"],
    ),
    "an empty file": (bare(b""), "", [NOT_VALID, AGAIN]),
    "an empty shard": (with_file(SECOND, b""), SECOND, [NOT_VALID, AGAIN]),
    "no safetensors file": (bare(b"<!DOCTYPE html><html>"), "", [NOT_VALID, AGAIN]),
    "a header longer than its file": (
        with_file(SECOND, (1 << 20).to_bytes(8, "little") + b"{}"),
        SECOND,
        [NOT_VALID, AGAIN],
    ),
    "a shard cut short": (cut_short, SECOND, [NOT_VALID, AGAIN]),
    "a pointer of git-lfs": (
        with_file(FIRST, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        FIRST,
        ["is a Git LFS pointer", "git lfs pull"],
    ),
    "a pipe": (pipe_for_a_shard, FIRST, ["is not a regular file", "replace it by one"]),
    "an index that is no JSON": (with_index(b'{"weight_map":'), INDEX, ["is not JSON", "restore"]),
    "an index that is no text": (with_index(b"\xff\xfe{"), INDEX, ["is not UTF-8", "restore"]),
    "an index that is a list": (with_index(b"[]"), INDEX, ["holds no JSON object", "restore"]),
    "an index without a map": (with_index(b"{}"), INDEX, ["has no weight_map", "restore"]),
    "an index of odd metadata": (with_index({"metadata": 1}), INDEX, ["metadata", "restore"]),
    "an index that climbs": outside("../elsewhere.safetensors"),
    "an index that climbs deeper": outside("sub/../../elsewhere.safetensors"),
    "an index of absolute names": outside("/etc/passwd"),
    "an index of drives": outside("C:\\model.safetensors"),
    "an index of backslashes": outside("..\\elsewhere.safetensors"),
    "an index of numbers": (
        with_index({"weight_map": {"lm_head.weight": 1}}),
        INDEX,
        ["tensor 'lm_head.weight'"],
    ),
    "an index with a newline": (
        with_index({"weight_map": {"a\nb": "../x\x1b[31m"}}),
        INDEX,
        [r"tensor 'a\nb'", r"'../x\x1b[31m'"],
    ),
    "a config that is no JSON": (with_file("config.json", b"{,}"), "config.json", ["is not JSON"]),
    "a config that is a list": (
        with_file("config.json", b"[1]"),
        "config.json",
        ["holds no JSON object", "restore"],
    ),
    "a shard elsewhere": (
        with_link(FIRST, "../elsewhere.safetensors"),
        FIRST,
        ["is a link out of the folder", "to ../elsewhere.safetensors", "replace it by a copy"],
    ),
    "a tokenizer elsewhere": (
        with_link("tokenizer.json", "../elsewhere.safetensors"),
        "tokenizer.json",
        ["is a link out of the folder", "replace it by a copy"],
    ),
    "a shard that was linked": (
        with_link(FIRST, "gone.safetensors"),
        FIRST,
        ["is a link to nothing", "restore what it links to"],
    ),
}


@pytest.mark.parametrize("case", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read(tmp_path: Path, case: Case) -> None:
    """Every mode fails with the same line, and leaves nothing behind."""
    make, name, said = case
    bad, good = make(tmp_path), checkpoints.two_shards(tmp_path / "good")
    named = f"recast: {bad / name if name else bad}: "
    for arguments in every_mode(bad, good):
        fails(tmp_path, arguments, [named, *said])


def missing_shard(root: Path) -> Path:
    """Make a checkpoint that lacks a shard."""
    folder = checkpoints.two_shards(root / "bad")
    (folder / SECOND).unlink()
    return folder


def shard_without_index(root: Path) -> Path:
    """Make a checkpoint that lacks its index."""
    folder = checkpoints.two_shards(root / "bad")
    (folder / INDEX).unlink()
    return folder


def two_sets_of_weights(root: Path) -> Path:
    """Make a checkpoint with a leftover that loaders prefer."""
    folder = checkpoints.two_shards(root / "bad")
    checkpoints.save_shard(folder / "model.safetensors", {"a": torch.zeros(2)})
    return folder


def holding(name: str, tensor: torch.Tensor) -> Make:
    """Return what makes a checkpoint of one tensor beside an fp32 one."""

    def make(root: Path) -> Path:
        tensors = {"scale": torch.ones(3), name: tensor}
        checkpoints.save_shard(root / "bad" / "model.safetensors", tensors)
        return root / "bad"

    return make


def quantized(**config: object) -> Make:
    """Return what makes a checkpoint whose config says this."""

    def make(root: Path) -> Path:
        folder = checkpoints.two_shards(root / "bad")
        checkpoints.write_json(folder / "config.json", {"model_type": "llama", **config})
        return folder

    return make


def four_bits(root: Path) -> Path:
    """Make a weights file of a dtype that torch does not save: four bits an element."""
    header = b'{"w\\n":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    content = len(header).to_bytes(8, "little") + header + b"\0\0"
    (root / "bad.safetensors").write_bytes(content)
    return root / "bad.safetensors"


CODES = torch.zeros(4, dtype=torch.int32)
UNQUANTIZED = "convert the model it was quantized from"
PACKED = ["tensor 'l.0.qweight'", "packed", UNQUANTIZED]
WHOLE_MAP = {"model.embed_tokens.weight": FIRST, "model.norm.weight": FIRST}
WHOLE_MAP |= {"lm_head.weight": SECOND, "lm_head.scale": SECOND}
LACKING = {name: shard for name, shard in WHOLE_MAP.items() if name != "lm_head.weight"}

REFUSED: dict[str, Case] = {
    "a shard missing": (missing_shard, SECOND, [f"named in {INDEX}", "is not there", AGAIN]),
    "a tensor missing": (
        with_index({"weight_map": WHOLE_MAP | {"extra\n": FIRST}}),
        INDEX,
        [r"places 'extra\n' in " + FIRST, "does not hold it", "again"],
    ),
    "a tensor not in the index": (
        with_index({"weight_map": LACKING}),
        SECOND,
        ["holds 'lm_head.weight'", f"{INDEX} does not place there", "put the index right"],
    ),
    "a tensor in another shard": (
        with_index({"weight_map": WHOLE_MAP | {"lm_head.weight": FIRST}}),
        SECOND,
        ["holds 'lm_head.weight'", "does not place there", "put the index right"],
    ),
    "an index missing": (shard_without_index, FIRST, ["there is no index", "restore the index"]),
    "a leftover": (two_sets_of_weights, "model.safetensors", [f"lies beside {INDEX}", "move away"]),
    "quantization_config": (
        quantized(quantization_config={"quant_method": "gptq"}),
        "config.json",
        ["the model is quantized (gptq)", UNQUANTIZED],
    ),
    "a quantized sub-config": (
        quantized(text_config={"quantization_config": {"quant_method": "awq"}}),
        "config.json",
        ["the model is quantized (awq)", UNQUANTIZED],
    ),
    "fp8": (
        holding("w", torch.zeros(4).to(torch.float8_e4m3fn)),
        "model.safetensors",
        ["tensor 'w'", "stored as F8_E4M3", UNQUANTIZED],
    ),
    "fp4": (four_bits, "", [r"tensor 'w\n'", "stored as F4", UNQUANTIZED]),
    "packed weights": (holding("l.0.qweight", CODES), "model.safetensors", PACKED),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_not_converted(tmp_path: Path, case: Case) -> None:
    """Converting fails with one line; an inspection shows what there is, and the same finding."""
    make, name, said = case
    bad = make(tmp_path)
    named = bad / name if name else bad
    for options in (["-n"], [], ["-o", tmp_path / "new" / "deep"], ["--in-place"]):
        fails(tmp_path, [bad, "--to", "bf16", *options], [f"recast: {named}: ", *said])
    before = listing(tmp_path)
    result = CliRunner().invoke(cli.command, [str(bad)])
    assert (result.exit_code, result.stderr) == (1, "")
    assert re.search(rf"^  error     {named.name}( \(and 1 more\))?: ", result.stdout, re.MULTILINE)
    assert all(each in result.stdout for each in said)
    assert "float32" in result.stdout or "F4" in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert listing(tmp_path) == before


def taken(path: Path) -> Path:
    """Put something at *path* that is not to be lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    return path


def hub_cache(root: Path) -> Path:
    """Make a snapshot in a Hub cache: links to files that are named by their content."""
    repo = root / "hub" / "models--org--name"
    original = checkpoints.two_shards(root / "ckpt")
    snapshot = repo / "snapshots" / "0123abc"
    (repo / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(original.iterdir())):
        file.rename(repo / "blobs" / f"{number:064}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064}")
    original.rmdir()
    return snapshot


TARGETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "the source": (lambda root: root / "ckpt", "is the source itself"),
    "the source by another name": (lambda root: root / "ckpt" / ".." / "ckpt", "is the source"),
    "inside the source": (lambda root: root / "ckpt" / "bf16", "lies inside the source"),
    "around the source": (lambda root: root, "holds the source"),
    "far around the source": (lambda root: root.parent, "holds the source"),
    "a folder with something in it": (lambda root: taken(root / "x" / "y").parent, "there already"),
    "a file": (lambda root: taken(root / "x"), "is there already"),
    "below a file": (lambda root: taken(root / "x") / "y", "is not a folder"),
    "deep below a file": (lambda root: taken(root / "x") / "y" / "z", "is not a folder"),
    "a Hub cache": (lambda root: hub_cache(root / "h").parent / "new", "lies in a Hub cache"),
    "too long a name": (lambda root: root / ("x" * 300), "name too long"),
}


@pytest.mark.parametrize("case", TARGETS.values(), ids=TARGETS)
def test_a_place_that_cannot_take_the_result(ckpt: Path, case: tuple[Make, str]) -> None:
    """Nothing is written where something is, nor into the source, nor around it."""
    make, said = case
    target = make(ckpt.parent)
    fails(ckpt.parent, [ckpt, "--to", "bf16", "-o", target], [said, "; "])


def test_the_default_place_is_taken(ckpt: Path) -> None:
    """What is called PATH-bf16 already, and is something else, is not touched."""
    taken(Path(f"{ckpt}-bf16") / "x")
    arguments = [ckpt, "--to", "bf16"]
    fails(ckpt.parent, arguments, [f"{ckpt}-bf16: is there already", "-o"])


def test_a_name_for_one_file(tmp_path: Path) -> None:
    """The result of a bare file must be called one, or no loader finds it."""
    checkpoints.save_shard(tmp_path / "x.safetensors", {"a": torch.zeros(2)})
    arguments = [tmp_path / "x.safetensors", "--to", "bf16", "-o", tmp_path / "y"]
    fails(tmp_path, arguments, [f"{tmp_path / 'y'}: ", "let it end in .safetensors"])


def test_a_hub_cache_is_read_and_never_written(tmp_path: Path) -> None:
    """A snapshot, all links into its cache, converts into a folder of files elsewhere only."""
    snapshot = hub_cache(tmp_path)
    before = listing(tmp_path / "hub")
    for options in ([], ["--in-place"]):
        fails(tmp_path, [snapshot, "--to", "bf16", *options], ["recast: ", "-o"])
    arguments = [str(snapshot), "--to", "bf16", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(cli.command, arguments).exit_code == 0
    assert listing(tmp_path / "hub") == before
    written = list((tmp_path / "out").iterdir())
    assert len(written) == 5
    assert all(each.is_file() and not each.is_symlink() for each in written)


@pytest.mark.parametrize("name", ["two  spaces ", "ünïcödé 模型", "a\nb\ttab", "-bf16", "'quote\""])
def test_names_as_people_give_them(tmp_path: Path, name: str) -> None:
    """A folder of any name converts, and an error shows that name, unprintable parts escaped."""
    folder = checkpoints.two_shards(tmp_path / name)
    shown = str(folder).replace("\n", r"\n").replace("\t", r"\t")
    result = CliRunner().invoke(cli.command, [str(folder), "--to", "bf16"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{shown}-bf16: bfloat16, ")
    assert (tmp_path / f"{name}-bf16" / INDEX).is_file()
    (folder / SECOND).unlink()
    fails(tmp_path, [folder, "--to", "fp16"], [f"recast: {shown}/{SECOND}: is named in"])


def test_names_of_tensors_in_errors(tmp_path: Path) -> None:
    """A tensor's name that breaks lines does not break the message."""
    tensors = {"a\nb\x1b[31m": torch.full((4,), 1e9)}
    checkpoints.save_shard(tmp_path / "x.safetensors", tensors)
    arguments = [tmp_path / "x.safetensors", "--to", "fp16"]
    fails(tmp_path, arguments, [r"tensor 'a\nb\x1b[31m'", "4 finite values", "--keep"])


def test_too_little_space(ckpt: Path, monkeypatch) -> None:
    """Where the result does not fit, nothing is begun, and the line says how much it takes."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(9999, 9000, 999))
    fails(
        ckpt.parent,
        [ckpt, "--to", "bf16", "-o", ckpt.parent / "new" / "deep"],
        [f"{ckpt.parent / 'new' / 'deep'}: needs 1,799 bytes, but only 999 are free", "-o"],
    )


def mounted(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a disk of 1 MB at *folder*, then list what it left there."""
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && "$@"; status=$?; ls -A "$0"; exit $status'
    return subprocess.run(
        [
            "/usr/bin/env",
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            mount,
            *map(str, (folder, *command)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder where a small disk can be mounted, seen by one command only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("unshare") or mounted(folder, "true").returncode:
        pytest.skip("no right to mount a file system")
    return folder


def test_a_small_disk(tmp_path: Path, disk: Path) -> None:
    """A real disk that is too small for the result is left as it was; one that fits is used."""
    for name, size, status in (("small", 200_000, 0), ("large", 600_000, 1)):
        source = tmp_path / f"{name}.safetensors"
        checkpoints.save_shard(source, {"a": torch.zeros(size)})
        target = disk / f"{name}.safetensors"
        result = mounted(disk, *COMMAND, source, "--to", "bf16", "-q", "-o", target)
        assert result.returncode == status
        if status:
            one_line(result.stderr, [f"{target}: needs 1,200,", "free some space"])
            assert result.stdout == ""
        else:
            assert (result.stderr, result.stdout) == ("", f"{target.name}\n")


@pytest.fixture
def modes(tmp_path: Path):
    """Change the permission bits of files, until the end of the test."""
    yield lambda path, mode: path.chmod(mode)
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def denied(*arguments: object) -> str:
    """Run the command without the rights of root, which must fail, and return its stderr."""
    line = [*AS_OWNER, *COMMAND, *map(str, arguments)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    return result.stderr


@NEEDS_OWNER
@pytest.mark.parametrize("name", ["", FIRST, INDEX, "config.json", "tokenizer.json", "deeper"])
def test_a_source_that_may_not_be_read(ckpt: Path, modes, name: str) -> None:
    """The very file or folder that is closed to the user is named, and nothing is written."""
    (ckpt / "deeper").mkdir()
    modes(ckpt / name, 0)
    stderr = denied(ckpt, "--to", "bf16")
    one_line(stderr, [f"recast: {ckpt / name}: Permission denied", "check its permissions"])
    assert [each.name for each in ckpt.parent.iterdir()] == ["ckpt"]


@NEEDS_OWNER
@pytest.mark.parametrize("name", ["new", "new/deep", "new/very/deep"])
def test_a_place_that_may_not_be_written(ckpt: Path, modes, name: str) -> None:
    """Where the user may not write, that place is named, and nothing is left of the attempt."""
    closed = ckpt.parent / "closed"
    closed.mkdir()
    modes(closed, 0o555)
    stderr = denied(ckpt, "--to", "bf16", "-o", closed / name)
    one_line(stderr, [f"recast: {closed}", "Permission denied", "check its permissions"])
    assert list(closed.iterdir()) == []


@NEEDS_OWNER
@pytest.mark.parametrize("options", [("--to", "bf16", "-o"), ("--against",)])
def test_a_folder_that_may_not_be_looked_into(ckpt: Path, modes, options: Sequence[str]) -> None:
    """A closed folder is an error of its own, not a wrong command line, whichever option has it."""
    closed = ckpt.parent / "closed"
    closed.mkdir()
    modes(closed, 0)
    one_line(denied(ckpt, *options, closed), [f"recast: {closed}: Permission denied", "check its"])
