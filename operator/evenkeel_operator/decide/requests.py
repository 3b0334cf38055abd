"""How many rows do requests have?

A request is never split between batches, so eight rows in one wait and run together: they arrive in bursts of eight,
and a batch is filled by whole requests. How many there are on average and how far they scatter changes what a replica
carries, and how noisy its rows per second are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

HALF_LIFE_S = 300.0
"""What has arrived counts by half after so long."""

ALIKE = 0.1
"""Requests whose mean and scatter have moved by less are not worth another capacity."""


@dataclass(frozen=True, slots=True)
class RequestRows:
    """The rows of a request: their `mean`, and the mean of their `square`."""

    mean: float = 1.0
    square: float = 1.0

    @property
    def dispersion(self) -> float:
        """Variance of the rows that arrive in a second over their mean, where requests come independently.

        That of a compound Poisson process: E[R²] / E[R].
        """
        return self.square / self.mean

    def is_like(self, other: RequestRows) -> bool:
        """Return whether both ask the same of a replica."""
        pairs = ((self.mean, other.mean), (self.dispersion, other.dispersion))
        return all(abs(one / another - 1.0) <= ALIKE for one, another in pairs)

    def drawn(self, count: int, seed: int = 11) -> list[int]:
        """Return the rows of `count` requests, one or more each, with this mean and this scatter.

        Gamma distributed beyond the one that every request has, rounded at random so that the mean stays.
        """
        beyond, variance = self.mean - 1.0, max(0.0, self.square - self.mean**2)
        if beyond < 1e-6:
            return [1] * count
        source = Random(seed)
        part = beyond % 1.0
        if variance <= part * (1.0 - part) + 1e-6:
            return [1 + math.floor(beyond + source.random()) for _ in range(count)]
        # Rounding adds to the scatter: a sixth of a row squared on average.
        variance = max(variance - 1.0 / 6.0, variance / 2.0)
        shape, scale = beyond**2 / variance, variance / beyond
        return [1 + math.floor(source.gammavariate(shape, scale) + source.random()) for _ in range(count)]


SINGLE = RequestRows()
"""One row each."""


@dataclass(slots=True)
class Arrived:
    """Sums over the requests of late: their number, their rows, the squares of these."""

    _requests: float = 0.0
    _rows: float = 0.0
    _squares: float = 0.0
    _at: float = 0.0

    def note(self, requests: int, rows: int, squares: int | None, now: float) -> None:
        """Take in what has arrived; a replica that does not tell the squares had requests of the same size."""
        if requests <= 0 or rows < requests:
            return
        kept = 0.5 ** (max(0.0, now - self._at) / HALF_LIFE_S)
        least = rows * rows / requests
        self._requests = self._requests * kept + requests
        self._rows = self._rows * kept + rows
        self._squares = self._squares * kept + (least if squares is None else max(least, squares))
        self._at = now

    def rows(self) -> RequestRows | NoSignal:
        """Return the rows of a request of late, NO_SIGNAL where none has come."""
        if not self._requests:
            return NO_SIGNAL
        return RequestRows(self._rows / self._requests, self._squares / self._requests)
