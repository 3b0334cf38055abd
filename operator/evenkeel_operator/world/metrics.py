"""What does the operator tell Prometheus? About itself, and about each ModelDeployment that names a latency.

Only the latter carry the object's name as a label: as many series as somebody has asked for, which go with the object.
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
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

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
ERRORS = Counter(
    "evenkeel_errors", "Errors, by where: api, watch, resync, fleet, event, memory, bug.", ["kind"], registry=REGISTRY
)
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
DECISION_LAG = Histogram(
    "evenkeel_decision_lag_seconds",
    "Seconds from the last answer of a ModelDeployment's replicas until its size was decided.",
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

    Rates are requests per second (rows, where requests share calls of the model); `capacity` is one replica's.
    """

    namespace: str
    name: str
    state: str
    ready: int
    heard: int
    quantile: float
    target_s: float
    latency_s: float | None
    demand: float | None
    capacity: float | None
    desired: int | None
    limit: str | None
    is_scalable: bool | None


_SERIES: tuple[tuple[str, str, Callable[[Measured], float | None]], ...] = (
    ("evenkeel_desired_replicas", "Replicas that there shall be, as decided.", lambda m: m.desired),
    ("evenkeel_ready_replicas", "Replicas that take requests.", lambda m: m.ready),
    ("evenkeel_heard_replicas", "Replicas that take requests and say what they measure.", lambda m: m.heard),
    ("evenkeel_latency_target_seconds", "Latency that shall be held.", lambda m: m.target_s),
    ("evenkeel_demand_rps", "Requests per second, of all replicas together.", lambda m: m.demand),
    ("evenkeel_capacity_rps", "Requests per second that one replica carries within the target.", lambda m: m.capacity),
    (
        "evenkeel_scalable",
        "1 where the number of replicas follows the demand, 0 where it cannot.",
        lambda m: m.is_scalable,
    ),
)


class PerDeployment(Collector):
    """Reads what is known when Prometheus asks."""

    def __init__(self) -> None:
        self.source: Callable[[], Iterable[Measured]] = tuple

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield one family after the other."""
        rows = list(self.source())
        place = ["namespace", "name"]
        for series, text, value in _SERIES:
            family = GaugeMetricFamily(series, text, labels=place)
            for row in rows:
                if (found := value(row)) is not None:
                    family.add_metric([row.namespace, row.name], float(found))
            yield family
        latency = GaugeMetricFamily(
            "evenkeel_latency_seconds", "The objective's quantile over the last minute.", labels=[*place, "quantile"]
        )
        state = GaugeMetricFamily(
            "evenkeel_signals_state", "1 for what the measurement is: Fresh, Stale, NoTraffic, NoMetrics.",
            labels=[*place, "state"],
        )  # fmt: skip
        limit = GaugeMetricFamily(
            "evenkeel_decision_limit", "1 for what bound the last decision.", labels=[*place, "limit"]
        )
        for row in rows:
            at = [row.namespace, row.name]
            state.add_metric([*at, row.state], 1.0)
            if row.latency_s is not None:
                latency.add_metric([*at, f"{row.quantile:g}"], row.latency_s)
            if row.limit is not None:
                limit.add_metric([*at, row.limit], 1.0)
        yield from (latency, state, limit)


PER_DEPLOYMENT = PerDeployment()
REGISTRY.register(PER_DEPLOYMENT)


def exposition() -> bytes:
    """Return every metric in Prometheus' text format."""
    return generate_latest(REGISTRY)
