"""What does this replica tell the operator of itself, and what may the operator tell it?

Sums and counts since the start, never averages or rates: whoever asks twice gets them by subtraction, a lost answer
loses nothing, and `bootId` says when to begin again. Latencies are counted in buckets one edge of which is the target
itself, so that the share of requests within it is exact and its quantiles, near the target, are within 5 %: where edges
are a factor of 1.10 apart, the geometric middle of a bucket is at most a factor of 1.0488 from any of its values.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import orjson

from evenkeel_runtime.serve.metrics import Histogram

if TYPE_CHECKING:
    from evenkeel_runtime.engine.batching import Queue

TARGET_S = 0.1
"""Where the edge is until the operator names a target."""
LEAST_TARGET_S, MOST_TARGET_S = 0.001, 600.0
FINE, COARSE = 1.10, 1.5
"""Most ratio of two edges between a quarter of the target and twice the target, and beyond."""
COARSE_BELOW, COARSE_ABOVE = 10, 8
"""Buckets beyond: from 1/230 of the target to 51 times the target."""

BATCH_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batches of up to so many rows are added up together; their rows are, too, so that the mean size is exact."""
_MOST_ROWS = (*BATCH_ROWS, 2**31)


class BadDirective(Exception):
    """A directive that is not followed: `status` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def latency_edges(target_s: float) -> tuple[float, ...]:
    """Return the upper edges of the latency buckets for a target, in seconds, ascending; the last bucket has none."""
    below, above = math.ceil(math.log(4, FINE)), math.ceil(math.log(2, FINE))
    fine_below = [target_s * 4 ** -(step / below) for step in range(below, 0, -1)]
    fine_above = [target_s * 2 ** (step / above) for step in range(1, above + 1)]
    coarse_below = [fine_below[0] / COARSE**step for step in range(COARSE_BELOW, 0, -1)]
    coarse_above = [fine_above[-1] * COARSE**step for step in range(1, COARSE_ABOVE + 1)]
    rounded = (float(f"{edge:.6g}") for edge in (*coarse_below, *fine_below))
    return (*rounded, target_s, *(float(f"{edge:.6g}") for edge in (*fine_above, *coarse_above)))


class Signals:
    """The counters of one process. What is counted per request costs a fraction of a microsecond."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.arrived_rows = 0
        self.failed = 0
        self.rejected = 0
        self.latency = Histogram(latency_edges(TARGET_S))
        self.generation: int | None = None
        self.target_s = TARGET_S
        self.load_s: float | None = None
        self.profile: tuple[tuple[int, float], ...] = ()
        self.max_rows = 0
        self._batches = [0] * (len(BATCH_ROWS) + 1)
        self._rows = [0] * (len(BATCH_ROWS) + 1)
        self._seconds = [0.0] * (len(BATCH_ROWS) + 1)
        self._boot = secrets.token_hex(8)
        self._started = time.monotonic()

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch that kept the model for `seconds`, from the forward's start until its answers were written."""
        index = bisect_left(BATCH_ROWS, rows)
        self._batches[index] += 1
        self._rows[index] += rows
        self._seconds[index] += seconds

    def render(self, queue: Queue | None, in_flight: int, is_ready: bool) -> bytes:
        """Return the answer to `GET /v2/signals`."""
        latency = self.latency
        body = {
            "bootId": self._boot,
            "uptimeSeconds": time.monotonic() - self._started,
            "cpuSeconds": time.process_time(),
            "ready": is_ready,
            "generation": self.generation,
            "arrivals": self.arrivals,
            "arrivedRows": self.arrived_rows,
            "failed": self.failed,
            "rejected": self.rejected,
            "inFlight": in_flight,
            "queuedRequests": queue.requests if queue else 0,
            "queuedRows": queue.rows if queue else 0,
            "busySeconds": sum(self._seconds),
            "latency": {
                "targetSeconds": self.target_s,
                "edges": latency.bounds,
                "counts": latency.counts,
                "sumSeconds": latency.total,
            },
            # [rows at most, batches, rows, seconds] of every size that has occurred.
            "batches": [
                row for row in zip(_MOST_ROWS, self._batches, self._rows, self._seconds, strict=True) if row[1]
            ],
            "loadSeconds": self.load_s,
            "maxBatchRows": self.max_rows,
            # [rows, seconds] of a call as measured at load.
            "profile": self.profile,
        }
        return orjson.dumps(body)

    def direct(self, body: bytes) -> None:
        """Follow a directive: JSON of `generation` and, where it is to change, `latencyTargetSeconds`.

        Raises BadDirective where it makes no sense, or is older than the one that is followed.
        """
        generation, target_s = _directive(body)
        if self.generation is not None and generation < self.generation:
            raise BadDirective(409, f"generation {generation} is older than {self.generation}, which is followed")
        self.generation = generation
        if target_s is not None and target_s != self.target_s:
            # Counts between other edges cannot be carried over: the histogram begins again, and its edges tell so.
            self.target_s = target_s
            self.latency = Histogram(latency_edges(target_s))


def _directive(body: bytes) -> tuple[int, float | None]:
    try:
        found: Any = json.loads(body)
    except ValueError:
        raise BadDirective(400, "a directive is JSON") from None
    generation = found.get("generation") if isinstance(found, dict) else None
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise BadDirective(400, "generation has to be a whole number of zero or more")
    target_s = found.get("latencyTargetSeconds")
    if target_s is None:
        return generation, None
    if isinstance(target_s, bool) or not isinstance(target_s, int | float):
        raise BadDirective(400, "latencyTargetSeconds has to be a number")
    if not LEAST_TARGET_S <= target_s <= MOST_TARGET_S:
        raise BadDirective(400, f"latencyTargetSeconds has to be from {LEAST_TARGET_S:g} to {MOST_TARGET_S:g}")
    return generation, float(target_s)
