"""How much speaks against this canary by now, and how much for it? Every test of one rollout, on one α.

Against it: worse than the stable revision by more than the margin, below the floor, slower, failing more often. Their
e-values are averaged with fixed weights, and the average is held against 1/α: four tests at α each would be wrong up
to four times as often. For it: "not worse" has to be shown for every objective; as all have to be, none has to share.

Evidence is a path over time, folded from the rows each time: what counts is the first time that it reaches its
threshold, which is where an operator that never slept would have decided. Evidence of labels is there once their
cohort is mature, that of answers at once.

A floor, or a latency, that the stable revision misses as well is no reason to go back to it. Slow answers count only
while no more of stable's were slow, over the same minutes, than is allowed; a floor only while the stable revision
meets it over the same cohorts and its own detector (`cusum`) is quiet. The same cohorts are those since the canary's
own detector began to speak. Counter-example: over the whole trial, a day of 0.93 vouches for hours of 0.88 after the
data have changed, and of canaries a point worse, which is within their margin, one in fifteen went for a floor of 0.90.

Of a split, the revisions are compared over what was in the draw alone (`receipts.Assignment`), and so is the floor that
the stable revision has to meet: where it gets 0.97 of requests by gRPC, and of those that are drawn 0.88 like the
canary, 0.93 of both would vouch for the floor of 0.90 that the canary is held to. What one revision says of itself is
taken from all of its labels: the canary's floor, the stable revision's history and its detector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evenkeel_operator.decide.quality import cohorts, differences
from evenkeel_operator.decide.quality.betting import log_weighted
from evenkeel_operator.decide.quality.cohorts import Answers, Cohort, Pairs
from evenkeel_operator.decide.quality.cusum import Cusum
from evenkeel_operator.decide.quality.differences import Arms, Point
from evenkeel_operator.decide.quality.floors import Floor
from evenkeel_operator.decide.quality.measures import Counts, Measure, Term
from evenkeel_operator.decide.snapshot import NoSignal

DIFFERENCE_SHARE = 0.5
FLOOR_SHARE = 0.2
SLOW_SHARE = 0.15
FAILED_SHARE = 0.15
"""What each kind of test has of α, before those that the spec does not ask for are left out."""

QUIET_LOG_E = math.log(20)
"""Evidence of the stable revision's own decay from which its floor is no yardstick any more."""

SLOW_MARGIN = 0.01
FAILED_MARGIN = 0.005
"""By how much more of its samples the canary may be slow, or fail, than the stable revision."""

