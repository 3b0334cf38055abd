"""What may a ModelDeployment say, and what does its status answer?

The docstrings of the fields are the descriptions that `kubectl explain` prints; `crd.py` makes the CRD from
this file and from the rules in `rules.py`. Stored objects are read leniently (`extra="ignore"`): strictness
belongs to the API server, and an older operator must be able to read an object written under a newer CRD.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from evenkeel_operator.api import rules
from evenkeel_operator.api.core import (
    ATOMIC,
    SET,
    Duration,
    EnvVar,
    LabelValue,
    LocalObjectReference,
    Name,
    OpaqueObject,
    Product,
    Quantity,
    Toleration,
    TypeName,
    map_by,
)
from evenkeel_operator.api.core import Object as Object
from evenkeel_operator.api.rules import NATIVE_FORMATS as NATIVE_FORMATS

GROUP = "evenkeel.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"


class Model(BaseModel):
    """Base of every part of the resource: camelCase on the wire, snake_case here."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        frozen=True,
    )


class ModelSource(Model):
    """Where the model is and how far it is trusted."""

    model_config = ConfigDict(json_schema_extra=rules.MODEL)

    uri: str = Field(min_length=7, max_length=2048, json_schema_extra=rules.URI)
    """Address of the model, a file or a folder: pvc://CLAIM/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY,
    hf://ORG/REPO[@REVISION][/PATH], oci://REGISTRY/REPOSITORY[:TAG|@DIGEST][#FILE] or, for a file alone,
    https://HOST/PATH."""
    format: Literal[
        "Auto", "TorchExport", "TorchScript", "AOTInductor", "Keras", "Sklearn", "StateDict", "Transformers"
    ] = "Auto"
    """Format of the model. Auto recognises it from its content, not from its name."""
    sha256: str | None = Field(default=None, max_length=128, pattern=r"^[0-9a-f]{64}$", json_schema_extra=rules.SHA256)
    """SHA-256 of the file, 64 lowercase hex digits; of a folder, that of its manifest, which evenkeel check
    prints. Verified before any parser sees a byte; required where the format runs native code."""
    allow_native_code: bool = False
    """Allow formats that run the author's code (TorchScript, AOTInductor). Needs sha256."""
    trusted_types: tuple[TypeName, ...] = Field(default=(), max_length=64, json_schema_extra=SET)
    """Types that a skops file (Sklearn) may hold beside those that skops trusts by itself, by their full names.
    The refusal of a file names those it holds. Nothing of another type is ever built."""
    secret_name: Name | None = None
    """Secret with the credentials of an s3:// address (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    optionally AWS_ENDPOINT_URL, AWS_REGION, AWS_SESSION_TOKEN), a gs:// address (service-account.json), an
    hf:// address (HF_TOKEN), an oci:// address (username and password, or the type
    kubernetes.io/dockerconfigjson) or an https:// address (HTTP_BEARER_TOKEN, or HTTP_USERNAME and
    HTTP_PASSWORD). Without it, s3:// and gs:// are read as the pod's own identity where it has one, else
    anonymously."""


class Gpu(Model):
    """What every replica needs of a GPU. Absent: the replicas run on CPUs."""

    count: int = Field(default=1, ge=1, le=64)
    """GPUs per replica."""
    resource_name: str = Field(
        default="nvidia.com/gpu",
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        json_schema_extra=rules.RESOURCE_NAME,
    )
    """Extended resource to ask for, for example nvidia.com/gpu, nvidia.com/mig-1g.10gb or amd.com/gpu."""
    products: tuple[Product, ...] = Field(default=(), max_length=32, json_schema_extra=SET)
    """GPU products to run on, any of them, as the node label nvidia.com/gpu.product names them. Empty: any of
    all."""
    min_memory: Quantity | None = None
    """Least memory of one GPU, compared with the node label nvidia.com/gpu.memory."""


class Scaling(Model):
    """Let Evenkeel decide the number of replicas, between these bounds."""

    model_config = ConfigDict(json_schema_extra=rules.SCALING)

    min_replicas: int = Field(default=1, ge=1, le=1000)
    """Least number of replicas."""
    max_replicas: int = Field(ge=1, le=1000)
    """Most replicas."""


class LatencyObjective(Model):
    """One latency that shall be held."""

    metric: Literal["EndToEnd"] = "EndToEnd"
    """What is measured: EndToEnd is the time from the last byte of a request to its answer, in the replica."""
    quantile: float = Field(default=0.95, json_schema_extra=rules.QUANTILE)
    """Share of the requests of a minute that shall be answered within the target."""
    target: Duration
    """Time within which they shall be answered, such as 200ms."""
    violation_budget: float = Field(default=0.05, json_schema_extra=rules.BUDGET)
    """Share of the minutes of the last hour that may miss the target before the condition LatencyMet turns
    False."""


