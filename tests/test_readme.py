"""The README's sessions are what the command prints; run as a module, this renews them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.hub.server import TOKEN, HubServer

README = Path(__file__).parent.parent / "README.md"
_SESSION = re.compile(r"(```console\n\$ recast[^\n]*\n)(.*?)(```\n)", re.DOTALL)
_SECONDS = re.compile(r"in [0-9.]+ s\b")


def renewed(readme: str, folder: Path) -> str:
    """Return *readme* with every session replaced by what the command prints in *folder*."""

    def run(session: re.Match[str]) -> str:
        arguments = session[1].split("\n")[1].removeprefix("$ recast").split()
        environment = os.environ | {"COLUMNS": "100"} | client
        done = subprocess.run(
            [sys.executable, "-m", "recast", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        printed = done.stdout.replace(f"{folder}/", "").replace(hub.url, "https://huggingface.co")
        return session[1] + printed + session[3]

    with HubServer(folder / "store") as hub:
        hub.add("org/minilm", folder / "minilm")
        client = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": TOKEN,
            "TMPDIR": str(folder),
        }
        return _SESSION.sub(run, readme)


def make_checkpoints(folder: Path) -> None:
    """Make the checkpoints that the demo shows."""
    sys.path.insert(0, str(README.parent / "examples"))
    import demo  # noqa: PLC0415 - only now on the path

    demo.save_llama(folder / "llama")
    shutil.copytree(demo.sentence_model(), folder / "minilm")


def test_the_sessions_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types the README's commands sees what the README shows, save for the seconds."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    make_checkpoints(tmp_path)
    readme = README.read_text(encoding="utf-8")
    assert len(_SESSION.findall(readme)) >= 4
    assert _SECONDS.sub("", renewed(readme, tmp_path)) == _SECONDS.sub("", readme)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        make_checkpoints(Path(scratch))
        README.write_text(renewed(README.read_text(encoding="utf-8"), Path(scratch)), "utf-8")
