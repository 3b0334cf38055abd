"""Is there one Job for an alarm and no more a week than allowed, whatever happens in between?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import RetrainingStatus
from evenkeel_operator.decide import names, retraining
from evenkeel_operator.decide.quality.guard import Outcome, Served
from evenkeel_operator.decide.retraining import Known
from tests.alarmed import MISSING, READY, REVISION, WANTED, quality, snapshot, stored
from tests.plans import NOW, complete


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
