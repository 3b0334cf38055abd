"""A ModelDeployment whose revision in service has decayed, and what is planned for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.counted import NOTHING
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.quality.guard import Alarm, Finding, Outcome, Served
from evenkeel_operator.decide.retraining import Known
from evenkeel_operator.decide.snapshot import Feedback, Snapshot, freeze
from evenkeel_operator.decide.trainings import Template, Unusable
from tests.builders import DEFAULTS, modeldeployment, observed, revision_of
from tests.plans import NOW, serving

URL = "https://events.example/alarms"
WANTED = {"eventURL": URL, "cronJobRef": {"name": "retrain"}}
CANARY = {"strategy": "Canary"}
OBJECTIVES = {"accuracy": [{"metric": "Accuracy", "floor": 0.9}]}
FEEDBACK = Feedback("http://feedback.evenkeel-system", 1, b"k" * 32)
MISSING = Unusable(Reason.CRON_JOB_MISSING, "there is no CronJob retrain")
TEMPLATE = Template(
    "retrain",
    labels={"team": "a"},
    annotations={},
    spec={
        "backoffLimit": 1,
        "template": {
            "metadata": {"labels": {"team": "a"}, "annotations": {}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "train", "image": "i", "env": [{"name": "EPOCHS", "value": "3"}]}],
            },
        },
    },
)
READY = Known(TEMPLATE)


def deployment(wanted: Object | None = WANTED, **changes: Any) -> Object:
    spec: dict[str, Any] = {"objectives": OBJECTIVES, "rollout": CANARY, **changes}
    return modeldeployment(**(spec if wanted is None else spec | {"retraining": wanted}))


REVISION = revision_of(deployment())
CHILDREN = serving(deployment())
SINCE = "2025-12-20T08:00:00Z"


def quality(served: Served | None = None, *, outcome: Outcome = Outcome.DECAYED, drift: bool = True) -> Quality:
    """Return what is known when the detector of the one objective has raised an alarm."""
    began = NOW - timedelta(hours=6)
    alarm = Alarm("Accuracy", 11.0, 10.46, began, None if outcome is Outcome.QUIET else began + timedelta(hours=2))
    wanted = Spec.model_validate(deployment()["spec"]).objectives.accuracy
    found = Finding(outcome, (alarm,), is_drift_suspected=drift)
    at = Interval(0.8, 0.75, 0.85, 500)
    stable = served or Served(REVISION, parse_time(SINCE))
    return Quality(NOTHING, NOW, intervals=(at,), finding=found, wanted=wanted, stable=stable)


def snapshot(
    wanted: Object | None = WANTED,
    *,
    known: Known | None = READY,
    found: Quality | None = None,
    status: Object | None = None,
    children: list[Object] | None = None,
    **changes: Any,
) -> Snapshot:
    """Return what is known of a deployment in full service, in which the alarm stands."""
    told = {"stableRevision": REVISION, "served": [{"revision": REVISION, "since": SINCE}], **(status or {})}
    obj = {**deployment(wanted, **changes), "status": told}
    here = [*CHILDREN, *(children or [])]
    frozen = freeze(deployment=obj, children=here, fleet=(), defaults=replace(DEFAULTS, feedback=FEEDBACK))
    return replace(frozen, quality=quality() if found is None else found, retraining=known)


def planned(known: Snapshot, now: datetime = NOW) -> Plan:
    return plan(known, now)


def row(got: Plan, number: int = 0) -> Object:
    found: Object = got.status["retraining"][number]
    return found


def stored(job: Object, created: datetime = NOW, **status: Any) -> Object:
    """Return a Job as the API server sends it back."""
    found = observed(job, **status)
    found["metadata"]["creationTimestamp"] = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


def started(**changes: Any) -> tuple[Plan, Object]:
    """Return the plan that starts the Job, and that Job."""
    got = planned(snapshot(**changes))
    assert got.start is not None
    return got, stored(got.start)
