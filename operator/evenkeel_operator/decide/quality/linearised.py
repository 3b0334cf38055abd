"""Which score does one labelled item get, so that the mean of the scores is the metric?

A ratio E[gain]/E[size] is no mean of items; its linearisation (gain - θ·size)/B is one: with B = E[size] its mean is
the ratio minus θ, exactly, for any θ. A sum of ratios is linearised term by term. θ and B are taken from labels
*before* those that are bet on (a predictable plug-in), so the bets stay fair. A wrong B only scales (ratio - θ), which
is small because θ is near: the error is a product of two small ones, and none at all for accuracy, whose size is 1.
That the error rates hold nevertheless is shown by simulation (`tests/bench/verdict`).

Labels are bet on in strata: consecutive cohorts, pooled until there are enough labels, of which plug-ins and balance
stay the same. How many is a matter of counts alone, never of outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.decide.quality.measures import Counts, Measure, Scores, dot

PRIOR_LABELS = 10.0
"""How many labels' worth the objective's floor counts for θ while little else is known."""

BORROWED_LABELS = 50.0
"""How many labels' worth the stable revision's B counts for the canary's."""

BURN_IN_LABELS = 50
"""Labels of the stable revision before B is known well enough; they teach and are not bet on."""

GROWTH = 0.04
"""A stratum is at least this share of all labels before it: strata stay few, and a plug-in is hardly ever old."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What earlier labels say, per term: weight, ratio θ, and the mean sizes B of both arms."""

    weights: Scores
    ratios: Scores
    stable_sizes: Scores
    canary_sizes: Scores

    @property
    def value(self) -> float:
        """The metric that the weights and ratios make."""
        return sum(weight * ratio for weight, ratio in zip(self.weights, self.ratios, strict=True))


def learnt(measure: Measure, stable: Counts, canary: Counts, prior: float) -> Plugin | None:
    """Return what the counts so far say; None before there is enough to know the terms' sizes.

    `prior` is a value of the metric to start from. A class that the stable revision has never met weighs nothing.
    """
    total, canary_total = sum(stable), sum(canary)
    if not measure.has_fixed_sizes and total < BURN_IN_LABELS:
        return None
    raw, ratios, sizes, canary_sizes = [], [], [], []
    for term in measure.terms:
        size = dot(term.size, stable)
        ratios.append((dot(term.gain, stable) + PRIOR_LABELS * prior) / (size + PRIOR_LABELS))
        known = 1.0 if measure.has_fixed_sizes else size / total
        sizes.append(known)
        canary_sizes.append((dot(term.size, canary) + BORROWED_LABELS * known) / (canary_total + BORROWED_LABELS))
        raw.append((dot(term.support, stable) if measure.by_support else 1.0) if known > 0 else 0.0)
    weight = sum(raw)
    if weight <= 0:
        return None
    return Plugin(tuple(w / weight for w in raw), tuple(ratios), tuple(sizes), tuple(canary_sizes))


def scores(measure: Measure, plugin: Plugin, sizes: Scores, shift: float) -> Scores:
    """Return each cell's score: its mean is the metric minus `plugin.value` plus `shift`, up to the plug-in's error."""
    found = [0.0] * measure.cells
    for term, weight, ratio, size in zip(measure.terms, plugin.weights, plugin.ratios, sizes, strict=True):
        if weight == 0:
            continue
        scale, against = weight / size, ratio - shift
        extra = ratio if measure.by_support else 0.0
        for i, (gain, of_size, support) in enumerate(zip(term.gain, term.size, term.support, strict=True)):
            found[i] += scale * (gain - against * of_size) + extra * support
    if measure.by_support:
        # The weights are means too: an item of class k is worth its class's ratio above what an item is worth.
        found = [score - plugin.value for score in found]
    return tuple(found)


def is_full(labels: float, before: float, least: int) -> bool:
    """Return whether `labels` are enough for a stratum after `before` labels in strata before it."""
    return labels >= max(least, GROWTH * before)
