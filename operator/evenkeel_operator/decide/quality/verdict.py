"""Is this revision good enough? The canary's state, from the spec, the rows and the time.

    state         means                                                     leaves it
    Pending       the canary has no replica that is placed                  one is
    Warming       replicas start; there is no traffic for it yet            one is ready
    Canary(i)     step i: a share of the traffic, or a mirror               the next step, or one of those below
    Promoted      shown to be not worse in every objective                  final
    RolledBack    shown to be worse, below its floor, slow or failing       final; the revision is quarantined
    Held          may not go on: no labels, drift, no GPU; it keeps its step  what holds it goes away, or a person
    Inconclusive  time is up and neither has been shown                     a person

A step follows the last when it has lasted, has enough samples, and nothing speaks against the canary. Rolling back
waits for no step; promoting waits for the last one. Which of the two comes first is decided by when the evidence was
there, not by when somebody looked: the same rows give the same verdict to an operator that was dead in between. While
nobody knows what labels there are, a canary may go back for its answers, and goes no step on. What a caller keeps is
when each step began, and a final verdict.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.quality.cohorts import Answers, Cohort, Pairs
from evenkeel_operator.decide.quality.evidence import (
    FAILED_MARGIN,
    SLOW_MARGIN,
    Evidence,
    Objective,
    Trial,
    counted_by,
    drawn_of,
    gather,
)
from evenkeel_operator.decide.quality.floors import Interval, interval
from evenkeel_operator.decide.snapshot import NoSignal

LOOK_AGAIN = timedelta(minutes=1)
"""How often a running test is looked at. Evidence may be looked at as often as one likes."""

PSI_LIMIT = 0.2
"""Population stability index of the predicted classes from which two revisions answer differently."""


class State(enum.StrEnum):
    """Where a canary stands."""

    PENDING = "Pending"
    WARMING = "Warming"
    CANARY = "Canary"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    HELD = "Held"
    INCONCLUSIVE = "Inconclusive"


FINAL = frozenset({State.PROMOTED, State.ROLLED_BACK})


class Why(enum.StrEnum):
    """Why a canary stands there."""

    NOT_PLACED = "NotPlaced"
    STARTING = "Starting"
    TESTING = "Testing"
    STEP_PASSED = "StepPassed"
    NOT_WORSE = "NotWorse"
    ANSWERS_GOOD = "AnswersGood"
    WORSE = "Worse"
    BELOW_FLOOR = "BelowFloor"
    SLOW = "Slow"
    FAILING = "Failing"
    NO_GPU = "NoGPU"
    NO_TRAFFIC = "NoTraffic"
    LABELS_MISSING = "LabelsMissing"
    LABELS_UNKNOWN = "LabelsUnknown"
    PROXY_DIFFERS = "ProxyDiffers"
    DRIFT_SUSPECTED = "DriftSuspected"
    OUT_OF_TIME = "OutOfTime"
    BY_HAND = "ByHand"
    CANNOT_BE_JUDGED = "CannotBeJudged"


_WHY = {
    "worse": Why.WORSE,
    "floor": Why.BELOW_FLOOR,
    "slower": Why.SLOW,
    "slow": Why.SLOW,
    "failing": Why.FAILING,
}


class OnMissingLabels(enum.StrEnum):
    """What happens to a canary of whose predictions no label ever comes."""

    HOLD = "Hold"
    LATENCY_ONLY = "LatencyOnly"
    PROXY = "Proxy"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rollout: percent of the traffic, how long at least, how many samples of answers at least."""

    weight: int
    min_duration: timedelta = timedelta(minutes=5)
    min_samples: int = 200


