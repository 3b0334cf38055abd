"""When is there an alarm, what becomes of its event, and is it said beforehand whether a Job could follow?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import RetrainingStatus
from evenkeel_operator.decide import alarms, names, retraining
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.quality.guard import Outcome, Served
from evenkeel_operator.decide.retraining import Delivery, Known
from tests.alarmed import MISSING, READY, REVISION, SINCE, URL, WANTED, planned, quality, row, snapshot
from tests.builders import NAME
from tests.plans import NOW, of_kind


def test_an_alarm_is_written_down_and_its_job_starts_after_that() -> None:
    got = planned(snapshot())
    found = row(got)
    assert (
        found
        | {
            "revision": REVISION,
            "since": SINCE,
            "reason": "DriftSuspected",
            "metric": "Accuracy",
            "floor": 0.9,
            "observed": 0.8,
            "began": "2026-01-01T06:00:00Z",
            "at": "2026-01-01T12:00:00Z",
            "asked": REVISION,
            "event": "Pending",
            "state": "Starting",
            "started": "2026-01-01T12:00:00Z",
            "job": names.retraining_job_name(NAME, found["alarm"]),
        }
        == found
    )
    assert got.start is not None
    assert got.start["metadata"]["name"] == found["job"]
    assert not of_kind(got, "Job"), "what is refused of it keeps nothing else from being done"
    assert [e.reason for e in got.events if e.type == "Warning"] == ["AccuracyAlarm"]
    assert "RetrainingStarted" in {e.reason for e in got.events}
    assert len(found["job"]) <= 63


def test_an_alarm_of_an_error_names_its_ceiling_wherever_one_of_a_share_names_its_floor() -> None:
    mae = {"accuracy": [{"metric": "MAE", "ceiling": 55, "maxError": 250, "margin": 5}]}
    known = snapshot(objectives=mae)
    wanted = known.spec.objectives.accuracy
    known = replace(known, quality=replace(quality(), wanted=wanted, intervals=(Interval(70.0, 66.0, 74.0, 500),)))
    got = planned(known)
    found = RetrainingStatus.model_validate(row(got))
    assert (found.ceiling, found.floor, found.observed) == (55.0, None, 70.0)
    assert any("MAE of revision" in e.message and "ceiling 55" in e.message for e in got.events)
    data = alarms.cloud_event(known, found)["data"]
    assert (data["ceiling"], data.get("floor")) == (55.0, None)
    environment = alarms.environment(known, found)
    assert (environment["EVENKEEL_CEILING"], environment.get("EVENKEEL_FLOOR")) == ("55", None)


def test_the_alarm_is_the_same_whatever_is_learned_of_it_later_and_another_in_another_term() -> None:
    def identity(found: Quality, status: Object | None = None) -> str:
        return str(row(planned(snapshot(found=found, status=status)))["alarm"])

    first = identity(quality())
    own_fault = replace(quality(drift=False), measured_at=NOW + timedelta(days=1))
    assert identity(own_fault) == first
    later = Served(REVISION, parse_time("2025-12-30T08:00:00Z"))
    assert identity(quality(later), {"served": [{"revision": REVISION, "since": "2025-12-30T08:00:00Z"}]}) != first


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(quality(outcome=Outcome.QUIET), id="the detector is quiet"),
        pytest.param(replace(quality(), is_stale=True), id="the feedback service does not answer any more"),
        pytest.param(
            quality(Served("digits-before", parse_time(SINCE))), id="it is about a revision that was replaced"
        ),
        pytest.param(quality(Served(REVISION, NOW)), id="it is about another term of the same revision"),
        pytest.param(replace(quality(), stable=None), id="nobody knows what it was measured of"),
        pytest.param(replace(quality(), wanted=()), id="other objectives were measured"),
    ],
)
def test_there_is_no_alarm(found: Quality) -> None:
    got = planned(snapshot(found=found))
    assert "retraining" not in got.status
    assert got.start is None


def test_nothing_follows_where_the_spec_asks_for_nothing() -> None:
    got = planned(snapshot(None))
    assert "retraining" not in got.status
    assert not [c for c in got.status["conditions"] if c["type"] == "Retrainable"]


@pytest.mark.parametrize(
    ("delivery", "event", "message"),
    [
        pytest.param(None, "Pending", None, id="nobody has tried yet"),
        pytest.param(Delivery("Pending", "no answer"), "Pending", "no answer", id="it was tried in vain"),
        pytest.param(Delivery("Delivered"), "Delivered", None, id="it was taken"),
        pytest.param(Delivery("GivenUp", "refused"), "GivenUp", "refused", id="it was given up"),
    ],
)
def test_what_became_of_the_event_is_written_down(delivery: Delivery | None, event: str, message: str | None) -> None:
    wanted = {"eventURL": URL}
    first = planned(snapshot(wanted))
    known = Known(deliveries={} if delivery is None else {row(first)["alarm"]: delivery})
    got = planned(snapshot(wanted, known=known, status={"retraining": first.status["retraining"]}))
    assert (row(got)["event"], row(got).get("eventMessage")) == (event, message)
    assert "state" not in row(got), "no Job was asked for"
    assert ("AlarmNotDelivered" in {e.reason for e in got.events}) is (event == "GivenUp")
    later = planned(snapshot(wanted, known=Known(), status={"retraining": got.status["retraining"]}))
    assert row(later) == row(got), "the next operator knows"


def test_an_event_without_a_receiver_is_given_up() -> None:
    first = planned(snapshot())
    got = planned(snapshot({"cronJobRef": {"name": "retrain"}}, status={"retraining": first.status["retraining"]}))
    assert row(got)["event"] == "GivenUp"


def test_it_is_tried_again_ever_more_slowly() -> None:
    got = [retraining.retry_delay(n).total_seconds() for n in (1, 2, 3, 7, 100)]
    assert got == [5, 10, 20, 300, 300]


@pytest.mark.parametrize(
    ("wanted", "known", "want"),
    [
        pytest.param(WANTED, READY, ("True", "CronJobAtHand"), id="it can"),
        pytest.param(WANTED, Known(MISSING), ("False", "CronJobMissing"), id="it cannot"),
        pytest.param(WANTED, None, ("Unknown", "NotLookedAt"), id="nobody knows yet"),
        pytest.param({"eventURL": URL}, READY, None, id="it is not asked for"),
    ],
)
def test_whether_a_job_can_be_started_is_said_before_it_is_needed(
    wanted: Object, known: Known | None, want: tuple[str, str] | None
) -> None:
    got = planned(snapshot(wanted, known=known, found=quality(outcome=Outcome.QUIET)))
    found = {c["type"]: (c["status"], c["reason"]) for c in got.status["conditions"]}
    assert found.get("Retrainable") == want
    assert found["Ready"][0] == "True"
