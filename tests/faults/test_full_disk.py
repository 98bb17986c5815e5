"""A real file system that is full, or becomes full."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.client import Server
from tests.faults.scene import SHARDS, Mode, Scene, check_reported, tree
from tests.faults.server import Job, Step

_SIZE = 16 << 20
_ROWS = 20_000  # of 64 bytes in each of three shards: 3.8 MB, and 1.9 MB once converted


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system of a server's own.

    Attributes:
        server: the server.
        folder: where the file system is mounted, as the server sees it.
    """

    server: Server
    folder: Path

    @property
    def from_here(self) -> Path:
        """The same place, as this process sees it."""
        return Path(f"/proc/{self.server.process}/root") / self.folder.relative_to("/")

    def scene(self, mode: Mode) -> Scene:
        """Return a scene on this disk."""
        return Scene(self.from_here / "0", mode, self.server, _ROWS, seen=self.folder / "0")

    @contextmanager
    def leaving(self, free: int) -> Iterator[None]:
        """Fill the disk but for *free* bytes."""
        ballast = self.from_here / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(shutil.disk_usage(self.from_here).free - free))
        yield
        ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small file system, which is mounted for a server alone."""
    folder = tmp_path.resolve() / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no command to mount something for one process alone (unshare)")
    for wrapper in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        mount = f"mount -t tmpfs -o size={_SIZE} recast '{folder}'"
        trial = subprocess.run([*wrapper, "sh", "-c", mount], capture_output=True, check=False)
        if trial.returncode == 0:
            with Server([*wrapper, "sh", "-c", f'{mount} && exec "$@"', "sh"]) as server:
                server.run(Job("nowhere"))  # from now on the disk is there
                yield Disk(server, folder)
            return
    pytest.skip("this process may not mount a file system, not even one of its own")


@pytest.mark.parametrize("mode", Mode)
def test_too_little_space_is_said_before_anything_is_written(mode: Mode, disk: Disk) -> None:
    """What needs more than is free says how much of each, and nothing is there that was not."""
    scene = disk.scene(mode)
    with disk.leaving(500_000):
        outcome = disk.server.run(scene.job())
        check_reported(outcome)
        assert re.search(r"needs [\d,]+ bytes, but only [\d,]+ are free", outcome.errors)
        assert scene.old == tree(scene.source)
        scene.check_failed()
    assert disk.server.run(scene.job()).status == 0
    scene.check_finished()


def test_in_place_needs_space_for_one_shard_alone(disk: Disk) -> None:
    """A checkpoint that does not fit twice is converted in place where its largest shard fits."""
    scene = disk.scene(Mode.IN_PLACE)
    shard = max(len(scene.new[name].content) for name in SHARDS)
    with disk.leaving(shard + 100_000):
        assert disk.server.run(scene.job()).status == 0
        scene.check_finished()


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("call", ["pwrite64", "mkdir", "openat"])
def test_a_disk_that_fills_up_meanwhile(call: str, mode: Mode, disk: Disk) -> None:
    """When somebody else takes the last byte it is one line, and with space again all goes well."""
    scene = disk.scene(mode)
    points = scene.trace(disk.server)
    ballast = disk.folder / "ballast"
    calls = [at for at, point in enumerate(points) if point.call == call and point.needs_room]
    for at in calls[:: max(1, len(calls) // 4)]:
        scene.reset()
        step = Step(at, meddle="fill", path=str(ballast))
        outcome = disk.server.run(scene.job(step))
        assert outcome.stepped is not None
        if points[at].path.endswith(".safetensors.partial"):
            assert outcome.status == 1
        if outcome.status:
            check_reported(outcome)
            assert re.search("No space left on device|only 0 are free", outcome.errors)
            assert "free some space" in outcome.errors
            scene.check_failed()
        (disk.from_here / "ballast").unlink()
        assert disk.server.run(scene.job()).status == 0
        scene.check_finished()
