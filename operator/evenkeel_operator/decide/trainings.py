"""What do Kubernetes' objects say of retraining: what may a Job be made from, and how does one stand?

The template is a CronJob's, in the namespace of the ModelDeployment, as `kubectl create job --from=cronjob/NAME` takes
it. Whoever wrote it had the right to run its pods, under its service account; the operator lends nobody that right. And
it says itself, by a label, for which ModelDeployment it may be started: otherwise whoever may edit a ModelDeployment
could start any CronJob of the namespace at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from evenkeel_operator.api.core import Object, parse_time
from evenkeel_operator.api.modeldeployment import GROUP
from evenkeel_operator.decide import names
from evenkeel_operator.decide.names import Reason

_OURS = (f"{GROUP}/", names.MANAGED_BY_LABEL)
_LEFT_OUT = frozenset({"selector", "manualSelector", "ttlSecondsAfterFinished"})
"""Of a Job's spec: what belongs to one Job alone, and what would take a Job away before its end is written down."""


@dataclass(frozen=True, slots=True)
class Training:
    """A Job that retrains a model because of an alarm.

    `ended_at` is None while it runs. `trouble`: why it failed, or is not getting on; empty where nothing is known.
    """

    name: str
    created_at: datetime
    ended_at: datetime | None = None
    is_complete: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """What a Job is made from: the labels and annotations that it has, and its spec with those of its pods."""

    cron_job: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Object


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why no Job can be started: `reason` in a word, `message` with what to do."""

    reason: Reason
    message: str


def template(name: str, cron_job: Object | None, deployment: str, namespace: str) -> Template | Unusable:
    """Return what the Jobs of `deployment` are made from: the CronJob called `name`, None where there is none."""
    if cron_job is None:
        return Unusable(
            Reason.CRON_JOB_MISSING,
            f"there is no CronJob {name} in namespace {namespace}: create it, suspended if it shall not run by the "
            "clock, or correct spec.retraining.cronJobRef",
        )
    if (cron_job["metadata"].get("labels") or {}).get(names.RETRAINS_LABEL) != deployment:
        return Unusable(
            Reason.CRON_JOB_NOT_MEANT,
            f"CronJob {name} does not say that it may be started for this ModelDeployment. If it may: "
            f"kubectl label cronjob/{name} -n {namespace} {names.RETRAINS_LABEL}={deployment}",
        )
    job = cron_job["spec"]["jobTemplate"]
    pod = job["spec"]["template"]
    spec = {key: value for key, value in job["spec"].items() if key not in _LEFT_OUT}
    spec["template"] = {"metadata": _metadata(pod), "spec": pod["spec"]}
    return Template(name, **_metadata(job), spec=spec)


def training(job: Object, pods: Iterable[Object], warning: str) -> Training:
    """Return how `job` stands; `pods` are its own, `warning` is what an Event says of it."""
    metadata = job["metadata"]
    ended_at, is_complete, said = None, False, ""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            ended_at, is_complete = parse_time(condition["lastTransitionTime"]), condition["type"] == "Complete"
            said = condition.get("message", "")
    troubles = [found for pod in sorted(pods, key=_created) if (found := _trouble(pod))]
    trouble = troubles[-1] if troubles else said or warning
    return Training(
        name=metadata["name"],
        created_at=parse_time(metadata["creationTimestamp"]),
        ended_at=ended_at,
        is_complete=is_complete,
        trouble="" if is_complete else trouble,
    )


def _metadata(obj: Object) -> dict[str, dict[str, str]]:
    """Return labels and annotations, without those whose names are the operator's to give."""
    metadata = obj.get("metadata") or {}
    return {
        part: {key: value for key, value in (metadata.get(part) or {}).items() if not key.startswith(_OURS)}
        for part in ("labels", "annotations")
    }


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _trouble(pod: Object) -> str:
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return _words(f"container {container['name']} waits, {waiting['reason']}", waiting.get("message"))
        if ended.get("exitCode"):
            last_line = (ended.get("message") or "").strip().rsplit("\n", 1)[-1]
            return _words(f"container {container['name']} ended with exit code {ended['exitCode']}", last_line)
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _words("its pod is not scheduled", condition.get("message"))
    return ""


def _words(what: str, detail: str | None) -> str:
    return f"{what}: {detail}" if detail else what
