"""When does the verdict on a canary fall, and on how many labels? Rollouts of the very requests, as in production.

What each request's answers are is known, since both models are: chance has only the split, and when the operator looks.
The requests come one after the other at a constant rate, as `labelled_client.py` sends them; it posts their truths in
batches, so that of the last seconds of a quarter of an hour some are not known yet when the evidence is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_operator.decide import canary
from evenkeel_operator.decide.quality import cohorts, counted, verdict
from evenkeel_operator.decide.quality.cohorts import ANSWERS, COHORT, Answers, Cohort, Pairs
from evenkeel_operator.decide.quality.counted import Counted, Revision
from evenkeel_operator.decide.quality.measures import cell
from evenkeel_operator.decide.quality.verdict import Progress, Rows, State
from evenkeel_runtime.contract import MIRROR
from evenkeel_runtime.receipts import Assignment
from tests.cluster.labelled_client import BATCH, THREADS

MOST_COHORTS = 8
STABLE, CANARY = "stable", "canary"


@dataclass(frozen=True)
class Request:
    """One request that is sent again and again: the class that either model answers, and the true one."""

    stable: int
    canary: int
    actual: int


@dataclass(frozen=True)
class Lags:
    """How seldom the operator asks for the counts, and how seldom it judges by them, in seconds at most."""

    counted_s: float
    judged_s: float


@dataclass(frozen=True)
class Range:
    """What came of most runs: from the 2.5th to the 97.5th percentile, and of all."""

    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Return the range of some runs."""
        low, high = np.percentile(values, (2.5, 97.5))
        return cls(float(low), float(high), float(min(values)), float(max(values)))

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Foreseen:
    """How often each final state came, and the labels of the canary and the seconds until then."""

    states: dict[State, int]
    labels: Range
    seconds: Range


def foresee(
    spec: Spec, requests: Sequence[Request], *, rps: float, began: datetime, lags: Lags, runs: int = 400, seed: int = 1
) -> Foreseen:
    """Return what becomes of a canary with a single step that began at `began`. Raises ValueError if it stays open."""
    world = _World(spec, requests, rps, began, lags, np.random.default_rng(seed))
    ended = [world.run() for _ in range(runs)]
    states = [state for state, _, _ in ended]
    return Foreseen(
        {state: states.count(state) for state in sorted(set(states))},
        Range.of([labels for _, labels, _ in ended]),
        Range.of([seconds for _, _, seconds in ended]),
    )


class _World:
    def __init__(
        self,
        spec: Spec,
        requests: Sequence[Request],
        rps: float,
        began: datetime,
        lags: Lags,
        rng: np.random.Generator,
    ) -> None:
        self.classes = 1 + max(max(r.stable, r.canary, r.actual) for r in requests)
        known = {name: Revision(name, self.classes, (), (), {}) for name in (STABLE, CANARY)}
        objectives = counted.objectives(spec.objectives.accuracy, Counted(known), STABLE, CANARY)
        self.horizon = objectives[0].horizon
        self.rules = canary.rules(spec, objectives)
        self.is_mirrored = canary.options(spec).mode == MIRROR
        self.share = self.rules.steps[0].weight / 100
        self.requests, self.rps, self.began, self.lags, self.rng = requests, rps, began, lags, rng
        self.cells = {
            STABLE: np.array([cell(r.stable, r.actual, self.classes) for r in requests]),
            CANARY: np.array([cell(r.canary, r.actual, self.classes) for r in requests]),
        }

    def run(self) -> tuple[State, float, float]:
        """Return the final state of one rollout, the canary's labels, and the seconds until it fell."""
        start = cohorts.first_from(self.began)
        rows: list[Cohort] = []
        pairs: list[Pairs] = []
        for number in range(MOST_COHORTS):
            at = start + number * COHORT
            counted_at = cohorts.mature_at(at, self.horizon) + self._up_to(self.lags.counted_s)
            looked_at = counted_at + self._up_to(self.lags.judged_s)
            # The newest counts: they have been asked for again meanwhile.
            counted_at += (looked_at - counted_at) // (every := timedelta(seconds=self.lags.counted_s)) * every
            whole = self._sent(COHORT.total_seconds() * self.rps)
            seen = self._cut(whole, counted_at - at - COHORT)
            found = self._judged([*rows, *self._rows(at, seen)], [*pairs, self._pairs(at, seen)], looked_at)
            if found.state in verdict.FINAL and found.evidence is not None:
                # Both moments stand in the status in whole seconds.
                return found.state, found.evidence.labels, int((looked_at - self.began).total_seconds())
            rows += self._rows(at, whole)
            pairs.append(self._pairs(at, whole))
        raise ValueError(f"no verdict after {MOST_COHORTS} quarters of an hour")

    def _up_to(self, seconds: float) -> timedelta:
        return timedelta(seconds=self.rng.uniform(0, seconds))

    def _sent(self, count: float) -> NDArray[np.int64]:
        """Return which requests were sent in a quarter of an hour, and whether the canary had them: 2 × requests."""
        first = self.rng.integers(len(self.requests))
        numbers = (first + np.arange(round(count))) % len(self.requests)
        return np.stack([numbers, self.rng.random(len(numbers)) < self.share])

    def _cut(self, sent: NDArray[np.int64], after: timedelta) -> NDArray[np.int64]:
        """Leave out what the client has not posted yet so long after the quarter's end (negative: before it)."""
        known = np.ones(sent.shape[1], dtype=bool)
        batch_s = BATCH * THREADS / self.rps
        for thread in range(THREADS):
            posts_s = self.rng.uniform(0, batch_s)  # its first post after the end; the others are a batch apart
            posts_left = max(0, math.ceil((posts_s - after.total_seconds()) / batch_s))
            missing = round((posts_left - posts_s / batch_s) * BATCH) if posts_left else 0
            its = known[thread::THREADS]
            its[max(0, len(its) - missing) :] = False
        return sent[:, known]

    def _rows(self, at: datetime, sent: NDArray[np.int64]) -> list[Cohort]:
        numbers, is_canary = sent[0], sent[1].astype(bool)
        found = []
        for revision, its, drawn in (
            (STABLE, numbers[~is_canary], Assignment.STABLE),
            (CANARY, numbers[is_canary], Assignment.CANARY),
        ):
            labels = np.bincount(self.cells[revision][its], minlength=self.classes**2)
            predictions = labels.reshape(self.classes, self.classes).sum(axis=1)
            found.append(Cohort(revision, at, tuple(predictions.tolist()), tuple(labels.tolist()), drawn))
        return found

    def _pairs(self, at: datetime, sent: NDArray[np.int64]) -> Pairs:
        copied = sent[0][sent[1].astype(bool)]
        labels: dict[tuple[int, int], int] = {}
        for number in copied.tolist():
            both = int(self.cells[STABLE][number]), int(self.cells[CANARY][number])
            labels[both] = labels.get(both, 0) + 1
        return Pairs(at, labels)

    def _judged(self, rows: list[Cohort], pairs: list[Pairs], now: datetime) -> verdict.Verdict:
        minutes = int((now - self.began) / ANSWERS)
        good = [Answers(name, self.began + n * ANSWERS, 60, 0, 0) for n in range(minutes) for name in (STABLE, CANARY)]
        found = Rows(STABLE, CANARY, tuple(rows), tuple(pairs) if self.is_mirrored else None, tuple(good))
        return verdict.judge(self.rules, Progress(True, True, (self.began,)), found, now)
