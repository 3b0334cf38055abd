"""What came of one run, in few numbers?"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.load import Floats

MINUTE_S = 60.0
QUANTILE = 0.95


@dataclass(frozen=True)
class Request:
    """When it was due, sent and answered, in seconds since the beginning; how it failed, "" where it did not."""

    due: float
    sent: float
    answered: float
    failure: str

    @property
    def latency_s(self) -> float:
        """From when it was due: one that was sent late was late. One that failed was never answered."""
        return math.inf if self.failure else self.answered - self.due


@dataclass(frozen=True)
class Sample:
    """The replicas at one moment."""

    at: float
    wanted: int
    ready: int


@dataclass(frozen=True)
class Result:
    """What counts. Shares are of minutes and of samples after the warm-up; `replica_s` is of all the time."""

    p95_within_target: float
    replicas_within_one: float
    failed_requests: int
    replica_s: float


def read(path: Path) -> list[Request]:
    """Return what the generator wrote, in the order in which requests were due."""
    found = [Request(*json.loads(line)) for line in path.read_text().splitlines()]
    return sorted(found, key=lambda request: request.due)


def quantile(latencies_s: Sequence[float], share: float = QUANTILE) -> float:
    """Return the smallest latency that `share` of them keep to."""
    ordered = sorted(latencies_s)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def by_minute(requests: Sequence[Request], minutes: int) -> list[float | None]:
    """Return the quantile of the requests that were due in each minute, None where there was none."""
    rows: list[list[float]] = [[] for _ in range(minutes)]
    for request in requests:
        rows[min(minutes - 1, int(request.due // MINUTE_S))].append(request.latency_s)
    return [quantile(row) if row else None for row in rows]


def arrived(requests: Sequence[Request], seconds: int) -> Floats:
    """Return how many requests were sent in every second."""
    at = np.array([min(seconds - 1, int(request.sent)) for request in requests], np.int64)
    return np.bincount(at, minlength=seconds).astype(np.float32)


def result(
    requests: Sequence[Request],
    samples: Sequence[Sample],
    predicted: npt.NDArray[np.int64],
    target_s: float,
    warm_up: int,
) -> Result:
    """Return the figures of a run of `len(predicted)` seconds, the first `warm_up` minutes of which do not count."""
    minutes = by_minute(requests, round(len(predicted) / MINUTE_S))[warm_up:]
    counted = [value for value in minutes if value is not None]
    within = sum(value <= target_s for value in counted) / len(counted)
    seen = [s for s in samples if warm_up * MINUTE_S <= s.at < len(predicted)]
    near = sum(abs(s.wanted - int(predicted[int(s.at)])) <= 1 for s in seen) / len(seen)
    failed = Counter(request.failure for request in requests if request.failure)
    return Result(round(within, 4), round(near, 4), failed.total(), round(replica_s(samples, len(predicted)), 1))


def replica_s(samples: Sequence[Sample], seconds: int) -> float:
    """Return the seconds of all wanted replicas together: each sample holds until the next, the first from 0 on."""
    ends = [s.at for s in samples[1:]] + [float(seconds)]
    begins = [0.0, *ends[:-1]]
    return sum(
        sample.wanted * max(0.0, min(end, seconds) - begin)
        for sample, begin, end in zip(samples, begins, ends, strict=True)
    )
