"""Is the canary worse than the stable revision, or not worse? Two tests, with a margin m between them.

`worse` is evidence against D ≥ -m, `not_worse` against D ≤ -m, D being the canary's metric minus the stable's. Between
the two lies only what has not been shown yet: a canary that is worse by exactly m is neither.

**Split** (each request is answered by one of them). Over a stratum with n_c and n_s labels the wealth is
Π_canary (1 - L·n_s/n·s_c) · Π_stable (1 + L·n_c/n·s_s). With the stable's scores at mean ε and the canary's, moved up
by m, at no less than ε, its mean is at most (1 - L·n_s/n·ε)^n_c (1 + L·n_c/n·ε)^n_s ≤ exp(-L·h·ε + L·h·ε) = 1, with
h = n_c·n_s/n: whatever ε is, so however good both are at that hour. A difference between hours is not taken for one
between revisions (Simpson's paradox), as the share of the traffic is constant within a stratum: one in which it changes
is closed there, and the cohort of the change compares nothing. The bound needs no asymptotics: it holds for any number
of labels (an exponential supermartingale in the sense of Howard et al., "Time-uniform Chernoff bounds via nonnegative
supermartingales", Probability Surveys 17 (2020)).

**Mirrored** (both answer the same request): the bet is on the difference of the two scores of one item. What both get
right or wrong cancels, which is why a mirror needs about a quarter of the labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from evenkeel_operator.decide.quality import linearised
from evenkeel_operator.decide.quality.betting import DIFFERENCE_STAKES, log_mean_exp, log_wealth
from evenkeel_operator.decide.quality.cohorts import COHORT, Pairs
from evenkeel_operator.decide.quality.measures import Counts, Measure, Scores

LEAST_SPLIT = 10
"""Labels of either arm that make a stratum."""

LEAST_MIRRORED = 20
"""Labelled pairs that make a stratum."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is known once the cohorts up to `start` have been counted: the logarithms of both wealths."""

    start: datetime
    worse: float
    not_worse: float


@dataclass(frozen=True, slots=True)
class Arms:
    """The labels of both revisions over the same stretch of time, per cell."""

    start: datetime
    stable: Counts
    canary: Counts


@dataclass(slots=True)
class _Fold:
    """Both wealths per stake, and what has been learnt from the strata so far."""

    measure: Measure
    margin: float
    prior: float
    stable: list[float]
    canary: list[float]
    worse: list[float] = field(default_factory=lambda: [0.0] * len(DIFFERENCE_STAKES))
    not_worse: list[float] = field(default_factory=lambda: [0.0] * len(DIFFERENCE_STAKES))

    def arms(self) -> tuple[Scores, Scores] | None:
        """Return the scores of the stable's and the canary's cells, None during the burn-in."""
        plugin = linearised.learnt(self.measure, self.stable, self.canary, self.prior)
        if plugin is None:
            return None
        shift = self.measure.shift(plugin.value, self.margin)
        return (
            linearised.scores(self.measure, plugin, plugin.stable_sizes, 0.0),
            linearised.scores(self.measure, plugin, plugin.canary_sizes, shift),
        )

    def learn(self, stable: Counts, canary: Counts) -> None:
        """Take a stratum that has been bet on, or is too early to bet on, among what is known."""
        _add(self.stable, stable)
        _add(self.canary, canary)

    def bet_split(self, stable: Counts, canary: Counts) -> None:
        """Bet on a stratum of two arms."""
        if (known := self.arms()) is None:
            return
        of_stable, of_canary = known
        scale = max(max(map(abs, of_stable)), max(map(abs, of_canary)))
        share = sum(canary) / (sum(canary) + sum(stable))
        for k, stake in enumerate(DIFFERENCE_STAKES):
            up, down = stake / scale * (1 - share), stake / scale * share
            self.worse[k] += log_wealth(canary, of_canary, up) + log_wealth(stable, of_stable, -down)
            self.not_worse[k] += log_wealth(canary, of_canary, -up) + log_wealth(stable, of_stable, down)

    def bet_mirrored(self, labels: Mapping[tuple[int, int], int]) -> None:
        """Bet on a stratum of pairs."""
        if (known := self.arms()) is None:
            return
        of_stable, of_canary = known
        scale = max(max(of_canary) - min(of_stable), max(of_stable) - min(of_canary))
        counts, differences = tuple(labels.values()), tuple(of_canary[c] - of_stable[s] for s, c in labels)
        for k, stake in enumerate(DIFFERENCE_STAKES):
            self.worse[k] += log_wealth(counts, differences, stake / scale)
            self.not_worse[k] += log_wealth(counts, differences, -stake / scale)

    def point(self, start: datetime) -> Point:
        return Point(start, log_mean_exp(self.worse), log_mean_exp(self.not_worse))


