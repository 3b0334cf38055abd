"""What does one replica say of itself, and is that to be believed?

A reading is one answer to `GET /v2/signals`, checked as what comes from a stranger: a counter that is no number, is
negative or has run backwards, and a histogram that cannot answer the question, refuse the whole reading, with a reason.
A refused reading is no reading; nothing of it counts as zero.
"""

from __future__ import annotations

import enum
import functools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from evenkeel_operator.api.modeldeployment import MOST_ROWS
from evenkeel_runtime import contract

MOST_BUCKETS = 256
MOST_SIZES = 64
MOST_RATIO = 1.101
"""Of two edges between a quarter of the target and twice the target: with more, a quantile could be off by over 5 %."""
MOST_COUNT = 2**63
UNBOUNDED_ROWS = 2**31
"""Under this size the runtime counts batches of more than MOST_ROWS: a request whose rows no other may join."""


class Flaw(enum.StrEnum):
    """Why there is no reading, one word each."""

    UNREACHABLE = "Unreachable"
    NO_ENDPOINT = "NoEndpoint"
    TOO_SLOW = "TooSlow"
    TOO_LONG = "TooLong"
    MALFORMED = "Malformed"
    OTHER_BUCKETS = "OtherBuckets"
    REWOUND = "CountersRewound"


class BadReading(Exception):
    """An answer that says nothing that can be believed."""

    def __init__(self, flaw: Flaw, message: str) -> None:
        super().__init__(message)
        self.flaw = flaw
        self.message = message


@dataclass(frozen=True, slots=True)
class Latencies:
    """Requests answered since the process started or the target moved, by `edges` (seconds, ascending).

    `counts` has one more entry than `edges`: those above the last.
    """

    target_s: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the requests that a replica meant for the canary, in one mode. Counts since it was told of it.

    `failed` is by reason (`serve/tally.py` of the runtime names them); `abandoned` are those whose client gave up.
    """

    sent: int
    answered: int
    failed: Mapping[str, int]
    latencies: Latencies
    abandoned: int = 0


@dataclass(frozen=True, slots=True)
class Beside:
    """What became of the requests that a replica answered itself and that could have been the canary's; late is what
    took longer than the canary would have had. Counts since it was told of the canary."""

    ended: int
    late: int
    failed: int


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """What a replica does for a canary: for which revision, for how many seconds more, and by which directive.

    `beside` is None where a replica does not tell it.
    """

    revision: str
    expires_s: float
    moment_ms: int
    split: Sent | None
    mirror: Sent | None
    beside: Beside | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer. Counts are since the process started, which `boot` names; `uptime_s` is how long ago that was.

    `batches` holds, of every size, (rows at most, batches, their rows, their seconds); `profile` the seconds of a call
    by its rows, as measured at load; `max_rows` is 0 where requests never share a call. `arrived_square_rows` is the
    sum of the squares of requests' rows, None where a replica does not tell it. `engines` batches run at the same time;
    a replica that does not tell has one.
    """

    boot: str
    uptime_s: float
    is_ready: bool
    generation: int | None
    arrivals: int
    arrived_rows: int
    failed: int
    rejected: int
    queued: int
    queued_rows: int
    in_flight: int
    latencies: Latencies
    batches: tuple[tuple[int, int, int, float], ...]
    profile: tuple[tuple[int, float], ...]
    max_rows: int
    canary: CanaryReading | None = None
    arrived_square_rows: int | None = None
    engines: int = 1


