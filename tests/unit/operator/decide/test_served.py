"""Which revisions were in service, and which one shall be, where the one that is asked for has decayed?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import names, served
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.counted import NOTHING
from evenkeel_operator.decide.quality.guard import Finding, Outcome, Served
from evenkeel_operator.decide.snapshot import Snapshot, freeze
from tests.builders import DEFAULTS, modeldeployment, revision_of
from tests.plans import NOW, message, ready, serving, sizes

OBJECTIVES = {"accuracy": [{"metric": "F1", "floor": 0.9}]}
OLD = modeldeployment(replicas=2, objectives=OBJECTIVES)
NEW = modeldeployment(replicas=2, objectives=OBJECTIVES, model={"uri": "pvc://models/v2.pt2"}, generation=2)
FIRST, SECOND = revision_of(OLD), revision_of(NEW)
WAS = [
    {"revision": SECOND, "since": "2026-01-01T10:00:00Z"},
    {"revision": FIRST, "since": "2025-12-01T10:00:00Z", "until": "2026-01-01T10:00:00Z"},
]
GO_BACK = Finding(Outcome.ROLL_BACK, (), target=FIRST, quarantine=SECOND)


def known(status: Object, children: list[Object], finding: Finding | None = None, **annotations: str) -> Snapshot:
    deployment = {**NEW, "status": status}
    deployment["metadata"] = {**NEW["metadata"], "annotations": annotations}
    found = freeze(deployment=deployment, children=children, fleet=(), defaults=DEFAULTS)
    return found if finding is None else replace(found, quality=Quality(NOTHING, NOW, finding=finding))


def children(**sizes_: int) -> list[Object]:
    """Return both ControllerRevisions and what each serves with; FIRST is `first`, SECOND is `second`."""
    first, second = serving(OLD, count=sizes_["first"]), serving(NEW, count=sizes_["second"])
    return [*(first if sizes_["first"] else first[:1]), *(second if sizes_["second"] else second[:1])]


def conditions(got: Plan) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in got.status["conditions"]}


def test_what_serves_is_written_down_with_its_beginning_and_its_end() -> None:
    first = plan(freeze(deployment=OLD, children=serving(OLD), fleet=(), defaults=DEFAULTS), NOW)
    assert first.status["served"] == [{"revision": FIRST, "since": "2026-01-01T12:00:00Z"}]
    then = plan(known(first.status, children(first=0, second=2)), NOW + timedelta(hours=1))
    assert then.status["served"] == [
        {"revision": SECOND, "since": "2026-01-01T13:00:00Z"},
        {"revision": FIRST, "since": "2026-01-01T12:00:00Z", "until": "2026-01-01T13:00:00Z"},
    ]
    again = plan(known(then.status, children(first=0, second=2)), NOW + timedelta(hours=2))
    assert again.status["served"] == then.status["served"]


def test_a_revision_that_has_decayed_is_left_step_by_step_for_one_that_was_good() -> None:
    status = {"stableRevision": SECOND, "served": WAS}
    got = plan(known(status, children(first=0, second=2), GO_BACK), NOW)
    assert sizes(got)[FIRST] > 0
    assert sizes(got)[SECOND] == 2, "it serves until the other one does"
    assert got.status["reverted"] == {"revision": SECOND, "to": FIRST, "at": "2026-01-01T12:00:00Z"}
    midway = plan(known(got.status, children(first=2, second=2)), NOW + timedelta(minutes=1))
    assert sizes(midway) == {FIRST: 2, SECOND: 0}, "it goes on without anybody who says it again"
    after = plan(known(midway.status, children(first=2, second=0)), NOW + timedelta(minutes=2))
    assert ready(after) == ("False", "RolledBack")
    assert conditions(after)["Stalled"][0] == "True"
    assert "evenkeel promote digits" in message(after)
    assert after.status["stableRevision"] == FIRST
    assert after.status["served"][1] == {**WAS[0], "until": "2026-01-01T12:02:00Z", "decayed": True}
    last = plan(known(after.status, children(first=2, second=0)), NOW + timedelta(days=1))
    assert (last.status["reverted"], sizes(last)) == (after.status["reverted"], {FIRST: 2})
    assert served.last_rollback(Status.model_validate(last.status)) == datetime(2026, 1, 1, 12, 2, tzinfo=UTC)
    assert [one.revision for one in served.earlier(known(last.status, children(first=2, second=0)))] == []


def test_another_spec_ends_it() -> None:
    status = {
        "stableRevision": FIRST,
        "served": WAS,
        "reverted": {"revision": "digits-of-before", "to": FIRST, "at": "2026-01-01T12:00:00Z"},
    }
    got = plan(known(status, children(first=2, second=0)), NOW)
    assert sizes(got)[SECOND] > 0
    assert "reverted" not in got.status


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"finding": replace(GO_BACK, target="digits-deleted")}, id="whose target is no more"),
        pytest.param({"finding": replace(GO_BACK, quarantine="digits-before")}, id="about another revision"),
        pytest.param({"finding": Finding(Outcome.DECAYED, (), is_drift_suspected=True)}, id="of drift"),
        pytest.param({"promoted": SECOND}, id="that a person has overruled"),
    ],
)
def test_nothing_is_done_about_a_finding(changes: dict[str, Any]) -> None:
    finding = changes.get("finding", GO_BACK)
    annotations = {names.PROMOTE_ANNOTATION: changes["promoted"]} if "promoted" in changes else {}
    found = known({"stableRevision": SECOND, "served": WAS}, children(first=0, second=2), finding, **annotations)
    got = plan(found, NOW)
    assert sizes(got) == {SECOND: 2}
    assert "reverted" not in got.status


def test_who_may_be_gone_back_to() -> None:
    found = known({"stableRevision": SECOND, "served": WAS}, children(first=0, second=2))
    until = datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert served.earlier(found) == (Served(FIRST, datetime(2025, 12, 1, 10, tzinfo=UTC), until),)
    assert served.in_service(found.status) == Served(SECOND, until)
    assert served.in_service(Status()) is None
