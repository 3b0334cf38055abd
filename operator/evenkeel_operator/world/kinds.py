"""Which kinds does the operator read and write, and where do they live in the API?"""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import GROUP, KIND, PLURAL, VERSION
from evenkeel_operator.decide.names import MANAGED_BY, MANAGED_BY_LABEL

_OURS = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind, and the selectors under which it is listed and watched."""

    group: str
    version: str
    kind: str
    plural: str
    label_selector: str = ""
    field_selector: str = ""

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its API group."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of the collection, of one object, or of its subresource."""
        parts = [self.root]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part is not None]
        return "/".join(parts)


MODELDEPLOYMENT = Kind(GROUP, VERSION, KIND, PLURAL)
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", _OURS)
CONTROLLER_REVISION = Kind("apps", "v1", "ControllerRevision", "controllerrevisions", _OURS)
JOB = Kind("batch", "v1", "Job", "jobs", _OURS)
SERVICE = Kind("", "v1", "Service", "services", _OURS)
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", _OURS)
POD = Kind("", "v1", "Pod", "pods", _OURS)
# A Job that may not create its pod says so nowhere but here; Events carry no labels to select ours by.
EVENT = Kind("", "v1", "Event", "events", "", "reason=FailedCreate,involvedObject.kind=Job")

CHILDREN = (CONTROLLER_REVISION, REPLICA_SET, JOB, SERVICE, POD_DISRUPTION_BUDGET, POD)
WATCHED = (MODELDEPLOYMENT, *CHILDREN, EVENT)

# Asked for by name, once per ModelDeployment: nobody else's change of it matters.
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs")
SECRET = Kind("", "v1", "Secret", "secrets")
NODE = Kind("", "v1", "Node", "nodes")
# Every pod that may hold a GPU, whoever made it.
ANY_POD = Kind("", "v1", "Pod", "pods", "", "status.phase!=Succeeded,status.phase!=Failed")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in (*WATCHED, CONFIG_MAP, SECRET, LEASE)}


def of(api_version: str, kind: str) -> Kind:
    """Return the kind that an object names; KeyError for one that the operator has no business with."""
    return _BY_NAME[(api_version, kind)]