@dataclass(frozen=True, slots=True)
class Rules:
    """What the spec says about a canary. `alpha`: of a wrong rollback; `promotion_alpha`: of a wrong promotion."""

    steps: tuple[Step, ...]
    objectives: tuple[Objective, ...] = ()
    slow_budget: float | None = None
    on_missing_labels: OnMissingLabels = OnMissingLabels.HOLD
    max_duration: timedelta = timedelta(hours=168)
    alpha: float = 0.01
    promotion_alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the canary has come: whether a replica is placed, is ready, and when each step so far began."""

    is_placed: bool = False
    is_ready: bool = False
    steps_began: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """What the label service and the pods have counted; `pairs` is None where traffic is split and not mirrored.

    `counted_at`: when the label service counted, NoSignal where it has not answered: there may be any number of labels.
    None stands for the moment at which the rows are judged.
    """

    stable: str
    canary: str
    cohorts: tuple[Cohort, ...] = ()
    pairs: tuple[Pairs, ...] | None = None
    answers: tuple[Answers, ...] = ()
    counted_at: datetime | NoSignal | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One objective's numbers, as they are told: of each revision over the mature cohorts of the rollout.

    Of a split, over what was in the draw (`evidence.drawn_of`).
    """

    measure: str
    limit: str
    margin: float
    stable: Interval | NoSignal
    canary: Interval | NoSignal


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the canary stands, why, and the numbers that say so.

    `step` counts from 0 and is None before the first; a verdict `Canary` with a step that has not begun asks for it.
    `quarantine` is the revision that must not be tried again while the spec is the same.
    """

    state: State
    why: Why
    step: int | None = None
    evidence: Evidence | None = None
    compared: tuple[Compared, ...] = ()
    samples: int = 0
    quarantine: str | None = None
    look_again_at: datetime | None = None


def judge(rules: Rules, progress: Progress, rows: Rows, now: datetime, final: Verdict | None = None) -> Verdict:
    """Return the verdict at `now`. `final` is the kept one, if it was: labels that come later do not undo it."""
    if final is not None and final.state in FINAL:
        return final
    if not progress.steps_began:
        return _before_traffic(progress, now)

    trial = trial_of(rules, progress, rows)
    evidence = gather(rules.objectives, trial, now, rules.alpha, rules.promotion_alpha)
    step = len(progress.steps_began) - 1
    samples = _samples(trial, progress.steps_began[-1], now)

    def verdict(state: State, why: Why, at_step: int = step) -> Verdict:
        return Verdict(
            state,
            why,
            at_step,
            evidence,
            compared(rules.objectives, trial, now),
            samples,
            quarantine=rows.canary if state is State.ROLLED_BACK else None,
            look_again_at=None if state in FINAL else now + LOOK_AGAIN,
        )

    is_sound = _answers_are_good(trial, now)
    promoted_at = _promoted_at(rules, progress, trial, evidence, now) if is_sound else None
    if evidence.refused_at is not None and (promoted_at is None or evidence.refused_at <= promoted_at):
        return verdict(State.ROLLED_BACK, _WHY[evidence.strongest.test])
    if promoted_at is not None and promoted_at <= now:
        return verdict(State.PROMOTED, Why.NOT_WORSE if rules.objectives else Why.ANSWERS_GOOD)

    if rules.objectives and isinstance(rows.counted_at, NoSignal):
        return verdict(State.CANARY, Why.LABELS_UNKNOWN)
    horizon = max((objective.horizon for objective in rules.objectives), default=timedelta(0))
    is_over = now >= trial.until + horizon + cohorts.COHORT
    is_last = step == len(rules.steps) - 1
    is_due = samples >= rules.steps[step].min_samples and now >= _lasted(rules, progress) and is_sound
    # Labels are missed once they would have been late for the first cohort that counts, and not a quarter before.
    missed_at = cohorts.mature_at(cohorts.first_from(trial.started), 2 * horizon)
    known_at = now if trial.counted_at is None else min(now, trial.counted_at)
    if rules.objectives and evidence.labels == 0 and known_at >= missed_at:
        if not _has_predictions(trial):
            return verdict(State.HELD if is_over else State.CANARY, Why.NO_TRAFFIC)
        if rules.on_missing_labels is OnMissingLabels.HOLD:
            return verdict(State.HELD, Why.LABELS_MISSING)
        if rules.on_missing_labels is OnMissingLabels.PROXY and stability_index(trial) >= PSI_LIMIT:
            return verdict(State.HELD, Why.PROXY_DIFFERS)
        if is_last and is_due:
            return verdict(State.PROMOTED, Why.ANSWERS_GOOD)
    if is_over:
        return verdict(State.INCONCLUSIVE, Why.OUT_OF_TIME)
    if evidence.is_drift_suspected:
        return verdict(State.HELD, Why.DRIFT_SUSPECTED)
    if is_due and not is_last:
        return verdict(State.CANARY, Why.STEP_PASSED, step + 1)
    return verdict(State.CANARY, Why.TESTING)


def trial_of(rules: Rules, progress: Progress, rows: Rows) -> Trial:
    """Return what is known of a canary whose first step has begun, as its evidence is gathered from it."""
    started = progress.steps_began[0]
    return Trial(
        stable=rows.stable,
        canary=rows.canary,
        started=started,
        until=started + rules.max_duration,
        changes=progress.steps_began[1:],
        cohorts=rows.cohorts,
        pairs=rows.pairs,
        answers=rows.answers,
        slow_budget=rules.slow_budget,
        counted_at=None if isinstance(rows.counted_at, NoSignal) else rows.counted_at,
    )


def compared(objectives: tuple[Objective, ...], trial: Trial, now: datetime) -> tuple[Compared, ...]:
    """Return each objective's metric of both revisions over the mature cohorts of the rollout, with bounds."""
    found = []
    for objective in objectives:
        measure = objective.measure
        arms = drawn_of(counted_by(measure, trial), objective.horizon, measure.cells, now)
        stable: list[float] = [0] * measure.cells
        canary: list[float] = [0] * measure.cells
        for cohort in arms:
            stable = [a + b for a, b in zip(stable, cohort.stable, strict=True)]
            canary = [a + b for a, b in zip(canary, cohort.canary, strict=True)]
        found.append(
            Compared(
                measure.name, objective.limit, objective.margin, interval(measure, stable), interval(measure, canary)
            )
        )
    return tuple(found)


