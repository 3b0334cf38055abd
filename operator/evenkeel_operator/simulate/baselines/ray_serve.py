"""Ray Serve's autoscaler.

Source: ray-project/ray @00590c456b9a python/ray/serve/autoscaling_policy.py and AutoscalingConfig's defaults: requests
in flight, averaged over 30 s, against a target for each running replica; the error ratio times the running replicas;
a change only after the same direction was wanted for upscale_delay_s (30) or downscale_delay_s (600) without a break.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.load import Floats

LOOK_BACK_S = 30
PERIOD_S = 5
"""Its control loop runs every 0.1 s; delays are whole multiples of this."""

UP_DELAY_S = 30
DOWN_DELAY_S = 600


class Delays:
    """How long the same direction has been wanted, in periods of PERIOD_S."""

    def __init__(self, up_s: npt.ArrayLike, down_s: npt.ArrayLike) -> None:
        self._up = np.asarray(up_s, np.float32)[None, :] / PERIOD_S
        self._down = np.asarray(down_s, np.float32)[None, :] / PERIOD_S
        self._periods: Floats | None = None

    def apply(self, wanted: Floats, target: Floats) -> Floats:
        """Return the new target: `wanted` where that direction has lasted, else the old `target`."""
        if self._periods is None:
            self._periods = np.zeros(wanted.shape, np.float32)
        up, down = wanted > target, wanted < target
        periods = np.where(up, np.maximum(self._periods, 0.0) + 1.0, 0.0)
        periods = np.where(down, np.minimum(self._periods, 0.0) - 1.0, periods)
        is_due = (up & (periods > self._up)) | (down & (-periods > self._down))
        self._periods = np.where(is_due, 0.0, periods).astype(np.float32)
        return np.where(is_due, np.maximum(1.0, wanted), target).astype(np.float32)


class RayServe:
    """A grid of targets of ongoing requests, each with a delay of its removals."""

    every_s = PERIOD_S

    def __init__(self, targets: npt.ArrayLike, down_delays_s: npt.ArrayLike, least: int = 1, most: int = 24) -> None:
        self._targets = np.asarray(targets, np.float32)[None, :]
        self.width = self._targets.shape[1]
        self._delays = Delays(np.full(self.width, UP_DELAY_S), down_delays_s)
        self._bounds = least, most

    def observe(self, state: State) -> Floats | None:
        ongoing = state.in_flight.mean(state.columns, LOOK_BACK_S)
        wanted = np.ceil(ongoing / self._targets - 1e-6)
        return self._delays.apply(np.clip(wanted, *self._bounds).astype(np.float32), state.asked)
