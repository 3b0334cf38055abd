"""Where do an axis's ticks stand, and what do they say? On round numbers, and no more than there is room for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

Tick = tuple[float, str]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS_S = (
    *(_MINUTE * n for n in (1, 5, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28, 91, 364)),
)
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """From `lower` to `upper`; `ticks` of (lower, upper, most) are those between, `most` of them at most."""

    lower: float
    upper: float
    ticks: Callable[[float, float, int], list[Tick]]

    def share(self, value: float) -> float:
        """Return where a value lies, 0 to 1; one outside lies at the nearer end."""
        return min(1.0, max(0.0, (value - self.lower) / (self.upper - self.lower)))


def of_time(start: datetime, end: datetime) -> Axis:
    """Return an axis of time, in Unix seconds; its ticks are told in UTC."""
    lower, upper = start.timestamp(), end.timestamp()
    return Axis(lower, max(upper, lower + _MINUTE), times)


def of_elapsed(seconds: float) -> Axis:
    """Return an axis of the time since something began, `seconds` long."""
    return Axis(0.0, max(seconds, _MINUTE), elapsed)


def of_numbers(lower: float, upper: float, *, least: float = -math.inf, most: float = math.inf) -> Axis:
    """Return an axis that holds both numbers with some air around, and does not go beyond `least` and `most`."""
    air = 0.08 * (upper - lower) or 0.05 * abs(upper) or 0.05
    return Axis(max(least, lower - air), min(most, upper + air), numbers)


def of_odds(lower: float, upper: float) -> Axis:
    """Return an axis of odds whose decimal logarithms are given."""
    return Axis(math.floor(lower), math.ceil(upper), odds)


def times(lower: float, upper: float, most: int) -> list[Tick]:
    """Return ticks of time: hours, with the day where it begins, or days alone."""
    found = []
    for value in _on_the_clock(lower, upper, most):
        at = datetime.fromtimestamp(value, UTC)
        found.append((float(value), f"{at.day} {at:%b}" if value % _DAY == 0 else f"{at:%H:%M}"))
    return found


def elapsed(lower: float, upper: float, most: int) -> list[Tick]:
    """Return ticks of hours and minutes since the beginning, of whole days as days."""
    found = []
    for value in _on_the_clock(lower, upper, most):
        days, rest = divmod(value, _DAY)
        hours, minutes = divmod(rest // _MINUTE, 60)
        clock = f"{hours}:{minutes:02}"
        text = clock if not days else f"{days} d" if not rest else f"{days} d {clock}"
        found.append((float(value), text))
    return found


def _on_the_clock(lower: float, upper: float, most: int) -> range:
    step = next((s for s in _STEPS_S if (upper - lower) / s <= most), _STEPS_S[-1])
    return range(math.ceil(lower / step) * step, math.floor(upper / step) * step + 1, step)


def numbers(lower: float, upper: float, most: int) -> list[Tick]:
    """Return ticks at multiples of 1, 2 or 5 of a power of ten."""
    raw = (upper - lower) / most
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [n * power for n in (0.5, 1, 2, 5, 10)]
    at = next(index for index, step in enumerate(steps) if step >= raw * (1 - 1e-9))
    # Two multiples of a step may lie on either side of an axis: of one from 1 to 400,001, 0 and 500,000.
    return _multiples(lower, upper, steps[at]) or _multiples(lower, upper, steps[at - 1])


def _multiples(lower: float, upper: float, step: float) -> list[Tick]:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(lower / step - 1e-9), math.floor(upper / step + 1e-9)
    return [(n * step, f"{n * step:.{decimals}f}") for n in range(first, last + 1)]


def odds(lower: float, upper: float, most: int) -> list[Tick]:
    """Return ticks at powers of ten: 1/10, 1, 10, 100, 1000, 10⁴."""
    step = max(1, math.ceil((upper - lower) / most))
    return [(float(n), _odds(n)) for n in range(math.ceil(lower), math.floor(upper) + 1) if n % step == 0]


def _odds(power: int) -> str:
    if abs(power) > 3:
        return "10" + str(power).translate(_SUPERSCRIPTS)
    return str(10**power) if power >= 0 else f"1/{10**-power}"
