"""How long does a replica take to start? Learnt from those that were seen while they were not ready yet.

From the moment that a node was found for it until it is ready for the first time: what it waited for a GPU says nothing
about the next start. Counter-example to taking it from any ready pod: Ready tells its last transition alone, so that
one which has lost its readiness for a second would have taken all the hours before to start.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from evenkeel_operator.decide.snapshot import Replica

MOST_STARTS = 20
"""So many are remembered; each counts once, for as long as its replica may live."""


@dataclass(slots=True)
class Starts:
    """The last starts of one ModelDeployment's replicas."""

    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_STARTS))
    _starting: set[str] = field(default_factory=set)
    _started: set[str] = field(default_factory=set)

    def note(self, replicas: Iterable[Replica]) -> None:
        """Take in how the replicas that are there stand."""
        present = {row.name: row for row in replicas}
        self._starting &= present.keys()
        self._started &= present.keys()
        for name, row in present.items():
            if name in self._started:
                continue
            if not row.ready:
                self._starting.add(name)
                continue
            if name in self._starting and row.scheduled_at is not None and row.ready_at is not None:
                self._seconds.append(max(0.0, (row.ready_at - row.scheduled_at).total_seconds()))
            self._starting.discard(name)
            self._started.add(name)

    def seconds(self) -> float | None:
        """Return what nine of ten starts keep to, None where none has been seen."""
        found = sorted(self._seconds)
        return found[math.ceil(0.9 * len(found)) - 1] if found else None
