"""Is a ModelDeployment told to Prometheus as it is known, and what nobody knows not at all?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import evenkeel_operator
from evenkeel_operator.world import metrics
from evenkeel_operator.world.metrics import Measured, PerDeployment, Stated

KNOWN = Measured(
    namespace="team-a",
    name="digits",
    state="Fresh",
    ready=3,
    heard=2,
    quantile=0.95,
    target_s=0.2,
    latency_s=0.143,
    missed=0.05,
    budget=0.01,
    demand=41.25,
    capacity=18.5,
    is_attainable=True,
    desired=3,
    least=1,
    most=8,
    limit="Demand",
    is_scalable=True,
)
UNKNOWN = replace(
    KNOWN, state="NoMetrics", heard=None, latency_s=None, missed=None, demand=None, capacity=None, is_attainable=None,
    desired=None, least=None, most=None, limit=None, is_scalable=None,
)  # fmt: skip


def told(measured: tuple[Measured, ...] = (), stated: tuple[Stated, ...] = ()) -> dict[tuple[str, ...], float]:
    """Return the samples by name and values of their labels, as a client of ours reads them."""
    series = PerDeployment()
    series.measured, series.stated = lambda: measured, lambda: stated
    return dict(_samples(series.exposition().decode()))


def _samples(text: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels: dict[str, Any] = dict(sample.labels)
            place = labels.pop("namespace"), labels.pop("name")
            yield (sample.name.removeprefix("evenkeel_"), *place, *labels.values()), sample.value


def test_what_is_known_has_a_series_each() -> None:
    at = ("team-a", "digits")
    assert told((KNOWN,)) == {
        ("desired_replicas", *at): 3.0,
        ("min_replicas", *at): 1.0,
        ("max_replicas", *at): 8.0,
        ("ready_replicas", *at): 3.0,
        ("heard_replicas", *at): 2.0,
        ("latency_target_seconds", *at): 0.2,
        ("latency_missed_ratio", *at): 0.05,
        ("latency_violation_budget_ratio", *at): 0.01,
        ("demand_rps", *at): 41.25,
        ("capacity_rps", *at): 18.5,
        ("slo_attainable", *at): 1.0,
        ("scalable", *at): 1.0,
        ("latency_seconds", *at, "0.95"): 0.143,
        ("signals_state", *at, "Fresh"): 1.0,
        ("decision_limit", *at, "Demand"): 1.0,
    }


def test_what_is_not_known_has_no_series_and_a_zero_that_was_measured_has() -> None:
    got = {name for name, *_ in told((UNKNOWN,))}
    assert got == {"ready_replicas", "latency_target_seconds", "latency_violation_budget_ratio", "signals_state"}
    assert told((replace(UNKNOWN, demand=0.0),))["demand_rps", "team-a", "digits"] == 0.0


@pytest.mark.parametrize(
    ("holds", "want"),
    [
        pytest.param(True, 1.0, id="one where it holds"),
        pytest.param(False, 0.0, id="zero where it does not"),
        pytest.param(None, None, id="nothing where nobody knows"),
    ],
)
def test_conditions(holds: bool | None, want: float | None) -> None:
    got = told(stated=(Stated("team-a", "digits", "LatencyMet", holds, "AboveTarget"),))
    assert got.get(("condition", "team-a", "digits", "LatencyMet", "AboveTarget")) == want


def test_a_deployment_that_is_gone_leaves_no_series() -> None:
    series = PerDeployment()
    rows = [KNOWN, replace(KNOWN, name="gone")]
    series.measured = lambda: rows
    assert b'name="gone"' in series.exposition()
    del rows[1]
    assert b'name="gone"' not in series.exposition()
    assert b'name="digits"' in series.exposition()


def test_the_page_is_one_document() -> None:
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert {"evenkeel_is_leader", "evenkeel_desired_replicas", "evenkeel_condition"} <= set(names)


def test_every_kind_of_error_is_there_before_the_first() -> None:
    """An alert sees a rise from 0, and none of a series that begins with an error."""
    place = Path(evenkeel_operator.__file__).parent
    counted = {
        match[1]
        for path in place.rglob("*.py")
        for match in re.finditer(r"ERRORS\.labels\(kind=\"(\w+)\"\)", path.read_text())
    }
    assert counted == set(metrics.KINDS)
    shown = metrics.REGISTRY.collect()
    (errors,) = (family for family in shown if family.name == "evenkeel_errors")
    assert {sample.labels["kind"] for sample in errors.samples if sample.name.endswith("_total")} == counted
