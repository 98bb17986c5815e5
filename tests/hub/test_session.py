"""The README's session with the Hub is what the command prints; run as a module, this renews it."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.hub.conftest import environment
from tests.hub.server import HubServer
from tests.test_readme import README

_SESSION = re.compile(r"(```console\n\$ hf auth login\n)(.*?)(```\n)", re.DOTALL)
_COMMAND = re.compile(r"^\$ recast (.*)$", re.MULTILINE)
_VARYING = re.compile(r"in [0-9.]+ s\b|\b[0-9a-f]{40}\b")


def renewed(readme: str, folder: Path) -> str:
    """Return *readme* with the session replaced by what its commands print in *folder*."""
    sys.path.insert(0, str(README.parent / "examples"))
    import demo  # noqa: PLC0415 - only now on the path

    demo.save_llama(folder / "llama")

    def run(arguments: str, hub: HubServer) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "recast", *arguments.split()],
            cwd=folder,
            env=environment(hub, folder / "home") | {"COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        printed = done.stdout.replace(f"{folder}/", "").replace(hub.url, "https://huggingface.co")
        return f"$ recast {arguments}\n{printed}"

    def session(found: re.Match[str]) -> str:
        with HubServer(folder / "store") as hub:
            printed = [run(arguments, hub) for arguments in _COMMAND.findall(found[2])]
        return found[1] + "".join(printed) + found[3]

    return _SESSION.sub(session, readme)


def test_the_session_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types its commands sees what the README shows, save for seconds and commits."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    readme = README.read_text(encoding="utf-8")
    assert len(_SESSION.findall(readme)) == 1
    assert _VARYING.sub("", renewed(readme, tmp_path)) == _VARYING.sub("", readme)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        README.write_text(renewed(README.read_text("utf-8"), Path(scratch)), "utf-8")
