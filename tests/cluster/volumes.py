"""Which volumes can pods mount, whichever node they are on?

The storage class `shared` (and `standard`, the default, where the node image is ours) makes sub-folders of
one folder that all nodes see: ReadWriteMany, no node affinity, writable by anybody. And a test that has a
file for a pod uses `expose`: it makes a claim over a sub-folder of the cluster's shared folder that the test
fills from this machine."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.kubectl import Kubectl, manifest
from tests.cluster.state import Cluster


def install(kubectl: Kubectl, image: str, shared_folder: str) -> None:
    kubectl.apply(manifest("volumes.yaml", {"IMAGE": image, "FOLDER": shared_folder}))


def expose(cluster: Cluster, namespace: str, claim: str, folder: str | None = None, size: str = "10Gi") -> Path:
    """A bound claim of that name over the returned folder, which exists and may be written to."""
    path = Path(cluster.shared_folder) / (folder or f"{namespace}-{claim}")
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    volume = f"{namespace}-{claim}"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    Kubectl.of(cluster.kubeconfig).apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                "capacity": {"storage": size},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "hostPath": {"path": str(path), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": size}}},
        },
    )
    return path
