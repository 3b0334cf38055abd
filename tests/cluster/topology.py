"""What does kind have to make: which nodes, mounts, ports and flags?"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.gpus import MODELS, labels
from tests.cluster.state import HERE

NODE_PORTS = (30080, 30081, 30082, 30083)
AUDIT_FOLDER = "/var/log/kubernetes/audit"
POLICY = HERE / "manifests" / "audit-policy.yaml"


@dataclass(frozen=True)
class Topology:
    name: str
    node_image: str
    workers: int
    node_ports: dict[str, int]
    shared_folder: Path
    audit_folder: Path
    stores: dict[str, Path]  # node -> the folder that is its containerd's; none for the published image

    @property
    def control_plane(self) -> str:
        return f"{self.name}-control-plane"

    @property
    def worker_names(self) -> tuple[str, ...]:
        """As kind names them."""
        return tuple(f"{self.name}-worker{'' if index == 0 else index + 1}" for index in range(self.workers))

    def configuration(self) -> str:
        """kind's configuration; JSON is YAML."""
        nodes = [self._control_plane(), *(self._worker(index) for index in range(self.workers))]
        return json.dumps(
            {
                "kind": "Cluster",
                "apiVersion": "kind.x-k8s.io/v1alpha4",
                "networking": {"podSubnet": "198.18.128.0/17", "serviceSubnet": "198.19.0.0/16"},
                "kubeadmConfigPatches": [json.dumps(_CONTROL_PLANE_FLAGS)],
                "nodes": nodes,
            },
            indent=2,
        )

    def _control_plane(self) -> dict[str, object]:
        ports = [
            {"containerPort": int(inside), "hostPort": outside, "listenAddress": "127.0.0.1"}
            for inside, outside in self.node_ports.items()
        ]
        audit = [
            {"hostPath": str(self.audit_folder), "containerPath": AUDIT_FOLDER},
            {
                "hostPath": str(self.audit_folder / POLICY.name),
                "containerPath": _POLICY_INSIDE,
                "readOnly": True,
            },
        ]
        node = self._node("control-plane", self.control_plane)
        return {
            **node,
            "extraPortMappings": ports,
            "extraMounts": [*self._mounts(self.control_plane), *audit],
        }

    def _worker(self, index: int) -> dict[str, object]:
        name = self.worker_names[index]
        node = self._node("worker", name)
        return {**node, "labels": labels(MODELS[index % len(MODELS)]), "extraMounts": self._mounts(name)}

    def _node(self, role: str, name: str) -> dict[str, object]:
        return {"role": role, "image": self.node_image}

    def _mounts(self, name: str) -> list[dict[str, object]]:
        mounts: list[dict[str, object]] = [
            {"hostPath": str(self.shared_folder), "containerPath": str(self.shared_folder)}
        ]
        if name in self.stores:
            mounts.append({"hostPath": str(self.stores[name]), "containerPath": "/var/lib/containerd"})
        return mounts


_POLICY_INSIDE = "/etc/kubernetes/audit-policy.yaml"

# A patch that is merged: with the kubeadm configuration of Kubernetes before 1.36, flags are a map, so kind's
# own stay.
_CONTROL_PLANE_FLAGS = {
    "kind": "ClusterConfiguration",
    "apiServer": {
        "extraArgs": {
            "audit-policy-file": _POLICY_INSIDE,
            "audit-log-path": f"{AUDIT_FOLDER}/audit.log",
            "audit-log-maxsize": "200",
            "audit-log-maxbackup": "2",
        },
        "extraVolumes": [
            {
                "name": "audit-policy",
                "hostPath": _POLICY_INSIDE,
                "mountPath": _POLICY_INSIDE,
                "readOnly": True,
            },
            {
                "name": "audit-log",
                "hostPath": AUDIT_FOLDER,
                "mountPath": AUDIT_FOLDER,
                "pathType": "DirectoryOrCreate",
            },
        ],
    },
    # A test cluster that loses power is made anew: nothing is gained by waiting for the disk.
    "etcd": {"local": {"extraArgs": {"unsafe-no-fsync": "true"}}},
}


def free_ports(node_ports: tuple[int, ...]) -> dict[str, int]:
    """A port of 127.0.0.1 for each NodePort. All are held until all are found, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in node_ports]
    try:
        return {str(inside): listener.getsockname()[1] for inside, listener in zip(node_ports, held, strict=True)}
    finally:
        for listener in held:
            listener.close()
