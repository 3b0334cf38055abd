"""What may a ModelDeployment say? What its status answers is in `status.py`.

The docstrings of the fields are the descriptions that `kubectl explain` prints; `crd.py` makes the CRD from
these two files and from the rules in `rules.py`. Stored objects are read leniently (`extra="ignore"`): strictness
belongs to the API server, and an older operator must be able to read an object written under a newer CRD.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from evenkeel_operator.api import objectives, rules
from evenkeel_operator.api.core import (
    ATOMIC,
    SET,
    Duration,
    EnvVar,
    Horizon,
    LabelValue,
    LocalObjectReference,
    LongDuration,
    Model,
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
from evenkeel_operator.api.status import told_bound

GROUP = "evenkeel.dev"
VERSION = "v1alpha1"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"

MOST_ROWS = 1024
"""Of one call of a model; the runtime tries no larger ones out when it loads a model."""

DEFAULT_MARGIN = 0.01
"""Of a share. Not written by the API server: of errors there is no margin that fits every unit."""


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
    """GPUs per replica. Each holds a copy of the model and runs batches of its own, by the image of Evenkeel."""
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


class AccuracyObjective(Model):
    """One measure of the answers' quality that shall be held, by the labels that come later."""

    model_config = ConfigDict(json_schema_extra=objectives.ACCURACY)

    metric: Literal["Accuracy", "Precision", "Recall", "F1", "MAE", "RMSE"]
    """What is measured, of labelled predictions: MAE and RMSE are the mean absolute error and the root of the mean
    squared error of a model that answers numbers, the others are of classes."""
    floor: float | None = Field(default=None, json_schema_extra=objectives.SHARE)
    """What it shall not fall below. Required, but for MAE and RMSE."""
    ceiling: float | None = Field(default=None, json_schema_extra=objectives.ERROR)
    """With MAE and RMSE, and required there: what the error shall not rise above, in the unit of the predictions."""
    max_error: float | None = Field(default=None, json_schema_extra=objectives.ERROR)
    """With MAE and RMSE, and required there: the largest error that counts as it is; a larger one counts as this, taken
    up to a power of two (20 as 32). Evidence that may be looked at at any time takes errors with a bound, and fewer
    labels the closer it is: a few times the ceiling, beyond which an error is simply a large one."""
    average: Literal["Binary", "Macro", "Weighted"] = "Macro"
    """How classes become one number: Macro counts every class alike, Weighted as often as it occurs, Binary looks at
    positiveClass alone. Accuracy, MAE and RMSE need none."""
    positive_class: str | None = Field(default=None, min_length=1, max_length=253)
    """With average Binary: the class that counts as positive, by its name, or its number where classes have none."""
    margin: float | None = Field(default=None, json_schema_extra=objectives.MARGIN)
    """By how much a canary may be worse than the stable revision and still count as not worse. Absent: 0.01. Required
    with MAE and RMSE, in the unit of the predictions."""
    horizon: Horizon = "24h"
    """How long after a prediction its label is waited for, no longer than the feedback service takes labels
    (feedback.horizonDays of the chart). Predictions are counted by the quarter of an hour; a quarter
    counts once this time has passed since its end, and labels that come later still count from then on."""

    @property
    def is_error(self) -> bool:
        """Whether it is of numbers, and has a ceiling for a floor."""
        return self.metric in objectives.ERRORS

    @property
    def bound(self) -> float:
        """Its floor, or its ceiling; one that no CRD has let be stored is missed by everything."""
        bound = self.ceiling if self.is_error else self.floor
        return bound if bound is not None else 0.0 if self.is_error else 1.0

    @property
    def limit(self) -> str:
        """Its floor or ceiling, as it is told."""
        return told_bound(self.floor, self.ceiling)


class Objectives(Model):
    """What shall be held, by measurement."""

    model_config = ConfigDict(json_schema_extra=objectives.OBJECTIVES)

    latency: tuple[LatencyObjective, ...] = Field(default=(), max_length=4, json_schema_extra=map_by("metric"))
    """Latencies to hold. With spec.scaling, the number of replicas follows from them."""
    accuracy: tuple[AccuracyObjective, ...] = Field(default=(), max_length=4, json_schema_extra=map_by("metric"))
    """Measures of quality to hold. Canaries are judged by them. They need the feedback service, and a model whose
    answers are classes, or for MAE and RMSE numbers."""


