"""What do the children of a ModelDeployment look like? Builders: values in, Kubernetes objects out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evenkeel_operator.api.modeldeployment import GROUP, KIND, VERSION, Object, Spec
from evenkeel_operator.decide import names
from evenkeel_operator.decide.podspec import GRPC_PORT_NAME, HTTP_PORT_NAME, pod_template, prepare_pod_spec
from evenkeel_operator.decide.snapshot import Feedback, Revision, Snapshot
from evenkeel_operator.decide.trainings import Template
from evenkeel_runtime import contract, receipts


def service(snapshot: Snapshot, revision: str | None = None) -> Object:
    """Return the Service that all requests come through: to all that are ready, of `revision` alone if given."""
    ports: list[Object] = [{"name": HTTP_PORT_NAME, "port": 80, "targetPort": HTTP_PORT_NAME, "protocol": "TCP"}]
    if snapshot.spec.runtime.grpc:
        port = {"name": GRPC_PORT_NAME, "port": contract.GRPC_PORT, "targetPort": GRPC_PORT_NAME, "protocol": "TCP"}
        ports.append(port | {"appProtocol": "kubernetes.io/h2c"})  # for gateways and meshes: HTTP/2 without TLS
    only = {} if revision is None else {names.REVISION_LABEL: revision}
    return _child(snapshot, "v1", "Service", snapshot.name) | {
        "spec": {"selector": names.replica_selector(snapshot.name) | only, "ports": ports}
    }


def pod_disruption_budget(snapshot: Snapshot) -> Object:
    """Return the budget that lets a node drain take one replica at a time, and never blocks the drain for ever."""
    return _child(snapshot, "policy/v1", "PodDisruptionBudget", snapshot.name) | {
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": names.replica_selector(snapshot.name)}}
    }


def receipt_secret(snapshot: Snapshot, feedback: Feedback) -> Object:
    """Return the Secret with the key of the ModelDeployment's receipts, and nothing that any other one's needs.

    It is created and never read: that it is there already is as good. The master key stays with the operator.
    """
    key = receipts.derived_key(feedback.master_key, feedback.key_id, receipts.subject_of(snapshot.uid))
    name = names.receipt_secret_name(snapshot.name, snapshot.uid, feedback.key_id)
    return _child(snapshot, "v1", "Secret", name) | {
        "type": "Opaque",
        "immutable": True,
        "stringData": {contract.RECEIPT_KEY_FILE: key.hex()},
    }


def prepare_job(snapshot: Snapshot, revision: str, attempt: int) -> Object:
    """Return the Job that resolves, fetches, verifies and inspects the model, without a GPU."""
    name = names.prepare_job_name(revision, attempt)
    child = _child(snapshot, "batch/v1", "Job", name, revision, names.PREPARE_ROLE)
    child["metadata"]["annotations"] = {names.ATTEMPT_ANNOTATION: str(attempt)}
    return child | {
        "spec": {
            # Every run is an attempt of ours, with a report and a delay of its own; a drained node is no failure.
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {
                "metadata": {"labels": names.labels(snapshot.name, revision, names.PREPARE_ROLE)},
                "spec": prepare_pod_spec(snapshot.name, revision, snapshot.spec, snapshot.defaults),
            },
        }
    }


def retraining_job(
    snapshot: Snapshot, name: str, alarm: str, template: Template, environment: Mapping[str, str]
) -> Object:
    """Return the Job that retrains the model because of `alarm`; every container finds `environment`.

    Neither it nor its pods carry a revision: they are of none, whatever the template's labels say.
    """
    child = _child(snapshot, "batch/v1", "Job", name, role=names.RETRAIN_ROLE)
    metadata = child["metadata"]
    metadata["labels"] = {**template.labels, **metadata["labels"]}
    metadata["annotations"] = {**template.annotations, names.ALARM_ANNOTATION: alarm}
    pod = template.spec["template"]
    told = [{"name": key, "value": value} for key, value in environment.items()]
    spec = dict(pod["spec"])
    for part in ("initContainers", "containers"):
        if part in spec:
            spec[part] = [_with_environment(container, told) for container in spec[part]]
    labels = {**pod["metadata"]["labels"], **names.labels(snapshot.name, role=names.RETRAIN_ROLE)}
    return child | {
        "spec": {**template.spec, "template": {"metadata": pod["metadata"] | {"labels": labels}, "spec": spec}}
    }


def _with_environment(container: Object, told: list[Object]) -> Object:
    """Return the container with the variables `told` first, so that its own may refer to them as $(NAME)."""
    taken = {variable["name"] for variable in told}
    own = [variable for variable in container.get("env") or () if variable["name"] not in taken]
    return container | {"env": [*told, *own]}


def new_revision(snapshot: Snapshot, name: str, prepared: contract.Prepared) -> Revision:
    """Return the revision that the present spec asks for, everything resolved: this is what its pods will always be."""
    return Revision(
        name=name,
        number=max((r.number for r in snapshot.revisions), default=0) + 1,
        spec=names.revision_spec(snapshot.spec),
        prepared=prepared,
        runtime_image=serving_image(snapshot.spec, snapshot.defaults.runtime_image),
        template=pod_template(snapshot.name, name, snapshot.spec, prepared, snapshot.defaults, snapshot.uid),
    )


def serving_image(spec: Spec, default: str) -> str:
    """Return the image of the serving container: the user's, else the operator's default."""
    return spec.runtime.image or default


def controller_revision(snapshot: Snapshot, revision: Revision) -> Object:
    """Return the ControllerRevision that keeps `revision`; its data never changes."""
    return _child(snapshot, "apps/v1", "ControllerRevision", revision.name, revision.name) | {
        "revision": revision.number,
        "data": {
            "spec": dict(revision.spec),
            "model": json.loads(contract.encode(revision.prepared)),
            "runtimeImage": revision.runtime_image,
            "template": revision.template,
        },
    }


def replica_set(
    snapshot: Snapshot, name: str, template: Object, prepared: contract.Prepared | None, replicas: int
) -> Object:
    """Return the ReplicaSet of the revision `name` at the size `replicas`.

    It carries the prepare report too, so that a ControllerRevision deleted by hand can be written again.
    """
    child = _child(snapshot, "apps/v1", "ReplicaSet", name, name, names.SERVE_ROLE)
    if prepared is not None:
        child["metadata"]["annotations"] = {names.PREPARED_ANNOTATION: contract.encode(prepared)}
    return child | {
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": names.labels(snapshot.name, name, names.SERVE_ROLE)},
            "template": template,
        }
    }


def memory(deployment: Object, data: Mapping[str, str]) -> Object:
    """Return the ConfigMap that keeps `data` for the decisions about `deployment`."""
    metadata = deployment["metadata"]
    name = metadata["name"]
    return _owned(name, metadata["namespace"], metadata["uid"], "v1", "ConfigMap", names.memory_name(name)) | {
        "data": dict(data)
    }


def samples(deployment: Object, text: str) -> Object:
    """Return the ConfigMap that keeps how a canary of `deployment` and its stable revision have answered."""
    metadata = deployment["metadata"]
    name = metadata["name"]
    return _owned(name, metadata["namespace"], metadata["uid"], "v1", "ConfigMap", names.trial_name(name)) | {
        "data": {"samples": text}
    }


def model_status(spec: Mapping[str, Any], prepared: contract.Prepared) -> Object:
    """Return status.model for a revision whose user-written part is `spec`."""
    found = {"resolved": spec["model"]["uri"], "digest": prepared.digest, "format": prepared.format}
    for key in ("inputs", "outputs"):
        if tensors := getattr(prepared, key):
            found[key] = [asdict(tensor) | {"shape": list(tensor.shape)} for tensor in tensors]
    return found


def url(snapshot: Snapshot) -> str:
    """Return the address of the Service inside the cluster."""
    return f"http://{snapshot.name}.{snapshot.namespace}.svc"


def _child(
    snapshot: Snapshot,
    api_version: str,
    kind: str,
    name: str,
    revision: str | None = None,
    role: str | None = None,
) -> Object:
    return _owned(snapshot.name, snapshot.namespace, snapshot.uid, api_version, kind, name, revision, role)


def _owned(
    deployment: str,
    namespace: str,
    uid: str,
    api_version: str,
    kind: str,
    name: str,
    revision: str | None = None,
    role: str | None = None,
) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": names.labels(deployment, revision, role),
            "ownerReferences": [
                {
                    "apiVersion": f"{GROUP}/{VERSION}",
                    "kind": KIND,
                    "name": deployment,
                    "uid": uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
    }
