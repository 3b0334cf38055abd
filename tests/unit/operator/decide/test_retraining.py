"""What follows from an alarm: one event and one Job for each, a few Jobs a week, and nothing that serves untried?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.api.status import RetrainingStatus
from evenkeel_operator.decide import names, resources, retraining
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.counted import NOTHING
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.quality.guard import Alarm, Finding, Outcome, Served
from evenkeel_operator.decide.retraining import Delivery, Known
from evenkeel_operator.decide.snapshot import Feedback, Snapshot, freeze, parse_time
from evenkeel_operator.decide.trainings import Template, Unusable
from tests.builders import DEFAULTS, NAME, NAMESPACE, modeldeployment, observed, pod, revision_of
from tests.plans import NOW, complete, of_kind, serving

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


# the alarm


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


# the Job


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


# the event


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


# the condition


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


# any history


@dataclass
class World:
    """A cluster with one deployment, whose operator may be killed at every line."""

    most: int
    now: datetime = NOW
    term: datetime = NOW
    alarmed: bool = False
    known: Known | None = READY
    told: tuple[RetrainingStatus, ...] = ()
    jobs: dict[str, Object] = field(default_factory=dict)
    made: list[tuple[str, str, datetime]] = field(default_factory=list)

    def look(self, stops_after: int = 9) -> None:
        """Reconcile as the controller does; the operator is killed after so many writes."""
        since = self.term.strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in self.told]
        status = {"served": [{"revision": REVISION, "since": since}], "retraining": rows}
        found = quality(Served(REVISION, self.term), outcome=Outcome.DECAYED if self.alarmed else Outcome.QUIET)
        wanted = WANTED | {"maxPerWeek": self.most}
        here = snapshot(wanted, known=self.known, found=found, status=status, children=list(self.jobs.values()))
        told = retraining.rows(here, REVISION, self.now)
        job, gone = retraining.job(here, told), retraining.left_over(here)
        if stops_after >= 1:
            for ref in gone:
                del self.jobs[ref.name]
        if stops_after >= 2:
            self.told = told
        if stops_after >= 3 and job is not None:
            name = job["metadata"]["name"]
            assert name not in self.jobs
            alarm = job["metadata"]["annotations"][names.ALARM_ANNOTATION]
            assert all("conditions" in j.get("status", {}) for j in self.jobs.values()), "one at a time"
            self.jobs[name] = stored(job, self.now)
            self.made.append((name, alarm, self.now))

    def end_jobs(self, how: str) -> None:
        for name, job in self.jobs.items():
            if "status" not in job:
                self.jobs[name] = stored(
                    job,
                    parse_time(job["metadata"]["creationTimestamp"]),
                    **complete(how, at=self.now.strftime("%Y-%m-%dT%H:%M:%SZ")),
                )

    def new_term(self) -> None:
        self.now += timedelta(hours=8)
        self.term, self.alarmed = self.now, False

    def decay_again(self, stops_after: int) -> None:
        """Let the retrained model serve for some hours, and decay; the operator may be killed when it sees that."""
        self.end_jobs("Complete")
        self.new_term()
        self.alarmed = True
        self.look(stops_after)
        self.look()


STEPS: dict[str, Callable[[World, int], None]] = {
    "look": lambda world, n: world.look(),
    "killed": lambda world, n: world.look(n % 4),
    "hours pass": lambda world, n: setattr(world, "now", world.now + timedelta(hours=1 + 4 * n)),
    "alarm": lambda world, n: setattr(world, "alarmed", True),
    "nothing is known": lambda world, n: setattr(world, "alarmed", False),
    "decays again": lambda world, n: world.decay_again(n % 4),
    "ends well": lambda world, n: world.end_jobs("Complete"),
    "fails": lambda world, n: world.end_jobs("Failed"),
    "another term": lambda world, n: world.new_term(),
    "CronJob goes": lambda world, n: setattr(world, "known", Known(MISSING)),
    "CronJob is there": lambda world, n: setattr(world, "known", READY),
}


@settings(max_examples=40, deadline=None)
@given(
    most=st.integers(1, 7),
    steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 40)), max_size=40),
)
def test_in_any_history_there_is_one_job_for_an_alarm_and_no_more_a_week_than_allowed(
    most: int, steps: list[tuple[str, int]]
) -> None:
    world = World(most)
    for what, number in steps:
        STEPS[what](world, number)
        assert len(world.told) <= retraining.KEPT
    # In the end nobody is killed and the alarm stands: what was put off is done, once.
    world.new_term()
    world.alarmed, world.known = True, READY
    for _ in range(9):
        world.look()
        world.end_jobs("Complete")
        world.now += timedelta(days=1)
    alarms = [alarm for _, alarm, _ in world.made]
    assert len(set(alarms)) == len(alarms)
    assert world.told[0].alarm in alarms
    assert world.told[0].state == "Succeeded"
    times = [at for _, _, at in world.made]
    for at in times:
        assert sum(at <= other < at + retraining.WEEK for other in times) <= most
    assert len(world.jobs) <= 2
