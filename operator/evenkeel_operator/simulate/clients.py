"""Who sends the requests? People who do not care how busy the service is, or people who wait for their answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenkeel_operator.simulate.load import Floats

THINK_S = 5.0


@dataclass(frozen=True)
class OpenClients:
    """Arrivals that do not depend on the answers; `counts` is [second, run]."""

    counts: Floats

    def arrive(self, second: int, outstanding: Floats) -> Floats:
        found: Floats = self.counts[second][:, None]
        return found


@dataclass(frozen=True)
class ClosedClients:
    """Users who think for THINK_S after each answer: as many as would send `counts` if answers took no time.

    A slow service is asked less often, so arrivals depend on its size.
    """

    counts: Floats

    def arrive(self, second: int, outstanding: Floats) -> Floats:
        users = self.counts[second][:, None] * np.float32(THINK_S)
        found: Floats = np.maximum(np.float32(0.0), users - outstanding) / np.float32(THINK_S)
        return found
