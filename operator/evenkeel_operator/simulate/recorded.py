"""What demand did Prometheus record? A range query as a trace, and what of it was not recorded.

The value of a moment stands for the step that ends there: a rate as requests a second throughout it, a count as the
requests of it. Prometheus gives no value where it knows none (the target was down, the series did not exist yet), which
is not the same as no request: what is missing between two values is bridged by a line from one to the other, what is
missing at the ends is cut off, and the notes name both. The seconds of a step are filled like those of a minute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from evenkeel_operator.simulate.load import MOST_REQUESTS, BadTrace, Floats, Trace
from evenkeel_operator.world.prometheus import Range

Values = Literal["rate", "count"]
VALUES: tuple[Values, ...] = ("rate", "count")

MOST_MISSING = 0.5
"""Of the moments from the first value to the last: with more bridged than recorded it is no trace of anything."""

_MOST_SHOWN = 5
_OR_NONE = "if it is missing because nothing was asked, let the query say so: (…) or vector(0)"


def trace(name: str, values: Mapping[int, float], over: Range, what: Values, *, told: Sequence[str] = ()) -> Trace:
    """Return the trace of a query's `values` by their moments (Unix seconds). Raises BadTrace, with the moment.

    What Prometheus has `told` about the query is noted too.
    """
    if not values:
        raise BadTrace(
            f"{name} has no value from {_when(over.start)} to {_when(over.end)}: is the query right, and does "
            f"Prometheus keep what is so old? Otherwise, {_OR_NONE}"
        )
    begin, end = min(values), max(values)
    moments = range(begin, end + 1, over.step_s)
    missing = [at for at in moments if at not in values]
    if len(missing) > MOST_MISSING * len(moments):
        raise BadTrace(
            f"{name}: {len(missing):,} of {len(moments):,} values are missing, and more would be guessed than was "
            f"recorded: {_OR_NONE}"
        )
    per_s = 1.0 if what == "rate" else 1.0 / over.step_s
    for at, value in values.items():
        _require_demand(name, at, value * per_s * over.step_s)
    known = sorted(values)
    rates = np.interp(np.array(moments), np.array(known), np.array([values[at] * per_s for at in known]))
    counts = (rates * over.step_s).astype(np.float32)
    return Trace(name, over.step_s, counts, (*_notes(over, what, moments, missing, counts), *told))


def _require_demand(name: str, at: int, requests: float) -> None:
    """Refuse what cannot be so many requests of one step."""
    if requests < 0:
        raise BadTrace(f"{name} is negative at {_when(at)}: ask for requests that came, such as rate(…[1m])")
    if not math.isfinite(requests) or requests > MOST_REQUESTS:
        raise BadTrace(
            f"{name} has more than {MOST_REQUESTS:,.0f} requests in the step until {_when(at)}; divide by some number"
        )


def _notes(over: Range, what: Values, moments: range, missing: Sequence[int], counts: Floats) -> list[str]:
    unit = "requests a second" if what == "rate" else f"requests in {over.step_s} s"
    notes = [
        f"values are {unit} of the {over.step_s} s before each (--values {what}); bursts shorter than that, or than a "
        "range in the query, do not show"
    ]
    if missing:
        gaps = _gaps(missing, over.step_s)
        named = "; ".join(_span(*gap) for gap in gaps[:_MOST_SHOWN])
        more = f"; and {len(gaps) - _MOST_SHOWN} more" if len(gaps) > _MOST_SHOWN else ""
        notes.append(
            f"{len(missing):,} of {len(moments):,} values are missing, and bridged by a line between their "
            f"neighbours: {named}{more}; a rate next to a gap is too low, by as much of its range as is missing; "
            f"{_OR_NONE}"
        )
    for first, last, where in ((over.start, moments[0], "begins"), (moments[-1], over.end, "ends")):
        if last - first >= over.step_s:
            at = moments[0] if where == "begins" else moments[-1]
            notes.append(
                f"the trace {where} at {_when(at)}: {(last - first) // over.step_s:,} values are missing there"
            )
    if len(counts) > 2 and counts[-1] > counts[0] and bool((np.diff(counts) >= 0).all()):
        notes.append("the values never fall: if they are those of a counter, ask for its rate(…[1m])")
    return notes


def _gaps(missing: Sequence[int], step_s: int) -> list[tuple[int, int]]:
    """Return the first and the last moment of every gap."""
    found: list[tuple[int, int]] = []
    for at in missing:
        if found and at - found[-1][1] == step_s:
            found[-1] = found[-1][0], at
        else:
            found.append((at, at))
    return found


def _span(first: int, last: int) -> str:
    if first == last:
        return _when(first)
    until = datetime.fromtimestamp(last, UTC)
    same = until.date() == datetime.fromtimestamp(first, UTC).date()
    return f"{_when(first)} to {f'{until:%H:%M:%SZ}' if same else _when(last)}"


def _when(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
