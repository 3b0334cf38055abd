"""Is what was measured and decided said as it is, and told once?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import sizing
from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.readings import Flaw
from evenkeel_operator.decide.replicas import (
    Decision,
    Fresh,
    Input,
    Limit,
    Measurement,
    NoMetrics,
    NoTraffic,
    Signals,
    Stale,
)
from evenkeel_operator.decide.sizing import Refused, Sizing
from evenkeel_operator.decide.snapshot import NO_SIGNAL

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATENCY = {"metric": "EndToEnd", "quantile": 0.95, "target": "200ms", "violationBudget": 0.05}
SCALED = Spec.model_validate(
    {
        "model": {"uri": "pvc://models/digits.pt2"},
        "scaling": {"minReplicas": 1, "maxReplicas": 4},
        "objectives": {"latency": [LATENCY]},
    }
)
FIXED = Spec.model_validate({"model": {"uri": "pvc://models/digits.pt2"}, "objectives": {"latency": [LATENCY]}})


def found(latency: Measurement, limit: Limit | None = Limit.DEMAND, **change: Any) -> Sizing:
    decision = None if limit is None else Decision(2, limit, "as it is", (Input("demand", 12.3456, "Fresh", 1.23),))
    return replace(Sizing(2, latency, NOW, decision), **change)


def row(spec: Spec, measured: Sizing | None, kind: str) -> tuple[bool | None, str]:
    return {r.type: (r.holds, str(r.reason)) for r in sizing.rows(spec, measured)}[kind]


@pytest.mark.parametrize(
    ("measured", "want"),
    [
        pytest.param(found(Fresh(0.1)), (True, "WithinTarget"), id="within, and no full minute yet"),
        pytest.param(found(Fresh(0.3), missed=3, minutes=60), (True, "WithinTarget"), id="the budget bears it"),
        pytest.param(found(Fresh(0.1), missed=4, minutes=60), (False, "AboveTarget"), id="the budget is used up"),
        pytest.param(found(NoTraffic()), (None, "NoTraffic"), id="no request is neither met nor missed"),
        pytest.param(found(Stale(0.1, 40.0)), (None, "MetricsStale"), id="measured once"),
        pytest.param(found(NoMetrics()), (None, "MetricsMissing"), id="never measured"),
        pytest.param(None, (None, "MetricsMissing"), id="not looked at yet"),
    ],
)
def test_latency_met(measured: Sizing | None, want: tuple[bool | None, str]) -> None:
    assert row(SCALED, measured, "LatencyMet") == want
    assert row(FIXED, measured, "LatencyMet") == want


DRIPS = Refused("digits-a-x", Flaw.TOO_SLOW, "no whole answer within 2 s", 3)


@pytest.mark.parametrize(
    ("measured", "want"),
    [
        pytest.param(found(Fresh(0.1)), (True, "AsNeeded"), id="what the demand asks for"),
        pytest.param(found(Fresh(0.1), Limit.MIN_REPLICAS), (True, "AsNeeded"), id="the least is enough"),
        pytest.param(found(Fresh(0.1), Limit.MAX_REPLICAS), (False, "MaxReplicas"), id="more would be needed"),
        pytest.param(found(Fresh(0.1), Limit.FREE_GPUS), (False, "GPUCapacityLimited"), id="no GPU is free"),
        pytest.param(found(NoMetrics(), Limit.NO_METRICS), (False, "MetricsMissing"), id="nothing is measured"),
        pytest.param(found(Stale(0.1, 40), Limit.STALE_METRICS), (False, "MetricsStale"), id="nothing is any more"),
        pytest.param(found(Fresh(0.1), Limit.SILENT_REPLICAS), (False, "ReplicasSilent"), id="half are silent"),
        pytest.param(
            found(NoMetrics(), Limit.NO_METRICS, refused=DRIPS), (False, "SignalsRefused"), id="answers that are none"
        ),
        pytest.param(found(Fresh(0.1), refused=DRIPS), (True, "AsNeeded"), id="one bad answer among good ones"),
        pytest.param(found(Fresh(0.3), is_attainable=False), (False, "SLOUnattainable"), id="more would not help"),
        pytest.param(found(NoMetrics(), None), (False, "MetricsMissing"), id="nothing is decided yet"),
        pytest.param(None, (False, "MetricsMissing"), id="not looked at yet"),
    ],
)
def test_scalable(measured: Sizing | None, want: tuple[bool | None, str]) -> None:
    assert row(SCALED, measured, "Scalable") == want
    assert [r.type for r in sizing.rows(FIXED, measured)] == ["LatencyMet"]


def test_a_refused_answer_is_named_with_its_replica() -> None:
    measured = found(NoMetrics(), Limit.NO_METRICS, refused=DRIPS)
    for told in sizing.rows(SCALED, measured):
        assert "digits-a-x and 2 more" in told.message
        assert "TooSlow: no whole answer within 2 s" in told.message


def test_what_the_status_says_is_what_the_api_knows() -> None:
    decision = found(Fresh(0.143)).decision
    assert decision is not None
    measured = found(Fresh(0.143), decisions=(sizing.decided(decision, 1, NOW),))
    answer = sizing.status(SCALED, measured, Status())
    status = Status.model_validate(answer)
    assert status.latency is not None
    assert status.last_decisions is not None
    assert (status.latency[0].observed, status.latency[0].state) == ("143ms", "Fresh")
    newest = status.last_decisions[0]
    assert (newest.from_, newest.to, newest.limit) == (1, 2, "Demand")
    assert [(i.name, i.value, i.age_seconds) for i in newest.inputs] == [("demand", 12.35, 1.2)]
    assert sizing.status(SCALED, None, status) == answer, "what nobody has looked at yet stays"
    assert "lastDecisions" not in sizing.status(FIXED, measured, status)


@pytest.mark.parametrize("silent", [NoTraffic(), NoMetrics()])
def test_what_was_not_measured_has_no_number(silent: Measurement) -> None:
    assert "observed" not in sizing.status(SCALED, found(silent), Status())["latency"][0]


def test_a_change_is_told_once() -> None:
    decision = found(Fresh(0.1)).decision
    assert decision is not None
    measured = found(Fresh(0.1), decisions=(sizing.decided(decision, 1, NOW),))
    (told,) = sizing.events(measured, Status())
    assert (told.type, told.reason) == ("Normal", "Scaled")
    assert "1 -> 2" in told.message
    assert sizing.events(measured, Status.model_validate(sizing.status(SCALED, measured, Status()))) == ()


def test_every_change_since_the_last_status_is_told_in_order() -> None:
    decision = found(Fresh(0.1)).decision
    assert decision is not None
    first, second, third = (sizing.decided(replace(decision, size=n + 1), n, NOW) for n in (1, 2, 3))
    before = Status.model_validate(sizing.status(SCALED, found(Fresh(0.1), decisions=(first,)), Status()))
    told = sizing.events(found(Fresh(0.1), decisions=(third, second, first)), before)
    assert [event.message.partition(" replicas")[0] for event in told] == ["2 -> 3", "3 -> 4"]


@pytest.mark.parametrize(
    ("size", "before", "want"),
    [
        pytest.param(3, 1, Limit.MIN_REPLICAS, id="a minimum above it"),
        pytest.param(3, 5, Limit.MAX_REPLICAS, id="a maximum below it"),
    ],
)
def test_bounds_that_moved_past_the_size_bind_it_by_name(size: int, before: int, want: Limit) -> None:
    last = found(Fresh(0.1)).decision
    assert last is not None
    got = sizing.rebounded(size, before, last)
    assert (got.size, got.limit, got.inputs) == (size, want, last.inputs)
    assert sizing.rebounded(size, before, None).inputs == (), "nothing was known yet"


def test_a_number_written_in_vain_is_answered() -> None:
    (told,) = sizing.events(found(Fresh(0.1), ignored=7), Status())
    assert (told.type, told.reason) == ("Warning", "ReplicasIgnored")
    assert "spec.replicas was set to 7" in told.message


@pytest.mark.parametrize(
    ("value_s", "want"),
    [
        pytest.param(0.0012, "1.2ms", id="a fraction of a millisecond counts when there are few"),
        pytest.param(0.143, "143ms", id="milliseconds"),
        pytest.param(1.25, "1.25s", id="seconds"),
    ],
)
def test_durations_read_as_people_write_them(value_s: float, want: str) -> None:
    assert sizing.duration(value_s) == want


@pytest.mark.parametrize(
    ("demand", "size", "want"),
    [
        pytest.param(Fresh(200.0), 4, (True, False), id="three carry it with room to spare"),
        pytest.param(Fresh(280.0), 4, (False, False), id="three carry it, and just so"),
        pytest.param(Fresh(305.0), 4, (False, False), id="more than three carry, by no more than chance brings"),
        pytest.param(Fresh(330.0), 4, (False, True), id="more than three carry"),
        pytest.param(Fresh(0.0), 1, (True, False), id="none is needed"),
        pytest.param(NoTraffic(), 4, (True, False), id="no request came"),
        pytest.param(Stale(330.0, 40.0), 4, (False, False), id="what was measured is old"),
        pytest.param(NoMetrics(), 4, (False, False), id="nothing was measured"),
        pytest.param(Fresh(330.0), None, (False, False), id="the number is somebody else's"),
    ],
)
def test_whether_one_replica_can_be_spared_or_every_one_is_needed(
    demand: Measurement, size: int | None, want: tuple[bool, bool]
) -> None:
    carries = Capacity(rate=100.0, shrink_rate=90.0, max_rate=120.0)
    signals = Signals(demand, NoTraffic(), Fresh(0.1), ready=4, heard=4)
    assert sizing.spare(signals, size, carries) == want
    assert sizing.spare(signals, size, NO_SIGNAL) == (False, False)


@pytest.mark.parametrize(
    ("demand", "heard", "want"),
    [
        pytest.param(200.0, 4, (True, False), id="all were heard"),
        pytest.param(150.0, 3, (True, False), id="of as much, three of four"),
        pytest.param(165.0, 2, (False, True), id="half of what needs all four"),
        pytest.param(130.0, 2, (False, False), id="what the others have may be more than three carry"),
    ],
)
def test_replicas_that_were_not_heard_have_demand_too(demand: float, heard: int, want: tuple[bool, bool]) -> None:
    carries = Capacity(rate=100.0, shrink_rate=90.0, max_rate=120.0)
    signals = Signals(Fresh(demand), NoTraffic(), Fresh(0.1), ready=4, heard=heard, missed=4 - heard)
    assert sizing.spare(signals, 4, carries) == want
