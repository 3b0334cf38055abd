"""What did one replica carry when that was last computed? It outlives the process.

Computing it takes tenths of a second. Counter-example to beginning without: an operator that is started again over a
thousand ModelDeployments holds the size of the last of them for ten minutes, burst or not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from evenkeel_operator.decide.capacity import FRACTIONS, Capacity


@dataclass(frozen=True, slots=True)
class Carried:
    """The `capacity` of a replica with `quantile` of its latencies within `target_s` seconds."""

    capacity: Capacity
    target_s: float
    quantile: float

    def is_for(self, target_s: float, quantile: float) -> bool:
        """Return whether this is what a replica carries within that target."""
        return (self.target_s, self.quantile) == (target_s, quantile)

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        found = self.capacity
        rates = [float(f"{rate:.6g}") for rate in (found.rate, found.shrink_rate, found.max_rate)]
        foreseen = [float(f"{latency_s:.4g}") for latency_s in found.foreseen_s]
        return json.dumps([self.target_s, self.quantile, *rates, found.is_attainable, foreseen], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Carried:
        """Return what `to_json` wrote. Raises ValueError for anything else."""
        try:
            target_s, quantile, rate, shrink_rate, max_rate, is_attainable, *rest = json.loads(text)
            rates = float(rate), float(shrink_rate), float(max_rate)
            foreseen = tuple(float(latency_s) for row in rest for latency_s in row)
            capacity = Capacity(*rates, is_attainable=is_attainable is True, foreseen_s=foreseen)
            found = cls(capacity, float(target_s), float(quantile))
        except (TypeError, ValueError, OverflowError, RecursionError) as e:
            raise ValueError(f"the capacity cannot be read: {e!r}") from e
        if not all(math.isfinite(x) and x > 0.0 for x in (*rates, *foreseen)):
            raise ValueError(f"the capacity cannot be read: {text[:80]}")
        if len(foreseen) not in (0, len(FRACTIONS)):
            raise ValueError(f"the capacity cannot be read: {text[:80]}")
        return found
