"""Does the size stand still under a constant load? Poisson arrivals at many levels, starts and ages of the signals."""

from __future__ import annotations

from itertools import product

import numpy as np

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.fluid import Fleet, World, run
from evenkeel_operator.simulate.law import TICK_S, Law, Setting
from evenkeel_operator.simulate.load import arrivals
from evenkeel_operator.simulate.profile import Profile

LEVELS = tuple(0.25 * (i + 1) for i in range(40))
COLD_STARTS_S = (20, 60, 180, 420)
LAGS_S = (5, 30)
SETTLE_S = 600
SECONDS = 3600


def changes(profile: Profile, *, is_quick: bool) -> tuple[int, int]:
    """Return the most changes of a size after ten minutes, and the most replicas in the end beyond the need."""
    levels = LEVELS[::4] if is_quick else LEVELS
    cells = list(product(COLD_STARTS_S[1:3] if is_quick else COLD_STARTS_S, LAGS_S))
    expected = np.repeat(np.array(levels, np.float32)[None] * profile.capacity.rate, SECONDS, axis=0)
    scaling = Scaling(1, 24, profile.target_s, profile.quantile)
    fleets = [
        Fleet(Law(Setting(scaling, profile.capacity, cold_s, lag_s), len(levels)), cold_s) for cold_s, lag_s in cells
    ]
    world = World(profile, np.ceil(np.array(levels, np.float32)))
    found = run(world, fleets, OpenClients(arrivals(expected, 1)), SECONDS, keep_every_s=TICK_S)
    assert found.kept is not None, "asked for"
    asked = found.kept.asked
    moved = (np.diff(asked[SETTLE_S // TICK_S :], axis=0) != 0).sum(axis=0)
    beyond = asked[-1] - np.ceil(np.array(levels))[:, None]
    return int(moved.max()), int(beyond.max())