class Objectives(Model):
    """What shall be held, by measurement."""

    latency: tuple[LatencyObjective, ...] = Field(default=(), max_length=4, json_schema_extra=map_by("metric"))
    """Latencies to hold. With spec.scaling, the number of replicas follows from them."""


class Rollout(Model):
    """How a new revision replaces the one in service."""

    paused: bool = False
    """Stop the rollout at its present step and keep serving."""
    strategy: Literal["Direct"] = "Direct"
    """Direct replaces replicas one after another, with a free GPU beside the old ones, otherwise in place."""


class Resources(Model):
    """CPU and memory of the serving container, as in core/v1. GPUs are asked for under spec.gpu."""

    requests: dict[str, Quantity] = Field(default={}, max_length=8, json_schema_extra=rules.CORE_RESOURCES)
    """Least resources, by name."""
    limits: dict[str, Quantity] = Field(default={}, max_length=8, json_schema_extra=rules.CORE_RESOURCES)
    """Most resources, by name."""


class Batching(Model):
    """How requests share calls of the model."""

    max_size: int | None = Field(default=None, ge=1, le=1024)
    """Most rows per call. Absent: as many as were measured to pay when the model was loaded. 1: every row has
    a call of its own."""


class Runtime(Model):
    """The server inside the pods."""

    image: str | None = Field(default=None, min_length=1, max_length=512, json_schema_extra=rules.IMAGE)
    """Image of another server that speaks the Open Inference Protocol on port 8080. It finds the verified
    model under EVENKEEL_MODEL_PATH. Absent: Evenkeel's bundled PyTorch runtime."""
    grpc: bool = False
    """Answer gRPC too, on port 8081 of the pods and of the Service. Requests with binary tensors over HTTP cost a
    tenth of the CPU."""
    precision: Literal["Auto", "FP32", "BF16", "INT8"] = "Auto"
    """How exactly the model is computed. Auto and FP32: as its file says. BF16 (TorchExport, Keras) and INT8
    (TorchExport, on CPUs) change its answers; the server measures by how much, and says so in the model's metadata
    and as the metric model_difference_to_fp32. Other formats are computed as their files say."""
    batching: Batching = Batching()
    """How requests share calls of the model."""
    resources: Resources = Resources()
    """Resources of the serving container."""
    env: tuple[EnvVar, ...] = Field(default=(), max_length=128, json_schema_extra=map_by("name"))
    """Environment of the serving container, as core/v1 EnvVar."""


class PodOptions(Model):
    """What else goes into the pods, as in core/v1 PodSpec."""

    node_selector: dict[str, LabelValue] = Field(default={}, max_length=32)
    """Node labels the replicas need."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32, json_schema_extra=ATOMIC)
    """Tolerations beside those for the usual GPU taints."""
    affinity: OpaqueObject | None = None
    """Affinity; what spec.gpu asks of nodes is added to it."""
    topology_spread_constraints: tuple[OpaqueObject, ...] = Field(default=(), max_length=8, json_schema_extra=ATOMIC)
    """Spread constraints instead of the default, which spreads replicas over nodes where it can."""
    priority_class_name: Name | None = None
    """PriorityClass of the replicas."""
    service_account_name: Name | None = None
    """ServiceAccount of the replicas; its token is not mounted."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        default=(), max_length=8, json_schema_extra=map_by("name")
    )
    """Secrets to pull the runtime's image with."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the replicas, for example nvidia."""
    termination_grace_period_seconds: int = Field(default=60, ge=15, le=3600)
    """Seconds a replica has to answer what it has admitted after it is told to stop."""
    labels: dict[str, LabelValue] = Field(default={}, max_length=32, json_schema_extra=rules.POD_METADATA)
    """Further labels of the pods."""
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default={}, max_length=32, json_schema_extra=rules.POD_METADATA
    )
    """Further annotations of the pods. A changed value makes a new revision: the way to restart, or to adopt
    new bytes under an old address."""


class Spec(Model):
    """What the user wants."""

    model_config = ConfigDict(json_schema_extra=rules.SPEC)

    model: ModelSource
    """The model to serve."""
    gpu: Gpu | None = None
    """What every replica needs of a GPU. Absent: CPU only."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """Number of replicas; `kubectl scale` and an autoscaler write it. Beside scaling it is the first number only,
    and a later write to it changes nothing."""
    scaling: Scaling | None = None
    """Let Evenkeel decide the number of replicas from measured latency. Absent: replicas is the number."""
    objectives: Objectives = Objectives()
    """What shall be held, by measurement."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the one in service."""
    runtime: Runtime = Runtime()
    """The server inside the pods."""
    pod: PodOptions = PodOptions()
    """What else goes into the pods."""


