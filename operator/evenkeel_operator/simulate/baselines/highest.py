"""What was the highest of the last values? For arrays of runs and configurations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.load import Floats


class Highest:
    """The highest of the last `windows` values added, for each column its own number of them."""

    def __init__(self, windows: npt.NDArray[np.int64]) -> None:
        # Two stacks of maxima for each distinct window, as in `fluid._Starting`.
        self._groups = [(int(w), np.flatnonzero(windows == w)) for w in np.unique(windows)]
        self._stacks: dict[int, tuple[Floats, Floats, Floats]] = {}
        self._count = 0

    def add(self, values: Floats) -> Floats:
        """Take in one more value and return the highest of each column's window, this one included."""
        found = values.copy()
        for window, columns in self._groups:
            if window <= 1:
                continue
            own = values[:, columns]
            if window not in self._stacks:
                ring = np.full((window, *own.shape), -np.inf, np.float32)
                self._stacks[window] = ring, ring.copy(), own.copy()
            ring, suffix, prefix = self._stacks[window]
            at = self._count % window
            if at == 0:
                suffix = np.maximum.accumulate(ring[::-1], axis=0)[::-1]
                prefix = own.copy()
            ring[at] = own
            np.maximum(prefix, own, out=prefix)
            found[:, columns] = np.maximum(prefix, suffix[at + 1]) if at + 1 < window else prefix
            self._stacks[window] = ring, suffix, prefix
        self._count += 1
        return found