GOOD = Measure("Good", (Term((0.0, 1.0), (1.0, 1.0), (1.0, 1.0)),))
"""Samples in two cells: bad, good."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric: not below `floor`, and of a canary not below the stable's by more than `margin`; of errors above.

    Floor and margin are in the unit of the objective; `horizon` is how long after a cohort its labels are waited for.
    """

    measure: Measure
    floor: float
    margin: float
    horizon: timedelta

    @property
    def limit(self) -> str:
        """Its floor as it is told, of errors its ceiling."""
        return self.measure.limit(self.floor)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of a canary and the stable revision beside it.

    `started`: when the canary got its first traffic. `changes`: when the share of the traffic changed after that.
    `until`: later cohorts do not count. `pairs` is None where each request is answered by one revision only (split).
    `slow_budget`: the share of slow samples that the latency objective allows; None without one. `counted_at`: when the
    labels were counted, None for the moment at which they are looked at. A cohort that was not mature then does not
    count: of its labels only the early ones would be known.
    """

    stable: str
    canary: str
    started: datetime
    until: datetime
    changes: tuple[datetime, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    pairs: tuple[Pairs, ...] | None = None
    answers: tuple[Answers, ...] = ()
    slow_budget: float | None = None
    counted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One test: its name, its objective's measure (None: of answers), its share of α, and its evidence.

    `counts`: a floor, or a share of slow answers, that the stable revision misses as well does not count.
    """

    test: str
    measure: str | None
    share: float
    log_e: float = 0.0
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all tests together say.

    `refused_at`: when the average first reached 1/α, and None while it has not; `against` and `log_e` are of that
    moment then, and the last ones otherwise. `shown`: per objective, the most evidence for "not worse" so far.
    `shown_at`: when every objective had reached its threshold, None while one has not. `labels`: how many of the canary
    counted then.
    """

    against: tuple[Finding, ...]
    log_e: float
    log_threshold: float
    refused_at: datetime | None
    shown: tuple[float, ...]
    shown_log_threshold: float
    shown_at: datetime | None
    labels: int

    @property
    def strongest(self) -> Finding:
        """The test that contributes most."""
        return max(self.against, key=lambda f: math.log(f.share) + f.log_e if f.counts else -math.inf)

    @property
    def is_drift_suspected(self) -> bool:
        """Whether the canary is shown to miss a floor that the stable revision misses as well."""
        return any(
            not f.counts and f.test == "floor" and math.log(f.share) + f.log_e >= self.log_threshold
            for f in self.against
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """What all tests together say from `at` on, until the next one; fields as of `Evidence`."""

    at: datetime
    against: tuple[Finding, ...]
    log_e: float
    shown: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Event:
    """From `at` on, test number `index` has this evidence; `shown` is of the objective of that number."""

    at: datetime
    index: int
    log_e: float
    counts: bool = True
    shown: float | None = None


def gather(
    objectives: tuple[Objective, ...], trial: Trial, now: datetime, alpha: float, promotion_alpha: float
) -> Evidence:
    """Return the evidence about the canary at `now`.

    Args:
        alpha: the chance that a canary that is none of "worse", "below the floor", "slow", "failing" is ever refused.
        promotion_alpha: the chance that a canary that is worse by the margin or more is ever shown to be "not worse".
    """
    threshold, shown_threshold = -math.log(alpha), -math.log(promotion_alpha)
    against, log_e = tuple(_tests(objectives, trial.slow_budget is not None)), 0.0
    shown: tuple[float, ...] = (0.0,) * len(objectives)
    shown_at = refused_at = None
    for moment in moments(objectives, trial, now):
        against, log_e, shown = moment.against, moment.log_e, moment.shown
        if log_e >= threshold:
            refused_at = moment.at
            break
        if shown_at is None and shown and min(shown) >= shown_threshold:
            shown_at = moment.at
    return Evidence(
        against=against,
        log_e=log_e,
        log_threshold=threshold,
        refused_at=refused_at,
        shown=shown,
        shown_log_threshold=shown_threshold,
        shown_at=shown_at,
        labels=labelled(objectives, trial, refused_at or now),
    )


def moments(objectives: tuple[Objective, ...], trial: Trial, now: datetime) -> Iterator[Moment]:
    """Yield the evidence at each time until `now` at which it changes, in order of time; no threshold ends it."""
    tests = _tests(objectives, trial.slow_budget is not None)
    events: list[_Event] = []
    for number, objective in enumerate(objectives):
        events += _of_labels(objective, number, trial, now)
    events += _of_answers(len(objectives), trial, now)
    events.sort(key=lambda event: (event.at, event.index))

    shown = [0.0] * len(objectives)
    for i, event in enumerate(events):
        tests[event.index] = replace(tests[event.index], log_e=event.log_e, counts=event.counts)
        if event.shown is not None:
            number = event.index // 2
            shown[number] = max(shown[number], event.shown)
        if i + 1 < len(events) and events[i + 1].at == event.at:
            continue
        log_e = log_weighted((f.share, f.log_e if f.counts else 0.0) for f in tests)
        yield Moment(event.at, tuple(tests), log_e, tuple(shown))


def labelled(objectives: tuple[Objective, ...], trial: Trial, now: datetime) -> int:
    """Return how many labels of the canary count by now, by the longest horizon."""
    if not objectives:
        return 0
    horizon = max(objective.horizon for objective in objectives)
    measure = objectives[0].measure
    return round(sum(sum(arms.canary) for arms in arms_of(counted_by(measure, trial), horizon, measure.cells, now)))


def counted_by(measure: Measure, trial: Trial) -> Trial:
    """Return the trial with its labels in the cells of `measure`, as whatever is made of labels takes it."""
    return replace(trial, cohorts=cohorts.counted_by(measure, trial.cohorts))


def arms_of(trial: Trial, horizon: timedelta, cells: int, now: datetime) -> tuple[Arms, ...]:
    """Return the labels of both revisions per mature cohort, in order of time, since the canary has had traffic.

    `trial` is counted by a measure of so many `cells`.
    """
    stable, canary = cohorts.cohorts(trial.cohorts, trial.stable), cohorts.cohorts(trial.cohorts, trial.canary)
    return _beside(stable, canary, trial, horizon, cells, now)


def drawn_of(trial: Trial, horizon: timedelta, cells: int, now: datetime) -> tuple[Arms, ...]:
    """Return what `arms_of` does, of a split only what was in the draw, and by what it drew: these may be compared."""
    stable = cohorts.drew_stable(trial.cohorts, trial.stable)
    canary = cohorts.drew_canary(trial.cohorts, trial.stable, trial.canary)
    return _beside(stable, canary, trial, horizon, cells, now)


def _beside(
    stable: tuple[Cohort, ...],
    canary: tuple[Cohort, ...],
    trial: Trial,
    horizon: timedelta,
    cells: int,
    now: datetime,
) -> tuple[Arms, ...]:
    none = (0,) * cells
    found: dict[datetime, Arms]
    if trial.pairs is not None:
        found = {row.start: _marginals(row, cells) for row in cohorts.pairs(trial.pairs)}
    else:
        found = {row.start: Arms(row.start, row.labels, none) for row in stable}
        for row in canary:
            beside = found[row.start].stable if row.start in found else none
            found[row.start] = Arms(row.start, beside, row.labels)
    return tuple(found[start] for start in sorted(found) if _counts(start, trial, horizon, now))


def _counts(start: datetime, trial: Trial, horizon: timedelta, now: datetime) -> bool:
    known_at = now if trial.counted_at is None else min(now, trial.counted_at)
    return trial.started <= start < trial.until and cohorts.mature_at(start, horizon) <= known_at


def _marginals(row: Pairs, cells: int) -> Arms:
    stable, canary = [0] * cells, [0] * cells
    for (s, c), count in row.labels.items():
        stable[s] += count
        canary[c] += count
    return Arms(row.start, tuple(stable), tuple(canary))


def _tests(objectives: tuple[Objective, ...], has_budget: bool) -> list[Finding]:
    """Return every test that is asked for: two of each objective, then those of answers. The shares sum to 1."""
    found = []
    for objective in objectives:
        found.append(Finding("worse", objective.measure.name, DIFFERENCE_SHARE / len(objectives)))
        found.append(Finding("floor", objective.measure.name, FLOOR_SHARE / len(objectives)))
    found.append(Finding("failing", None, FAILED_SHARE))
    if has_budget:
        found.append(Finding("slower", None, SLOW_SHARE / 2))
        found.append(Finding("slow", None, SLOW_SHARE / 2))
    total = sum(finding.share for finding in found)
    return [replace(finding, share=finding.share / total) for finding in found]


def _of_labels(objective: Objective, number: int, trial: Trial, now: datetime) -> Iterator[_Event]:
    measure, horizon = objective.measure, objective.horizon
    trial = counted_by(measure, trial)
    arms, drawn = (of(trial, horizon, measure.cells, now) for of in (arms_of, drawn_of))
    prior = measure.from_objective(objective.floor)
    before = [row for row in cohorts.cohorts(trial.cohorts, trial.stable) if row.start < trial.started]
    history = cohorts.total(before, measure.cells)
    points: tuple[Point, ...]
    if trial.pairs is None:
        points = differences.split(measure, objective.margin, prior, history, drawn, trial.changes)
    else:
        rows = [row for row in cohorts.pairs(trial.pairs) if _counts(row.start, trial, horizon, now)]
        points = differences.mirrored(measure, objective.margin, prior, history, rows)
    for point in points:
        yield _Event(cohorts.mature_at(point.start, horizon), 2 * number, point.worse, shown=point.not_worse)

    floor, guard = Floor(measure, objective.floor, history), Cusum(measure, objective.floor)
    decline = Cusum(measure, objective.floor)
    for row in before:
        guard.add(row.labels)
    none: Counts = (0,) * measure.cells
    stable = none
    beside = {cohort.start: cohort.stable for cohort in drawn}
    for cohort in arms:
        floor.add(cohort.canary)
        guard.add(cohort.stable)
        decline.add(cohort.canary)
        labels = beside.get(cohort.start, none)
        stable = tuple(a + b if decline.log_e > 0.0 else 0 for a, b in zip(stable, labels, strict=True))
        value = measure.value(stable)
        is_met = not isinstance(value, NoSignal) and value >= prior and guard.log_e < QUIET_LOG_E
        yield _Event(cohorts.mature_at(cohort.start, horizon), 2 * number + 1, floor.log_e, counts=is_met)


def _of_answers(objectives: int, trial: Trial, now: datetime) -> Iterator[_Event]:
    first = 2 * objectives
    canary = [
        row
        for row in cohorts.answers(trial.answers, trial.canary)
        if trial.started <= row.start < trial.until and row.start + cohorts.ANSWERS <= now
    ]
    stable = {row.start: row for row in cohorts.answers(trial.answers, trial.stable)}

    def arms(is_slow: bool) -> list[Arms]:
        return [Arms(r.start, _good(stable.get(r.start), is_slow), _good(r, is_slow)) for r in canary]

    def points(is_slow: bool, margin: float, prior: float) -> tuple[Point, ...]:
        return differences.split(GOOD, margin, prior, (0, 0), arms(is_slow), trial.changes, cohorts.ANSWERS)

    for point in points(False, FAILED_MARGIN, 1.0):
        yield _Event(point.start + cohorts.ANSWERS, first, point.worse)
    if trial.slow_budget is None:
        return
    for point in points(True, SLOW_MARGIN, 1 - trial.slow_budget):
        yield _Event(point.start + cohorts.ANSWERS, first + 1, point.worse)
    floor = Floor(GOOD, 1 - trial.slow_budget)
    slow = samples = 0
    for row in canary:
        floor.add(_good(row, True))
        beside = stable.get(row.start)
        slow, samples = slow + (beside.slow if beside else 0), samples + (beside.samples if beside else 0)
        is_met = slow <= trial.slow_budget * samples
        yield _Event(row.start + cohorts.ANSWERS, first + 2, floor.log_e, counts=is_met)


def _good(row: Answers | None, is_slow: bool) -> tuple[int, int]:
    if row is None:
        return 0, 0
    bad = row.slow if is_slow else row.failed
    return bad, row.samples - bad
