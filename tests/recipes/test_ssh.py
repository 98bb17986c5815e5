"""The recipes with SSH, between hosts that have their own addresses, names and processes."""

import sys
from pathlib import Path

from tests.recipes import hosts
from tests.recipes.conftest import check_all, need_hosts, repaired
from tests.recipes.document import block
from tests.recipes.hosts import Host

SECTION = "By SSH"
CHECKPOINTS = 100  # on the large disk


def recipe(disk: Path) -> Path:
    """Write the recipe as a script, for one worker on each node."""
    changes = {
        "/shared/venv": sys.prefix,
        "/shared": str(disk),
        "--nworkers 8": "--nworkers 1",
        "--death-timeout 60": "--death-timeout 20",
    }
    script = disk / "recipe.sh"
    # Whoever types it has a shell that is still there; here it waits for what it has started.
    script.write_text(block(SECTION, 0, "sh", changes) + "wait\n")
    return script


def test_by_hand(cluster: list[Host], disk: Path) -> None:
    """A scheduler, and workers that `ssh` starts, repair the runs, and end."""
    login, *nodes = cluster
    said = login.run("bash", "-eu", recipe(disk))
    assert "6 repaired" in said
    check_all(disk)
    for node in nodes:
        assert "dask" not in node.run("ps", "-A", "-o", "args")


def test_a_host_is_lost(large_disk: Path) -> None:
    """When a host is switched off in the middle, the other one does its work."""
    need_hosts()
    log = large_disk / "log"
    with hosts.together(large_disk.parent / "hosts", ("login", "node1", "node2")) as started:
        login, lost, _ = started
        with hosts.running(login.on("bash", "-eu", recipe(large_disk)), log) as process:
            hosts.wait_until(lambda: repaired(large_disk) > 0, "nothing is repaired")
            assert repaired(large_disk) < CHECKPOINTS
            lost.lose()
            hosts.wait_until(lambda: "repaired" in log.read_text(), "it does not end", 300)
            assert process.poll() is None  # it waits for the shell on the lost host
    assert f"{CHECKPOINTS} repaired" in log.read_text()
    check_all(large_disk)
