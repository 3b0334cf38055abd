"""Which Job follows from an alarm, when, how often, and what is told of it?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.decide import names, resources, retraining
from evenkeel_operator.decide.quality.guard import Outcome, Served
from evenkeel_operator.decide.retraining import Known
from tests.alarmed import (
    MISSING,
    REVISION,
    SINCE,
    TEMPLATE,
    URL,
    WANTED,
    deployment,
    planned,
    quality,
    row,
    snapshot,
    started,
    stored,
)
from tests.builders import NAME, NAMESPACE, pod, revision_of
from tests.plans import NOW, complete, serving


def test_the_job_is_the_template_with_the_alarm_in_its_environment() -> None:
    _, job = started()
    metadata, spec = job["metadata"], job["spec"]
    assert metadata["labels"] == {"team": "a", **names.labels(NAME, role="retrain")}
    assert metadata["ownerReferences"][0]["name"] == NAME
    assert spec["template"]["metadata"]["labels"] == metadata["labels"]
    (container,) = spec["template"]["spec"]["containers"]
    told = {e["name"]: e["value"] for e in container["env"]}
    assert told == {
        "EVENKEEL_NAMESPACE": NAMESPACE,
        "EVENKEEL_NAME": NAME,
        "EVENKEEL_REVISION": REVISION,
        "EVENKEEL_MODEL_URI": "pvc://models/digits.pt2",
        "EVENKEEL_ALARM": metadata["annotations"][names.ALARM_ANNOTATION],
        "EVENKEEL_ALARM_REASON": "DriftSuspected",
        "EVENKEEL_METRIC": "Accuracy",
        "EVENKEEL_FLOOR": "0.9",
        "EVENKEEL_OBSERVED": "0.8",
        "EVENKEEL_BEGAN": "2026-01-01T06:00:00Z",
        "EVENKEEL_LABELS_URL": f"http://feedback.evenkeel-system/v1/labels/{NAMESPACE}/{NAME}?since=1767247200",
        "EPOCHS": "3",
    }
    assert container["env"][-1]["name"] == "EPOCHS", "its own variables may refer to those of the alarm"


def test_a_template_that_poses_as_a_replica_makes_none() -> None:
    posing = replace(TEMPLATE, labels=names.labels(NAME, REVISION, "serve"))
    metadata = {"labels": names.labels(NAME, "digits-x", "serve"), "annotations": {}}
    posing = replace(posing, spec={**TEMPLATE.spec, "template": {**TEMPLATE.spec["template"], "metadata": metadata}})
    _, job = started(known=Known(posing))
    assert job["metadata"]["labels"][names.ROLE_LABEL] == "retrain"
    assert job["spec"]["template"]["metadata"]["labels"][names.ROLE_LABEL] == "retrain"


def test_a_retraining_job_is_no_prepare_job_and_its_pod_no_replica() -> None:
    _, job = started()
    its = pod("x", 7, role="retrain", owner=job)
    known = snapshot(children=[job, its])
    assert (known.attempts, [t.name for t in known.trainings]) == ((), [job["metadata"]["name"]])
    assert {r.revision for r in known.replicas} == {REVISION}
    got = planned(known)
    assert job["metadata"]["name"] not in {ref.name for ref in got.delete}
    assert got.status["readyReplicas"] == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({"rollout": {}}, "Canary", id="it would serve untried"),
        pytest.param({"known": None}, "not been looked at", id="nobody has looked at the CronJob yet"),
        pytest.param({"known": Known(MISSING)}, "no CronJob", id="there is no CronJob"),
    ],
)
def test_a_job_waits_and_says_for_what(changes: dict[str, Any], word: str) -> None:
    got = planned(snapshot(**changes))
    assert got.start is None
    assert (row(got)["state"], "job" in row(got)) == ("Waiting", False)
    assert word in row(got)["message"]
    assert row(got)["event"] == "Pending", "the event does not wait"
    assert any(e.reason == "RetrainingWaits" and word in e.message for e in got.events)


def test_a_job_waits_while_a_canary_is_tried() -> None:
    newer = deployment(model={"uri": "pvc://models/v2.pt2"})
    children = [c for c in serving(newer) if c["kind"] == "ControllerRevision"]
    got = planned(snapshot(children=children, model={"uri": "pvc://models/v2.pt2"}))
    assert (row(got)["state"], got.start) == ("Waiting", None)
    assert "is being tried" in row(got)["message"]


def test_what_keeps_a_job_waiting_passes_and_it_starts() -> None:
    waits = planned(snapshot(known=Known(MISSING)))
    got = planned(snapshot(status={"retraining": waits.status["retraining"]}), NOW + timedelta(minutes=5))
    assert (row(got)["state"], row(got)["started"]) == ("Starting", "2026-01-01T12:05:00Z")
    assert "message" not in row(got)


def test_the_budget_of_the_week_is_kept_and_waited_for() -> None:
    past = [
        {"alarm": f"{n}", "revision": "digits-old", "since": SINCE, "reason": "Decayed", "metric": "F1", "floor": 0.9}
        | {"at": at, "started": at, "job": f"digits-retrain-{n}", "state": "Succeeded", "ended": at, "asked": "x"}
        for n, at in enumerate(("2025-12-31T12:00:00Z", "2025-12-26T13:00:00Z", "2025-12-20T12:00:00Z"))
    ]
    for most, want in ((3, "Starting"), (2, "Waiting"), (1, "Waiting")):
        wanted = WANTED | {"maxPerWeek": most}
        got = planned(snapshot(wanted, status={"retraining": past}))
        assert row(got)["state"] == want, most
        if want == "Waiting":
            free = {2: timedelta(days=1, hours=1), 1: timedelta(days=6)}[most]
            assert got.look_again_after_s == free.total_seconds()
            again = planned(snapshot(wanted, status={"retraining": got.status["retraining"]}), NOW + free)
            assert row(again)["state"] == "Starting"


def test_an_operator_that_is_killed_before_the_job_is_made_makes_it_and_counts_it_once() -> None:
    first, job = started()
    status = {"retraining": first.status["retraining"]}
    blind = planned(snapshot(status=status, found=replace(quality(), stable=None)), NOW + timedelta(hours=1))
    assert blind.start is not None
    assert blind.start["metadata"]["name"] == job["metadata"]["name"], "it is decided, whatever is known by now"
    assert row(blind) == row(first)
    seen = planned(snapshot(status=status, children=[job]), NOW + timedelta(hours=1))
    assert seen.start is None
    assert row(seen) == row(first) | {"state": "Running"}


def test_a_job_that_was_made_late_counts_from_then() -> None:
    first, job = started()
    late = NOW + timedelta(days=5)
    made = stored({**job, "metadata": {**job["metadata"]}}, late, **complete(at="2026-01-06T13:00:00Z"))
    seen = planned(snapshot(status={"retraining": first.status["retraining"]}, children=[made]), late)
    assert row(seen)["started"] == "2026-01-06T12:00:00Z"
    term = {"revision": REVISION, "since": "2026-01-07T12:00:00Z"}
    again = quality(Served(REVISION, parse_time(term["since"])))
    status = {"served": [term], "retraining": seen.status["retraining"]}
    got = planned(snapshot(status=status, found=again, children=[made]), NOW + timedelta(days=8))
    assert (row(got)["state"], got.start) == ("Waiting", None)
    assert "2026-01-13T12:00:00Z" in row(got)["message"]


def test_a_job_whose_row_was_lost_is_found_again() -> None:
    _, job = started()
    got = planned(snapshot(children=[job]), NOW + timedelta(hours=1))
    assert got.start is None
    assert (row(got)["state"], row(got)["started"]) == ("Running", "2026-01-01T12:00:00Z")


@pytest.mark.parametrize(
    ("end", "status", "word"),
    [
        pytest.param("Complete", "Succeeded", None, id="well"),
        pytest.param("Failed", "Failed", "no data", id="badly"),
    ],
)
def test_the_end_of_a_job_is_told(end: str, status: str, word: str | None) -> None:
    first, job = started()
    terminated = {"exitCode": 1 if end == "Failed" else 0, "message": "Traceback\nValueError: no data"}
    ended = [{"name": "train", "state": {"terminated": terminated}}]
    its = pod("x", 7, role="retrain", owner=job, containerStatuses=ended)
    running = {"retraining": [row(first) | {"state": "Running"}]}
    done = stored(job, **complete(end, at="2026-01-01T12:30:00Z"))
    got = planned(snapshot(status=running, children=[done, its]), NOW + timedelta(hours=1))
    assert (row(got)["state"], row(got)["ended"]) == (status, "2026-01-01T12:30:00Z")
    assert (word in row(got)["message"]) if word else "message" not in row(got)
    assert {"Succeeded": "Retrained", "Failed": "RetrainingFailed"}[status] in {e.reason for e in got.events}
    again = planned(
        snapshot(status={"retraining": got.status["retraining"]}, children=[done]), NOW + timedelta(days=30)
    )
    assert (again.start, row(again)) == (None, row(got)), "once for an alarm, however long it stands"
    assert not again.delete, "its log may be wanted"


def test_a_running_job_says_what_keeps_it() -> None:
    first, job = started()
    waiting = {"name": "train", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    its = pod("x", 7, role="retrain", owner=job, node=None, containerStatuses=[waiting])
    got = planned(snapshot(status={"retraining": first.status["retraining"]}, children=[job, its]))
    assert (row(got)["state"], row(got)["message"]) == (
        "Running", "container train waits, ImagePullBackOff: no such image",
    )  # fmt: skip


def test_a_job_that_a_person_deletes_is_not_started_again() -> None:
    first, _ = started()
    running = {"retraining": [row(first) | {"state": "Running"}]}
    got = planned(snapshot(status=running))
    assert (row(got)["state"], got.start) == ("Failed", None)
    assert "was deleted" in row(got)["message"]


def test_a_refused_job_is_told_and_nothing_else_suffers() -> None:
    first, _ = started()
    alarm = row(first)["alarm"]
    known = Known(TEMPLATE, refusals={alarm: "exceeded quota: jobs"})
    got = planned(snapshot(known=known, status={"retraining": first.status["retraining"]}))
    assert (row(got)["state"], row(got)["message"]) == ("Starting", "exceeded quota: jobs")
    assert got.start is not None
    assert {c["type"]: c["status"] for c in got.status["conditions"]}["Ready"] == "True"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({"wanted": {"eventURL": URL}}, "names no CronJob any more", id="the spec has changed its mind"),
        pytest.param(
            {"status": {"served": [{"revision": "digits-new", "since": "2026-01-01T12:30:00Z"}]}},
            "came into service first",
            id="the revision was replaced",
        ),
    ],
)
def test_a_job_that_is_not_made_yet_is_not_made_any_more(changes: dict[str, Any], word: str) -> None:
    first, _ = started()
    status = {**changes.pop("status", {}), "retraining": first.status["retraining"]}
    got = planned(snapshot(status=status, **changes), NOW + timedelta(hours=1))
    assert (row(got)["state"], got.start) == ("Superseded", None)
    assert word in row(got)["message"]


def test_a_revision_that_was_left_for_an_earlier_one_is_retrained_once_that_one_serves() -> None:
    waits = planned(snapshot(known=Known(MISSING)))
    status = {
        "retraining": waits.status["retraining"],
        "served": [{"revision": "digits-good", "since": "2026-01-01T12:30:00Z"}],
        "reverted": {"revision": REVISION, "to": "digits-good", "at": "2026-01-01T12:10:00Z"},
    }
    known = snapshot(status=status, found=quality(outcome=Outcome.QUIET))
    got = retraining.rows(known, REVISION, NOW + timedelta(hours=1))
    assert (got[0].state, got[0].message) == ("Starting", None)


def test_the_revision_that_follows_is_told() -> None:
    first, job = started()
    running = {"retraining": [row(first) | {"state": "Running"}]}
    better = {"uri": "pvc://models/better.pt2"}
    got = planned(snapshot(status=running, children=[stored(job, **complete())], model=better))
    assert (row(got)["state"], row(got)["successor"]) == ("Succeeded", revision_of(deployment(model=better)))
    later = planned(snapshot(status={"retraining": got.status["retraining"]}, model={"uri": "pvc://models/other.pt2"}))
    assert row(later)["successor"] == row(got)["successor"], "the first one"


def test_jobs_that_have_ended_go_but_for_the_newest() -> None:
    first, job = started()
    done = row(first) | {"state": "Succeeded", "ended": "2026-01-01T12:30:00Z"}
    other = resources.retraining_job(snapshot(), "digits-retrain-other", "other", TEMPLATE, {})
    newer = stored(other, NOW + timedelta(hours=2))
    older = stored(job, **complete())
    got = planned(snapshot(status={"retraining": [done]}, children=[older, newer]), NOW + timedelta(hours=3))
    assert [ref.name for ref in got.delete] == [job["metadata"]["name"]]
