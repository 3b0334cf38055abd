"""What is known at this moment?

`freeze` turns the objects of one ModelDeployment, as the cache holds them, into frozen values; nothing below looks
anywhere else. What is not known is `NoSignal`, never zero.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.api.status import OvertakenStatus, Status
from evenkeel_operator.decide import failures, names, trainings, words
from evenkeel_operator.decide.failures import Failure
from evenkeel_operator.decide.trainings import Training
from evenkeel_runtime import contract

if TYPE_CHECKING:
    from evenkeel_operator.decide.accuracy import Quality
    from evenkeel_operator.decide.canary import Judged
    from evenkeel_operator.decide.retraining import Known
    from evenkeel_operator.decide.sizing import Sizing


class NoSignal(enum.Enum):
    """A measurement that does not exist. It is a value of its own: it equals no number and never reads as zero."""

    NO_SIGNAL = "NoSignal"

    def __repr__(self) -> str:
        return "NoSignal"


NO_SIGNAL = NoSignal.NO_SIGNAL


@dataclass(frozen=True, slots=True)
class Feedback:
    """The feedback service that is installed beside the operator, and the master key that it verifies with."""

    url: str
    key_id: int
    master_key: bytes = field(repr=False)
    earlier_keys: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def master_keys(self) -> Mapping[int, bytes]:
        """Every key by its number: older replicas have theirs from an older one."""
        return {**self.earlier_keys, self.key_id: self.master_key}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's settings decide about new revisions. Without `feedback`, no replica has a key."""

    runtime_image: str
    image_pull_policy: str = "IfNotPresent"
    drain_delay_s: int = 5
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """One node's extended resources: what it offers, what the pods bound to it have asked for.

    `schedulable` is false for a node that is cordoned or not ready.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    allocatable: Mapping[str, int]
    requested: Mapping[str, int]
    schedulable: bool = True


Fleet = tuple[NodeGpus, ...]


@dataclass(frozen=True, slots=True)
class Warning:
    """A Kubernetes Event of type Warning about a child: nothing else says that a Job may not create its pod."""

    kind: str
    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod that serves, or is about to. `node` is None while it is not bound, `address` while it has no IP."""

    name: str
    revision: str
    node: str | None
    ready: bool
    terminating: bool
    failure: Failure | None
    address: str | None = None
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    ready_at: datetime | None = None
    """When it became ready the last time; None while it is not."""


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """One revision's ReplicaSet: `replicas` asked for, `observed_replicas` that its controller counts."""

    revision: str
    replicas: int
    observed_replicas: int
    template: Object
    prepared: contract.Prepared | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a revision's prepare Job.

    `report` is None while it runs; a Job that ended and left no readable report has a Failure and no report. It is
    silent when none of its pods says anything: they are gone, or not seen yet.
    """

    name: str
    revision: str
    number: int
    finished_at: datetime | None
    report: contract.Prepared | None
    failure: Failure | None
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A ControllerRevision: what the pods of this revision run, resolved once and kept."""

    name: str
    number: int
    spec: Mapping[str, Any]
    prepared: contract.Prepared
    runtime_image: str
    template: Object


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one plan may know. `unreadable` are the names of ControllerRevisions that say nothing to us."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: Spec
    status: Status
    revisions: tuple[Revision, ...]
    unreadable: tuple[str, ...]
    replica_sets: tuple[ReplicaSet, ...]
    attempts: tuple[Attempt, ...]
    replicas: tuple[Replica, ...]
    fleet: Fleet | NoSignal
    defaults: Defaults
    led_to: str | NoSignal | None = NO_SIGNAL
    """The only revision that the Service leads to at present, None where it leads to all; unknown without a Service."""
    sizing: Sizing | None = None
    """What was measured and decided; None where the spec asks for neither, or nobody has looked yet."""
    quality: Quality | None = None
    """What is known of the answers' quality; None where the spec asks for none, or nobody has looked yet."""
    judged: Judged | None = None
    """What was found out about the canary; None without one, and while nobody has judged it."""
    trainings: tuple[Training, ...] = ()
    retraining: Known | None = None
    """What was found out beside the children; None where the spec asks for nothing, or nobody has looked yet."""
    promoted: str | None = None
    aborted: str | None = None
    """The revision that a person has promoted, or rolled back, whatever its test says; while that holds (words.py)."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What a person has said by annotations, by the annotation's name, whether it still holds or not."""

    @property
    def desired(self) -> int:
        """How many replicas there shall be.

        With spec.scaling the decision's number alone, and until there is one what is there already: a start of the
        operator shrinks nothing.
        """
        scaling = self.spec.scaling
        if scaling is None:
            return self.spec.replicas
        if self.sizing is not None and self.sizing.size is not None:
            return self.sizing.size
        return min(max(self.standing_size, scaling.min_replicas), scaling.max_replicas)

    @property
    def standing_size(self) -> int:
        """How many replicas there were to be by what the cluster holds; spec.replicas before the first."""
        if self.status.last_decisions:
            return self.status.last_decisions[0].to
        beside = self.status.canary_revision
        return sum(s.replicas for s in self.replica_sets if s.revision != beside) or self.spec.replicas

    @property
    def mirrored(self) -> str | None:
        """The canary that is sent copies of requests, which are nobody's demand; None where there is none."""
        kept = self.status.canary
        return self.status.canary_revision if kept is not None and kept.mode == "Mirror" else None

    def revision(self, name: str) -> Revision | None:
        """Return the revision called `name`, or None."""
        return next((r for r in self.revisions if r.name == name), None)

    def replica_set(self, revision: str) -> ReplicaSet | None:
        """Return the ReplicaSet of `revision`, or None."""
        return next((r for r in self.replica_sets if r.revision == revision), None)

    def live(self, revision: str) -> tuple[Replica, ...]:
        """Return the replicas of `revision` that are not on their way out."""
        return tuple(r for r in self.replicas if r.revision == revision and not r.terminating)


