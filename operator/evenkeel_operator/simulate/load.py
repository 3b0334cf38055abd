"""What demand does a trace stand for, second by second?

Counts of a minute say nothing about its seconds. `expand` fills them as a step or as a straight line between the
minutes' middles; a line makes bursts foreseeable that were not, a step makes jumps where there were none, so whoever
compares tries both. Arrivals of a second are drawn from a Poisson distribution around that.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Expansion = Literal["steps", "linear"]
EXPANSIONS: tuple[Expansion, ...] = ("steps", "linear")

UNITS_S = {"second": 1, "minute": 60}
PEAK_S = 30

LONGEST_S = 40_000_000
"""More than a year; of several columns, all together."""

MOST_REQUESTS = 1e9
"""In one second or minute. Queues are counted in single precision: from far more on, a request would add nothing."""

_MOST_SHOWN = 40


@dataclass(frozen=True)
class Trace:
    """Counts of requests, one for every `interval_s` seconds.

    `notes` say, a sentence each, what of it was not counted but concluded.
    """

    name: str
    interval_s: int
    counts: Floats
    notes: tuple[str, ...] = ()


class BadTrace(Exception):
    """The file is no trace; the message names the place and the way out."""


def read(path: Path) -> list[Trace]:
    """Return a trace for every column of counts in a CSV file, plain or gzipped.

    The first column is called `second` or `minute` and counts up from any start. A file that counts requests has no
    row where none came, so what is left out is zero; the notes say how much that is. Columns whose name ends in
    `_tokens` are left out. Raises BadTrace, with the line.
    """
    rows = _rows(path)
    header = rows[0] if rows else []
    if not header or header[0] not in UNITS_S:
        raise BadTrace(f"{path}, line 1: the first column must be called `second` or `minute`, counts beside it")
    unit = header[0]
    columns = [i for i, name in enumerate(header) if i and not name.endswith("_tokens")]
    if not columns:
        raise BadTrace(f"{path}, line 1: there is no column of counts beside `{unit}`")
    times: list[int] = []
    values: list[list[float]] = []
    for line, row in enumerate(rows[1:], 2):
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} value{'s' * (len(row) != 1)}, where the header names {len(header)}")
            times.append(_time(row[0], unit, times))
            values.append([_count(row[i]) for i in columns])
        except ValueError as e:
            raise BadTrace(f"{path}, line {line}: {e}") from None
    if not times:
        raise BadTrace(f"{path}: there are no counts below the header")
    length = times[-1] - times[0] + 1
    if length * len(columns) * UNITS_S[unit] > LONGEST_S:
        raise BadTrace(
            f"{path}: {len(columns)} columns of {length:,} {unit}s are more than {LONGEST_S:,} seconds all together; "
            "leave columns out, or cut the trace"
        )
    full = np.zeros((length, len(columns)), np.float32)
    full[[time - times[0] for time in times]] = values
    stem = path.name.removesuffix(".gz").removesuffix(".csv")
    names = [stem if len(columns) == 1 else header[i] for i in columns]
    notes = _notes(unit, length, len(times), header)
    return [Trace(name, UNITS_S[unit], full[:, i], notes) for i, name in enumerate(names)]


def _notes(unit: str, length: int, given: int, header: Sequence[str]) -> tuple[str, ...]:
    tokens = [name for name in header[1:] if name.endswith("_tokens")]
    return (
        *((f"{length - given:,} of {length:,} {unit}s are not in the file and count as none",) * (length > given)),
        *((f"left out, as they count no requests: {', '.join(tokens)}",) * bool(tokens)),
    )


def _rows(path: Path) -> list[list[str]]:
    reader = csv.reader(_text(path).splitlines())
    try:
        return list(reader)
    except csv.Error as e:
        raise BadTrace(f"{path}, line {reader.line_num}: no line of a CSV file: {e}") from e


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise BadTrace(f"{path} cannot be read: {e}") from e
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as e:
            raise BadTrace(
                f"{path} is no whole gzip file, as its name says: {e}. Compress it anew, or rename it"
            ) from e
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise BadTrace(f"{path} is no text in UTF-8: byte {e.start}") from e


def _time(text: str, unit: str, before: list[int]) -> int:
    try:
        time = int(text)
    except ValueError:
        raise ValueError(f"`{_shown(text)}` is no whole {unit}") from None
    if before and time <= before[-1]:
        raise ValueError(f"{unit} {_shown(text)} does not come after {_shown(str(before[-1]))}")
    if before and (time - before[0]) * UNITS_S[unit] >= LONGEST_S:
        most = LONGEST_S // UNITS_S[unit]
        raise ValueError(f"{unit} {_shown(text)} is more than {most:,} after the first; a longer trace has to be cut")
    return time


def _count(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = math.nan
    if math.isnan(count):
        raise ValueError(f"`{_shown(text)}` is no number")
    if count < 0:
        raise ValueError(f"`{_shown(text)}` is negative; counts are of requests that came")
    if count > MOST_REQUESTS:
        raise ValueError(f"`{_shown(text)}` is more than {MOST_REQUESTS:,.0f} requests; scale the trace down")
    return count


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def expand(trace: Trace, how: Expansion) -> Floats:
    """Return the expected arrivals of every second."""
    if trace.interval_s == 1:
        return trace.counts.astype(np.float32)
    rates = trace.counts / trace.interval_s
    if how == "steps":
        return np.repeat(rates, trace.interval_s).astype(np.float32)
    middles = (np.arange(len(rates)) + 0.5) * trace.interval_s
    found: Floats = np.interp(np.arange(len(rates) * trace.interval_s) + 0.5, middles, rates).astype(np.float32)
    return found


def peak(trace: Trace) -> float:
    """Return the highest mean rate of PEAK_S seconds, or of one interval where that is longer."""
    if trace.interval_s >= PEAK_S:
        return float(trace.counts.max()) / trace.interval_s
    return float(moving_mean(trace.counts, PEAK_S).max())


def moving_mean(values: Floats, over: int) -> Floats:
    """Return the mean of the `over` values that end at each place, of fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(0, end - over)
    found: Floats = ((total[end] - total[begin]) / (end - begin)).astype(np.float32)
    return found


def arrivals(expected: Floats, seed: int) -> Floats:
    """Return Poisson counts around `expected`."""
    return np.random.default_rng(seed).poisson(expected).astype(np.float32)
