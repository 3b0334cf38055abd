"""What does the operator tell Prometheus about itself? No label carries an object's name."""

from __future__ import annotations

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
ERRORS = Counter(
    "evenkeel_errors", "Errors, by where: api, watch, resync, fleet, event, bug.", ["kind"], registry=REGISTRY
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


def exposition() -> bytes:
    """Return every metric in Prometheus' text format."""
    return generate_latest(REGISTRY)
