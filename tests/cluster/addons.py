"""What is installed into the cluster, a given one included?

The add-ons always; KWOK, the S3 server and the metrics server are services that only tests need, and long to compile.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.cluster import kwok, s3, versions, volumes
from tests.cluster.binaries import Binaries
from tests.cluster.gpus import allocatable
from tests.cluster.kubectl import Kubectl, manifest, wait_until
from tests.cluster.state import Cache, Cluster

NAMESPACE = "evenkeel-test"
METRICS_API = "v1beta1.metrics.k8s.io"


def install(kubectl: Kubectl, cluster: Cluster, image: str) -> None:
    kubectl.apply(manifest("gpus.yaml", {"IMAGE": image}))
    if cluster.shared_folder:
        volumes.install(kubectl, image, cluster.shared_folder)


def install_services(kubectl: Kubectl, image: str, stages: Path, more_stages: Sequence[Path] = ()) -> None:
    s3.install(kubectl, image)
    kwok.install(kubectl, image, stages, more_stages)
    if not _has_metrics(kubectl):
        kubectl.apply(manifest("metrics.yaml", {"IMAGE": image}))


def _has_metrics(kubectl: Kubectl) -> bool:
    """Whether somebody else's metrics server answers already: a given cluster may have one of its own."""
    served = {row["metadata"]["name"]: row["spec"].get("service") for row in kubectl.get("apiservices")["items"]}
    service = served.get(METRICS_API)
    return service is not None and service["namespace"] != NAMESPACE


def wait(kubectl: Kubectl, cluster: Cluster, *, services: bool) -> None:
    deployments = ["deployment/volume-provisioner"] * bool(cluster.shared_folder)
    deployments += ["deployment/s3", "deployment/kwok"] * services
    deployments += ["deployment/metrics-server"] * (services and not _has_metrics(kubectl))
    for resource in ["daemonset/gpu-device-plugin", *deployments]:
        kubectl.wait_for_rollout(resource, NAMESPACE)
    kubectl.wait_for_rollout("daemonset/kube-proxy", "kube-system")
    if not _has_dns(kubectl):
        # It called the API server's service address before kube-proxy led there, and would wait 30 s for an answer.
        kubectl.ask("delete", "pods", "--selector=k8s-app=kube-dns", "--namespace=kube-system", "--wait=false")
    kubectl.wait_for_rollout("deployment/coredns", "kube-system")
    for node in cluster.workers:
        wait_until(f"{node} offers GPUs", partial(_offers_gpus, kubectl, node))


def kwok_stages(cache: Cache, binaries: Binaries) -> Path:
    """KWOK's own stage files, out of its source module."""
    kept = cache.root / "kwok" / versions.KWOK
    if not kept.exists():
        module = binaries.module(f"sigs.k8s.io/kwok@{versions.KWOK}")
        beside = cache.folder("kwok") / f".{versions.KWOK}"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(module / "kustomize" / "stage", beside)
        beside.replace(kept)
    return kept


def _has_dns(kubectl: Kubectl) -> bool:
    status = kubectl.get("deployment", "coredns", "--namespace=kube-system")["status"]
    return bool(status.get("readyReplicas", 0) == status.get("replicas"))


def _offers_gpus(kubectl: Kubectl, node: str) -> bool:
    return allocatable(node, kubeconfig=kubectl.kubeconfig) > 0