def read(body: bytes) -> Reading:
    """Return what an answer says; raises BadReading."""
    try:
        found: Any = _JSON.decode(str(body, "utf-8"))
    except (ValueError, RecursionError) as e:
        raise BadReading(Flaw.MALFORMED, f"the answer is not JSON: {e}"[:200]) from None
    try:
        latency = found["latency"]
        latencies = _latencies(latency)
        generation, squares = found.get("generation"), found.get("arrivedSquareRows")
        reading = Reading(
            boot=_boot(found["bootId"]),
            uptime_s=_number(found["uptimeSeconds"]),
            is_ready=found["ready"] is True,
            generation=None if generation is None else _count(generation),
            arrivals=_count(found["arrivals"]),
            arrived_rows=_count(found["arrivedRows"]),
            failed=_count(found["failed"]),
            rejected=_count(found["rejected"]),
            queued=_count(found["queuedRequests"]),
            queued_rows=_count(found["queuedRows"]),
            in_flight=_count(found["inFlight"]),
            latencies=latencies,
            batches=tuple(
                (_size(most), _count(batches), _count(rows), _number(seconds))
                for most, batches, rows, seconds in _list(found["batches"], MOST_SIZES)
            ),
            profile=tuple((_rows(rows), _number(seconds)) for rows, seconds in _list(found["profile"], MOST_SIZES)),
            max_rows=_rows(found["maxBatchRows"]),
            canary=_canary(found.get("canary")),
            arrived_square_rows=None if squares is None else _count(squares),
            engines=_engines(found.get("engines", 1)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise BadReading(Flaw.MALFORMED, f"the answer lacks something or holds something else: {e}"[:200]) from None
    return reading


def require_onward(before: Reading, after: Reading) -> None:
    """Raise BadReading where a counter of one process has run backwards."""
    if before.boot != after.boot:
        return
    pairs = [
        ("arrivals", before.arrivals, after.arrivals),
        ("arrivedRows", before.arrived_rows, after.arrived_rows),
        ("arrivedSquareRows", before.arrived_square_rows or 0, after.arrived_square_rows or 0),
        ("failed", before.failed, after.failed),
        ("rejected", before.rejected, after.rejected),
        ("uptimeSeconds", before.uptime_s, after.uptime_s),
        ("batches", sum(b for _, b, _, _ in before.batches), sum(b for _, b, _, _ in after.batches)),
        ("batch seconds", sum(s for *_, s in before.batches), sum(s for *_, s in after.batches)),
    ]
    if before.latencies.edges == after.latencies.edges:
        counts = before.latencies.counts, after.latencies.counts
        if any(map(operator.gt, *counts)):
            pairs += [("latency.counts", old, new) for old, new in zip(*counts, strict=True)]
    for name, old, new in pairs:
        if new < old:
            raise BadReading(Flaw.REWOUND, f"{name} went back from {old:g} to {new:g} in one process")


def quantile(parts: Sequence[tuple[tuple[float, ...], Sequence[int]]], share: float) -> float | None:
    """Return the `share`-quantile of all that was counted in `parts` (edges and counts), None where nothing was.

    Every count stands for the geometric middle of its bucket: with edges a factor r apart no value is farther from it
    than the square root of r, so neither is the quantile, whatever the edges of the other parts are.
    """
    masses = sorted((middle, count) for edges, counts in parts for middle, count in _middles(edges, counts))
    total = sum(count for _, count in masses)
    if not total:
        return None
    rank = max(1, math.ceil(share * total - 1e-9))
    running = 0
    for middle, count in masses:
        running += count
        if running >= rank:
            return middle
    raise AssertionError("the rank is at most the total")


def _middles(edges: tuple[float, ...], counts: Sequence[int]) -> list[tuple[float, int]]:
    found = []
    for index, count in enumerate(counts):
        if not count:
            continue
        if index == 0:
            middle = edges[0] / 2
        elif index == len(edges):
            middle = edges[-1] * 1.25
        else:
            middle = math.sqrt(edges[index - 1] * edges[index])
        found.append((middle, count))
    return found


def _canary(found: Any) -> CanaryReading | None:
    if found is None:
        return None
    split, mirror = (None if found[mode] is None else _sent(found[mode]) for mode in ("split", "mirror"))
    revision = found["revision"]
    if not isinstance(revision, str) or not 0 < len(revision) <= 253:
        raise ValueError("canary.revision is not a name")
    return CanaryReading(
        revision, _number(found["expiresSeconds"]), _count(found["momentMillis"]), split, mirror, _beside(found)
    )


def _beside(found: Any) -> Beside | None:
    if (told := found.get("beside")) is None:
        return None
    beside = Beside(_count(told["ended"]), _count(told["late"]), _count(told["failed"]))
    if beside.late + beside.failed > beside.ended:
        raise ValueError("canary.beside has more late and failed requests than have ended")
    return beside


def _sent(found: Any) -> Sent:
    latencies = _latencies(found["latency"])
    failed = found["failed"]
    if not isinstance(failed, dict) or len(failed) > MOST_SIZES:
        raise ValueError("canary has no counts of failures")
    return Sent(
        _count(found["sent"]),
        _count(found["answered"]),
        {str(why)[:64]: _count(count) for why, count in failed.items()},
        latencies,
        _count(found.get("abandoned", 0)),
    )


def _latencies(found: Any) -> Latencies:
    target_s = _number(found["targetSeconds"])
    edges = _edges(tuple(_list(found["edges"], MOST_BUCKETS)), target_s)
    counts = _list(found["counts"], MOST_BUCKETS + 1)
    if set(map(type, counts)) != {int} or min(counts) < 0 or max(counts) >= MOST_COUNT:
        counts = [_count(count) for count in counts]
    if len(counts) != len(edges) + 1:
        raise _other_buckets(f"has {len(counts)} counts for {len(edges)} edges")
    return Latencies(target_s, edges, tuple(counts))


@functools.lru_cache(maxsize=1024)
def _edges(found: tuple[Any, ...], target_s: float) -> tuple[float, ...]:
    """Return the edges of a histogram of latencies; one object of each, which every answer of a replica repeats."""
    edges = tuple(map(_number, found))
    if not edges or edges[0] <= 0 or any(a >= b for a, b in pairwise(edges)):
        raise _other_buckets("has edges that do not ascend from above zero")
    if target_s not in edges:
        raise _other_buckets(f"has no edge at its target of {target_s:g} s")
    if edges[0] > target_s / 4 or edges[-1] < 2 * target_s:
        raise _other_buckets("does not reach from a quarter of its target to twice its target")
    for a, b in pairwise(edges):
        if b > target_s / 4 * 1.001 and a < target_s * 2 * 0.999 and b / a > MOST_RATIO:
            raise _other_buckets(
                f"has edges of {a:g} s and {b:g} s side by side, too far apart near its target of {target_s:g} s"
            )
    return edges


def _other_buckets(message: str) -> BadReading:
    return BadReading(Flaw.OTHER_BUCKETS, f"the latency histogram {message}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_COUNT:
        raise ValueError(f"{str(value)[:40]} is not a number of zero or more")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST_COUNT:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return value


def _rows(value: Any) -> int:
    # A capacity is computed with a time for every number of rows up to the most: whoever says 2**40 asks for terabytes.
    if (rows := _count(value)) > MOST_ROWS:
        raise ValueError(f"{rows} rows are more than the {MOST_ROWS} that a call may have")
    return rows


def _engines(value: Any) -> int:
    if not 1 <= (engines := _count(value)) <= contract.MOST_ENGINES:
        raise ValueError(f"{engines} is no number of engines from 1 to {contract.MOST_ENGINES}")
    return engines


def _size(value: Any) -> int:
    return UNBOUNDED_ROWS if value == UNBOUNDED_ROWS else _rows(value)


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"there is no list of at most {most} entries")
    return value


def _boot(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise ValueError("bootId is not a word")
    return value
