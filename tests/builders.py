"""What do the objects of a test look like? Builders for ModelDeployments and their children, as stored."""

from __future__ import annotations

import json
from typing import Any

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.decide import names
from evenkeel_operator.decide.snapshot import Defaults, NodeGpus
from evenkeel_runtime import contract

NAMESPACE, NAME, UID = "team-a", "digits", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
DEFAULTS = Defaults(runtime_image="evenkeel/runtime:1")
DIGEST = "sha256:" + "ab" * 32
PREPARED = contract.Prepared(
    digest=DIGEST,
    format="TorchExport",
    file="digits.pt2",
    size_bytes=1000,
    inputs=(contract.Tensor("image", "FP32", (-1, 1, 28, 28)),),
    outputs=(contract.Tensor("output_0", "FP32", (-1, 10)),),
)


def modeldeployment(*, status: Object | None = None, generation: int = 1, **spec: Any) -> Object:
    """Return a ModelDeployment; `spec` overrides the minimal one."""
    found: Object = {
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": generation},
        "spec": {"model": {"uri": "pvc://models/digits.pt2"}, "replicas": 1, **spec},
    }
    if status is not None:
        found["status"] = status
    return found


def revision_of(deployment: Object) -> str:
    """Return the name of the revision that `deployment` asks for."""
    return names.revision_name(deployment["metadata"]["name"], Spec.model_validate(deployment["spec"]))


def observed(desired: Object, **status: Any) -> Object:
    """Return an object that a plan asked for as the API server sends it back, with `status`."""
    copy: Object = json.loads(json.dumps(desired))
    copy["metadata"] |= {"uid": f"uid-{copy['kind']}-{copy['metadata']['name']}", "resourceVersion": "1"}
    if status:
        copy["status"] = status
    return copy


def pod(
    revision: str,
    number: int = 0,
    *,
    ready: bool = True,
    node: str | None = "node-1",
    role: str = names.SERVE_ROLE,
    owner: Object | None = None,
    terminating: bool = False,
    **status: Any,
) -> Object:
    """Return a pod of `revision`; without further `status` a bound one runs."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    found: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{revision}-{number}", "labels": names.labels(NAME, revision, role)},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": "Running" if node else "Pending", "conditions": conditions, **status},
    }
    if owner is not None:
        found["metadata"]["ownerReferences"] = [{"uid": owner["metadata"]["uid"], "controller": True}]
    if terminating:
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


def ended(report: contract.Prepared | contract.Failed | str, *, exit_code: int = 1, name: str = "prepare") -> Object:
    """Return the status of a pod whose only container ended with `report` as its termination message."""
    message = report if isinstance(report, str) else contract.encode(report)
    state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}}
    return {"containerStatuses": [{"name": name, "state": state, "restartCount": 0, "image": "i"}]}


def node(
    name: str = "node-1", *, gpus: int = 4, used: int = 0, product: str = "NVIDIA-L4", memory: int = 23034
) -> NodeGpus:
    """Return a node with `gpus` GPUs, `used` of them asked for."""
    return NodeGpus(
        name=name,
        labels={"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": str(memory)},
        taints=(),
        allocatable={"nvidia.com/gpu": gpus},
        requested={"nvidia.com/gpu": used},
    )
