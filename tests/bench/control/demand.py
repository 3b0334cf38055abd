"""Which demand is replayed? Every trace of a folder, scaled so that its peak needs twelve replicas, a day at a time.

A trace longer than a day is cut into days, of which some are taken; each begins with nothing learnt. Counts of minutes
are filled in both ways, as steps and as a line; those of seconds are what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evenkeel_operator.simulate.load import EXPANSIONS, BadTrace, Expansion, Floats, Trace, expand, peak, read

PEAK_REPLICAS = 12
DAY_S = 86400
DAYS = 3


@dataclass(frozen=True)
class Demand:
    """Expected requests of every second of one stretch of a trace; `ways` are the expansions that it stands for."""

    trace: str
    ways: tuple[Expansion, ...]
    expected: Floats


def traces(folder: Path | None) -> list[Trace]:
    """Return the traces of all CSV files in `folder`. Raises BadTrace where there is none."""
    if folder is None:
        raise BadTrace("no traces: name a folder of CSV files, as an argument or in EVENKEEL_TRACES")
    files = sorted(path for path in folder.glob("*.csv*") if path.name.endswith((".csv", ".csv.gz")))
    if not files:
        raise BadTrace(f"{folder}: there is no CSV file of counts here, or no such folder")
    return [trace for file in files for trace in read(file)]


def demands(found: list[Trace], rate: float, *, is_quick: bool) -> list[Demand]:
    """Return all stretches, for replicas that carry `rate` each; if `is_quick`, the first day of each."""
    return [demand for trace in found for demand in _of(trace, rate, is_quick)]


def _of(trace: Trace, rate: float, is_quick: bool) -> Iterator[Demand]:
    scale = PEAK_REPLICAS * rate / peak(trace)
    ways = (EXPANSIONS,) if trace.interval_s == 1 else tuple((way,) for way in EXPANSIONS)
    for way in ways:
        expected = (expand(trace, way[0]) * scale).astype(np.float32)
        for begin, end in _stretches(expected, is_quick):
            yield Demand(trace.name, way, expected[begin:end])


def _stretches(expected: Floats, is_quick: bool) -> list[tuple[int, int]]:
    length = len(expected)
    if length <= DAY_S:
        return [(0, length)]
    if is_quick:
        return [(0, DAY_S)]
    days = length // DAY_S
    chosen = sorted({round(i * (days - 1) / (DAYS - 1)) for i in range(DAYS)})
    return [(day * DAY_S, (day + 1) * DAY_S) for day in chosen]
