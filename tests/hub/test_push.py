"""Publishing: one commit, said before and after, that replaces all or nothing."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkpoints
from tests.hub.conftest import Run, environment
from tests.hub.server import TOKEN, HubServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small fp32 checkpoint of two shards."""
    return checkpoints.two_shards(tmp_path / "ckpt")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def without_attributes(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files but for the one that the Hub puts into a new repository."""
    return {name: content for name, content in files.items() if name != ".gitattributes"}


def test_a_new_repository(folder: Path, either_hub: HubServer, recast: Run) -> None:
    """By default: private, named like the source under the user, one commit, then nothing to do."""
    hub = either_hub
    done = recast(hub, folder, "--to", "bf16", "--push")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["me/ckpt"]
    assert repository.private
    assert without_attributes(hub.files("me/ckpt")) == contents(folder.with_name("ckpt-bf16"))
    assert len(repository.commits) == 2
    assert repository.main.title.startswith("recast: float32 to bfloat16, 2.83 kB to 1.80 kB")
    assert "rounded: 4 of 4 tensors, largest error 0.00" in repository.main.description
    assert f"{hub.url}/me/ckpt/commit/{repository.branches['main']}" in done.stdout
    again = recast(hub, folder, "--to", "bf16", "--push", "--json")
    assert len(repository.commits) == 2
    [result] = json.loads(again.stdout)["results"]
    assert result["push"]["url"].endswith(repository.branches["main"])
    assert not result["push"]["added"]


def test_replacing_what_is_there(folder: Path, hub: HubServer, recast: Run) -> None:
    """Stale weights go in the same commit; card, foreign weights and other sets of weights stay."""
    old = folder.with_name("old")
    weights = checkpoints.random_tensors(x=(4, 4))
    for name in (
        "model.safetensors",
        "model-00001-of-00009.safetensors",
        "model.fp16.safetensors",
        "consolidated.safetensors",
        "unet/model.safetensors",
    ):
        checkpoints.save_shard(old / name, weights)
    (old / "README.md").write_text("# theirs")
    (old / "model.gguf").write_text("other")
    hub.add("lab/m", old)
    (folder / "README.md").write_text("# ours")
    planned = recast(hub, folder, "--to", "bf16", "-n", "--push", "lab/m", "--json", token=None)
    [plan] = json.loads(planned.stdout)["results"]
    stale = ["model-00001-of-00009.safetensors", "model.safetensors"]
    assert [each["name"] for each in plan["push"]["deleted"]] == stale
    assert plan["push"]["kept"] == ["README.md"]
    done = recast(hub, folder, "--to", "bf16", "--push", "lab/m", "-q")
    assert done.stdout == ""
    assert "push to lab/m (PUBLIC, there already), as one commit on main" in done.stderr
    assert "DELETE  model.safetensors" in done.stderr
    files = hub.files("lab/m")
    theirs = set(contents(old)) - set(stale)
    assert set(files) == theirs | set(contents(folder))
    assert files["README.md"] == b"# theirs"
    assert len(hub.repositories["lab/m"].commits) == 2
    assert "deleted: model.safetensors" in hub.repositories["lab/m"].main.description


def test_a_pull_request(folder: Path, hub: HubServer, recast: Run) -> None:
    """To others' repositories: a pull request, which a second push updates; main stays."""
    hub.add("museum/m", folder)
    before = hub.repositories["museum/m"].branches["main"]
    for dtype in ("bf16", "fp16"):
        done = recast(hub, folder, "--to", dtype, "--push", "museum/m")
        assert done.returncode == 0, done.stderr
        assert f"{hub.url}/museum/m/discussions/1" in done.stdout
    repository = hub.repositories["museum/m"]
    assert repository.branches["main"] == before
    assert len(repository.requests) == 1
    pulled = hub.files("museum/m", "refs/pr/1")
    assert pulled == contents(folder.with_name("ckpt-fp16"))
    repository.requests[0]["status"] = "closed"
    recast(hub, folder, "--to", "bf16", "--push", "museum/m")
    assert len(repository.requests) == 2
    mine = recast(hub, folder, "--to", "bf16", "--push", "me/mine", "--pr")
    assert "nothing can be pulled into it" in mine.stderr


def test_branches_and_visibility(folder: Path, hub: HubServer, recast: Run) -> None:
    """--revision makes its branch; --public is for new repositories, and is said beforehand."""
    done = recast(hub, folder, "--to", "bf16", "--push", "me/open", "--public", "-q")
    assert "push to me/open (a new repository, PUBLIC)" in done.stderr
    assert not hub.repositories["me/open"].private
    recast(hub, folder, "--to", "fp16", "--push", "me/open", "--revision", "half")
    assert hub.files("me/open", "half")["config.json"] != hub.files("me/open")["config.json"]
    hub.add("me/closed", folder, private=True)
    refused = recast(hub, folder, "--to", "bf16", "--push", "me/closed", "--public")
    assert refused.returncode == 1
    assert "and private, which recast leaves as it is" in refused.stderr
    assert len(hub.repositories["me/closed"].commits) == 1


def test_hub_to_hub(folder: Path, either_hub: HubServer, recast: Run) -> None:
    """A repository becomes another, or itself, as its folder would have; the cache stays empty."""
    hub = either_hub
    (folder / "README.md").write_text("# card")
    hub.add("other/m", folder)
    hub.add("me/m", folder)
    recast(hub, folder, "--to", "bf16")
    expected = contents(folder.with_name("ckpt-bf16"))
    done = recast(hub, "other/m", "--to", "bf16", "--push", "me/m-bf16")
    assert done.returncode == 0, done.stderr
    assert without_attributes(hub.files("me/m-bf16")) == expected
    assert len(hub.repositories["me/m-bf16"].commits) == 2
    itself = recast(hub, "hf://me/m", "--to", "bf16", "--push", "me/m")
    assert itself.returncode == 0, itself.stderr
    assert hub.files("me/m") == expected
    recast(hub, "hf://me/m", "--to", "bf16", "--push", "me/m")
    assert len(hub.repositories["me/m"].commits) == 2
    assert not (folder.parent / "home/hf/hub").exists()
    assert not list((folder.parent / "home").glob("recast-*/*"))


def test_to_a_folder(folder: Path, either_hub: HubServer, recast: Run) -> None:
    """With -o, or without, the result lies here, and is what the source becomes."""
    hub = either_hub
    hub.add("other/m", folder)
    done = recast(hub, "other/m", "--to", "bf16", token=None)
    assert done.returncode == 0, done.stderr
    out = folder.with_name("m-bf16")
    assert recast(hub, out, "--against", folder).returncode == 0
    again = recast(hub, "other/m", "--to", "bf16", "-o", out)
    assert "there already, made from hf://other/m" in again.stdout
    adapter = folder.with_name("adapter")
    adapter.mkdir()
    shutil.copy(folder / "model-00001-of-00002.safetensors", adapter / "adapter_model.safetensors")
    hub.add("other/n", folder.parent)
    one = "hf://other/n/adapter/adapter_model.safetensors"
    done = recast(hub, one, "--to", "bf16", "-o", "one.safetensors")
    assert done.returncode == 0, done.stderr
    assert (
        folder.with_name("one.safetensors").read_bytes()
        == (out / "model-00001-of-00002.safetensors").read_bytes()
    )


def test_what_is_refused(folder: Path, hub: HubServer, recast: Run) -> None:
    """No token, a wrong one, no right, a name that is taken: a line that says the way out."""
    hub.add("museum/m", folder)
    hub.add("other/secret", folder, private=True)
    overflow = folder.with_name("overflow")
    checkpoints.save_shard(
        overflow / "model.safetensors", {"x": checkpoints.random_tensors(x=(4,))["x"] * 1e38}
    )
    hub.add("me/overflow", overflow)
    hub.faults["me/taken", 3] = 409  # after it was looked for twice
    cases = [
        ((folder, "--push", "me/m"), {"token": None}, "pushing needs a token"),
        ((folder, "--push"), {"token": None}, "pushing needs a token"),
        ((folder, "--push"), {"token": "hf_wrong"}, "does not accept your token"),
        ((folder, "--push", "other/new"), {}, "your token does not allow that"),
        ((folder, "--push", "other/secret"), {}, "your token does not allow that"),
        ((folder, "--push", "me/taken"), {}, "the name is taken"),
        ((folder, "--push", "me/a b"), {}, "no valid name on the Hub"),
        ((folder, "--push"), {"HF_HUB_OFFLINE": "1"}, "offline mode"),
        (("hf://me/overflow", "--in-place"), {}, "lies on the Hub"),
        (("hf://me/overflow", "--to", "fp16", "--push"), {}, "would become infinite in float16"),
    ]
    for arguments, variables, said in cases:
        dtype = () if "--to" in arguments else ("--to", "bf16")
        done = recast(hub, *arguments, *dtype, **variables)
        assert done.returncode == 1, arguments
        last = done.stderr.splitlines()[-1]
        assert said in last
        assert ";" in last
    assert set(hub.repositories) - {"museum/m", "other/secret", "me/overflow"} == set()


def test_without_a_token_nothing_is_converted(folder: Path, hub: HubServer, recast: Run) -> None:
    """Who cannot push hears of it before the conversion, and not after it, wherever it goes."""
    hub.add("museum/m", folder)
    before = {path.name for path in folder.parent.iterdir()} | {"home"}
    for arguments in (
        (folder, "--push", "me/m"),
        (folder, "--push"),
        (folder, "--push", "me/m", "-o", "out"),
        ("hf://museum/m", "--push", "me/m", "-o", "out"),
        ("hf://museum/m", "--push", "me/m"),
    ):
        done = recast(hub, *arguments, "--to", "bf16", token=None)
        assert done.returncode == 1
        assert "pushing needs a token, and there is none" in done.stderr
        assert {path.name for path in folder.parent.iterdir()} == before
    script = "import recast, sys; recast.push(recast.plan(sys.argv[1], 'bf16'), 'me/m')"
    called = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env=environment(hub, folder.with_name("home"), token=None),
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pushing needs a token, and there is none" in called.stderr
    assert {path.name for path in folder.parent.iterdir()} == before


def test_a_commit_that_came_in_between(folder: Path, hub: HubServer, recast: Run) -> None:
    """Somebody else's commit is not overwritten; the next run does not send weights again."""
    hub.add("me/m", folder)
    repository = hub.repositories["me/m"]

    def interfere(repository) -> None:
        hub.before_commit = None
        files = dict(repository.main.files) | {"new.txt": hub.blob("new.txt", b"new")}
        repository.commit("main", files, "somebody else's")

    for source in (folder, "hf://me/m"):
        hub.before_commit = interfere
        done = recast(hub, source, "--to", "bf16", "--push", "me/m")
        assert done.returncode == 1
        assert "somebody has committed to it meanwhile, and nothing was changed" in done.stderr
        assert repository.main.title == "somebody else's"
        if source == folder:
            hub.requests.clear()
            again = recast(hub, source, "--to", "bf16", "--push", "me/m")
            assert again.returncode == 0, again.stderr
            assert not [each for each in hub.requests if each.method == "PUT"]
            assert hub.files("me/m")["new.txt"] == b"new"
            repository.commit(
                "main", {n: hub.blob(n, c) for n, c in contents(folder).items()}, "back"
            )


def test_no_token_is_published(folder: Path, hub: HubServer, recast: Run) -> None:
    """The token is in no commit, message or report, nor on the disk, though a server echoes it."""
    hub.echo = True
    out = [
        recast(hub, folder, "--to", "bf16", "--push", "me/a"),
        recast(hub, folder, "--to", "bf16", "--push", "me/b", "--json"),
        recast(hub, folder, "--to", "bf16", "--push", "other/new"),
    ]
    assert [done.returncode for done in out] == [0, 0, 1]
    assert "hf_***" in out[2].stderr or "***" in out[2].stderr
    commits = [
        each for name in ("me/a", "me/b") for each in hub.repositories[name].commits.values()
    ]
    assert not [each for each in commits if TOKEN in each.title + each.description]
    kept = [
        path for path in folder.parent.rglob("*") if path.is_file() and path.stat().st_size < 1e6
    ]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    assert hashlib.sha256(TOKEN.encode()).hexdigest() not in "".join(map(str, kept))
