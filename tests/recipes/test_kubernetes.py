"""The recipe with Kubernetes: what it describes, and what its containers run; no cluster."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.recipes import hosts
from tests.recipes.conftest import check_all, need_hosts
from tests.recipes.document import block
from tests.recipes.hosts import wait_until

SECTION = "Kubernetes"
_DOMAIN = ".default.svc.cluster.local"

Described = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def dask_kubernetes() -> None:
    """Have what the recipe imports."""
    pytest.importorskip("dask_kubernetes", reason="make recipes installs it")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Described:
    """What the recipe's script hands to kubectl."""
    script = tmp_path_factory.mktemp("recipe") / "fleet.py"
    script.write_text(block(SECTION, 1, "python", {}))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    found: Described = json.loads(done.stdout)
    return found


def pods(described: Described) -> dict[str, Described]:
    """Return the pods of scheduler, worker and command, as the operator's code makes them."""
    from dask_kubernetes.operator.controller import controller  # noqa: PLC0415 - an extra

    cluster, job = described["items"]
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    scheduler = controller.build_scheduler_deployment_spec(name, spec["scheduler"]["spec"], {}, {})
    worker = controller.build_worker_deployment_spec(
        f"{name}-default", "default", name, "0", spec["worker"]["spec"], {}, {}
    )
    of = {"scheduler": scheduler, "worker": worker, "command": job}
    return {each: made["spec"]["template"]["spec"] for each, made in of.items()}


def test_kubernetes_knows_every_field(described: Described) -> None:
    """Nothing in the description is lost when Kubernetes' own client reads it."""
    from kubernetes.client import ApiClient  # noqa: PLC0415 - an extra

    client = ApiClient()
    cluster, job = described["items"]
    service = cluster["spec"]["scheduler"]["service"]
    read = {"V1Job": job, "V1ServiceSpec": service}
    kinds = [*read.items(), *(("V1PodSpec", pod) for pod in pods(described).values())]
    for kind, content in kinds:
        understood = client._ApiClient__deserialize(content, kind)  # noqa: SLF001 - no other way in
        assert client.sanitize_for_serialization(understood) == content


def test_whoever_touches_files_has_the_disk(described: Described) -> None:
    """Worker and command see one claim under one path, with one image and one CPU a worker."""
    made = pods(described)
    for pod in (made["worker"], made["command"]):
        (volume,) = pod["volumes"]
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == "shared"
        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/shared")
    assert len({pod["containers"][0]["image"] for pod in made.values()}) == 1
    assert made["worker"]["containers"][0]["resources"]["limits"]["cpu"] == "1"
    from dask_kubernetes.operator.controller import controller  # noqa: PLC0415 - an extra

    service = controller.SCHEDULER_NAME_TEMPLATE.format(cluster_name="recast")
    assert f"tcp://{service}:8786" in made["command"]["containers"][0]["args"]


def on(host: hosts.Host, pod: Described, disk: Path) -> list[str]:
    """Return the command line that runs a pod's container on a host, as in its image."""
    (container,) = pod["containers"]
    values = {each["name"]: each["value"] for each in container.get("env", ())}
    arguments = " ".join(container["args"]).replace("/shared", str(disk))
    for name, value in values.items():
        arguments = arguments.replace(f"$({name})", value)
    environment = [f"{name}={value}".replace(_DOMAIN, "") for name, value in values.items()]
    path = f"PATH={sys.prefix}/bin:/usr/bin:/bin"
    return host.on("env", "-C", "/", path, *environment, *arguments.split())


def test_the_containers_do_it(described: Described, disk: Path, tmp_path: Path) -> None:
    """What the containers run, each on a host of its own, repairs the runs."""
    need_hosts()
    made = pods(described)
    names = ("recast", "recast-scheduler", "worker")
    with (
        hosts.together(tmp_path / "hosts", names) as (client, scheduler, worker),
        hosts.running(on(scheduler, made["scheduler"], disk), tmp_path / "scheduler.log"),
        hosts.running(on(worker, made["worker"], disk), tmp_path / "worker.log"),
    ):
        command = on(client, made["command"], disk)

        def succeeds() -> bool:
            """Run the command, which fails as long as there is no scheduler."""
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.returncode == 0 and "6 repaired" in done.stdout

        wait_until(succeeds, "the command does not succeed")
    check_all(disk)
