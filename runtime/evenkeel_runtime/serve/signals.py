"""What does this replica tell the operator of itself, and what may the operator tell it?

Sums and counts since the start, never averages or rates: whoever asks twice gets them by subtraction, a lost answer
loses nothing, and `bootId` says when to begin again. Latencies are counted in buckets one edge of which is the target
itself, so that the share of requests within it is exact and its quantiles, near the target, are within 5 %: where edges
are a factor of 1.10 apart, the geometric middle of a bucket is at most a factor of 1.0488 from any of its values.
"""

from __future__ import annotations

import math
import secrets
import time
from bisect import bisect_left
from typing import TYPE_CHECKING

import orjson

from evenkeel_runtime.serve.directives import BadDirective, Directive
from evenkeel_runtime.serve.metrics import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evenkeel_runtime.engine.batching import Queue
    from evenkeel_runtime.engine.process import Remote

TARGET_S = 0.1
"""Where the edge is until the operator names a target."""
FINE, COARSE = 1.10, 1.5
"""Most ratio of two edges between a quarter of the target and twice the target, and beyond."""
COARSE_BELOW, COARSE_ABOVE = 10, 8
"""Buckets beyond: from 1/230 of the target to 51 times the target."""

BATCH_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batches of up to so many rows are added up together; their rows are, too, so that the mean size is exact."""
_MOST_ROWS = (*BATCH_ROWS, 2**31)


def latency_edges(target_s: float) -> tuple[float, ...]:
    """Return the upper edges of the latency buckets for a target, in seconds, ascending; the last bucket has none."""
    below, above = math.ceil(math.log(4, FINE)), math.ceil(math.log(2, FINE))
    fine_below = [target_s * 4 ** -(step / below) for step in range(below, 0, -1)]
    fine_above = [target_s * 2 ** (step / above) for step in range(1, above + 1)]
    coarse_below = [fine_below[0] / COARSE**step for step in range(COARSE_BELOW, 0, -1)]
    coarse_above = [fine_above[-1] * COARSE**step for step in range(1, COARSE_ABOVE + 1)]
    rounded = (float(f"{edge:.6g}") for edge in (*coarse_below, *fine_below))
    return (*rounded, target_s, *(float(f"{edge:.6g}") for edge in (*fine_above, *coarse_above)))


def told(target_s: float, latency: Histogram) -> dict[str, object]:
    """Return a histogram as the signals show it."""
    return {
        "targetSeconds": target_s,
        "edges": latency.bounds,
        "counts": latency.counts,
        "sumSeconds": latency.total,
    }


class Signals:
    """The counters of one process. What is counted per request costs a fraction of a microsecond."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.arrived_rows = 0
        self.arrived_square_rows = 0
        self.failed = 0
        self.rejected = 0
        self.latency = Histogram(latency_edges(TARGET_S))
        self.generation: int | None = None
        self.target_s = TARGET_S
        self.load_s: float | None = None
        self.profile: tuple[tuple[int, float], ...] = ()
        self.max_rows = 0
        self.engines: Sequence[Remote] = ()
        """The processes that run the model; none where this one does."""
        self._batches = [0] * (len(BATCH_ROWS) + 1)
        self._rows = [0] * (len(BATCH_ROWS) + 1)
        self._seconds = [0.0] * (len(BATCH_ROWS) + 1)
        self._signed_generation: int | None = None
        self.boot = secrets.token_hex(8)
        self._started = time.monotonic()

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch that kept the model for `seconds`, from the forward's start until its answers were written."""
        index = bisect_left(BATCH_ROWS, rows)
        self._batches[index] += 1
        self._rows[index] += rows
        self._seconds[index] += seconds

    def render(
        self, queue: Queue | None, in_flight: int, is_ready: bool, canary: dict[str, object] | None = None
    ) -> bytes:
        """Return the answer to `GET /v2/signals`; `canary` is what became of the requests that went there."""
        body = {
            "bootId": self.boot,
            "uptimeSeconds": time.monotonic() - self._started,
            "cpuSeconds": time.process_time() + sum(engine.cpu_s for engine in self.engines),
            "ready": is_ready,
            "generation": self.generation,
            "arrivals": self.arrivals,
            "arrivedRows": self.arrived_rows,
            "arrivedSquareRows": self.arrived_square_rows,
            "failed": self.failed,
            "rejected": self.rejected,
            "inFlight": in_flight,
            "queuedRequests": queue.requests if queue else 0,
            "queuedRows": queue.rows if queue else 0,
            "busySeconds": sum(self._seconds),
            "latency": told(self.target_s, self.latency),
            # [rows at most, batches, rows, seconds] of every size that has occurred.
            "batches": [
                row for row in zip(_MOST_ROWS, self._batches, self._rows, self._seconds, strict=True) if row[1]
            ],
            "loadSeconds": self.load_s,
            "maxBatchRows": self.max_rows,
            # So many batches run at the same time; seconds are added up over all of them.
            "engines": max(1, len(self.engines)),
            # [rows, seconds] of a call as measured at load.
            "profile": self.profile,
            "canary": canary,
        }
        return orjson.dumps(body)

    def follow(self, directive: Directive) -> None:
        """Follow a directive; raises BadDirective where it is older than the one that is followed.

        What was not signed cannot make a signed one old: anybody in the cluster's network may have said it.
        """
        newest = self._signed_generation if directive.is_signed else self.generation
        if newest is not None and directive.generation < newest:
            message = f"generation {directive.generation} is older than {newest}, which is followed"
            raise BadDirective(409, message)
        self.generation = directive.generation
        if directive.is_signed:
            self._signed_generation = directive.generation
        if directive.target_s is not None and directive.target_s != self.target_s:
            # Counts between other edges cannot be carried over: the histogram begins again, and its edges tell so.
            self.target_s = directive.target_s
            self.latency = Histogram(latency_edges(directive.target_s))
