"""KEDA on the length of a queue: an HPA on an External metric with an AverageValue, polled every 30 s.

Source: kedacore/keda, ScaledObject: pollingInterval 30 s; above one replica the HPA that KEDA makes decides, with the
HPA's own pace and stabilisation. The queue is everything that waits or runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.baselines.hpa import SYNC_S, Behaviour, average_value
from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.load import Floats

POLL_S = 30


class Keda:
    """A grid of queue lengths wanted of a replica, each with a stabilisation of its removals."""

    every_s = SYNC_S

    def __init__(self, targets: npt.ArrayLike, stabilisations_s: npt.ArrayLike) -> None:
        self._targets = np.asarray(targets, np.float32)[None, :]
        self._behaviour = Behaviour(np.asarray(stabilisations_s, np.int64))
        self.width = self._targets.shape[1]
        self._seen: Floats | None = None

    def observe(self, state: State) -> Floats | None:
        if self._seen is None or state.second % POLL_S == 0:
            self._seen = state.outstanding.copy()
        return self._behaviour.apply(average_value(self._seen, self._targets, state.asked), state.asked)
