"""SLURM on hosts that share a disk: slurmctld on the first, slurmd on the others."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from tests.recipes.hosts import Host, wait_until

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel")
_CONFIGURATION = """
ClusterName=recipes
SlurmctldHost={login}
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName={nodes} CPUs=8 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def start(folder: Path, hosts: Sequence[Host]) -> None:
    """Make a SLURM cluster of *hosts*; jobs run on all but the first."""
    (folder / "etc").mkdir(parents=True)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    login, *nodes = hosts
    configuration = _CONFIGURATION.format(
        login=login.name, nodes=",".join(node.name for node in nodes), folder=folder
    )
    (folder / "etc" / "slurm.conf").write_text(configuration)
    for host in hosts:
        host.run("mount", "--bind", folder / "etc", "/etc/slurm")
        host.run("mkdir", "/run/munge")
        own = (f"--{what}-file={folder}/munge-{host.name}.{what}" for what in ("log", "seed"))
        host.run("munged", "--force", f"--key-file={key}", "--pid-file=/run/munge/pid", *own)
    login.run("slurmctld")
    for node in nodes:
        node.run("slurmd", "-N", node.name)
    wait_until(
        lambda: login.run("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(nodes),
        f"the nodes are not idle, see {folder}",
    )
