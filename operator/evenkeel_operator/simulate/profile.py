"""What does one replica do at every load? Tables that the fluid simulator looks up, from the discrete-event model.

A request that arrives while the replica is loaded with ρ = rate / highest rate takes, beyond the queue that the fluid
keeps itself, a latency whose distribution the model gives. All tables have LOADS columns of ρ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from evenkeel_operator.decide.capacity import ARRIVALS, Capacity, Roofline, capacity, latencies_s, unit_gaps

LOADS = 64
BUDGETS = 65

_WARM_UP = 300


@dataclass(frozen=True)
class Profile:
    """A replica of the given speed, and the objective that it is held to.

    `arrivals` are what its capacity is taken from; the tables are from a third of them at each load.
    """

    roofline: Roofline
    target_s: float
    quantile: float
    arrivals: int = ARRIVALS

    @cached_property
    def capacity(self) -> Capacity:
        """What one replica carries."""
        return capacity(self.roofline, self.target_s, self.quantile, arrivals=self.arrivals)

    @cached_property
    def _latencies(self) -> list[npt.NDArray[np.float32]]:
        gaps = unit_gaps(self.arrivals // 3, 1.0)
        loads = np.clip((np.arange(LOADS) + 0.5) / LOADS, 0.0, 0.985)
        return [
            np.sort(np.array(latencies_s(self.roofline, load * self.roofline.max_rate, gaps)[_WARM_UP:], np.float32))
            for load in loads
        ]

    @cached_property
    def late(self) -> npt.NDArray[np.float32]:
        """Share of requests that take longer than budget b × target / (BUDGETS − 1); [load, b], flattened.

        With no budget left all are late.
        """
        budgets = np.linspace(0.0, self.target_s, BUDGETS, dtype=np.float32)
        rows = [1.0 - np.searchsorted(found, budgets, side="right") / len(found) for found in self._latencies]
        table = np.array(rows, np.float32)
        table[:, 0] = 1.0
        return table.ravel()

    @cached_property
    def mean_s(self) -> npt.NDArray[np.float32]:
        """Mean latency at every load."""
        return np.array([found.mean() for found in self._latencies], np.float32)

    @cached_property
    def quantile_s(self) -> npt.NDArray[np.float32]:
        """The objective's quantile at every load."""
        return np.array([np.quantile(found, self.quantile) for found in self._latencies], np.float32)

    def outstanding(self, rate: float) -> float:
        """Return the requests in one replica at `rate` (Little's law)."""
        load = min(LOADS - 1, int(rate / self.roofline.max_rate * LOADS))
        return rate * float(self.mean_s[load])


REFERENCE = Profile(Roofline(0.083, 0.020, 0.0155, 16), target_s=1.0, quantile=0.95)
"""A ResNet-50 class model on a small device: 83 ms for a small batch, 60 requests/s at batches of 16, target 1 s."""