def freeze(
    *,
    deployment: Object,
    children: Iterable[Object],
    warnings: Iterable[Warning] = (),
    fleet: Fleet | NoSignal = NO_SIGNAL,
    defaults: Defaults,
) -> Snapshot:
    """Return what is known about `deployment`.

    `children` are its ControllerRevisions, ReplicaSets, Jobs and pods in any order; others are passed over. Raises
    pydantic.ValidationError when the stored spec cannot be read.
    """
    metadata = deployment["metadata"]
    by_kind: dict[str, list[Object]] = {}
    for child in children:
        by_kind.setdefault(child["kind"], []).append(child)
    pods, jobs = by_kind.get("Pod", []), by_kind.get("Job", [])
    told = {(w.kind, w.name): w for w in warnings}
    status = Status.model_validate(deployment.get("status") or {})
    overtaken = status.overtaken or OvertakenStatus()
    annotations = metadata.get("annotations") or {}
    revisions = {o["metadata"]["name"]: _revision(o) for o in by_kind.get("ControllerRevision", [])}
    return Snapshot(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=Spec.model_validate(deployment["spec"]),
        status=status,
        revisions=tuple(sorted((r for r in revisions.values() if r is not None), key=lambda r: r.number)),
        unreadable=tuple(sorted(name for name, r in revisions.items() if r is None)),
        replica_sets=tuple(_replica_set(o, told) for o in by_kind.get("ReplicaSet", [])),
        attempts=tuple(_attempt(o, pods, told) for o in jobs if not _retrains(o)),
        trainings=tuple(_training(o, pods, told) for o in jobs if _retrains(o)),
        replicas=tuple(_replica(o) for o in pods if _is_live_replica(o)),
        fleet=fleet,
        defaults=defaults,
        led_to=_led_to(metadata["name"], by_kind.get("Service", [])),
        promoted=words.about(annotations.get(names.PROMOTE_ANNOTATION), overtaken.promote),
        aborted=words.about(annotations.get(names.ABORT_ANNOTATION), overtaken.abort),
        words={annotation: annotations[annotation] for annotation in names.WORDS if annotation in annotations},
    )


def _label(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(key, ""))


def _led_to(deployment: str, services: Iterable[Object]) -> str | NoSignal | None:
    for service in services:
        if service["metadata"]["name"] == deployment:
            found: str | None = (service["spec"].get("selector") or {}).get(names.REVISION_LABEL)
            return found
    return NO_SIGNAL


