"""What runs in the pods, and under which restrictions? Built from the spec once per revision, then kept.

Every pod is restricted (Pod Security Standards, "restricted"): non-root, read-only root file system, no capabilities,
seccomp RuntimeDefault, no service-account token. The container that holds the credentials of a remote address is an
init container of its own; the server never sees them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evenkeel_operator.api.modeldeployment import Gpu, Object, Spec
from evenkeel_operator.decide import names
from evenkeel_operator.decide.gpus import MEMORY_LABEL, PRODUCT_LABEL, mebibytes
from evenkeel_operator.decide.snapshot import Defaults, Feedback
from evenkeel_runtime import contract
from evenkeel_runtime.contract import Env

USER_ID = 65532
"""The user `nonroot` of both images."""

DEFAULT_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
"""What a container asks for where spec.runtime.resources says nothing: a torch process that waits."""

HTTP_PORT_NAME = "http"
GRPC_PORT_NAME = "grpc"

_MODEL_VOLUME = "model"
_SCRATCH_VOLUME = "scratch"
_RECEIPTS_VOLUME = "receipts"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is: `claim` for `pvc://` addresses, whose volume is mounted; None where it is fetched."""

    path: str
    claim: str | None

    @staticmethod
    def parse(uri: str) -> Address:
        """Return the parts of a `spec.model.uri`. Raises ValueError for a scheme that has no meaning here."""
        scheme, separator, rest = uri.partition("://")
        if not separator or scheme not in ("pvc", "s3", "gs", "hf", "oci", "https"):
            raise ValueError(
                f"spec.model.uri: {uri!r} is not pvc://CLAIM/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY, "
                "hf://ORG/REPO/PATH, oci://REGISTRY/REPOSITORY or https://HOST/PATH"
            )
        if scheme == "pvc":
            claim, _, path = rest.partition("/")
            return Address(path=path, claim=claim)
        return Address(path=rest, claim=None)


def pod_template(
    deployment: str, revision: str, spec: Spec, prepared: contract.Prepared, defaults: Defaults, uid: str = ""
) -> Object:
    """Return the template of the pods that serve `revision`; `uid` is the ModelDeployment's."""
    address = Address.parse(spec.model.uri)
    metadata: Object = {
        "labels": spec.pod.labels | names.labels(deployment, revision, names.SERVE_ROLE),
    }
    if spec.pod.annotations:
        metadata["annotations"] = dict(spec.pod.annotations)
    server = _server(deployment, revision, spec, prepared, address, defaults)
    body = _pod_spec(deployment, spec, [server], address)
    if defaults.feedback is not None and spec.runtime.image is None:
        _with_receipt_key(deployment, uid, defaults.feedback, server, body)
    if address.claim is None:
        body["initContainers"] = [_fetch(deployment, revision, spec, prepared, defaults)]
    if spec.gpu is not None:
        body["tolerations"] = [*_gpu_tolerations(spec.gpu), *spec.pod.tolerations]
        if (affinity := _gpu_affinity(spec.gpu, spec.pod.affinity)) is not None:
            body["affinity"] = affinity
    if spec.pod.priority_class_name is not None:
        body["priorityClassName"] = spec.pod.priority_class_name
    if spec.pod.runtime_class_name is not None:
        body["runtimeClassName"] = spec.pod.runtime_class_name
    body["topologySpreadConstraints"] = list(spec.pod.topology_spread_constraints) or [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.replica_selector(deployment)},
        }
    ]
    body["terminationGracePeriodSeconds"] = spec.pod.termination_grace_period_seconds
    return {"metadata": metadata, "spec": body}


def prepare_pod_spec(deployment: str, revision: str, spec: Spec, defaults: Defaults) -> Object:
    """Return the pod of the prepare Job: the replicas' credentials and volumes, none of their GPUs.

    With a GPU in the spec, the selector and the affinity are left out: they may name nodes that only GPU work should
    wake.
    """
    address = Address.parse(spec.model.uri)
    container = _container("prepare", defaults.runtime_image, defaults, spec) | {
        "args": [contract.PREPARE_COMMAND],
        "env": _environment(
            {
                Env.MODEL_NAME: deployment,
                Env.MODEL_VERSION: revision,
                Env.MODEL_URI: spec.model.uri,
                Env.MODEL_FORMAT: spec.model.format,
                Env.MODEL_SHA256: spec.model.sha256 or "",
                Env.ALLOW_NATIVE_CODE: _word(spec.model.allow_native_code),
                Env.TRUSTED_TYPES: _list(spec.model.trusted_types),
                Env.PRECISION: _precision(spec),
                Env.INSPECT: _word(spec.runtime.image is None),
            }
        ),
    }
    if spec.model.secret_name is not None:
        container["envFrom"] = [{"secretRef": {"name": spec.model.secret_name}}]
    if address.claim is not None:
        container["volumeMounts"].append(_claim_mount())
    body = _pod_spec(deployment, spec, [container], address)
    if address.claim is None:
        body["volumes"] = [v for v in body["volumes"] if v["name"] != _MODEL_VOLUME]
    if spec.gpu is not None:
        body.pop("nodeSelector", None)
        body.pop("affinity", None)
    return body | {"restartPolicy": "Never"}


