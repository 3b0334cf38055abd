"""What does the status of a ModelDeployment answer?

The docstrings of the fields are the descriptions that `kubectl explain` prints. The API server does not judge what the
operator writes here: bounds are for reading, and for the size of the schema.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evenkeel_operator.api.core import ATOMIC, Model, map_by


def told_bound(floor: float | None, ceiling: float | None) -> str:
    """Return the one of the two that there is, as it is told."""
    return f"ceiling {ceiling:g}" if ceiling is not None else "no floor" if floor is None else f"floor {floor:g}"


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


class AlarmStatus(Model):
    """The last alarm on one measure of a revision: that it had decayed."""

    revision: str
    """The revision."""
    since: str = Field(json_schema_extra={"format": "date-time"})
    """Since when it serves."""
    reason: Literal["Decayed", "DriftSuspected"]
    """Whether the revision has decayed, or the data seem to have changed."""
    began: str = Field(json_schema_extra={"format": "date-time"})
    """When the decay began."""
    raised: str = Field(json_schema_extra={"format": "date-time"})
    """When the labels had shown it."""
    resolved: str | None = Field(None, json_schema_extra={"format": "date-time"})
    """When it was over: the metric was shown to be above its floor again, or a person acknowledged the alarm. Absent
    while it stands."""


class ClassCoverage(Model):
    """One predicted class, and which share of its predictions has a label."""

    class_: str = Field(alias="class")
    """The class, by its name, or its number where classes have none."""
    share: float
    """The share."""


class CoverageStatus(Model):
    """How many predictions of the stable revision have a label, of those whose labels are no longer waited for."""

    share: float
    """Of all predictions."""
    least: ClassCoverage
    """The predicted class that is labelled least."""
    most: ClassCoverage
    """The predicted class that is labelled most."""
    skewed: bool
    """Whether one class is labelled so much more often than another that the plain value may mislead."""
    weighted: float | None = None
    """Where it is skewed: the value with each label weighing as many predictions as it stands for, capped. It is told,
    and nothing is decided by it."""


class AccuracyStatus(Model):
    """One measure of quality of the stable revision, over the labels that count."""

    metric: str
    """What is measured."""
    state: Literal["Fresh", "Stale", "NoLabels", "NoMetrics"]
    """Whether there is a measurement: of now, an old one because the feedback service does not answer, none because no
    label counts yet, or none at all."""
    observed: float | None = None
    """The measured value; absent where there is none."""
    lower: float | None = None
    """Lower bound of the interval that holds the true value at all times at once, with 95 %."""
    upper: float | None = None
    """Upper bound of that interval."""
    labels: int | None = None
    """How many labels it is measured over."""
    floor: float | None = None
    """What it shall not fall below; absent of an error."""
    ceiling: float | None = None
    """What it shall not rise above; absent of a share."""
    limit: str | None = Field(default=None, max_length=32)
    """Floor or ceiling, as the FLOOR column shows it."""
    coverage: CoverageStatus | None = None
    """Which share of the predictions has a label, and whether the labels stand for the others."""
    alarm: AlarmStatus | None = None
    """The last alarm on this measure since the revision serves; it stays when its labels are looked at no longer."""
    as_of: str = Field(json_schema_extra={"format": "date-time"})
    """When it was measured."""

    @property
    def bound(self) -> str:
        """Its floor or ceiling, as it is told."""
        return told_bound(self.floor, self.ceiling)


class CanaryStatus(Model):
    """The canary under test, or the verdict on the last one."""

    revision: str
    """Revision under test."""
    stable: str
    """Revision it is compared with."""
    state: Literal["Pending", "Warming", "Canary", "Promoted", "RolledBack", "Held", "Inconclusive"]
    """Where it stands. Promoted and RolledBack are final."""
    why: str
    """Why it stands there, in one word."""
    summary: str = Field(max_length=64)
    """Where it stands, as the CANARY column shows it."""
    mode: Literal["Mirror", "Split"]
    """Whether it is sent copies, or answers its share of the requests."""
    weight: int
    """Percent of the requests that are its, now."""
    lent: int = 0
    """Replicas of the stable revision that have made room for it."""
    steps_began: tuple[str, ...] = Field(default=(), max_length=20, json_schema_extra=ATOMIC)
    """When each step so far began."""
    began: str = Field(json_schema_extra={"format": "date-time"})
    """When the test began to be prepared."""
    decided: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """When the verdict fell; absent while there is none."""
    samples: int | None = None
    """Samples of its answers since the step began."""
    labels: int | None = None
    """Labels of its predictions that count."""
    story: tuple[str, ...] = Field(default=(), max_length=32, json_schema_extra=ATOMIC)
    """What is known, in sentences with the numbers."""


class ServedStatus(Model):
    """One revision that was in full service."""

    revision: str
    """Name of the revision."""
    since: str = Field(json_schema_extra={"format": "date-time"})
    """From when on."""
    until: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """Until when; absent while it serves."""
    decayed: bool = False
    """Whether it was left because its accuracy had decayed."""


class RevertedStatus(Model):
    """A revision that the spec asks for and that was left for an earlier one."""

    revision: str
    """The one that was left."""
    to: str
    """The one that serves instead."""
    at: str = Field(json_schema_extra={"format": "date-time"})
    """When that was decided."""


class OvertakenStatus(Model):
    """What a person has said by annotations, and what holds no more."""

    promote: str | None = None
    """The annotation evenkeel.dev/promote, where the revision that it names has come into full service since, or the
    spec has asked for another one. Another text after an @ says it anew: REVISION@ANYTHING."""
    abort: str | None = None
    """The annotation evenkeel.dev/abort, likewise."""


class RetrainingStatus(Model):
    """One alarm: that the accuracy of a revision in service had decayed, and what followed."""

    alarm: str
    """Identity of the alarm: the same for as long as the revision is in service."""
    revision: str
    """Revision whose accuracy had decayed."""
    since: str = Field(json_schema_extra={"format": "date-time"})
    """From when on it had been in service."""
    reason: Literal["Decayed", "DriftSuspected"]
    """Whether the revision seems to be at fault, or the data seem to have changed."""
    metric: str
    """Which measure it was found by."""
    floor: float | None = None
    """What that was not to fall below; absent of an error."""
    ceiling: float | None = None
    """What that was not to rise above; absent of a share."""
    observed: float | None = None
    """What it was over all labels then; absent where it was not known."""
    began: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """From when on the labels speak for a decay."""
    at: str = Field(json_schema_extra={"format": "date-time"})
    """When it was found."""
    asked: str
    """Revision that the spec asked for then."""
    event: Literal["Pending", "Delivered", "GivenUp"] | None = None
    """What became of the CloudEvent; absent where none was asked for."""
    event_message: str | None = Field(default=None, max_length=512)
    """Why it is not delivered yet, or never will be."""
    state: Literal["Waiting", "Starting", "Running", "Succeeded", "Failed", "Superseded"] | None = None
    """What became of the Job; absent where none was asked for. Superseded: it was not needed any more."""
    message: str | None = Field(default=None, max_length=1024)
    """What it waits for, or why it failed or was not needed."""
    job: str | None = None
    """Name of the Job; absent while it waits."""
    started: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """When it was started."""
    ended: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    """When it ended."""
    successor: str | None = None
    """The first other revision that the spec asked for after the Job was started."""

    @property
    def bound(self) -> str:
        """Its floor or ceiling, as it is told."""
        return told_bound(self.floor, self.ceiling)


class RevisionStatus(Model):
    """One revision that has replicas or is about to."""

    name: str
    """Name of its ControllerRevision and its ReplicaSet."""
    role: Literal["Target", "Stable", "Canary", "Old"]
    """Target is what the spec asks for, Stable the last one that was in full service, Canary the one under test, Old
    any other that still has replicas."""
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
    canary_revision: str | None = None
    """The revision under test; absent while there is none."""
    canary: CanaryStatus | None = None
    """The canary under test, or the verdict on the last one."""
    reverted: RevertedStatus | None = None
    """What the spec asks for and was left, as its accuracy had decayed; absent while there is no such thing."""
    overtaken: OvertakenStatus | None = None
    """Which annotations of a person hold no more; absent while all do, or there are none."""
    served: tuple[ServedStatus, ...] | None = Field(default=None, max_length=10, json_schema_extra=ATOMIC)
    """The newest revisions that were in full service, the present one first."""
    revisions: tuple[RevisionStatus, ...] | None = Field(default=None, json_schema_extra=map_by("name"))
    """Revisions that have replicas or are about to."""
    latency: tuple[LatencyStatus, ...] | None = Field(default=None, json_schema_extra=map_by("metric"))
    """Latencies that have an objective, as measured."""
    accuracy: tuple[AccuracyStatus, ...] | None = Field(default=None, json_schema_extra=map_by("metric"))
    """Measures of quality that have an objective, as measured."""
    retraining: tuple[RetrainingStatus, ...] | None = Field(default=None, max_length=10, json_schema_extra=ATOMIC)
    """The newest alarms on the accuracy and what followed from each, the latest first."""
    last_decisions: tuple[DecisionStatus, ...] | None = Field(default=None, max_length=5, json_schema_extra=ATOMIC)
    """The newest decisions on the number of replicas, the latest first, with what each was made from."""
    conditions: tuple[Condition, ...] | None = Field(default=None, json_schema_extra=map_by("type"))
    """Ready, Reconciling and Stalled as kstatus reads them; Available; LatencyMet and AccuracyMet where there is such
    an objective, Scalable and Retrainable where that is asked for; RuntimeOutdated and RolledBack where they hold."""
