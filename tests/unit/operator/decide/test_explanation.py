"""Does the explanation say what the status says, with its numbers and how old they are?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide.explanation import LIMITS, explanation
from evenkeel_operator.decide.replicas import Limit

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATENCY = {"metric": "EndToEnd", "quantile": 0.95, "target": "200ms"}
MODEL = {"uri": "s3://models/digits/v3"}
PLAIN = Spec.model_validate({"model": MODEL, "replicas": 2})
NAMED = Spec.model_validate({"model": MODEL, "replicas": 2, "objectives": {"latency": [LATENCY]}})
SCALED = Spec.model_validate(
    {"model": MODEL, "scaling": {"minReplicas": 1, "maxReplicas": 8}, "objectives": {"latency": [LATENCY]}}
)


def condition(type_: str, status: str, reason: str, message: str, since: str = "2026-03-01T09:00:00Z") -> Any:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


READY = condition("Ready", "True", "Serving", "3 of 3 replicas of revision digits-6b8f answer")
MET = condition("LatencyMet", "True", "WithinTarget", "p95 was 143ms over the last minute, target 200ms")
NEEDED = condition("Scalable", "True", "AsNeeded", "3 replicas (Demand): 41.2 requests/s now, at 18.4 for a replica")
DECISION = {
    "time": "2026-03-01T11:56:00Z",
    "from": 2,
    "to": 3,
    "limit": "Demand",
    "message": "41.2 requests/s now, at 18.4 for a replica",
    "inputs": [
        {"name": "demand", "value": 41.2, "state": "Fresh", "ageSeconds": 1.2},
        {"name": "queued", "value": 3, "state": "Stale", "ageSeconds": 20.0},
        {"name": "latency", "value": 0.143, "state": "Fresh", "ageSeconds": 0.4},
        {"name": "ready replicas", "value": 2, "state": "Fresh", "ageSeconds": 0.0},
        {"name": "cold start", "value": 21, "state": "Fresh", "ageSeconds": 0.0},
        {"name": "capacity of a replica", "value": 18.4, "state": "Fresh", "ageSeconds": 45.0},
        {"name": "replicas with a free GPU", "state": "NoMetrics"},
    ],
}


def told(spec: Spec, **status: Any) -> str:
    return "\n".join(explanation("team-a/digits", spec, Status.model_validate(status), NOW))


def test_the_whole_story_of_one_that_follows_its_load() -> None:
    got = told(
        SCALED,
        conditions=[READY, MET, NEEDED],
        latency=[{**LATENCY, "state": "Fresh", "observed": "143ms", "asOf": "2026-03-01T11:59:48Z"}],
        lastDecisions=[DECISION],
        stableRevision="digits-6b8f",
        model={"resolved": MODEL["uri"], "digest": "sha256:ab", "format": "TorchExport"},
        revisions=[
            {"name": "digits-6b8f", "role": "Stable", "replicas": 3, "readyReplicas": 3},
            {"name": "digits-91cc", "role": "Target", "replicas": 1, "readyReplicas": 0},
        ],
    )
    assert got == (
        "team-a/digits has been ready for 3 hours. Serving: 3 of 3 replicas of revision digits-6b8f answer.\n"
        "Latency: held. p95 was 143ms over the last minute, target 200ms. Looked at 12 s ago.\n"
        "Size: between 1 and 8 replicas, and it follows the demand (AsNeeded). 3 replicas (Demand): 41.2 requests/s "
        "now, at 18.4 for a replica.\n"
        "Changes of the size, the latest first:\n"
        "  4 minutes ago, from 2 to 3 replicas: the demand asked for it. 41.2 requests/s now, at 18.4 for a replica.\n"
        "    Known then: demand 41.2 requests/s, 1 s old; queued 3 requests, 20 s old, too old to speak for that "
        "moment; latency 143ms, 0.4 s old; ready replicas 2; cold start 21 s; "
        "capacity of a replica 18.4 requests/s, 45 s old; "
        "replicas with a free GPU: not known.\n"
        "Revisions:\n"
        "  digits-6b8f (stable): 3 of 3 replicas ready, s3://models/digits/v3\n"
        "  digits-91cc (target): 0 of 1 replica ready"
    )


@pytest.mark.parametrize(
    ("spec", "status", "want"),
    [
        pytest.param(
            PLAIN, {}, "team-a/digits has no status yet: no operator has looked at it.", id="nobody has looked"
        ),
        pytest.param(
            PLAIN,
            {"conditions": [condition("Ready", "False", "Preparing", "the model is resolved", "2026-03-01T11:59:30Z")]},
            "has not been ready for 30 s, and is on its way. Preparing: the model is resolved.",
            id="on its way",
        ),
        pytest.param(
            PLAIN,
            {
                "conditions": [
                    condition("Ready", "False", "CrashLooping", "exit code 1. Look at its log!"),
                    condition("Stalled", "True", "CrashLooping", "exit code 1"),
                ]
            },
            "has not been ready for 3 hours, and does not go on by itself. CrashLooping: exit code 1. Look at its log!",
            id="stalled, with what to do",
        ),
        pytest.param(PLAIN, {}, "Latency: spec.objectives.latency names none", id="no latency is named"),
        pytest.param(NAMED, {}, "Latency: nobody has looked at it yet.", id="a latency that is new"),
        pytest.param(
            NAMED,
            {"conditions": [condition("LatencyMet", "Unknown", "MetricsStale", "no replica answers")]},
            "Latency: not known. no replica answers.",
            id="a latency that nobody knows is neither held nor missed",
        ),
        pytest.param(
            NAMED,
            {"conditions": [condition("LatencyMet", "False", "AboveTarget", "p95 was 300ms")]},
            "Latency: not held. p95 was 300ms.",
            id="a latency that is missed",
        ),
        pytest.param(NAMED, {}, "Size: spec.replicas says 2; without spec.scaling", id="a size that others set"),
        pytest.param(SCALED, {}, "Size: between 1 and 8 replicas; nothing is decided yet.", id="nothing decided yet"),
        pytest.param(
            SCALED,
            {"conditions": [condition("Scalable", "False", "SLOUnattainable", "more of them do not help")]},
            "it cannot follow the demand now (SLOUnattainable). more of them do not help.",
            id="a size that cannot follow",
        ),
        pytest.param(
            SCALED,
            {"lastDecisions": [{**DECISION, "limit": "SomethingNew", "inputs": []}]},
            "from 2 to 3 replicas: it was bound by SomethingNew. 41.2 requests/s",
            id="a limit of a later release",
        ),
        pytest.param(
            SCALED,
            {"lastDecisions": [{**DECISION, "inputs": [{"name": "demand", "state": "NoTraffic", "ageSeconds": 1}]}]},
            "Known then: demand: no request came.",
            id="no traffic is no zero",
        ),
        pytest.param(
            PLAIN,
            {"conditions": [condition("RuntimeOutdated", "True", "RuntimeOutdated", "runtime 2 is current")]},
            "RuntimeOutdated (RuntimeOutdated): runtime 2 is current.",
            id="what else holds",
        ),
        pytest.param(
            PLAIN,
            {"conditions": [condition("AccuracyMet", "False", "BelowFloor", "F1 is 0.87, floor 0.92")]},
            "AccuracyMet does not hold (BelowFloor): F1 is 0.87, floor 0.92.",
            id="what else does not",
        ),
    ],
)
def test_part(spec: Spec, status: dict[str, Any], want: str) -> None:
    assert want in told(spec, **status)


def test_a_canarys_verdict_is_told_with_its_story() -> None:
    row = {
        "revision": "digits-2", "stable": "digits-1", "state": "Canary", "why": "Testing", "summary": "1/3 10%",
        "mode": "Split", "weight": 10, "began": "2026-03-01T10:00:00Z", "stepsBegan": ["2026-03-01T11:56:00Z"],
        "story": ["The canary is under test in step 1.", "F1: canary 0.95."],
    }  # fmt: skip
    got = told(PLAIN, canary=row)
    assert "Canary digits-2 beside digits-1: 1/3 10%, Split 10 %, for 4 minutes.\n  The canary is under test" in got
    assert "  F1: canary 0.95." in got
    assert "Canary" not in told(PLAIN)


ALARM = {
    "alarm": "a1", "revision": "digits-1", "since": "2026-02-01T00:00:00Z", "reason": "DriftSuspected",
    "metric": "F1", "floor": 0.92, "observed": 0.81, "at": "2026-03-01T10:00:00Z", "asked": "digits-1",
}  # fmt: skip
JOB = {"job": "digits-retrain-a1", "started": "2026-03-01T10:00:01Z"}


@pytest.mark.parametrize(
    ("row", "want"),
    [
        pytest.param({}, "had decayed (floor 0.92, 0.81 then); the data seemed to have changed.", id="the alarm"),
        pytest.param(
            {"reason": "Decayed", "observed": None},
            "2 hours ago, F1 of digits-1 had decayed (floor 0.92).",
            id="the revision is at fault",
        ),
        pytest.param({"event": "Delivered"}, "The event was delivered.", id="its event"),
        pytest.param({"event": "Pending"}, "The event is not delivered yet.", id="its event, on its way"),
        pytest.param(
            {"event": "Pending", "eventMessage": "the receiver answers 503"},
            "The event is not delivered yet: the receiver answers 503.",
            id="its event, again on its way",
        ),
        pytest.param(
            {"event": "GivenUp", "eventMessage": "the receiver answers 410"},
            "The event was given up: the receiver answers 410.",
            id="its event, in vain",
        ),
        pytest.param(
            {"state": "Waiting", "message": "there is no CronJob retrain"},
            "No Job is started yet: there is no CronJob retrain.",
            id="what its Job waits for",
        ),
        pytest.param({"state": "Starting", **JOB}, "Job digits-retrain-a1 is being started.", id="its Job, decided"),
        pytest.param(
            {"state": "Running", **JOB}, "Job digits-retrain-a1 has been running for 1 hour.", id="its Job, at work"
        ),
        pytest.param(
            {"state": "Failed", "ended": "2026-03-01T11:30:00Z", "message": "exit code 1", **JOB},
            "Job digits-retrain-a1 failed 30 minutes ago: exit code 1.",
            id="its Job, in vain",
        ),
        pytest.param(
            {"state": "Succeeded", "ended": "2026-03-01T11:30:00Z", "successor": "digits-2", **JOB},
            "ended well 30 minutes ago. Since then the spec has asked for digits-2.",
            id="the revision that came of it",
        ),
        pytest.param(
            {"state": "Succeeded", "ended": "2026-03-01T11:30:00Z", **JOB},
            "The spec still asks for what it asked for before.",
            id="a Job of which nothing came",
        ),
        pytest.param(
            {"state": "Superseded", "message": "another revision came into service first"},
            "No Job was needed: another revision came into service first.",
            id="a Job that was not needed",
        ),
    ],
)
def test_an_alarm_is_told_with_what_followed(row: dict[str, Any], want: str) -> None:
    assert want in told(PLAIN, retraining=[ALARM | row])
    assert "Alarms" not in told(PLAIN)


def test_every_limit_has_its_words() -> None:
    assert {str(limit) for limit in Limit} <= LIMITS.keys()


def test_a_clock_that_is_behind_makes_no_negative_times() -> None:
    ahead = condition("Ready", "True", "Serving", "all answer", "2026-03-01T12:00:30Z")
    assert told(PLAIN, conditions=[ahead]).startswith("team-a/digits has been ready for 0 s.")


def test_it_is_told_what_the_labels_are_of() -> None:
    coverage = {"share": 0.3, "least": {"class": "spam", "share": 0.1}, "most": {"class": "ham", "share": 0.5}}
    row = {"metric": "F1", "state": "Fresh", "floor": 0.9, "asOf": "2026-03-01T11:56:00Z"}
    even = told(PLAIN, accuracy=[row | {"coverage": coverage | {"skewed": False}}])
    assert "Labels for F1: of 30.0% of the predictions, from 10.0% of class spam to 50.0% of class ham." in even
    skewed = told(PLAIN, accuracy=[row | {"coverage": coverage | {"skewed": True, "weighted": 0.8123}}])
    assert "class ham: skewed, the plain value may mislead, 0.8123 with weights. Decisions are made without" in skewed
    any_class = {"class": "any", "share": 0.3}
    folded = told(
        PLAIN,
        accuracy=[row | {"coverage": dict.fromkeys(("least", "most"), any_class) | {"share": 0.3, "skewed": False}}],
    )
    assert "Labels for F1: of 30.0% of the predictions." in folded, "classes that are not told apart"
    assert "Labels for" not in told(PLAIN, accuracy=[row])
