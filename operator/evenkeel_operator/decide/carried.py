"""What did one replica carry when that was last computed? It outlives the process.

Computing it takes tenths of a second. Counter-example to beginning without: an operator that is started again over a
thousand ModelDeployments holds the size of the last of them for ten minutes, burst or not.

The latencies that are foreseen are a text of their own: the operator of the earlier release, to which somebody may go
back, refuses a capacity of more than six values, and with it all that is kept beside it.
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
        """Return what `from_json` reads, but for what `foreseen_json` tells."""
        found = self.capacity
        rates = [float(f"{rate:.6g}") for rate in (found.rate, found.shrink_rate, found.max_rate)]
        return json.dumps([self.target_s, self.quantile, *rates, found.is_attainable], separators=(",", ":"))

    def foreseen_json(self) -> str | None:
        """Return the latencies that are foreseen, None where there are none."""
        found = [float(f"{latency_s:.4g}") for latency_s in self.capacity.foreseen_s]
        return json.dumps(found, separators=(",", ":")) if found else None

    @classmethod
    def from_json(cls, text: str, foreseen_text: str = "[]") -> Carried:
        """Return what `to_json` and `foreseen_json` wrote. Raises ValueError for anything else."""
        try:
            target_s, quantile, rate, shrink_rate, max_rate, is_attainable = json.loads(text)
            rates = float(rate), float(shrink_rate), float(max_rate)
            foreseen = tuple(map(float, json.loads(foreseen_text)))
            capacity = Capacity(*rates, is_attainable=is_attainable is True, foreseen_s=foreseen)
            found = cls(capacity, float(target_s), float(quantile))
        except (TypeError, ValueError, OverflowError, RecursionError) as e:
            raise ValueError(f"the capacity cannot be read: {e!r}") from e
        if not all(math.isfinite(x) and x > 0.0 for x in (*rates, *foreseen)):
            raise ValueError(f"the capacity cannot be read: {text[:80]}")
        if len(foreseen) not in (0, len(FRACTIONS)):
            raise ValueError(f"the capacity cannot be read: {text[:80]}")
        return found