class TensorStatus(Model):
    """One input or output of the model."""

    name: str
    """Name in the Open Inference Protocol."""
    datatype: str
    """Datatype in the Open Inference Protocol, for example FP32."""
    shape: tuple[int, ...] = Field(json_schema_extra=ATOMIC)
    """Shape; -1 where a dimension is free."""


class ModelStatus(Model):
    """The model in service, as `prepare` found it."""

    resolved: str
    """Address that was resolved."""
    digest: str
    """Digest of its bytes: sha256:<hex>."""
    format: str
    """Format that was found."""
    inputs: tuple[TensorStatus, ...] = Field(default=(), json_schema_extra=ATOMIC)
    """Inputs of the model."""
    outputs: tuple[TensorStatus, ...] = Field(default=(), json_schema_extra=ATOMIC)
    """Outputs of the model."""


class LatencyStatus(Model):
    """One latency as it was measured over a minute."""

    metric: str
    """What is measured."""
    quantile: float
    """Share of the requests that were answered within the observed time."""
    state: Literal["Fresh", "Stale", "NoTraffic", "NoMetrics"]
    """Whether there is a measurement: of now, an old one, none because no request came, or none at all."""
    observed: str | None = None
    """The measured time; absent where there is none."""
    target: str
    """The time within which they shall be answered."""
    as_of: str = Field(json_schema_extra={"format": "date-time"})
    """When it was measured."""


class DecisionInput(Model):
    """One thing that a decision was made from."""

    name: str
    """What it is."""
    value: float | None = None
    """Its value; absent where there is none."""
    state: str
    """Whether it is a measurement of now (Fresh), an old one, or none."""
    age_seconds: float | None = None
    """How old it was."""


class DecisionStatus(Model):
    """One decision on the number of replicas."""

    time: str = Field(json_schema_extra={"format": "date-time"})
    """When it was made."""
    from_: int = Field(alias="from")
    """Replicas before."""
    to: int
    """Replicas after."""
    limit: str
    """What bound it, in one word."""
    message: str = Field(max_length=1024)
    """Why, in a sentence."""
    inputs: tuple[DecisionInput, ...] = Field(default=(), max_length=32, json_schema_extra=ATOMIC)
    """What it was made from."""


class RevisionStatus(Model):
    """One revision that has replicas or is about to."""

    name: str
    """Name of its ControllerRevision and its ReplicaSet."""
    role: Literal["Target", "Stable", "Old"]
    """Target is what the spec asks for, Stable the last one that was in full service, Old any other that
    still has replicas."""
    replicas: int
    """Replicas that exist."""
    ready_replicas: int
    """Replicas that answer."""


class Condition(Model):
    """One condition, as in meta/v1."""

    type: str = Field(max_length=316)
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = None
    """Generation of the spec it was judged on."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """When the status last changed."""
    reason: str = Field(min_length=1, max_length=1024)
    """One word for the cause."""
    message: str = Field(max_length=32768)
    """What it means and what to do."""


class Status(Model):
    """What the operator found. What does not exist yet is absent, not empty."""

    observed_generation: int | None = None
    """Generation of the spec this status answers."""
    replicas: int | None = None
    """Replicas that exist, all revisions together."""
    ready_replicas: int | None = None
    """Replicas that answer, all revisions together."""
    selector: str | None = None
    """Label selector of the replicas, for the scale subresource."""
    url: str | None = None
    """Where predictions are served inside the cluster."""
    model: ModelStatus | None = None
    """The model in service."""
    stable_revision: str | None = None
    """The last revision that was in full service."""
    revisions: tuple[RevisionStatus, ...] | None = Field(default=None, json_schema_extra=map_by("name"))
    """Revisions that have replicas or are about to."""
    latency: tuple[LatencyStatus, ...] | None = Field(default=None, json_schema_extra=map_by("metric"))
    """Latencies that have an objective, as measured."""
    last_decisions: tuple[DecisionStatus, ...] | None = Field(default=None, max_length=5, json_schema_extra=ATOMIC)
    """The newest decisions on the number of replicas, the latest first, with what each was made from."""
    conditions: tuple[Condition, ...] | None = Field(default=None, json_schema_extra=map_by("type"))
    """Ready, Reconciling and Stalled as kstatus reads them; Available; LatencyMet where a latency has an
    objective, Scalable where scaling is asked for; RuntimeOutdated where it holds."""
