"""Which resources does the fake API server have?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource and where it lives."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    has_status: bool = True

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = (
    Resource("evenkeel.dev", "v1alpha1", "ModelDeployment", "modeldeployments"),
    Resource("apps", "v1", "ReplicaSet", "replicasets"),
    Resource("apps", "v1", "ControllerRevision", "controllerrevisions", has_status=False),
    Resource("batch", "v1", "Job", "jobs"),
    Resource("batch", "v1", "CronJob", "cronjobs"),
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("coordination.k8s.io", "v1", "Lease", "leases", has_status=False),
    Resource("", "v1", "Service", "services"),
    Resource("", "v1", "Pod", "pods"),
    Resource("", "v1", "Event", "events", has_status=False),
    Resource("", "v1", "ConfigMap", "configmaps", has_status=False),
    Resource("", "v1", "Secret", "secrets", has_status=False),
    Resource("", "v1", "Node", "nodes", namespaced=False),
    Resource("", "v1", "Namespace", "namespaces", namespaced=False),
    Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False),
)
BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
BY_PLURAL = {r.plural: r for r in RESOURCES}
MODELDEPLOYMENTS = BY_PLURAL["modeldeployments"]


def groups(served: tuple[Resource, ...]) -> dict[str, Any]:
    """Return the answer of /apis."""
    names = sorted({(r.group, r.version) for r in served if r.group})
    return {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": group,
                "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
            }
            for group, version in names
        ],
    }


def resources(served: tuple[Resource, ...], group: str, version: str) -> dict[str, Any] | None:
    """Return the answer of /apis/GROUP/VERSION, None where nothing of it is served."""
    found = []
    for r in served:
        if (r.group, r.version) == (group, version):
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            row = {"singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind}
            found.append({"name": r.plural, "verbs": verbs, **row})
            if r.has_status:
                found.append({"name": f"{r.plural}/status", "verbs": ["get", "patch", "update"], **row})
    return {"kind": "APIResourceList", "resources": found} if found else None
