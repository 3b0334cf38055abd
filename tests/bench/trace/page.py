"""How do both runs look over time? A page with a plot of each, beside each other, on the same axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evenkeel_operator.pages import axes, parts
from evenkeel_operator.pages.axes import Axis
from evenkeel_operator.pages.document import document
from evenkeel_operator.pages.figure import Band, Level, Line, Mark, figure, legend
from evenkeel_operator.pages.markup import Content, tag
from evenkeel_operator.simulate.load import Floats
from tests.bench.trace.figures import MINUTE_S, Result, Sample

OVER_S = 15
"""Demand is drawn by means of so many seconds."""

MOST_TARGETS = 3.0
"""Latencies beyond lie at the edge."""


@dataclass(frozen=True)
class Run:
    """One autoscaler's run: requests of every second, p95 of every minute, the replicas, and those foreseen."""

    name: str
    counts: Floats
    p95_s: Sequence[float | None]
    samples: Sequence[Sample]
    predicted: npt.NDArray[np.int64]
    result: Result


def page(title: str, about: str, runs: Sequence[Run], target_s: float, rate: float) -> str:
    """Return the whole page as HTML; `rate` is what a replica carries within the target."""
    return document(
        title,
        (
            tag("header", tag("h1", title), parts.soft(about)),
            parts.section("Replicas", parts.beside(*_each(runs, lambda run: _replicas(run, rate)))),
            parts.section("Latency by minute", parts.beside(*_each(runs, lambda run: _latency(run, target_s)))),
            parts.section("What came of it", _table(runs)),
        ),
    )


def _each(runs: Sequence[Run], drawn: Callable[[Run], Content]) -> Iterator[tuple[str, Content]]:
    for run in runs:
        yield run.name, drawn(run)


def _replicas(run: Run, rate: float) -> Content:
    length = len(run.counts) - len(run.counts) % OVER_S
    need = run.counts[:length].reshape(-1, OVER_S).mean(axis=1) / rate
    top = max(*(float(sample.wanted) for sample in run.samples), float(run.predicted.max()))
    marks: list[Mark] = [
        Band("other", [(OVER_S * (n + 0.5), 0.0, float(value)) for n, value in enumerate(need)]),
        Line("canary", [(float(at), float(size)) for at, size in enumerate(run.predicted)][::5], is_stepped=True),
        Line("for", [(sample.at, float(sample.ready)) for sample in run.samples], is_stepped=True),
        Line("stable", [(sample.at, float(sample.wanted)) for sample in run.samples], is_stepped=True),
    ]
    label = f"Replicas under {run.name} over time, and those that the simulator foresaw."
    return tag(
        "figure",
        figure(label, axes.of_elapsed(len(run.counts)), axes.of_numbers(0.0, top, least=0.0), marks),
        legend(
            ("stable line", "wanted"),
            ("for line", "ready"),
            ("canary line", "foreseen by the simulator"),
            ("other area", "the demand, in replicas at their capacity"),
        ),
    )


def _latency(run: Run, target_s: float) -> Content:
    top = MOST_TARGETS * target_s
    points = [(MINUTE_S * n, min(value, top)) for n, value in enumerate(run.p95_s) if value is not None]
    points.append((float(len(run.counts)), points[-1][1]))
    marks: list[Mark] = [
        Line("stable", points, is_stepped=True),
        Level("floor", target_s, f"target {1000 * target_s:.0f}ms", is_left=True),
    ]
    label = f"p95 of every minute under {run.name}, measured by the client, against the target."
    return tag(
        "figure",
        figure(label, axes.of_elapsed(len(run.counts)), Axis(0.0, top, axes.numbers), marks),
        legend(("stable line", f"p95 in seconds; beyond {MOST_TARGETS:g} times the target at the edge")),
    )


def _table(runs: Sequence[Run]) -> Content:
    rows = [
        (
            run.name,
            f"{run.result.p95_within_target:.1%}",
            f"{run.result.replicas_within_one:.1%}",
            str(run.result.failed_requests),
            f"{run.result.replica_s:.0f}",
            str(int(run.counts.sum())),
        )
        for run in runs
    ]
    head = ("Autoscaler", "Minutes within", "Within one of foreseen", "Failed", "Replica-seconds", "Requests")
    return parts.table("Shares are of the time after the warm-up", head, rows, numbers="knnnnn")