def _is_live_replica(pod: Object) -> bool:
    # A pod in phase Failed or Succeeded (evicted, refused by the kubelet) holds nothing; its ReplicaSet replaces it.
    phase = (pod.get("status") or {}).get("phase")
    return _label(pod, names.ROLE_LABEL) == names.SERVE_ROLE and phase not in ("Failed", "Succeeded")


def _replica(pod: Object) -> Replica:
    status = pod.get("status") or {}
    holding = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    ready = "Ready" in holding
    created = pod["metadata"].get("creationTimestamp")
    return Replica(
        name=pod["metadata"]["name"],
        revision=_label(pod, names.REVISION_LABEL),
        node=pod["spec"].get("nodeName"),
        ready=ready,
        terminating="deletionTimestamp" in pod["metadata"],
        failure=None if ready else failures.of_pod(pod),
        address=status.get("podIP"),
        created_at=parse_time(created) if created else None,
        scheduled_at=_since(holding.get("PodScheduled")),
        ready_at=_since(holding.get("Ready")),
    )


def _since(condition: Object | None) -> datetime | None:
    moment = condition.get("lastTransitionTime") if condition is not None else None
    return parse_time(moment) if moment else None


def _replica_set(obj: Object, warnings: Mapping[tuple[str, str], Warning]) -> ReplicaSet:
    status = obj.get("status") or {}
    failure = None
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            failure = failures.of_pod_creation(condition.get("message", ""))
    annotation = (obj["metadata"].get("annotations") or {}).get(names.PREPARED_ANNOTATION, "")
    report = contract.decode(annotation)
    return ReplicaSet(
        revision=_label(obj, names.REVISION_LABEL),
        replicas=int(obj["spec"].get("replicas", 1)),
        observed_replicas=int(status.get("replicas", 0)),
        template=obj["spec"]["template"],
        prepared=report if isinstance(report, contract.Prepared) else None,
        failure=failure,
    )


def _attempt(job: Object, pods: Iterable[Object], warnings: Mapping[tuple[str, str], Warning]) -> Attempt:
    name = job["metadata"]["name"]
    own = _pods_of(job, pods)
    report: contract.Prepared | None = None
    failure: Failure | None = None
    for pod in own:
        match failures.report_of(pod):
            case contract.Prepared() as prepared:
                report = prepared
            case _:
                failure = failures.of_pod(pod) or failure
    finished_at, is_silent = None, False
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            finished_at = parse_time(condition["lastTransitionTime"])
            if report is None and failure is None:
                failure, is_silent = failures.no_report(condition.get("message", "")), True
    if not own and finished_at is None and (told := warnings.get(("Job", name))) is not None:
        failure = failures.of_pod_creation(told.message)
    return Attempt(
        name=name,
        revision=_label(job, names.REVISION_LABEL),
        number=int((job["metadata"].get("annotations") or {}).get(names.ATTEMPT_ANNOTATION, "1")),
        finished_at=finished_at,
        report=report if finished_at is not None else None,
        failure=None if report is not None else failure,
        is_silent=is_silent,
    )


def _retrains(job: Object) -> bool:
    return _label(job, names.ROLE_LABEL) == names.RETRAIN_ROLE


def _training(job: Object, pods: Iterable[Object], warnings: Mapping[tuple[str, str], Warning]) -> Training:
    told = warnings.get(("Job", job["metadata"]["name"]))
    return trainings.training(job, _pods_of(job, pods), "" if told is None else told.message)


def _pods_of(job: Object, pods: Iterable[Object]) -> list[Object]:
    uid = job["metadata"]["uid"]
    return [p for p in pods if any(o["uid"] == uid for o in p["metadata"].get("ownerReferences") or ())]


def _revision(obj: Object) -> Revision | None:
    """Return what `obj` pins, or None where this operator cannot read it: a later one, or a person, wrote it."""
    data = obj.get("data") or {}
    prepared = contract.decode(json.dumps(data.get("model")))
    if not isinstance(prepared, contract.Prepared) or not {"spec", "runtimeImage", "template"} <= data.keys():
        return None
    return Revision(
        name=obj["metadata"]["name"],
        number=int(obj["revision"]),
        spec=data["spec"],
        prepared=prepared,
        runtime_image=data["runtimeImage"],
        template=data["template"],
    )
