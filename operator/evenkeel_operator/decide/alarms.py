"""What is an alarm on the accuracy, and how is it told to others: as a CloudEvent, and to the Job that retrains?

An alarm is that the accuracy of a revision has decayed since it came into service. What it was found by (the measure,
the cohort) may change with every label that comes late; the revision and the beginning of its service do not. So they
are its identity: a revision gives one alarm for as long as it serves, whoever finds it, and however often.
"""

from __future__ import annotations

import hashlib

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import GROUP, KIND, PLURAL, VERSION, Object
from evenkeel_operator.api.status import RetrainingStatus
from evenkeel_operator.decide import accuracy, conditions, names, served
from evenkeel_operator.decide.quality.guard import Served
from evenkeel_operator.decide.snapshot import Snapshot

EVENT_TYPE = "dev.evenkeel.accuracy.alarm"
EVENT_CONTENT_TYPE = "application/cloudevents+json"
ENVIRONMENT_PREFIX = "EVENKEEL_"

_ID_DIGITS = 16


def identity(uid: str, since: Served) -> str:
    """Return the identity of the alarm on a revision in service of the ModelDeployment `uid`."""
    text = f"{uid}/{since.revision}/{conditions.timestamp(since.since)}"
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def standing(snapshot: Snapshot, now: str) -> RetrainingStatus | None:
    """Return the alarm that stands now as one that nothing has followed yet, None where there is none.

    What was measured of a revision that has been replaced since says nothing of its successor.
    """
    found = accuracy.decay(snapshot.spec, snapshot.quality)
    if found is None or found.served != served.in_service(snapshot.status):
        return None
    return RetrainingStatus(
        alarm=identity(snapshot.uid, found.served),
        revision=found.served.revision,
        since=conditions.timestamp(found.served.since),
        reason="DriftSuspected" if found.reason == names.Reason.DRIFT_SUSPECTED else "Decayed",
        metric=found.objective.metric,
        **accuracy.bounds(found.objective),
        observed=found.observed,
        began=None if found.began is None else conditions.timestamp(found.began),
        at=now,
        asked=names.revision_name(snapshot.name, snapshot.spec),
    )


def is_over(snapshot: Snapshot, row: RetrainingStatus) -> bool:
    """Return whether another revision has come into service since the alarm, and not because of it."""
    return served.in_service(snapshot.status) != Served(row.revision, parse_time(row.since)) and not was_left(
        snapshot, row
    )


def was_left(snapshot: Snapshot, row: RetrainingStatus) -> bool:
    """Return whether the spec still asks for the revision, and an earlier one serves because of the alarm."""
    left = snapshot.status.reverted
    return left is not None and left.revision == row.revision


def cloud_event(snapshot: Snapshot, row: RetrainingStatus) -> Object:
    """Return the CloudEvent of an alarm: version 1.0 of the specification, in the JSON format.

    Made from what is kept of the alarm, so that one that is sent again is the same.
    """
    data = {
        "namespace": snapshot.namespace,
        "name": snapshot.name,
        "revision": row.revision,
        "reason": row.reason,
        "metric": row.metric,
        "floor": row.floor,
        "ceiling": row.ceiling,
        "observed": row.observed,
        "began": row.began,
        "labelsURL": labels_url(snapshot, row),
    }
    return {
        "specversion": "1.0",
        "id": row.alarm,
        "source": f"/apis/{GROUP}/{VERSION}/namespaces/{snapshot.namespace}/{PLURAL}/{snapshot.name}",
        "type": EVENT_TYPE,
        "subject": f"{KIND}/{snapshot.name}",
        "time": row.at,
        "datacontenttype": "application/json",
        "data": {key: value for key, value in data.items() if value is not None},
    }


def environment(snapshot: Snapshot, row: RetrainingStatus) -> dict[str, str]:
    """Return what the containers of the Job find in their environment; what is not known is absent."""
    revision = snapshot.revision(row.revision)
    found = {
        "NAMESPACE": snapshot.namespace,
        "NAME": snapshot.name,
        "REVISION": row.revision,
        "MODEL_URI": None if revision is None else str(revision.spec["model"]["uri"]),
        "ALARM": row.alarm,
        "ALARM_REASON": row.reason,
        "METRIC": row.metric,
        "FLOOR": None if row.floor is None else f"{row.floor:g}",
        "CEILING": None if row.ceiling is None else f"{row.ceiling:g}",
        "OBSERVED": None if row.observed is None else f"{row.observed:g}",
        "BEGAN": row.began,
        "LABELS_URL": labels_url(snapshot, row),
    }
    return {ENVIRONMENT_PREFIX + key: value for key, value in found.items() if value is not None}


def labels_url(snapshot: Snapshot, row: RetrainingStatus) -> str | None:
    """Return where the labelled predictions since the decay began can be read, None without a feedback service."""
    if snapshot.defaults.feedback is None:
        return None
    since = int(parse_time(row.began or row.since).timestamp())
    base = snapshot.defaults.feedback.url.rstrip("/")
    return f"{base}/v1/labels/{snapshot.namespace}/{snapshot.name}?since={since}"
