"""The recipes with SLURM, on a cluster of two nodes and one to log in."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import check_all, repaired
from tests.recipes.document import block
from tests.recipes.hosts import Host, wait_until

ONE_JOB = "SLURM, as one job"
JOBQUEUE = "SLURM, with dask-jobqueue"
CHECKPOINTS = 100  # on the large disk


def batch_script(disk: Path) -> Path:
    """Write the batch script of the recipe, for two workers."""
    changes = {
        "/shared/venv": sys.prefix,
        "/shared": str(disk),
        "--nodes=4": "--nodes=2",
        "--ntasks-per-node=8": "--ntasks-per-node=1",
    }
    script = disk / "recast.sbatch"
    script.write_text(block(ONE_JOB, 0, "sh", changes))
    return script


def submitted(login: Host, script: Path) -> str:
    """Submit a batch script, and return the number of its job."""
    folder = script.parent
    return login.run("sbatch", "--parsable", f"--chdir={folder}", script).strip()


def state(login: Host, job: str) -> str:
    """Return what has become of a job, in SLURM's words."""
    (line,) = login.run("scontrol", "-o", "show", "job", job).splitlines()
    return next(word for word in line.split() if word.startswith("JobState=")).partition("=")[2]


def jobs(login: Host) -> list[str]:
    """Return the numbers of all jobs that run, the first first."""
    return login.run("squeue", "-h", "-t", "running", "-S", "i", "-o", "%i").split()


def runs_dask(host: Host) -> bool:
    """Whether a scheduler or a worker is running on a host."""
    return "dask" in host.run("ps", "-A", "-o", "args")


def test_one_job(with_slurm: Host, cluster: list[Host], disk: Path) -> None:
    """A batch job repairs the runs, has succeeded, and leaves no process behind."""
    job = submitted(with_slurm, batch_script(disk))
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    wait_until(lambda: state(with_slurm, job) in over, "the job does not end")
    said = (disk / f"slurm-{job}.out").read_text()
    assert state(with_slurm, job) == "COMPLETED", said
    assert "6 repaired" in said
    check_all(disk)
    wait_until(lambda: not any(map(runs_dask, cluster)), "there are processes left")


def test_one_job_is_cancelled(with_slurm: Host, large_disk: Path) -> None:
    """A batch job that is cancelled in the middle goes on when it is submitted again."""
    script = batch_script(large_disk)
    job = submitted(with_slurm, script)
    wait_until(lambda: repaired(large_disk) > 0, "nothing is repaired")
    with_slurm.run("scancel", job)
    wait_until(lambda: state(with_slurm, job) == "CANCELLED", "the job does not end")
    wait_until(lambda: not jobs(with_slurm), "the job does not end")
    assert repaired(large_disk) < CHECKPOINTS
    job = submitted(with_slurm, script)
    wait_until(lambda: state(with_slurm, job) == "COMPLETED", "the job does not end")
    check_all(large_disk)


def test_jobqueue(with_slurm: Host, large_disk: Path) -> None:
    """Jobs that dask-jobqueue submits repair the runs, though one is cancelled in the middle."""
    pytest.importorskip("dask_jobqueue", reason="make recipes installs it")
    changes = {
        "/shared": str(large_disk),
        "cores=8, processes=8": "cores=1, processes=1",
        "8GB": "1GB",
        "jobs=8": "jobs=2",
        "workers=128": "workers=4",
    }
    script = large_disk / "fleet.py"
    script.write_text(block(JOBQUEUE, 0, "python", changes))
    line = with_slurm.on("env", "-C", large_disk, sys.executable, script)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until(lambda: repaired(large_disk) > 0, "nothing is repaired")
        wait_until(lambda: len(jobs(with_slurm)) == 2, "there are no two jobs")
        with_slurm.run("scancel", jobs(with_slurm)[0])
        assert repaired(large_disk) < CHECKPOINTS
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    check_all(large_disk)
    wait_until(lambda: not jobs(with_slurm), "there are jobs left")
