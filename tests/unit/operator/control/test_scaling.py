"""What does a plan get to know of the size that was decided for this very ModelDeployment?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control.cache import Key
from evenkeel_operator.control.memories import Memories
from evenkeel_operator.control.scaling import Scaler, Watched
from evenkeel_operator.decide.capacity import Capacity, Roofline
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.observed import Observed
from evenkeel_operator.decide.readings import BadReading, Flaw, Latencies, Reading
from evenkeel_operator.decide.replicas import Fresh, Limit, NoTraffic, Signals
from evenkeel_operator.decide.sizing import Sizing
from evenkeel_operator.decide.snapshot import NO_SIGNAL, freeze
from evenkeel_operator.decide.speed import Speed
from evenkeel_operator.world import metrics
from evenkeel_operator.world.cluster import Cluster
from evenkeel_operator.world.connection import Connection
from evenkeel_operator.world.signals import Answers, Replicas, Target
from tests.builders import DEFAULTS, NAME, NAMESPACE, modeldeployment, node, revision_of
from tests.plans import serving

KEY = Key(NAMESPACE, NAME)
SCALED: dict[str, Any] = {
    "scaling": {"minReplicas": 1, "maxReplicas": 8},
    "objectives": {
        "latency": [{"metric": "EndToEnd", "quantile": 0.95, "target": "200ms", "violationBudget": 0.05}],
    },
}
COUNTS = (0, 1250)
EDGES = (0.05, 0.1, 0.2, 0.4)
READING = Reading(
    "boot", 5.0, True, 1, 1250, 1250, 0, 0, 0, 0, 2, Latencies(0.2, (0.01,), COUNTS), ((1, 1250, 1250, 12.5),), (), 8
)
"""250 requests per second, since the replica started."""
DECIDED = {"time": "2026-01-01T11:00:00Z", "from": 1, "to": 4, "limit": "Demand", "message": "demand"}


@pytest.fixture
async def scaler() -> AsyncIterator[Scaler]:
    """Yield one whose API server nobody answers for: a look asks nothing."""
    connection = Connection(Configuration(host="http://127.0.0.1:1"))
    found = Scaler(
        replicas=Replicas(),
        memories=Memories(Cluster(connection, lambda: None)),
        fleet=lambda: NO_SIGNAL,
        changed=lambda key: None,
    )
    yield found
    await found.stop()
    await connection.close()


def look(scaler: Scaler, deployment: Object) -> Sizing:
    snapshot = scaler.look(KEY, deployment, freeze(deployment=deployment, children=(), defaults=DEFAULTS))
    assert snapshot.sizing is not None
    return snapshot.sizing


async def test_a_successor_of_the_same_name_inherits_nothing(scaler: Scaler) -> None:
    first = modeldeployment(status={"lastDecisions": [DECIDED]}, **SCALED)
    assert look(scaler, first).size == 4
    assert look(scaler, {**first, "status": {}}).size == 4, "decided for the same object"
    successor = modeldeployment(**SCALED)
    successor["metadata"]["uid"] = "uid-successor"
    got = look(scaler, successor)
    assert (got.size, got.decisions) == (1, ())


async def test_a_number_written_in_vain_is_told_once(scaler: Scaler) -> None:
    look(scaler, modeldeployment(**SCALED))
    edited = modeldeployment(**{**SCALED, "replicas": 7})
    assert look(scaler, edited).ignored == 7
    assert look(scaler, edited).ignored is None


@pytest.mark.parametrize(
    ("canary", "demand", "want"),
    [
        pytest.param("digits-new", 330.0, True, id="that the replica which it has borrowed is needed"),
        pytest.param("digits-new", 280.0, False, id="nothing else so soon"),
        pytest.param(None, 330.0, False, id="nothing where there is no canary"),
    ],
)
async def test_what_a_trial_is_told_at_once(scaler: Scaler, canary: str | None, demand: float, want: bool) -> None:
    status = {} if canary is None else {"canaryRevision": canary}
    look(scaler, modeldeployment(status={**status, "lastDecisions": [DECIDED]}, **SCALED))
    found = scaler._watched[KEY]
    found.carries = Capacity(rate=100.0, shrink_rate=90.0, max_rate=120.0)
    found.signals = Signals(Fresh(280.0), NoTraffic(), Fresh(0.1), ready=4, heard=4)
    scaler._publish(found)
    found.signals = replace(found.signals, demand=Fresh(demand))
    assert scaler._is_worth_telling(found, None, found.published_at + 5.0) is want


async def test_a_gpu_is_promised_to_one_deployment_at_a_time(scaler: Scaler) -> None:
    """Until the pods that were asked for are bound, the nodes show their GPUs as free."""
    scaler._fleet = lambda: (node(gpus=4, used=2),)
    other, deployment = Key(NAMESPACE, "other"), modeldeployment(gpu={}, **SCALED)
    children = serving(deployment)
    children[-1]["status"]["podIP"] = "10.0.0.1"
    for key in (KEY, other):
        scaler.look(key, deployment, freeze(deployment=deployment, children=children, defaults=DEFAULTS))
    found, beside = scaler._watched[KEY], scaler._watched[other]
    assert [scaler._standing(KEY, found, 1).free, scaler._standing(other, beside, 1).free] == [2, 2]
    found.carries = Capacity(rate=100.0, shrink_rate=90.0, max_rate=120.0)
    found.observed.note(f"{revision_of(deployment)}-0", READING, 5.0)
    scaler._decide(KEY, found, 5.0)
    assert found.size == 3
    assert [scaler._standing(KEY, found, 1).free, scaler._standing(other, beside, 1).free] == [0, 0]
    scaler.forget(KEY)
    assert scaler._standing(other, beside, 1).free == 2


async def followed(scaler: Scaler, monkeypatch: pytest.MonkeyPatch, rounds: int, took_s: float = 0.0) -> list[float]:
    """Have a deployment followed, every 0.3 s, whose capacity takes for ever; return how late each decision was."""

    async def answered(targets: Sequence[Target], directive: object) -> Answers:
        await asyncio.sleep(took_s)
        return {target.replica: READING for target in targets}

    def observe(lag_s: float) -> None:
        lags.append(lag_s)
        if len(lags) == rounds:
            enough.set()

    async def never(*asked: object) -> Capacity:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    lags: list[float] = []
    enough = asyncio.Event()
    monkeypatch.setattr(scaler._capacities, "of", never)
    monkeypatch.setattr("evenkeel_operator.control.capacities.WAIT_S", 0.0)
    monkeypatch.setattr(metrics.DECISION_LAG, "observe", observe)
    monkeypatch.setattr(scaler, "_interval_s", 0.3)
    monkeypatch.setattr(scaler._replicas, "ask", answered)
    deployment = modeldeployment(**SCALED)
    children = serving(deployment)
    children[-1]["status"]["podIP"] = "10.0.0.1"
    scaler.look(KEY, deployment, freeze(deployment=deployment, children=children, defaults=DEFAULTS))
    await asyncio.wait_for(enough.wait(), 10.0)
    return lags


async def test_a_decision_is_late_by_what_its_round_took(scaler: Scaler, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    assert min(await followed(scaler, monkeypatch, 6, took_s=0.25)) >= 0.24
    assert time.monotonic() - began < 6 * (0.27 + 0.2), "a round is due every 0.3 s, whatever it takes"


@pytest.mark.parametrize(
    ("target", "want"),
    [
        pytest.param(0.2, (3, Limit.DEMAND), id="by what is known from the operator before"),
        pytest.param(0.1, (1, Limit.NO_METRICS), id="not by what is known of another target"),
    ],
)
async def test_decisions_do_not_wait_for_a_capacity(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch, target: float, want: tuple[int, Limit]
) -> None:
    """A thousand of them take ten minutes after a start of the operator."""

    async def restored(key: Key, deployment: Object) -> tuple[Memory, Speed, Carried]:
        return Memory(), Speed(Roofline(0.01, 0.0, 0.01, 8)), Carried(Capacity(100.0, 90.0, 120.0), target, 0.95)

    monkeypatch.setattr(scaler._memories, "restored", restored)
    assert len(await followed(scaler, monkeypatch, 1)) == 1
    decision = scaler._watched[KEY].decision
    assert decision is not None
    assert (decision.size, decision.limit) == want


def minute(scaler: Scaler, monkeypatch: pytest.MonkeyPatch, now: float, slow: int) -> Watched:
    """Judge the minute until `now`, of 600 requests at one replica of which `slow` missed the target."""
    found = scaler._watched[KEY]
    monkeypatch.setattr(scaler, "_clock", lambda: now)
    monkeypatch.setattr(scaler, "_is_cold", lambda found: False)
    latencies = Latencies(0.2, EDGES, (*(600 - slow if edge == 0.1 else 0 for edge in EDGES), slow))
    found.observed = Observed()
    found.observed.note("a", replace(READING, arrivals=600, arrived_rows=600, latencies=latencies), now)
    found.signals = found.observed.signals(["a"], 0.2, 0.95, now)
    found.minute_at = now - 60.0
    scaler._note_minute(found, now)
    return found


def told(scaler: Scaler) -> tuple[int, int]:
    """Return what is published of the hour's minutes: those missed, and all."""
    found = scaler._watched[KEY]
    scaler._publish(found)
    assert found.published is not None
    return found.published.missed, found.published.minutes


