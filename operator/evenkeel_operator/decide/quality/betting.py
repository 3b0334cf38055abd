"""How much would a gambler have won who bet against a hypothesis? Evidence that may be looked at at any time.

A hypothesis says that scores have a mean of at least zero. Whoever stakes the share λ of his money on the opposite
multiplies it by 1 - λ·score with each one. While the hypothesis is true that wealth is a nonnegative supermartingale:
the chance that it *ever* reaches 1/α is at most α (Ville 1939), however often one looks and whenever one stops. It is
therefore a p-value that survives peeking. Betting on bounded means: Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86 (2024).

Which λ wins most depends on what is true. The wealth here is the mean over a fixed grid of λ, so it is a function of
the counts alone: no order of arrival, no batching and no restart changes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

LONGEST_LOG = 700.0
"""The largest exponent that is turned into a number: e to the power of more overflows."""


def stakes(count: int, least: float, most: float) -> tuple[float, ...]:
    """Return `count` stakes from `least` to `most` in equal ratios, as shares of what may be staked without ruin."""
    ratio = (most / least) ** (1 / (count - 1))
    return tuple(least * ratio**k for k in range(count))


FLOOR_STAKES = stakes(24, 0.01, 0.95)
"""For a revision against a number."""

DIFFERENCE_STAKES = stakes(12, 0.02, 0.9)
"""For two revisions against each other: fewer, as each costs a logarithm per stratum, outcome and arm."""


def log_mean_exp(logs: Sequence[float]) -> float:
    """Return the logarithm of the mean of the numbers whose logarithms are given."""
    most = max(logs)
    return most + math.log(sum(math.exp(x - most) for x in logs) / len(logs))


def log_weighted(terms: Iterable[tuple[float, float]]) -> float:
    """Return the logarithm of Σ weight·exp(log) over pairs of (weight, log); minus infinity without any weight.

    The weighted mean of e-values is an e-value whatever they have to do with each other (Vovk and Wang, "E-values:
    calibration, combination and applications", Annals of Statistics 49 (2021)), which makes it never weaker than
    sharing α by Bonferroni with the same weights.
    """
    known = [(weight, log) for weight, log in terms if weight > 0]
    if not known:
        return -math.inf
    most = max(log for _, log in known)
    return most + math.log(sum(weight * math.exp(log - most) for weight, log in known))


def by_score(counts: Sequence[float], scores: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the same bets with those of equal scores together: two of an accuracy, however many cells there are."""
    found: dict[float, float] = {}
    for count, score in zip(counts, scores, strict=True):
        if count:
            found[score] = found.get(score, 0) + count
    return tuple(found.values()), tuple(found)


def log_wealth(counts: Sequence[float], scores: Sequence[float], stake: float) -> float:
    """Return the logarithm of the wealth after `counts[i]` bets with `scores[i]` each; `stake`·score stays below 1.

    A count that is no whole number is of errors between two cells (`deviations`).
    """
    return sum(count * math.log1p(-stake * score) for count, score in zip(counts, scores, strict=True) if count)


def as_number(log: float) -> float:
    """Return e to the power of `log`, not beyond what a float holds."""
    return math.exp(min(log, LONGEST_LOG))