class CanaryStep(Model):
    """One step of a canary."""

    weight: int = Field(ge=1, le=100)
    """Percent of the requests that are the canary's."""
    min_duration: LongDuration = "5m"
    """How long the step lasts at least."""
    min_samples: int = Field(default=200, ge=1, le=1_000_000)
    """How many samples of the canary's answers there are at least before the next step: one per replica and second."""


class CanaryOptions(Model):
    """How a canary is tried."""

    mode: Literal["Auto", "Mirror", "Split"] = "Auto"
    """Mirror sends the canary a copy of its share of the requests, and its answers go to nobody. Split gives its share
    to it; what it fails or is late with, the stable revision answers. Requests by gRPC, and those that name a version,
    go to the stable revision alone, as do, of a split, those whose client would not wait for two answers: the two are
    compared over the others, of which a split draws by lot. Auto mirrors where accuracy is judged and no replica has to
    make room, and splits otherwise."""
    steps: tuple[CanaryStep, ...] = Field(
        default=(CanaryStep(weight=10), CanaryStep(weight=25), CanaryStep(weight=50)),
        min_length=1,
        max_length=20,
        json_schema_extra={**ATOMIC, **rules.STEPS},
    )
    """Shares of the traffic, one after the other. Promotion follows the last."""
    on_missing_labels: Literal["Hold", "LatencyOnly", "Proxy"] = "Hold"
    """What happens where accuracy is judged and no label comes: Hold waits for a person, LatencyOnly promotes on
    latency and failures alone, Proxy does so where the canary predicts about the same classes as the stable one."""
    max_duration: LongDuration = "168h"
    """How long the canary is tried. Then, if neither has been shown, it is Inconclusive and waits for a person."""
    affinity_header: str | None = Field(default=None, max_length=64, pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$")
    """Request header, in small letters, whose value decides who answers: the same value, the same revision."""


class Rollout(Model):
    """How a new revision replaces the one in service."""

    paused: bool = False
    """Stop the rollout at its present step and keep serving."""
    strategy: Literal["Direct", "Canary"] = "Direct"
    """Direct replaces replicas one after another, with a free GPU beside the old ones, otherwise in place. Canary tries
    the new revision on a share of the traffic first, goes on when it is shown to be not worse, and back when it is
    shown to be worse. It needs the feedback service, whose key the replicas are told with."""
    canary: CanaryOptions | None = None
    """How a canary is tried, with strategy Canary. Absent: as its defaults say."""


class CronJobReference(Model):
    """A CronJob in the ModelDeployment's namespace."""

    name: Name
    """Name of the CronJob."""


class Retraining(Model):
    """What follows when the accuracy of the revision in service has decayed: once for each time it is found."""

    model_config = ConfigDict(json_schema_extra=rules.RETRAINING)

    event_url: str | None = Field(
        default=None, alias="eventURL", min_length=8, max_length=2048, json_schema_extra=rules.EVENT_URL
    )
    """Where a CloudEvent of the type dev.evenkeel.accuracy.alarm is posted to. Its id stays the same when it is sent
    again."""
    cron_job_ref: CronJobReference | None = None
    """CronJob whose Job is started, as kubectl create job --from=cronjob/NAME does; a suspended one serves as the
    template alone. It has to carry the label evenkeel.dev/retrains with this ModelDeployment's name. What its Job
    writes into spec.model is tried as a canary like any other model."""
    max_per_week: int = Field(default=1, ge=1, le=7)
    """How many Jobs are started in seven days at most; one beyond that waits."""


class Resources(Model):
    """CPU and memory of the serving container, as in core/v1. GPUs are asked for under spec.gpu."""

    requests: dict[str, Quantity] = Field(default={}, max_length=8, json_schema_extra=rules.CORE_RESOURCES)
    """Least resources, by name."""
    limits: dict[str, Quantity] = Field(default={}, max_length=8, json_schema_extra=rules.CORE_RESOURCES)
    """Most resources, by name."""


class Batching(Model):
    """How requests share calls of the model."""

    max_size: int | None = Field(default=None, ge=1, le=MOST_ROWS)
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
    """How exactly the model is computed. Auto and FP32: as its file says. BF16 (TorchExport, Keras,
    StateDict) and INT8 (TorchExport with linear layers, on CPUs) change its answers; the server measures by how much,
    and says so in the model's metadata and as the metric model_difference_to_fp32. With other formats they are
    refused."""
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
    retraining: Retraining | None = None
    """What follows when the accuracy of the revision in service has decayed. Absent: it is said, and nothing more."""
    runtime: Runtime = Runtime()
    """The server inside the pods."""
    pod: PodOptions = PodOptions()
    """What else goes into the pods."""
