"""What is said about the measured quality of the stable revision: status, condition, Events?

| known                                             | AccuracyMet | reason         |
|---------------------------------------------------|-------------|----------------|
| every measure's interval is at its floor or above | True        | AboveFloor     |
| one measure's interval is below its floor         | False       | BelowFloor     |
| its detector has raised an alarm that stands      | False       | Decayed        |
| so it has, and going back would not help          | False       | DriftSuspected |
| neither, by the labels so far                     | Unknown     | NotProven      |
| no label counts yet                               | Unknown     | LabelsMissing  |
| the feedback service has stopped answering        | Unknown     | MetricsStale   |
| it has never answered                             | Unknown     | MetricsMissing |
| the labels are of nothing that the spec asks for  | Unknown     | CannotBeJudged |

An alarm that stands goes before all but the first: it is kept in status.accuracy, and no label that is too old to be
looked at, no silence of the feedback service and no restart takes it back (`guard`). Of an error, whose bound is a
ceiling, below is above and above below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.api.core import parse_time, seconds
from evenkeel_operator.api.modeldeployment import AccuracyObjective, Object, Spec
from evenkeel_operator.api.rules import MOST_HORIZON_DAYS
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import conditions, covered, standing
from evenkeel_operator.decide.conditions import Row
from evenkeel_operator.decide.covered import Covered
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.quality import cohorts, guard
from evenkeel_operator.decide.quality.cohorts import Cohort
from evenkeel_operator.decide.quality.counted import Counted, Unjudgeable, objectives
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.floors import Interval, as_text, interval
from evenkeel_operator.decide.quality.guard import Finding, Kept, Outcome, Served
from evenkeel_operator.decide.quality.measures import Metric
from evenkeel_operator.decide.quality.verdict import FINAL
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

LOOK_BACK = timedelta(days=14)
"""How far back labels are looked at, at least; twice the horizon where that is longer."""
HISTORY = timedelta(days=2)
"""Labels of the stable revision from before a trial, of which its plug-ins learn."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of the stable revision's answers.

    `counted` is what the feedback service has counted, NoSignal where it has never answered; `is_stale`: it does not
    any more. `intervals` are of the objectives `wanted` in their order: those of the spec when it was measured.
    `problem`: why they cannot be computed.
    """

    counted: Counted | NoSignal
    measured_at: datetime
    is_stale: bool = False
    intervals: tuple[Interval | NoSignal, ...] = ()
    finding: Finding | None = None
    problem: str | None = None
    wanted: tuple[AccuracyObjective, ...] = ()
    stable: Served | None = None
    """The revision that was in service when it was measured."""
    coverages: tuple[Covered | None, ...] = ()
    """Of the objectives, None where nothing is known; empty where nothing could be measured."""


@dataclass(frozen=True, slots=True)
class Decay:
    """That the accuracy of `served` has decayed, by one of its measures: the objective, its value, since when."""

    served: Served
    reason: Reason
    objective: AccuracyObjective
    observed: float | None
    began: datetime | None


def counted_since(spec: Spec, status: Status, now: datetime) -> datetime:
    """Return since when labels have to be counted: a canary's whole trial, which may last for months, is judged."""
    horizon = max((timedelta(seconds=seconds(one.horizon)) for one in spec.objectives.accuracy), default=timedelta(0))
    since = now - max(LOOK_BACK, 2 * horizon)
    trial = status.canary
    if trial is None or trial.state in FINAL:
        return since
    return min(since, parse_time(trial.began) - HISTORY)


def measure(
    wanted: tuple[AccuracyObjective, ...],
    counted: Counted,
    stable: Served | None,
    now: datetime,
    earlier: tuple[Served, ...] = (),
    last_rollback: datetime | None = None,
    kept: tuple[Kept | None, ...] = (),
) -> Quality:
    """Return the quality of the revision in service, over the cohorts that are mature.

    `earlier`, `last_rollback` and `kept` are the guard's; of revisions that answer otherwise, with other classes or
    numbers for classes, the labels say nothing about these objectives.
    """
    if stable is None:
        return Quality(counted, now, intervals=(NO_SIGNAL,) * len(wanted), wanted=wanted)
    try:
        found = objectives(wanted, counted, stable.revision)
    except Unjudgeable as e:
        return Quality(counted, now, intervals=(NO_SIGNAL,) * len(wanted), problem=e.message, wanted=wanted)
    rows = counted.cohorts(stable.revision)
    earlier = tuple(one for one in earlier if _answers_like(counted, stable, one))
    everything = counted.cohorts(stable.revision, *(one.revision for one in earlier))
    return Quality(
        counted,
        now,
        intervals=tuple(_interval(one, rows, now) for one in found),
        finding=guard.watch(found, stable, earlier, everything, now, last_rollback, kept),
        wanted=wanted,
        stable=stable,
        coverages=tuple(covered.covered(one, counted.revisions.get(stable.revision), now) for one in found),
    )


