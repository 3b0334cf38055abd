"""How much of the capacity that the model foresees is to be believed?

The model knows batches. What else makes requests late (a neighbour on the same device, a collector of garbage, a slow
network) is seen in the latencies alone. A target that is missed below the capacity takes something off it, a tenth a
minute. It comes back more slowly, at any load at which the latencies are those that the model foresees there.

Counter-example to letting it come back near the capacity only: the replicas that were added keep each other below that
for as long as the demand does not grow. Counter-example to letting it come back without end: a replica that is as fast
as foreseen up to 70 % of its capacity, and slow above, would be tried there every few minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from evenkeel_operator.decide.capacity import SURVIVORS, Capacity
from evenkeel_operator.decide.snapshot import NoSignal

LEAST, DOWN, UP = 0.5, 0.9, 1.02

FORGET_S = 21600.0
"""A load at which the target was missed is not tried anew for so long, unless it has been met at that load."""

_CHANCE = 0.01
"""A target that is met is taken for missed in one of so many minutes at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The latencies of a minute: their `quantile_s`, of how many `requests`, and how many of these were `slow`.

    A quantile is of the share `quantile`; slow is what took longer than the target.
    """

    quantile: float
    quantile_s: float
    requests: int
    slow: int

    @property
    def is_missed(self) -> bool:
        """Return whether more requests are slow than the quantile allows, and it is not by chance.

        Chernoff's bound of a binomial tail, n × KL(slow / n, 1 - quantile). Counter-example to going by the quantile
        alone: of one request a minute, one in 20 may be slow, and each of these would count as a minute missed.
        """
        allowed = 1.0 - self.quantile
        share = self.slow / self.requests if self.requests else 0.0
        if share <= allowed:
            return False
        surprise = share * math.log(share / allowed)
        if share < 1.0:
            surprise += (1.0 - share) * math.log((1.0 - share) / self.quantile)
        return self.requests * surprise >= -math.log(_CHANCE)

    @property
    def weight(self) -> float:
        """Return what this minute counts, of 1: less where so few requests came that the quantile is their slowest."""
        return min(1.0, self.requests * (1.0 - self.quantile))


@dataclass(slots=True)
class Derating:
    """The `factor` of the model's capacity to believe, and the load at which it was last too much, if it was lately."""

    factor: float = 1.0
    _missed_load: float | None = None
    _missed_at: float = 0.0

    def look(
        self, capacity: Capacity, sample: Sample, target_s: float, load: float, now: float, *, is_calm: bool
    ) -> None:
        """Take in the minute until `now`, in which a replica had `load` rows per second.

        `is_calm`: no queue, and no replica that has just started; only then does a missed target speak about the
        capacity.
        """
        if not capacity.is_attainable:
            return
        usable = capacity.rate * self.factor
        if is_calm and sample.is_missed and load < usable:
            self.factor = max(LEAST, self.factor * DOWN)
            self._missed_load, self._missed_at = load, now
            return
        more = min(1.0, self.factor * UP)
        here, there = capacity.latency_at(load), capacity.latency_at(more * capacity.rate)
        if isinstance(here, NoSignal) or isinstance(there, NoSignal):
            return
        # As the model foresees or faster; or slower, but by no more than the target has room for at the load to come,
        # or at the present one where that is higher. Counter-example: of a replica of which half is believed, and
        # which has twice as much, a latency of three times the target would be room enough at half of its load.
        if sample.quantile_s > here * max(1.0, SURVIVORS * target_s / max(here, there)):
            return
        if self._missed_load is not None and (load >= self._missed_load or now - self._missed_at > FORGET_S):
            self._missed_load = None
        most = 1.0 if self._missed_load is None else max(self.factor, self._missed_load / capacity.rate)
        # A low load says less of a high one.
        self.factor = min(1.0, most, self.factor * UP ** (sample.weight * min(1.0, load / usable)))