def _server(
    deployment: str,
    revision: str,
    spec: Spec,
    prepared: contract.Prepared,
    address: Address,
    defaults: Defaults,
) -> Object:
    image = spec.runtime.image or defaults.runtime_image
    folder = contract.MODEL_DIR if address.claim is None else contract.CLAIM_DIR
    file = (prepared.file if address.claim is None else address.path).rstrip("/")
    environment = {
        Env.MODEL_NAME: deployment,
        Env.MODEL_VERSION: revision,
        Env.MODEL_PATH: f"{folder}/{file}",
        Env.MODEL_FORMAT: prepared.format,
        Env.MODEL_SHA256: prepared.digest.removeprefix("sha256:"),
        **_marks(prepared),
        Env.ALLOW_NATIVE_CODE: _word(spec.model.allow_native_code),
        Env.TRUSTED_TYPES: _list(spec.model.trusted_types),
        Env.PRECISION: _precision(spec),
        Env.GRACE_PERIOD_S: str(spec.pod.termination_grace_period_seconds),
        Env.DRAIN_DELAY_S: str(defaults.drain_delay_s),
        **({Env.GRPC_PORT: str(contract.GRPC_PORT)} if spec.runtime.grpc else {}),
        **({} if (most := spec.runtime.batching.max_size) is None else {Env.MAX_BATCH_SIZE: str(most)}),
    }
    if spec.gpu is None:
        # Where NVIDIA's runtime is the node's default, an image that names no devices sees all of them.
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"
    container = _container("serve", image, defaults, spec) | {
        "env": [*map(_as_stored, spec.runtime.env), *_environment(environment)],
        "ports": _ports(spec),
        "startupProbe": _probe("/v2/health/live", period_s=1, failures=1800),
        "readinessProbe": _probe("/v2/health/ready", period_s=1, failures=3),
        "livenessProbe": _probe("/v2/health/live", period_s=10, failures=6),
    }
    if address.claim is None:
        container["volumeMounts"].append({"name": _MODEL_VOLUME, "mountPath": contract.MODEL_DIR, "readOnly": True})
    else:
        container["volumeMounts"].append(_claim_mount())
    if spec.gpu is not None:
        resources = container["resources"]
        resources["limits"] = {**resources.get("limits", {}), spec.gpu.resource_name: spec.gpu.count}
    return container


def _ports(spec: Spec) -> list[Object]:
    ports = {HTTP_PORT_NAME: contract.HTTP_PORT} | ({GRPC_PORT_NAME: contract.GRPC_PORT} if spec.runtime.grpc else {})
    return [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports.items()]


def _with_receipt_key(deployment: str, uid: str, feedback: Feedback, server: Object, body: Object) -> None:
    """Give the serving container the key of its receipts. Optional: a model is served without a key rather than not."""
    secret = names.receipt_secret_name(deployment, uid, feedback.key_id)
    body["volumes"].append({"name": _RECEIPTS_VOLUME, "secret": {"secretName": secret, "optional": True}})
    server["volumeMounts"].append({"name": _RECEIPTS_VOLUME, "mountPath": contract.RECEIPT_KEY_DIR, "readOnly": True})
    server["env"] += _environment(
        {Env.UID: uid, Env.RECEIPT_KEY_ID: str(feedback.key_id), Env.FEEDBACK_URL: feedback.url}
    )