def split(
    measure: Measure,
    margin: float,
    prior: float,
    history: Counts,
    cohorts: Sequence[Arms],
    changes: Iterable[datetime] = (),
    width: timedelta = COHORT,
) -> tuple[Point, ...]:
    """Return the evidence after each stratum, in order of time.

    Args:
        margin: in the unit of the objective.
        prior: a value of the metric to start from: the floor.
        history: the stable revision's labels from before; they teach and are not bet on.
        cohorts: in order of time.
        changes: when the share of the traffic changed.
        width: how long a cohort is.
    """
    fold = _Fold(measure, margin, prior, list(history), [0] * measure.cells)
    starts = sorted(changes)
    points: list[Point] = []
    stable: list[float] = [0] * measure.cells
    canary: list[float] = [0] * measure.cells
    before_stable = before_canary = 0.0

    def close(start: datetime) -> None:
        nonlocal before_stable, before_canary, stable, canary
        if sum(stable) and sum(canary):
            fold.bet_split(stable, canary)
            points.append(fold.point(start))
        fold.learn(stable, canary)
        before_stable += sum(stable)
        before_canary += sum(canary)
        stable, canary = [0] * measure.cells, [0] * measure.cells

    last: datetime | None = None
    for cohort in cohorts:
        if last is not None and any(last < change <= cohort.start for change in starts):
            close(last)
        if any(cohort.start < change < cohort.start + width for change in starts):
            if last is not None:
                close(last)
            fold.learn(cohort.stable, cohort.canary)
            last = cohort.start
            continue
        last = cohort.start
        _add(stable, cohort.stable)
        _add(canary, cohort.canary)
        is_stable_full = linearised.is_full(sum(stable), before_stable, LEAST_SPLIT)
        if is_stable_full and linearised.is_full(sum(canary), before_canary, LEAST_SPLIT):
            close(cohort.start)
    return tuple(points)


def mirrored(
    measure: Measure, margin: float, prior: float, history: Counts, cohorts: Sequence[Pairs]
) -> tuple[Point, ...]:
    """Return the evidence after each stratum of pairs, in order of time; arguments as of `split`."""
    fold = _Fold(measure, margin, prior, list(history), [0] * measure.cells)
    points: list[Point] = []
    open_labels: dict[tuple[int, int], int] = {}
    before = 0
    for cohort in cohorts:
        for cells, count in cohort.labels.items():
            open_labels[cells] = open_labels.get(cells, 0) + count
        labels = sum(open_labels.values())
        if not linearised.is_full(labels, before, LEAST_MIRRORED):
            continue
        fold.bet_mirrored(open_labels)
        points.append(fold.point(cohort.start))
        stable: list[float] = [0] * measure.cells
        canary: list[float] = [0] * measure.cells
        for (s, c), count in open_labels.items():
            stable[s] += count
            canary[c] += count
        fold.learn(stable, canary)
        before += labels
        open_labels = {}
    return tuple(points)


def _add(to: list[float], counts: Counts) -> None:
    for i, count in enumerate(counts):
        to[i] += count
