"""Why is this pod not running? From what Kubernetes says of it to one reason and a sentence that says what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.names import Reason
from evenkeel_runtime import contract

PERMANENT = frozenset(
    {
        contract.Reason.MODEL_NOT_FOUND,
        contract.Reason.MODEL_CHANGED,
        contract.Reason.ACCESS_DENIED,
        contract.Reason.CHECKSUM_MISMATCH,
        contract.Reason.FORMAT_REFUSED,
        contract.Reason.LOAD_FAILED,
        contract.Reason.OUT_OF_MEMORY,
        contract.Reason.DISK_FULL,
        contract.Reason.INVALID,
        Reason.QUOTA_EXCEEDED,
    }
)
"""Reasons that time alone does not cure: somebody has to change something."""

_IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_PREPARE_RETRY_FIRST = timedelta(seconds=10)
_PREPARE_RETRY_MOST = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Failure:
    """One cause: `reason` is a word, `message` says what is wrong and what to do."""

    reason: str
    message: str

    @property
    def is_permanent(self) -> bool:
        """Whether somebody has to change something before it can get better."""
        return self.reason in PERMANENT


def of_pod(pod: Object) -> Failure | None:
    """Return why `pod` is not running, or None while nothing speaks against it.

    The order matters: what the runtime reported of itself says more than the restart policy's view of the same exit.
    """
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        if (found := _of_container(container)) is not None:
            return found
    for condition in status.get("conditions") or ():
        is_refused = condition["type"] == "PodScheduled" and condition["status"] == "False"
        if is_refused and condition.get("reason") in ("Unschedulable", "SchedulerError"):
            return _unschedulable(condition.get("message", ""))
    if status.get("phase") == "Failed":
        detail = status.get("message") or status.get("reason") or "no reason given"
        return Failure(Reason.CRASH_LOOPING, f"Kubernetes ended the pod: {detail}")
    return None


def report_of(pod: Object) -> contract.Prepared | contract.Failed | None:
    """Return what the pod's last ended container wrote as its report, or None."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended and (report := contract.decode(ended.get("message", ""))) is not None:
            return report
    return None


def of_pod_creation(message: str) -> Failure:
    """Return why a controller may not create a pod, from the API server's words."""
    return _refused("the pod", message, "Raise the quota, free some of it, or lower spec.runtime.resources.")


def of_write(what: str, message: str) -> Failure:
    """Return why `what`, a kind and its name, may not be written, from the API server's words."""
    return _refused(what, message, "Raise the quota, or free some of it.")


def no_report(message: str) -> Failure:
    """Return the failure of a prepare Job that ended without a readable report."""
    return Failure(
        contract.Reason.SOURCE_UNAVAILABLE,
        f"the prepare Job ended without a report ({message or 'its pod is gone'})",
    )


def prepare_retry_delay(failure: Failure, attempt: int) -> timedelta:
    """Return how long to wait before the prepare Job that failed for the `attempt`-th time runs again.

    Bytes that are there and wrong are looked at again at the slowest pace only: fetching them again costs most and
    seldom helps.
    """
    if failure.reason in (contract.Reason.CHECKSUM_MISMATCH, contract.Reason.FORMAT_REFUSED):
        return _PREPARE_RETRY_MOST
    factor: int = 2 ** min(attempt - 1, 10)
    return min(_PREPARE_RETRY_FIRST * factor, _PREPARE_RETRY_MOST)


def is_over(finished_at: datetime, delay: timedelta, now: datetime) -> bool:
    """Return whether `delay` has passed since `finished_at`."""
    return now >= finished_at + delay


def _refused(what: str, message: str, if_quota: str) -> Failure:
    words = message.split("is forbidden: ", 1)[-1]
    if "exceeded quota" in message or "must specify" in message:
        return Failure(Reason.QUOTA_EXCEEDED, f"the namespace's ResourceQuota refuses {what}: {words}. {if_quota}")
    return Failure(contract.Reason.INVALID, f"the API server refuses {what}: {words}")


def _of_container(container: Object) -> Failure | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, detail = waiting.get("reason", ""), waiting.get("message", "")
    image = container.get("image", "")
    if reason in _IMAGE_REASONS:
        return Failure(
            Reason.IMAGE_PULL_FAILED,
            f"image {image} cannot be pulled ({detail or reason}). "
            "Check its name and spec.pod.imagePullSecrets, or load it onto the nodes.",
        )
    if reason in _CONFIG_REASONS:
        return _of_configuration(detail)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not ended or (ended.get("exitCode") == 0 and ended.get("reason") == "Completed"):
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure(
            contract.Reason.OUT_OF_MEMORY,
            f"container {container['name']} was killed for using more memory than its limit. "
            "Raise spec.runtime.resources.limits.memory.",
        )
    report = contract.decode(ended.get("message", ""))
    if isinstance(report, contract.Failed):
        return Failure(report.reason, report.message)
    last_line = (ended.get("message") or "").strip().rsplit("\n", 1)[-1]
    count = container.get("restartCount", 0)
    return Failure(
        Reason.CRASH_LOOPING,
        f"container {container['name']} ended with exit code {ended.get('exitCode')} after {count} restarts"
        + (f": {last_line}" if last_line else "; its log says more (kubectl logs --previous)"),
    )


def _of_configuration(detail: str) -> Failure:
    if (found := re.search(r'secret "([^"]+)" not found', detail)) is not None:
        return Failure(
            contract.Reason.ACCESS_DENIED,
            f"Secret {found[1]} does not exist in this namespace. Create it, or correct spec.model.secretName.",
        )
    return Failure(contract.Reason.INVALID, f"the container cannot be created: {detail}")


def _unschedulable(detail: str) -> Failure:
    if (found := re.search(r'persistentvolumeclaim "([^"]+)" not found', detail)) is not None:
        return Failure(
            contract.Reason.MODEL_NOT_FOUND,
            f"PersistentVolumeClaim {found[1]} does not exist in this namespace. "
            "Create it, or correct the claim in spec.model.uri (pvc://CLAIM/PATH).",
        )
    return Failure(Reason.UNSCHEDULABLE, detail)
