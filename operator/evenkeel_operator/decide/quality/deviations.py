"""How do sums of errors become counts that can be bet on? The store has no single error, but sums by power of two.

Of the errors from 2^(k-1) to below 2^k it has how many there are, the sum of their absolute values and that of their
squares. A bet multiplies wealth by 1 - λ·score for each error by itself, and of that the sums say no more than a bound.
It is a sound one: the logarithm of 1 - λ·score is concave in the score, so errors between two edges make at least the
wealth that as many at the edges would, with the same mean. An error therefore counts in part at the edge below and in
part at the edge above it, such that the mean is exact, and a wealth is never more than it would be. That costs labels
(of errors from a normal distribution about a fifth more for MAE and half more for RMSE) and never an error rate.

MAE has the mean of the errors exact, RMSE that of their squares: the parts of one error differ between the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

OCTAVES = 12
"""How many powers of two below the largest error have an edge of their own; what is smaller lies between 0 and them."""

LEAST = -42
MOST = 54
"""Exponents that are kept apart: of a largest error of 2^-30 at least, and of two numbers below 2^53."""

ZERO = -1074
"""The exponent of an error of exactly 0: one less than that of the smallest float."""

Sums = tuple[float, ...]
"""Count, sum of absolute and of squared errors for each exponent from LEAST to MOST, one after another."""

NONE: Sums = (0,) * 3 * (MOST - LEAST + 1)


def sums(rows: Iterable[tuple[int, int, float, float]]) -> Sums:
    """Return rows of exponent, count, absolute and squared as one: what can be added up number by number."""
    found: list[float] = list(NONE)
    for exponent, *row in rows:
        at = 3 * (min(max(exponent, LEAST), MOST) - LEAST)
        for i, value in enumerate(row):
            found[at + i] += value
    return tuple(found)


def edges(cap: float) -> tuple[float, ...]:
    """Return the errors at which errors are counted: 0, and the powers of two up to `cap`, which is one."""
    return (0.0, *(math.ldexp(cap, k - OCTAVES) for k in range(OCTAVES + 1)))


def capped(largest: float) -> float:
    """Return the power of two at which errors are cut off that count up to `largest` at least."""
    share, exponent = math.frexp(largest)
    return math.ldexp(1.0, exponent - 1 if share == 0.5 else exponent)


def parts(found: Sums, cap: float, power: int) -> tuple[float, ...]:
    """Return how much counts at each of `edges(cap)`: the mean of (|e| cut off at `cap`)^power is exact.

    `power` is 1 or 2.
    """
    counts = [0.0] * (OCTAVES + 2)
    last = OCTAVES + 1
    top = math.frexp(cap)[1] - 1
    for at in range(0, len(found), 3):
        if not (count := found[at]):
            continue
        exponent = at // 3 + LEAST
        # Some service has told an error of exactly 0 under the exponent 0, as if it were one from 0.5 to below 1.
        if exponent > top:
            at_cap = count if exponent else _no_zeros(count, found[at + 1], found[at + 2])
            counts[last] += at_cap
            counts[0] += count - at_cap
            continue
        upper = max(1, last + exponent - top)
        lower = 0 if exponent == 0 else upper - 1
        low, high = _edge(lower, top) ** power, _edge(upper, top) ** power
        share = min(1.0, max(0.0, (found[at + power] / count - low) / (high - low)))
        counts[upper] += count * share
        counts[lower] += count * (1 - share)
    return tuple(counts)


def _no_zeros(count: float, absolute: float, squared: float) -> float:
    """Return how many errors, at most, are from 0.5 to below 1 where the others are 0: of each, (e - 0.5)(1 - e) >= 0.

    Of all where none is 0, and of none where all are.
    """
    return min(count, max(0.0, 3 * absolute - 2 * squared))


def _edge(index: int, top: int) -> float:
    return math.ldexp(1.0, top + index - OCTAVES - 1) if index else 0.0


def labelled(found: Sequence[float]) -> int:
    """Return how many labels the sums are of."""
    return round(sum(found[::3]))
