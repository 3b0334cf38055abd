"""What does the operator tell Prometheus? About itself, and about each ModelDeployment.

Only the latter carry the object's namespace and name as labels: a bounded number of series for each, read from what is
known when Prometheus asks, so that they go with the object. What is not known is a series that is not there, never 0.
Prometheus has to be told `honor_labels`, else it takes its own label `namespace` for the object's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

RECONCILES = Counter(
    "evenkeel_reconcile", "Reconciliations, by result: ok, rejected, invalid, transient, error.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
RECONCILE_DURATION = Histogram(
    "evenkeel_reconcile_duration_seconds",
    "Seconds of one reconciliation, requests included.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("evenkeel_workqueue_depth", "Deployments that wait for a worker.", registry=REGISTRY)
KINDS = ("api", "watch", "resync", "fleet", "event", "memory", "feedback", "canary", "retraining", "bug")
ERRORS = Counter("evenkeel_errors", f"Errors, by where: {', '.join(KINDS)}.", ["kind"], registry=REGISTRY)
for _kind in KINDS:
    ERRORS.labels(kind=_kind)  # so that the first error is a rise from 0, which an alert sees
LAST_EVENT_AGE = Gauge(
    "evenkeel_last_event_age_seconds", "Seconds since a watch last told of a change.", registry=REGISTRY
)
WRITES = Counter("evenkeel_writes", "Writes to the API server.", ["kind", "verb"], registry=REGISTRY)
IS_LEADER = Gauge("evenkeel_is_leader", "1 in the process that holds the Lease.", registry=REGISTRY)
RESYNC_REPAIRS = Counter(
    "evenkeel_resync_repairs", "Differences that a full list found and no watch had told of.", registry=REGISTRY
)
OBJECTS = Gauge("evenkeel_modeldeployments", "ModelDeployments that are served.", registry=REGISTRY)


POLLS = Counter(
    "evenkeel_polls", "Questions to replicas for their signals, by result: ok, or why nothing was read.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
DIRECTIVES = Counter(
    "evenkeel_directives", "Directives to replicas, by result: ok, failed, or the status that refused it.", ["result"],
    registry=REGISTRY,
)  # fmt: skip
CLOUD_EVENTS = Counter(
    "evenkeel_cloudevents", "Attempts to deliver the event of an alarm, by result: delivered, failed, given_up.",
    ["result"],
    registry=REGISTRY,
)  # fmt: skip
DECISION_LAG = Histogram(
    "evenkeel_decision_lag_seconds",
    "Seconds from when a ModelDeployment's replicas were due to be asked until its size was decided.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    registry=REGISTRY,
)
DECISION_DURATION = Histogram(
    "evenkeel_decision_duration_seconds",
    "Seconds of computing that one decision took.",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one ModelDeployment that names a latency; None is what is not known, and gives no series.

    Rates are requests per second (rows, where requests share calls of the model); `capacity` is one replica's. `missed`
    is the share of the last hour's minutes with requests that were above the target, `budget` the share that may be.
    `least` and `most` replicas are the bounds of `spec.scaling`.
    """

    namespace: str
    name: str
    state: str
    ready: int
    heard: int | None
    quantile: float
    target_s: float
    latency_s: float | None
    missed: float | None
    budget: float
    demand: float | None
    capacity: float | None
    is_attainable: bool | None
    desired: int | None
    least: int | None
    most: int | None
    limit: str | None
    is_scalable: bool | None


@dataclass(frozen=True, slots=True)
class Stated:
    """One condition of one ModelDeployment, as it stands in the status; `holds` is None where that is not known."""

    namespace: str
    name: str
    type: str
    holds: bool | None
    reason: str


_SERIES: tuple[tuple[str, str, Callable[[Measured], float | None]], ...] = (
    ("evenkeel_desired_replicas", "Replicas that there shall be, as decided.", lambda m: m.desired),
    ("evenkeel_min_replicas", "Least replicas that spec.scaling allows.", lambda m: m.least),
    ("evenkeel_max_replicas", "Most replicas that spec.scaling allows.", lambda m: m.most),
    ("evenkeel_ready_replicas", "Replicas that take requests.", lambda m: m.ready),
    ("evenkeel_heard_replicas", "Replicas that take requests and say what they measure.", lambda m: m.heard),
    ("evenkeel_latency_target_seconds", "Latency that shall be held.", lambda m: m.target_s),
    (
        "evenkeel_latency_missed_ratio",
        "Share of the last hour's minutes with requests that missed the target.",
        lambda m: m.missed,
    ),
    (
        "evenkeel_latency_violation_budget_ratio",
        "Share of an hour's minutes that may miss the target.",
        lambda m: m.budget,
    ),
    ("evenkeel_demand_rps", "Requests per second, of all replicas together.", lambda m: m.demand),
    ("evenkeel_capacity_rps", "Requests per second that one replica carries within the target.", lambda m: m.capacity),
    (
        "evenkeel_slo_attainable",
        "1 where one idle replica is within the target, 0 where it is not.",
        lambda m: m.is_attainable,
    ),
    (
        "evenkeel_scalable",
        "1 where the number of replicas follows the demand, 0 where it cannot.",
        lambda m: m.is_scalable,
    ),
)


class PerDeployment:
    """Tells what is known when Prometheus asks.

    In its own words: the client library takes 40 us for a line, half a second of nobody's turn for a thousand
    ModelDeployments.
    """

    def __init__(self) -> None:
        self.measured: Callable[[], Iterable[Measured]] = tuple
        self.stated: Callable[[], Iterable[Stated]] = tuple

    def exposition(self) -> bytes:
        """Return the series in Prometheus' text format."""
        rows = [(f'name="{row.name}",namespace="{row.namespace}"', row) for row in self.measured()]
        lines: list[str] = []
        for series, text, value in _SERIES:
            lines += _family(series, text)
            lines += [f"{series}{{{at}}} {float(found):.9g}" for at, row in rows if (found := value(row)) is not None]
        lines += _family("evenkeel_latency_seconds", "The objective's quantile over the last minute.")
        lines += [
            f'evenkeel_latency_seconds{{{at},quantile="{row.quantile:g}"}} {row.latency_s:.9g}'
            for at, row in rows
            if row.latency_s is not None
        ]
        lines += _family("evenkeel_signals_state", "1 for what the measurement is: Fresh, Stale, NoTraffic, NoMetrics.")
        lines += [f'evenkeel_signals_state{{{at},state="{row.state}"}} 1' for at, row in rows]
        lines += _family("evenkeel_decision_limit", "1 for what bound the last decision.")
        lines += [f'evenkeel_decision_limit{{{at},limit="{row.limit}"}} 1' for at, row in rows if row.limit is not None]
        lines += _family("evenkeel_condition", "1 where the condition holds, 0 where not; absent where nobody knows.")
        lines += [
            f'evenkeel_condition{{name="{row.name}",namespace="{row.namespace}",type="{row.type}",'
            f'reason="{row.reason}"}} {int(row.holds)}'
            for row in self.stated()
            if row.holds is not None
        ]
        return ("\n".join(lines) + "\n").encode()


def _family(name: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} gauge"


PER_DEPLOYMENT = PerDeployment()


def exposition() -> bytes:
    """Return every metric in Prometheus' text format."""
    return generate_latest(REGISTRY) + PER_DEPLOYMENT.exposition()