def status(spec: Spec, found: Quality | None, before: Status) -> Object:
    """Return status.accuracy; what nobody has looked at yet stays as it was."""
    wanted = spec.objectives.accuracy
    if not wanted:
        return {}
    if found is None:
        kept = [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in before.accuracy or ()]
        return {"accuracy": kept} if kept else {}
    found, answer = _of(wanted, found), []
    alarms = standing.told(wanted, found.stable, found.finding, before)
    coverages = found.coverages or (None,) * len(wanted)
    for objective, known, alarm, share in zip(wanted, found.intervals, alarms, coverages, strict=True):
        row: Object = {
            "metric": objective.metric,
            "state": _state(found, known),
            **bounds(objective),
            "limit": _limit(objective),
            "asOf": conditions.timestamp(found.measured_at),
        }
        if not isinstance(known, NoSignal):
            row |= {
                "observed": _rounded(known.value),
                "lower": _rounded(known.lower),
                "upper": _rounded(known.upper),
                "labels": known.labels,
            }
        if share is not None:
            row["coverage"] = covered.told(share)
        if alarm is not None:
            row["alarm"] = alarm
        answer.append(row)
    return {"accuracy": answer}


def rows(
    spec: Spec, found: Quality | None, before: Status, acknowledged: str | None = None, now: datetime | None = None
) -> list[Row]:
    """Return the condition AccuracyMet, where the spec asks for a quality; `acknowledged` is the annotation's text, at
    `now`."""
    wanted = spec.objectives.accuracy
    if not wanted:
        return []
    found = None if found is None else _of(wanted, found)
    return [_alarmed(wanted, found, before, acknowledged, now) or _met(wanted, found)]


def decay(spec: Spec, found: Quality | None) -> Decay | None:
    """Return the decay that the condition AccuracyMet tells of; None where it tells of none, or knows too little."""
    wanted = spec.objectives.accuracy
    found = None if found is None or not wanted else _of(wanted, found)
    if found is None or found.stable is None or found.finding is None:
        return None
    if found.is_stale or found.finding.outcome is Outcome.QUIET:
        return None
    reason = Reason.DRIFT_SUSPECTED if found.finding.is_drift_suspected else Reason.DECAYED
    for objective, at, alarm in zip(wanted, found.intervals, found.finding.alarms, strict=True):
        if alarm.stands:
            observed = None if isinstance(at, NoSignal) else _rounded(at.value)
            return Decay(found.stable, reason, objective, observed, alarm.began)
    return None


def bounds(objective: AccuracyObjective) -> dict[str, float]:
    """Return an objective's floor or ceiling, as status has it."""
    return {"ceiling" if objective.is_error else "floor": objective.bound}


def is_met(objective: AccuracyObjective, at: Interval) -> bool:
    """Return whether the objective is met wherever between its bounds the truth lies."""
    metric = Metric(objective.metric)
    return metric.is_met(at.lower, objective.bound) and metric.is_met(at.upper, objective.bound)


def is_missed(objective: AccuracyObjective, at: Interval) -> bool:
    """Return whether the objective is missed wherever between its bounds the truth lies."""
    metric = Metric(objective.metric)
    return not (metric.is_met(at.lower, objective.bound) or metric.is_met(at.upper, objective.bound))


def is_news(told: Quality | None, found: Quality) -> bool:
    """Return whether `found` says something else than `told`, not counting the time at which it was found."""
    if told is None:
        return True
    return (
        told.wanted, told.is_stale, told.intervals, told.problem, told.finding, told.stable, told.coverages,
    ) != (
        found.wanted, found.is_stale, found.intervals, found.problem, found.finding, found.stable, found.coverages,
    )  # fmt: skip


def _of(wanted: tuple[AccuracyObjective, ...], found: Quality) -> Quality:
    """Return what is known of these objectives: nothing where others were measured, until the next look."""
    if isinstance(found.counted, NoSignal) or found.wanted != wanted:
        return Quality(NO_SIGNAL, found.measured_at, intervals=(NO_SIGNAL,) * len(wanted))
    return found


