"""The revision in service has decayed: is it the revision's fault, and would the one before be better?

    alarm   decay began            an earlier revision that was good      outcome
    no      -                      -                                      Quiet
    yes     with the revision      yes, and quiet to its end              RollBack to it; the bad one is quarantined
    yes     with the revision      none                                   Decayed: DriftSuspected is all that is left
    yes     long after it          -                                      Decayed, DriftSuspected: nothing is changed

A model that was good for long, by its labels, and is no longer has not changed; what it is asked about has, and the one
before it would be just as bad: going back would only be a flip. Where an earlier revision's labels of the same period
are known (of a mirror, or an exploring share), they decide instead: one that is no better now is not gone back to.

An alarm stands until its metric is shown to be above the floor again, as surely as it was shown to be below, a person
acknowledges it, or another revision serves. That time goes by is no reason: the labels that raised it are looked at for
two weeks and then no longer, and nothing has been mended by that. So whoever watches keeps what it was (`Kept`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.quality.cohorts import Cohort
from evenkeel_operator.decide.quality.cusum import COHORTS_PER_YEAR, Cusum
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.snapshot import NoSignal

SOAK = timedelta(hours=24)
SOAK_LABELS = 1000
"""A revision was good once it has served for so long, or with so many labels, and its detector stayed quiet."""

SAME_PERIOD_LABELS = 50
"""Labels of another revision since the decay began that are enough to compare it."""

LEAST_BETWEEN_ROLLBACKS = timedelta(hours=24)


class Outcome(enum.StrEnum):
    """What the guard says."""

    QUIET = "Quiet"
    ROLL_BACK = "RollBack"
    DECAYED = "Decayed"


@dataclass(frozen=True, slots=True)
class Served:
    """A revision that was promoted, and from when until when it served; `until` is None of the one in service."""

    revision: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The last alarm of one metric on the revision in service, as it is kept beside the labels: when the decay began,
    when it was shown, what was thought of it, and when it was over; `resolved` is None while it stands."""

    began: datetime
    raised: datetime
    is_drift_suspected: bool
    resolved: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """One metric's detector: its evidence and threshold as logarithms, when the evidence began and when it sufficed.

    `resolved`: when the alarm that was `raised` was over, None while it stands; evidence and `began` are then of the
    detector that has started anew.
    """

    measure: str
    log_e: float
    log_threshold: float
    began: datetime | None
    raised: datetime | None
    resolved: datetime | None = None

    @property
    def stands(self) -> bool:
        """Whether the metric is taken to be below its floor."""
        return self.raised is not None and self.resolved is None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the guard says of the revision in service; `target` is what to go back to, `quarantine` what to leave.

    `is_drift_suspected`: the data have changed rather than the model.
    """

    outcome: Outcome
    alarms: tuple[Alarm, ...]
    target: str | None = None
    quarantine: str | None = None
    is_drift_suspected: bool = False


def watch(
    objectives: Sequence[Objective],
    stable: Served,
    earlier: Sequence[Served],
    rows: Sequence[Cohort],
    now: datetime,
    last_rollback: datetime | None = None,
    kept: Sequence[Kept | None] = (),
) -> Finding:
    """Return what the guard says at `now`.

    `earlier` are revisions that may be gone back to, the newest first: promoted once, and not quarantined.
    `last_rollback`: when an automatic rollback last happened, of which there is at most one in 24 h. `kept`: the last
    alarm of each objective, where one is known.
    """
    before = kept or (None,) * len(objectives)
    alarms = tuple(detect(o, stable, rows, now, known) for o, known in zip(objectives, before, strict=True))
    raised = [(objective, alarm) for objective, alarm in zip(objectives, alarms, strict=True) if alarm.stands]
    if not raised:
        return Finding(Outcome.QUIET, alarms)
    # Labels of before the decay are looked at no longer, some day; what they have shown stays.
    was_drift = any(
        known is not None and known.is_drift_suspected and alarm.stands and alarm.raised == known.raised
        for known, alarm in zip(before, alarms, strict=True)
    )
    if was_drift or any(not _is_own_fault(objective, alarm, stable, rows) for objective, alarm in raised):
        return Finding(Outcome.DECAYED, alarms, is_drift_suspected=True)
    target = next((g for g in earlier if _is_good(objectives, g, rows, now)), None)
    if target is None or any(_is_no_better(objective, alarm, stable, target, rows, now) for objective, alarm in raised):
        return Finding(Outcome.DECAYED, alarms, is_drift_suspected=True)
    if last_rollback is not None and now < last_rollback + LEAST_BETWEEN_ROLLBACKS:
        return Finding(Outcome.DECAYED, alarms)
    return Finding(Outcome.ROLL_BACK, alarms, target.revision, stable.revision)


def detect(
    objective: Objective, served: Served, rows: Sequence[Cohort], now: datetime, kept: Kept | None = None
) -> Alarm:
    """Return the state of one objective's detector over the mature cohorts in which `served` was in service.

    The detector starts with the revision, or behind what is `kept` of its last alarm, and anew when an alarm is over.
    """
    measure, threshold = objective.measure, math.log(COHORTS_PER_YEAR)

    def starts(*, is_above: bool = False) -> Cusum:
        return Cusum(measure, objective.floor, is_above=is_above)

    detector, recovery, shown = starts(), starts(is_above=True), threshold
    began = raised = resolved = since = None
    if kept is not None:
        raised, resolved = kept.raised, kept.resolved
        began, since = (kept.began, raised) if resolved is None else (None, resolved)
    for row in _of(objective, served, rows, now):
        if since is not None and row.start <= since:
            continue
        if raised is not None and resolved is None:
            recovery.add(row.labels)
            if recovery.log_e >= threshold:
                resolved, detector, began = row.start, starts(), None
            continue
        was_quiet = detector.log_e <= 0
        detector.add(row.labels)
        if detector.log_e <= 0:
            began = None
        elif was_quiet or began is None:
            began = row.start
        if detector.log_e >= threshold:
            shown, raised, resolved, recovery = detector.log_e, row.start, None, starts(is_above=True)
    stands = raised is not None and resolved is None
    return Alarm(measure.name, shown if stands else detector.log_e, threshold, began, raised, resolved)


def _of(objective: Objective, served: Served, rows: Sequence[Cohort], now: datetime) -> tuple[Cohort, ...]:
    return cohorts.counted_by(
        objective.measure,
        (
            row
            for row in cohorts.cohorts(rows, served.revision)
            if served.since <= row.start
            and (served.until is None or row.start + cohorts.COHORT <= served.until)
            and cohorts.mature_at(row.start, objective.horizon) <= now
        ),
    )


def _is_own_fault(objective: Objective, alarm: Alarm, stable: Served, rows: Sequence[Cohort]) -> bool:
    """Return whether the revision had not been good for long, with labels that say so, before the decay began.

    Counter-example to asking only how long: at 0.88 with a floor of 0.90 the detector comes to rest now and then, and
    the decay seems to begin after days in which the revision was below its floor all the same.
    """
    assert alarm.began is not None
    measure = objective.measure
    before = [row for row in cohorts.cohorts(rows, stable.revision) if stable.since <= row.start < alarm.began]
    counts = cohorts.total(cohorts.counted_by(measure, before), measure.cells)
    value = measure.value(counts)
    if isinstance(value, NoSignal) or value < measure.from_objective(objective.floor):
        return True
    return alarm.began < stable.since + SOAK and sum(counts) < SOAK_LABELS


def _is_good(objectives: Sequence[Objective], served: Served, rows: Sequence[Cohort], now: datetime) -> bool:
    """Return whether `served` was long enough in service, with labels, and ended with every detector quiet."""
    for objective in objectives:
        labels = sum(cohorts.total(_of(objective, served, rows, now), objective.measure.cells))
        lasted = (served.until or now) - served.since
        if labels == 0 or (lasted < SOAK and labels < SOAK_LABELS):
            return False
        if detect(objective, served, rows, now).stands:
            return False
    return True


def _is_no_better(
    objective: Objective, alarm: Alarm, stable: Served, target: Served, rows: Sequence[Cohort], now: datetime
) -> bool:
    """Return whether the target's labels since the decay began, where there are enough, show no better metric."""
    assert alarm.began is not None
    measure = objective.measure
    totals = []
    for served in (stable, target):
        same_period = Served(served.revision, alarm.began)
        totals.append(cohorts.total(_of(objective, same_period, rows, now), measure.cells))
    ours, theirs = measure.value(totals[0]), measure.value(totals[1])
    if sum(totals[1]) < SAME_PERIOD_LABELS or isinstance(ours, NoSignal) or isinstance(theirs, NoSignal):
        return False
    return theirs <= ours