def _fetch(deployment: str, revision: str, spec: Spec, prepared: contract.Prepared, defaults: Defaults) -> Object:
    container = _container("fetch", defaults.runtime_image, defaults, spec) | {
        "args": [contract.FETCH_COMMAND],
        "env": _environment(
            {
                Env.MODEL_NAME: deployment,
                Env.MODEL_VERSION: revision,
                Env.MODEL_URI: spec.model.uri,
                Env.MODEL_FORMAT: prepared.format,
                Env.MODEL_SHA256: prepared.digest.removeprefix("sha256:"),
                **_marks(prepared),
                Env.ALLOW_NATIVE_CODE: _word(spec.model.allow_native_code),
                Env.TRUSTED_TYPES: _list(spec.model.trusted_types),
            }
        ),
    }
    container["volumeMounts"].append({"name": _MODEL_VOLUME, "mountPath": contract.MODEL_DIR})
    if spec.model.secret_name is not None:
        container["envFrom"] = [{"secretRef": {"name": spec.model.secret_name}}]
    return container


def _marks(prepared: contract.Prepared) -> dict[str, str]:
    return {Env.MODEL_MARKS: prepared.marks} if prepared.marks else {}


def _container(name: str, image: str, defaults: Defaults, spec: Spec) -> Object:
    requested: dict[str, Any] = dict(spec.runtime.resources.requests)
    limits: dict[str, Any] = dict(spec.runtime.resources.limits)
    # A limit without a request is a request of the same size (core/v1): the default must not undercut it.
    requests = {key: value for key, value in DEFAULT_REQUESTS.items() if key not in limits} | requested
    resources: Object = {"requests": requests} if requests else {}
    if limits:
        resources["limits"] = limits
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": defaults.image_pull_policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": _SCRATCH_VOLUME, "mountPath": contract.SCRATCH_DIR}],
    }


def _pod_spec(deployment: str, spec: Spec, containers: list[Object], address: Address) -> Object:
    model: Object = {"name": _MODEL_VOLUME, "emptyDir": {}}
    if address.claim is not None:
        model = {
            "name": _MODEL_VOLUME,
            "persistentVolumeClaim": {"claimName": address.claim, "readOnly": True},
        }
    body: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [{"name": _SCRATCH_VOLUME, "emptyDir": {}}, model],
    }
    if spec.pod.node_selector:
        body["nodeSelector"] = dict(spec.pod.node_selector)
    if spec.pod.tolerations:
        body["tolerations"] = list(spec.pod.tolerations)
    if spec.pod.affinity is not None:
        body["affinity"] = spec.pod.affinity
    if spec.pod.service_account_name is not None:
        body["serviceAccountName"] = spec.pod.service_account_name
    if spec.pod.image_pull_secrets:
        body["imagePullSecrets"] = list(spec.pod.image_pull_secrets)
    return body


def _claim_mount() -> Object:
    return {"name": _MODEL_VOLUME, "mountPath": contract.CLAIM_DIR, "readOnly": True}


def _environment(values: dict[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _as_stored(variable: Object) -> Object:
    """Return the variable as the API server keeps it: without an empty value.

    A template that a ControllerRevision keeps and a ReplicaSet runs has to be the same on both ways through it.
    """
    return {key: value for key, value in variable.items() if key != "value" or value}


def _word(value: bool) -> str:
    return "true" if value else "false"


def _precision(spec: Spec) -> str:
    """Return nothing for the default: pods that were made before there was a choice stay as they are."""
    return "" if spec.runtime.precision == "Auto" else spec.runtime.precision


def _list(values: Iterable[str]) -> str:
    return ",".join(sorted(values))


def _probe(path: str, *, period_s: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _gpu_tolerations(gpu: Gpu) -> list[Object]:
    keys = dict.fromkeys((gpu.resource_name, "nvidia.com/gpu"))
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def _gpu_affinity(gpu: Gpu, wanted: Object | None) -> Object | None:
    """Return the user's affinity with what `gpu` asks of nodes added to every one of its required terms.

    Terms are alternatives, expressions within one must all hold: ours must hold in each.
    """
    expressions: list[Object] = []
    if gpu.products:
        expressions.append({"key": PRODUCT_LABEL, "operator": "In", "values": list(gpu.products)})
    if gpu.min_memory is not None:
        expressions.append({"key": MEMORY_LABEL, "operator": "Gt", "values": [str(mebibytes(gpu.min_memory) - 1)]})
    if not expressions:
        return wanted
    affinity = dict(wanted or {})
    node = dict(affinity.get("nodeAffinity") or {})
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or [{}]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [
            term | {"matchExpressions": [*(term.get("matchExpressions") or ()), *expressions]} for term in terms
        ]
    }
    return affinity | {"nodeAffinity": node}