def stability_index(trial: Trial) -> float:
    """Return the population stability index of the two revisions' predicted classes, of what was in the draw, or of
    what both have answered: Σ (p - q)·ln(p/q).

    Half a prediction is added to each class, so that one which a revision never predicts counts much, not infinitely.
    """
    if trial.pairs is not None:
        stable, canary = _answered_by_both(trial, trial.pairs)
    else:
        stable = _predicted(trial, cohorts.drew_stable(trial.cohorts, trial.stable))
        canary = _predicted(trial, cohorts.drew_canary(trial.cohorts, trial.stable, trial.canary))
    if not stable or not canary:
        return math.inf
    p, q = _shares(stable), _shares(canary)
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def _before_traffic(progress: Progress, now: datetime) -> Verdict:
    if not progress.is_placed:
        return Verdict(State.PENDING, Why.NOT_PLACED, look_again_at=now + LOOK_AGAIN)
    if not progress.is_ready:
        return Verdict(State.WARMING, Why.STARTING, look_again_at=now + LOOK_AGAIN)
    return Verdict(State.CANARY, Why.STEP_PASSED, step=0, look_again_at=now + LOOK_AGAIN)


def _lasted(rules: Rules, progress: Progress) -> datetime:
    """Return when the present step has lasted as long as it has to."""
    return progress.steps_began[-1] + rules.steps[len(progress.steps_began) - 1].min_duration


def _promoted_at(rules: Rules, progress: Progress, trial: Trial, evidence: Evidence, now: datetime) -> datetime | None:
    """Return when everything that a promotion needs was there, None while something is missing."""
    sampled_at = _sampled_at(trial, progress.steps_began[-1], rules.steps[-1].min_samples, now)
    if len(progress.steps_began) < len(rules.steps) or sampled_at is None:
        return None
    if not rules.objectives:
        return max(sampled_at, _lasted(rules, progress))
    return None if evidence.shown_at is None else max(evidence.shown_at, sampled_at, _lasted(rules, progress))


def _sampled_at(trial: Trial, since: datetime, least: int, now: datetime) -> datetime | None:
    """Return when there were `least` samples of a step that began at `since`, None while there are fewer."""
    samples = 0
    for row in _answers(trial, trial.canary, now):
        samples += row.samples if row.start >= since else 0
        if samples >= least:
            return row.start + cohorts.ANSWERS
    return None


def _samples(trial: Trial, since: datetime, now: datetime) -> int:
    return sum(row.samples for row in _answers(trial, trial.canary, now) if row.start >= since)


def _answers(trial: Trial, revision: str, now: datetime) -> list[Answers]:
    return [
        row
        for row in cohorts.answers(trial.answers, revision)
        if trial.started <= row.start < trial.until and row.start + cohorts.ANSWERS <= now
    ]


def _answers_are_good(trial: Trial, now: datetime) -> bool:
    """Return whether the canary's answers look as good as they must: to go on takes more than no proof against it."""
    canary, stable = _answers(trial, trial.canary, now), _answers(trial, trial.stable, now)
    samples, beside = sum(row.samples for row in canary), sum(row.samples for row in stable)
    if samples == 0:
        return True
    failed = sum(row.failed for row in stable) / beside if beside else 0.0
    if sum(row.failed for row in canary) / samples > failed + FAILED_MARGIN:
        return False
    if trial.slow_budget is None:
        return True
    slow = sum(row.slow for row in stable) / beside if beside else 0.0
    return sum(row.slow for row in canary) / samples <= max(trial.slow_budget, slow + SLOW_MARGIN)


def _has_predictions(trial: Trial) -> bool:
    if trial.pairs is not None:
        return any(sum(counts) for counts in _answered_by_both(trial, trial.pairs))
    return any(_predicted(trial, cohorts.cohorts(trial.cohorts, trial.canary)))


def _answered_by_both(trial: Trial, pairs: tuple[Pairs, ...]) -> tuple[list[int], list[int]]:
    """Return how often stable and canary predicted each class of requests that both answered and nobody labelled."""
    counts: Counter[tuple[int, int]] = Counter()
    for row in cohorts.pairs(pairs):
        if trial.started <= row.start < trial.until:
            counts.update(row.unlabelled)
    classes = 1 + max((max(answers) for answers in counts), default=-1)
    stable, canary = [0] * classes, [0] * classes
    for (by_stable, by_canary), count in counts.items():
        stable[by_stable] += count
        canary[by_canary] += count
    return stable, canary


def _predicted(trial: Trial, rows: Iterable[Cohort]) -> list[int]:
    found: list[int] = []
    for row in rows:
        if trial.started <= row.start < trial.until:
            found = [a + b for a, b in zip(found or [0] * len(row.predictions), row.predictions, strict=True)]
    return found


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts) + len(counts) / 2
    return [(count + 0.5) / total for count in counts]