def _answers_like(counted: Counted, stable: Served, other: Served) -> bool:
    ours, theirs = counted.revisions.get(stable.revision), counted.revisions.get(other.revision)
    return ours is None or theirs is None or ours.classes == theirs.classes


def _interval(objective: Objective, rows: tuple[Cohort, ...], now: datetime) -> Interval | NoSignal:
    mature = (row for row in rows if cohorts.mature_at(row.start, objective.horizon) <= now)
    measure = objective.measure
    return interval(measure, cohorts.total(cohorts.counted_by(measure, mature), measure.cells))


def _state(found: Quality, known: Interval | NoSignal) -> str:
    if isinstance(found.counted, NoSignal):
        return "NoMetrics"
    if isinstance(known, NoSignal):
        return "NoLabels"
    return "Stale" if found.is_stale else "Fresh"


def _alarmed(
    wanted: tuple[AccuracyObjective, ...],
    found: Quality | None,
    before: Status,
    acknowledged: str | None,
    now: datetime | None,
) -> Row | None:
    """Return what is said while an alarm stands, None while none does."""
    stable, finding = (None, None) if found is None else (found.stable, found.finding)
    alarm = standing.alarm(wanted, stable, finding, before)
    if alarm is None:
        return None
    known = () if found is None else zip(wanted, found.intervals, strict=True)
    text = "; ".join(_told(objective, at) for objective, at in known if not isinstance(at, NoSignal))
    why = "the data seem to have changed rather than the model" if alarm.is_drift_suspected else "it has decayed"
    silent = ["the feedback service does not answer any more"] if found is not None and found.is_stale else []
    end = standing.way_out(wanted, alarm, acknowledged, now)
    parts = (text or "no label that is looked at counts now", why, *silent, end)
    reason = Reason.DRIFT_SUSPECTED if alarm.is_drift_suspected else Reason.DECAYED
    return Row("AccuracyMet", False, reason, "; ".join((*parts, *_waiting_in_vain(wanted))))


def _met(wanted: tuple[AccuracyObjective, ...], found: Quality | None) -> Row:
    def row(holds: bool | None, reason: Reason, message: str) -> Row:
        return Row("AccuracyMet", holds, reason, "; ".join((message, *_waiting_in_vain(wanted))))

    if found is None or isinstance(found.counted, NoSignal):
        return row(None, Reason.METRICS_MISSING, "the feedback service has not said yet what it has counted")
    if found.problem is not None:
        return row(None, Reason.CANNOT_BE_JUDGED, found.problem)
    known = [(o, i) for o, i in zip(wanted, found.intervals, strict=True) if not isinstance(i, NoSignal)]
    text = "; ".join(_told(objective, at) for objective, at in known)
    if found.is_stale:
        return row(
            None,
            Reason.METRICS_STALE,
            f"the feedback service does not answer any more; last known: {text or 'no label'}",
        )
    if not known:
        return row(None, Reason.LABELS_MISSING, "no label counts yet: post them, and see horizon")
    if any(is_missed(objective, at) for objective, at in known):
        return row(False, Reason.BELOW_FLOOR, text)
    if len(known) == len(wanted) and all(is_met(objective, at) for objective, at in known):
        return row(True, Reason.ABOVE_FLOOR, text)
    return row(None, Reason.NOT_PROVEN, f"{text}; more labels will tell")


def _waiting_in_vain(wanted: tuple[AccuracyObjective, ...]) -> Iterator[str]:
    """Yield what is to be said of horizons that only an earlier release's CRD has let be stored."""
    for one in wanted:
        if seconds(one.horizon) > MOST_HORIZON_DAYS * 86400:
            yield (
                f"spec.objectives.accuracy of {one.metric}: horizon is {one.horizon}, but labels are taken for "
                f"{MOST_HORIZON_DAYS} days ({24 * MOST_HORIZON_DAYS}h): shorten it"
            )


def _told(objective: AccuracyObjective, at: Interval) -> str:
    return (
        f"{objective.metric} is {as_text(at.value)} ({as_text(at.lower)} to {as_text(at.upper)}, {at.labels} labels), "
        f"{objective.limit}"
    )


def _limit(objective: AccuracyObjective) -> str:
    """Return the bound as the FLOOR column shows it."""
    return f"{'<=' if objective.is_error else ''}{objective.bound:g}"


def _rounded(value: float) -> float:
    return float(as_text(value))
