"""What came of it, in few numbers: cost and violations beside a frontier of single settings, and beside an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.load import Floats, moving_mean

Numbers = npt.NDArray[np.float64]

SMOOTH_S = 15


@dataclass(frozen=True)
class Result:
    """One trace under all configurations, ours first: shares of late requests, GPU seconds, changes of the size.

    `clairvoyant_s` are the GPU seconds of one who knows the demand of the next start.
    """

    trace: str
    late: Numbers
    gpu_s: Numbers
    changes: Numbers
    clairvoyant_s: float


def mean(runs: Sequence[Sequence[Result]]) -> list[Result]:
    """Return the means over all seeds, trace by trace; every seed has the same traces in the same order."""
    return [
        Result(
            of[0].trace,
            np.mean([r.late for r in of], axis=0),
            np.mean([r.gpu_s for r in of], axis=0),
            np.mean([r.changes for r in of], axis=0),
            float(np.mean([r.clairvoyant_s for r in of])),
        )
        for of in zip(*runs, strict=True)
    ]


def clairvoyant_s(arrived: Floats, rate: float, cold_start_s: int) -> float:
    """Return the GPU seconds of ⌈max of the demand until `cold_start_s` from now / rate⌉, one at least."""
    smooth = moving_mean(arrived, SMOOTH_S)
    padded = np.concatenate([smooth, np.zeros(cold_start_s, np.float32)])
    ahead = np.lib.stride_tricks.sliding_window_view(padded, cold_start_s + 1).max(axis=1)
    return float(np.maximum(1.0, np.ceil(ahead / rate)).sum())


def means(results: Sequence[Result]) -> tuple[Numbers, Numbers]:
    """Return for every configuration the mean share of late requests, and the geometric mean of GPU-hours in those of
    the clairvoyant."""
    late = np.mean([r.late for r in results], axis=0)
    return late, np.exp(np.mean([np.log(r.gpu_s / r.clairvoyant_s) for r in results], axis=0))


def against_frontier(results: Sequence[Result]) -> float:
    """Return our GPU-hours over those of single settings with our mean violations, geometric mean over traces.

    The settings that none beats in both form the lower convex hull, along which is interpolated: a mixture of two
    settings is allowed. Where none has as few violations as we, the one with the fewest stands for it.
    """
    cost = np.mean([np.log(r.gpu_s / r.clairvoyant_s) for r in results], axis=0)
    late = np.mean([r.late for r in results], axis=0)
    hull = frontier(late[1:], cost[1:])
    return float(np.exp(cost[0] - np.interp(late[0], [x for x, _ in hull], [y for _, y in hull])))


def frontier(late: Numbers, cost: Numbers) -> list[tuple[float, float]]:
    """Return the lower left convex hull of the points, by rising `late`."""
    hull: list[tuple[float, float]] = []
    for point in sorted(zip(late.tolist(), cost.tolist(), strict=True)):
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _is_above(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Return whether `middle` lies on or above the line from `first` to `last`."""
    (x0, y0), (x1, y1), (x2, y2) = first, middle, last
    return (y1 - y0) * (x2 - x0) >= (y2 - y0) * (x1 - x0)


def oracle(result: Result) -> int:
    """Return the cheapest configuration with no more violations than ours; without one, that with the fewest."""
    fine = np.flatnonzero(result.late[1:] <= result.late[0]) + 1
    if not len(fine):
        return int(np.argmin(result.late[1:])) + 1
    return int(fine[np.argmin(result.gpu_s[fine])])


def against_oracle(results: Sequence[Result]) -> float:
    """Return our GPU-hours over the oracle's, geometric mean over traces."""
    return float(np.exp(np.mean([np.log(r.gpu_s[0] / r.gpu_s[oracle(r)]) for r in results])))


def clairvoyant_ratio_median(results: Sequence[Result]) -> float:
    """Return our GPU-hours over those of one who knows the near future, median over traces."""
    return float(np.median([r.gpu_s[0] / r.clairvoyant_s for r in results]))


def dominated(results: Sequence[Result], defaults: Sequence[int]) -> list[str]:
    """Return the traces on which one of the `defaults` costs less and is late less often than ours."""
    return [
        r.trace
        for r in results
        if any(r.late[column] < r.late[0] and r.gpu_s[column] < r.gpu_s[0] for column in defaults)
    ]
