"""What does the simulator say that the size should have been? For the requests that really came.

Every request by itself, in replicas as fast as the probe was and as quick to start, under the operator's own code or
under Kubernetes' law as it is ported; both begin with one replica and nothing learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.observed import Observed
from evenkeel_operator.decide.readings import Reading
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.decide.speed import Speed
from evenkeel_operator.simulate.baselines import hpa
from evenkeel_operator.simulate.baselines.hpa import Hpa, Metric
from evenkeel_operator.simulate.fluid import Autoscaler
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.operated import Operated
from evenkeel_operator.simulate.profile import Profile
from evenkeel_operator.simulate.requests import Service

CPU_SHARE = 0.8
"""What an HPA without metrics holds the CPU to (autoscaling/v2: 80 % of what is requested)."""


@dataclass(frozen=True)
class Replicas:
    """What the simulator is told of one: how fast, held to what, and how long it takes to start."""

    profile: Profile
    cold_start_s: float
    scaling: Scaling

    def under_evenkeel(self, counts: Floats) -> npt.NDArray[np.int64]:
        """Return the size of every second."""
        return self._run(counts, Operated(self.scaling, self.cold_start_s))

    def under_hpa(self, counts: Floats) -> npt.NDArray[np.int64]:
        """Return the size of every second under an HPA on CPU at its defaults."""
        return self._run(counts, Hpa(Metric.CPU, [CPU_SHARE], [hpa.STABILISATION_S], self.profile))

    def _run(self, counts: Floats, autoscaler: Autoscaler) -> npt.NDArray[np.int64]:
        least, most = self.scaling.least, self.scaling.most
        service = Service(self.profile, max(1, round(self.cold_start_s)), first=least, least=least, most=most)
        return service.run(counts, autoscaler, seed=1).asked


def roofline(readings: Sequence[tuple[float, Reading]]) -> Roofline:
    """Return how long batches take, from what one replica said at those times, as the operator learns it."""
    observed, speed = Observed(), Speed()
    for at, reading in readings:
        speed.note(observed.note("probe", reading, at), 0.0)
    profile, max_rows = observed.profile()
    found = speed.learn(profile, max_rows, 0.0)
    assert not isinstance(found, NoSignal), "the probe was asked"
    return found
