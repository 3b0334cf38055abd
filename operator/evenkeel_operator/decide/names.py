"""What is everything called: labels, children, reasons?"""

from __future__ import annotations

import enum
import hashlib
import json

from evenkeel_operator.api.modeldeployment import GROUP, Spec

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "evenkeel"
DEPLOYMENT_LABEL = f"{GROUP}/modeldeployment"
REVISION_LABEL = f"{GROUP}/revision"
ROLE_LABEL = f"{GROUP}/role"
SERVE_ROLE = "serve"
PREPARE_ROLE = "prepare"
RETRAIN_ROLE = "retrain"
ATTEMPT_ANNOTATION = f"{GROUP}/attempt"
ALARM_ANNOTATION = f"{GROUP}/alarm"
RETRAINS_LABEL = f"{GROUP}/retrains"
"""On a CronJob: the ModelDeployment for which its Job may be started."""
PREPARED_ANNOTATION = f"{GROUP}/prepared"
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
"""Of several replicas that could go, a ReplicaSet's controller takes the one with the lowest."""

PROMOTE_ANNOTATION = f"{GROUP}/promote"
ABORT_ANNOTATION = f"{GROUP}/abort"
"""On the ModelDeployment: the revision that a person promotes, or rolls back, whatever its test says (`words.py`)."""
ACKNOWLEDGE_ANNOTATION = f"{GROUP}/acknowledge"
"""On the ModelDeployment: a time; whatever alarm on the accuracy was raised until then stands no longer."""
WORDS = (PROMOTE_ANNOTATION, ABORT_ANNOTATION, ACKNOWLEDGE_ANNOTATION)

FIELD_MANAGER = "evenkeel"
STATUS_FIELD_MANAGER = "evenkeel-status"


class Reason(enum.StrEnum):
    """The word in the REASON column: what a ModelDeployment is doing, or why it cannot."""

    # All is well.
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    # On the way.
    PREPARING = "Preparing"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    SCALING = "Scaling"
    # Waiting for a person or a GPU.
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_BLOCKED_NO_GPU = "RolloutBlockedNoGPU"
    RUNTIME_OUTDATED = "RuntimeOutdated"
    # Failures that Kubernetes tells; those of the runtime's own are `contract.Reason`.
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_REPLICA = "NoReplica"
    # Why the latency is held or not, or is not known.
    WITHIN_TARGET = "WithinTarget"
    ABOVE_TARGET = "AboveTarget"
    NO_TRAFFIC = "NoTraffic"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    # Why the size follows the demand, or does not.
    AS_NEEDED = "AsNeeded"
    SIGNALS_REFUSED = "SignalsRefused"
    REPLICAS_SILENT = "ReplicasSilent"
    SLO_UNATTAINABLE = "SLOUnattainable"
    GPU_CAPACITY_LIMITED = "GPUCapacityLimited"
    MAX_REPLICAS = "MaxReplicas"
    # Where a canary's test stands, and what it came to.
    CANARY_STARTING = "CanaryStarting"
    CANARY_RUNNING = "CanaryRunning"
    CANARY_HELD = "CanaryHeld"
    CANARY_INCONCLUSIVE = "CanaryInconclusive"
    CANARY_UNTOLD = "CanaryNeedsFeedback"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    # Why the accuracy is held or not, or is not known.
    ABOVE_FLOOR = "AboveFloor"
    BELOW_FLOOR = "BelowFloor"
    LABELS_MISSING = "LabelsMissing"
    DECAYED = "Decayed"
    DRIFT_SUSPECTED = "DriftSuspected"
    NOT_PROVEN = "NotProven"
    CANNOT_BE_JUDGED = "CannotBeJudged"
    # Whether a Job can be started when the accuracy decays.
    CRON_JOB_AT_HAND = "CronJobAtHand"
    CRON_JOB_MISSING = "CronJobMissing"
    CRON_JOB_NOT_MEANT = "CronJobNotMeant"
    NOT_LOOKED_AT = "NotLookedAt"
    # What is told in Events only.
    ACCURACY_ALARM = "AccuracyAlarm"
    ALARM_NOT_DELIVERED = "AlarmNotDelivered"
    RETRAINING_WAITS = "RetrainingWaits"
    RETRAINING_STARTED = "RetrainingStarted"
    RETRAINED = "Retrained"
    RETRAINING_FAILED = "RetrainingFailed"
    SCALED = "Scaled"
    CANARY_STEP = "CanaryStep"
    REPLICAS_IGNORED = "ReplicasIgnored"


def revision_name(deployment: str, spec: Spec) -> str:
    """Return the name of the revision that `spec` asks for: the same spec always gives the same name.

    Only what decides the pods counts (`revision_spec`), and only what differs from a default, so that a field that a
    later version adds changes no name and restarts no pod.
    """
    canonical = json.dumps(revision_spec(spec), sort_keys=True, separators=(",", ":"))
    return f"{deployment}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def revision_spec(spec: Spec) -> dict[str, object]:
    """Return the part of `spec` that decides what the pods are, as JSON, without defaults."""
    return spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include={"model", "gpu", "runtime", "pod"}
    )


def memory_name(deployment: str) -> str:
    """Return the name of the ConfigMap that keeps what the decisions about `deployment` remember."""
    return f"{deployment}-evenkeel-memory"


def trial_name(deployment: str) -> str:
    """Return the name of the ConfigMap that keeps how `deployment`'s canary and stable revision have answered."""
    return f"{deployment}-evenkeel-canary"


def prepare_job_name(revision: str, attempt: int) -> str:
    """Return the name of the Job that prepares `revision` for the `attempt`-th time, counted from 1."""
    return f"{revision}-prepare-{attempt}"


def retraining_job_name(deployment: str, alarm: str) -> str:
    """Return the name of the Job that `alarm` starts; of one alarm there is one at most."""
    return f"{deployment}-retrain-{alarm[:12]}"


def receipt_secret_name(deployment: str, uid: str, key_id: int) -> str:
    """Return the name of the Secret with the key of `deployment`'s receipts.

    An object created anew has another uid, hence another key; its Secret must not meet the one that still waits to be
    collected with the old object.
    """
    return f"{deployment}-receipts-{hashlib.sha256(f'{uid}/{key_id}'.encode()).hexdigest()[:8]}"


def labels(deployment: str, revision: str | None = None, role: str | None = None) -> dict[str, str]:
    """Return the labels of a child of `deployment`."""
    found = {MANAGED_BY_LABEL: MANAGED_BY, DEPLOYMENT_LABEL: deployment}
    if revision is not None:
        found[REVISION_LABEL] = revision
    if role is not None:
        found[ROLE_LABEL] = role
    return found


def replica_selector(deployment: str) -> dict[str, str]:
    """Return the labels that select every replica of `deployment`, of whatever revision."""
    return {DEPLOYMENT_LABEL: deployment, ROLE_LABEL: SERVE_ROLE}