async def test_a_minute_counts_for_an_hour(scaler: Scaler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where none came after it: nobody was asked, or nobody asked for anything."""
    look(scaler, modeldeployment(**SCALED))
    for number in range(3):
        minute(scaler, monkeypatch, 1000.0 + 60.0 * number, slow=600)
    assert told(scaler) == (3, 3)
    minute(scaler, monkeypatch, 9000.0, slow=0)
    assert told(scaler) == (0, 1)
    monkeypatch.setattr(scaler, "_clock", lambda: 13000.0)
    assert [row.missed for row in scaler.measured()] == [None]


async def test_what_is_believed_comes_back_though_the_load_is_low(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(scaler, modeldeployment(**SCALED))
    found = scaler._watched[KEY]
    foreseen = (0.1, 0.1, 0.11, 0.12, 0.13, 0.15, 0.2)
    found.carries = Capacity(rate=20.0, shrink_rate=18.0, max_rate=30.0, foreseen_s=foreseen)
    for number in range(10):
        minute(scaler, monkeypatch, 1000.0 + 60.0 * number, slow=200)
    assert found.speed.derating.factor == pytest.approx(0.5, abs=0.03), "until the load is all that it may be"
    for number in range(120):
        minute(scaler, monkeypatch, 2000.0 + 60.0 * number, slow=0)
    assert found.speed.derating.factor == 1.0


async def test_a_lost_answer_makes_no_load_of_the_minute_higher(
    scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 requests per second each of two replicas has 10 of the 15 that it may, whoever has answered of late."""
    look(scaler, modeldeployment(**SCALED))
    found = scaler._watched[KEY]
    found.carries = Capacity(rate=15.0, shrink_rate=13.0, max_rate=20.0)
    monkeypatch.setattr(scaler, "_is_cold", lambda found: False)
    latencies = Latencies(0.2, EDGES, (0, 400, 0, 0, 200))
    for name in ("a", "b"):
        found.observed.note(name, replace(READING, arrivals=600, arrived_rows=600, latencies=latencies), 1000.0)
    found.observed.note("b", BadReading(Flaw.TOO_SLOW, "the answer was lost"), 1005.0)
    found.signals = found.observed.signals(["a", "b"], 0.2, 0.95, 1005.0)
    assert (found.signals.heard, found.signals.missed) == (1, 1)
    scaler._note_minute(found, found.minute_at + 60.0)
    assert found.speed.derating.factor == 0.9
