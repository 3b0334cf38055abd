"""How do pods run, and prepare Jobs report, without an image?

KWOK plays the kubelet of nodes of our own, as a process of the test: its stages are those of its release, and one more
that ends the container of a prepare Job with the report that the runtime would write. The cluster's own KWOK knows
nothing of these nodes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenkeel_operator.decide import names
from evenkeel_runtime import contract
from tests.cluster import versions
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.state import Cache, Cluster

LABEL = "evenkeel.test/fleet"
_ANNOTATION = "evenkeel.test/kubelet"

PREPARED = contract.Prepared(digest="sha256:" + "ab" * 32, format="TorchExport", file="digits.pt2", size_bytes=1000)

_STAGES = ("node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml")
_POD_STAGES = ("pod/fast/pod-ready.yaml", "pod/fast/pod-delete.yaml")


def placement(fleet: str) -> dict[str, Any]:
    """Return the part of a pod's spec that puts it onto the nodes of `fleet`, and nowhere else."""
    return {
        "nodeSelector": {LABEL: fleet},
        "tolerations": [{"key": LABEL, "operator": "Equal", "value": fleet, "effect": "NoSchedule"}],
    }


@contextmanager
def simulated(cluster: Cluster, kubectl: Kubectl, fleet: str, count: int, folder: Path) -> Iterator[None]:
    """`count` Ready nodes of the fleet `fleet`, whose pods run at once and whose Jobs complete."""
    stages = folder / "stages.yaml"
    stages.write_text(_stages())
    command = [
        cluster.tools["kwok"],
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}={fleet}",
        "--node-lease-duration-seconds=40",
        "--cidr=198.18.96.0/20",
        "--node-ip=127.0.0.1",
    ]
    wanted = {f"{fleet}-{index}" for index in range(count)}
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)}
        )
    try:
        kubectl.apply(*(_node(name, fleet) for name in sorted(wanted)))
        wait_until(f"{count} simulated nodes are Ready", lambda: wanted <= _ready(kubectl, fleet))
        yield
    finally:
        kubectl.ask("delete", "nodes", f"--selector={LABEL}={fleet}", "--wait=false")
        process.terminate()
        process.wait(timeout=10)


def _stages() -> str:
    folder = Cache.of_environment().root / "kwok" / versions.KWOK
    texts = [(folder / name).read_text() for name in (*_STAGES, *_POD_STAGES)]
    complete = (folder / "pod/fast/pod-complete.yaml").read_text()
    role = f"""'.metadata.labels["{names.ROLE_LABEL}"]'"""
    last = "    - key: '.metadata.ownerReferences.[].kind'"
    assert complete.count(last) == 1, "KWOK's stage has changed"
    for name, operator, message in (
        ("pod-complete", "NotIn", ""),
        ("pod-prepared", "In", f"            message: '{contract.encode(PREPARED)}'\n"),
    ):
        only = f"    - key: {role}\n      operator: '{operator}'\n      values:\n      - '{names.PREPARE_ROLE}'\n"
        text = complete.replace("name: pod-complete", f"name: {name}").replace(last, only + last)
        texts.append(text.replace("            exitCode: 0\n", "            exitCode: 0\n" + message))
    return "\n---\n".join(texts)


def _ready(kubectl: Kubectl, fleet: str) -> set[str]:
    return {
        node["metadata"]["name"]
        for node in kubectl.get("nodes", f"--selector={LABEL}={fleet}")["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
    }


def _node(name: str, fleet: str) -> dict[str, Any]:
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_ANNOTATION: fleet},
            "labels": {LABEL: fleet, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": {"taints": [{"key": LABEL, "value": fleet, "effect": "NoSchedule"}]},
        "status": {"capacity": resources, "allocatable": resources},
    }
