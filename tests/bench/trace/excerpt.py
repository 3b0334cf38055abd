"""Which minutes of which trace are followed? Chosen by a rule, so that nobody can have chosen them by their result.

The trace: of all in the folder that have such minutes, the one with the median coefficient of variation of its counts
per minute (the lower of two). The minutes: of all stretches of the wanted length in which the demand doubles and then
halves, each against what came before, by means of a sixth of the length, the one whose own coefficient of variation is
the median (the lower of two, the earliest of equal ones). Neither the calmest, then, nor the wildest. A shorter run
follows the minutes around the highest one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.load import BadTrace, Floats, Trace, arrivals, expand, moving_mean

Numbers = npt.NDArray[np.float64]

MINUTES = 30
MINUTE_S = 60
TIMES = 2.0
"""By how much the demand has to rise, and to fall."""

PARTS = 6


@dataclass(frozen=True)
class Excerpt:
    """Requests expected in every second, from minute `begin` of the trace on."""

    trace: str
    begin: int
    expected: Floats


def excerpt(traces: Sequence[Trace], minutes: int = MINUTES, name: str | None = None) -> Excerpt:
    """Return the `minutes` that the rule chooses, from the trace called `name` where one is named.

    Raises BadTrace where no trace has such minutes.
    """
    if name is not None and not any(trace.name == name for trace in traces):
        raise BadTrace(f"--trace {name}: there are {', '.join(trace.name for trace in traces)}")
    found: list[tuple[float, Trace, list[int]]] = []
    for trace in traces:
        if name is not None and trace.name != name:
            continue
        counts = by_minute(trace)
        begins = candidates(counts, max(minutes, MINUTES))
        if begins:
            found.append((variation(counts), trace, begins))
    if not found:
        raise BadTrace(
            f"no {max(minutes, MINUTES)} minutes of {name or 'any trace'} hold a rise and a fall by {TIMES:g} times"
        )
    found.sort(key=lambda row: row[0])
    _, trace, begins = found[(len(found) - 1) // 2]
    counts = by_minute(trace)
    whole = max(minutes, MINUTES)
    own = {begin: variation(counts[begin : begin + whole]) for begin in begins}
    median = sorted(own.values())[(len(own) - 1) // 2]
    begin = next(begin for begin, value in own.items() if value == median)
    begin += around_the_highest(counts[begin : begin + whole], minutes)
    expected = expand(trace, "steps")[begin * MINUTE_S : (begin + minutes) * MINUTE_S]
    return Excerpt(trace.name, begin, expected)


def by_minute(trace: Trace) -> Numbers:
    """Return the requests of every whole minute."""
    per = MINUTE_S // trace.interval_s
    whole = len(trace.counts) // per
    found: Numbers = trace.counts[: whole * per].astype(np.float64).reshape(whole, per).sum(axis=1)
    return found


def candidates(counts: Numbers, minutes: int) -> list[int]:
    """Return where stretches begin in which the demand rises and then falls by TIMES."""
    over = max(1, minutes // PARTS)
    if len(counts) < minutes:
        return []
    smooth = np.lib.stride_tricks.sliding_window_view(counts, over).mean(axis=1)
    return [
        begin
        for begin, window in enumerate(np.lib.stride_tricks.sliding_window_view(smooth, minutes - over + 1))
        if rises_and_falls(window)
    ]


def rises_and_falls(values: Numbers) -> bool:
    """Return whether some value is TIMES an earlier one, and TIMES a later one; from nothing is no rise."""
    least_before = np.minimum.accumulate(values)
    least_after = np.minimum.accumulate(values[::-1])[::-1]
    is_top = (values >= TIMES * least_before) & (values >= TIMES * least_after)
    return bool(np.any(is_top)) and float(values.min()) > 0.0


def around_the_highest(counts: Numbers, minutes: int) -> int:
    """Return where `minutes` begin that hold the highest one in their middle, or as near to it as there is room."""
    return max(0, min(int(np.argmax(counts)) - minutes // 2, len(counts) - minutes))


def variation(values: Numbers) -> float:
    """Return the coefficient of variation."""
    mean = float(values.mean())
    return float(values.std()) / mean if mean > 0 else 0.0


def scaled(expected: Floats, peak_rate: float, over_s: int = 30) -> Floats:
    """Return `expected` multiplied so that its highest mean of `over_s` seconds is `peak_rate`."""
    found: Floats = (expected * (peak_rate / float(moving_mean(expected, over_s)[over_s - 1 :].max()))).astype(
        np.float32
    )
    return found


def flat(rate: float, seconds: int) -> Floats:
    """Return the same rate for every second."""
    return np.full(seconds, rate, np.float32)


def schedule(expected: Floats, seed: int) -> list[float]:
    """Return when single requests are sent, in seconds from the beginning, in order."""
    chance = np.random.default_rng(seed)
    counts = arrivals(expected, seed).astype(int)
    return [second + at for second, count in enumerate(counts) for at in sorted(chance.random(count).tolist())]
