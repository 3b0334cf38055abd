"""What is planned for one ModelDeployment, and its children at the stages that the operator's own plans lead to?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.snapshot import Defaults, Fleet, NoSignal, Warning, freeze
from tests.builders import DEFAULTS, PREPARED, ended, node, observed, pod, revision_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def planned(
    deployment: Object,
    children: Sequence[Object] = (),
    *,
    fleet: Fleet | NoSignal = (),
    defaults: Defaults = DEFAULTS,
    warnings: Sequence[Warning] = (),
    now: datetime = NOW,
) -> Plan:
    known = freeze(deployment=deployment, children=children, fleet=fleet, defaults=defaults, warnings=warnings)
    return plan(known, now)


def of_kind(got: Plan, kind: str) -> list[Object]:
    return [o for o in got.apply if o["kind"] == kind]


def sizes(got: Plan) -> dict[str, int]:
    return {o["metadata"]["name"]: o["spec"]["replicas"] for o in of_kind(got, "ReplicaSet")}


def ready(got: Plan) -> tuple[str, str]:
    row = next(c for c in got.status["conditions"] if c["type"] == "Ready")
    return row["status"], row["reason"]


def message(got: Plan) -> str:
    return str(next(c for c in got.status["conditions"] if c["type"] == "Ready")["message"])


def prepare_job(deployment: Object, **status: object) -> Object:
    (job,) = of_kind(planned(deployment), "Job")
    return observed(job, **status)


def complete(kind: str = "Complete", at: str = "2026-01-01T11:59:59Z") -> Object:
    return {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": at}]}


def prepared_children(deployment: Object) -> list[Object]:
    job = prepare_job(deployment, **complete())
    done = pod(revision_of(deployment), 9, role="prepare", owner=job, ready=False, **ended(PREPARED, exit_code=0))
    return [job, done]


def serving(deployment: Object, *, defaults: Defaults = DEFAULTS, count: int | None = None) -> list[Object]:
    """Return the children of `deployment` in full service, by the operator's own plans."""
    got = planned(deployment, prepared_children(deployment), defaults=defaults, fleet=(node(),))
    (revision,), (replicas,) = of_kind(got, "ControllerRevision"), of_kind(got, "ReplicaSet")
    size = replicas["spec"]["replicas"] if count is None else count
    replicas["spec"]["replicas"] = size
    name = revision_of(deployment)
    return [
        observed(revision),
        observed(replicas, replicas=size, readyReplicas=size),
        *(pod(name, n) for n in range(size)),
    ]
