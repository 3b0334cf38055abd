"""Does a real Prometheus read what we tell it, and can it answer every query of the dashboard and judge every rule?

It scrapes an operator in front of the fake API server, a feedback service that has labels, and a stable replica that
splits its traffic with a canary; as the chart tells the Prometheus operator to: the namespace of the pods as the
target's label, and the labels of the series before those of the target.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evenkeel_runtime.receipts import COUNTS
from tests.system.feedback.server import Deployment, Service
from tests.system.monitoring.prometheus import Prometheus
from tests.system.monitoring.test_rules import RULES, rules
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment
from tests.system.operator.replicas import FakeReplicas
from tests.system.runtime.replica import Replica
from tests.system.runtime.rollout import HEADER, Rollout
from tests.unit.runtime import models

DASHBOARD = RULES.with_name("dashboard.json")
SYSTEM, TEAM = "evenkeel-system", "team-a"
NAMED = re.compile(r"\b(?:evenkeel|inference|model|request)_[a-z0-9_]+\b")
LABELS = {"model_name", "model_version"}
SUFFIX = re.compile(r"_(bucket|sum|count)$")
MAY_BE_EMPTY = (
    'evenkeel_condition{type="Ready", namespace=~".*", name=~".*"} == 0',
    'evenkeel_polls_total{result!="ok"}',
    "inference_rejected_total",
)
"""What asks for faults, of which there are none."""
VARIABLES = {"$namespace": ".*", "$name": ".*", "$__rate_interval": "30s"}


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression names; strings in it name none."""
    return set(NAMED.findall(re.sub(r'"[^"]*"', "", expression))) - LABELS


def panels() -> Iterator[tuple[str, str, str]]:
    """Yield title, query and legend of each query, with the variables as when everything is chosen."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression, target["legendFormat"]


def job(name: str, namespace: str, *ports: int) -> dict[str, Any]:
    targets = [f"127.0.0.1:{port}" for port in ports]
    return {
        "job_name": name,
        "honor_labels": namespace == SYSTEM,
        "static_configs": [{"targets": targets, "labels": {"namespace": namespace}}],
    }


@dataclass(frozen=True)
class Everything:
    """What is scraped, and Prometheus."""

    prometheus: Prometheus
    api: FakeApi


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Rollout]:
    """A stable replica that has served with its canary."""
    (tmp_path / "m.pt2").write_bytes(models.perceptron())
    model = Deployment(classes=3)
    with ExitStack() as ends:
        found = []
        for version in ("stable", "canary"):
            key = model.told(tmp_path / "key", revision=version)
            found.append(Replica(tmp_path / "m.pt2", tmp_path / f"termination-{version}", key))
            ends.callback(found[-1].kill)
        for replica in found:
            replica.await_ready()
        rollout = Rollout(model, found[0], tuple(found[1:]))
        rollout.tell(rollout.plan(share=0.5))
        yield rollout


@pytest.fixture
def feedback(tmp_path: Path) -> Iterator[Service]:
    """A service with labels of a model."""
    found = Service(tmp_path, "--path", str(tmp_path / "feedback.db"), "--quality-seconds", "1")
    model = Deployment(classes=2)
    found.post([{"receipt": model.receipt(number % 2), "label": number % 2} for number in range(100)])
    cohort = {"start": int(time.time()) // 900 * 900, "counts": [[0, 50], [1, 50]]}
    told = {"revision": model.revision, "assignment": 2, "classes": 2, "process": "ab" * 8, "cohorts": [cohort]}
    body = json.dumps(told).encode()
    assert found.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    yield found
    found.kill()


@pytest.fixture
async def everything(replicas: Rollout, feedback: Service, tmp_path: Path) -> AsyncIterator[Everything]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(FakeApi())
        fakes = await stack.enter_async_context(FakeReplicas())
        fakes.rate = 150.0
        Actors(api.store, replicas=fakes)
        flags = (f"--signals-port={fakes.port}", "--signals-seconds=0.5")
        operator = await stack.enter_async_context(Operator(api, tmp_path, *flags))
        target = {"metric": "EndToEnd", "quantile": 0.95, "target": "100ms"}
        bounds = {"minReplicas": 1, "maxReplicas": 4}
        api.store.create(modeldeployment(scaling=bounds, objectives={"latency": [target]}))
        api.store.create(modeldeployment("plain"))
        await eventually(lambda: is_serving(api) and is_serving(api, "plain"))
        operator_port = int(re.findall(r"http_port=(\d+)", operator.log)[-1])
        jobs = [
            job("operator", SYSTEM, operator_port),
            job("feedback", SYSTEM, feedback.port),
            job("replicas", TEAM, replicas.stable.port, replicas.canary.port),
        ]
        folder = tmp_path / "prometheus"
        folder.mkdir()
        prometheus = await stack.enter_async_context(Prometheus(folder, jobs, RULES))
        asking = asyncio.create_task(_keep_asking(replicas))
        try:
            yield Everything(prometheus, api)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _keep_asking(replicas: Rollout) -> None:
    """Send a request now and then, so that rates are above zero."""
    while True:
        answer = await asyncio.to_thread(replicas.stable.infer, HEADER)
        assert answer.status == 200, answer.body
        await asyncio.sleep(0.2)


async def test_dashboard_and_rules_are_answered_by_what_is_scraped(everything: Everything) -> None:
    prometheus = everything.prometheus
    assert len(await prometheus.awaited("count(up == 1) == 4")) == 1
    await prometheus.awaited("evenkeel_latency_seconds")

    known = set(await prometheus.ask("metadata"))
    asked = set[str]()
    for title, expression, legend in panels():
        asked |= names_in(expression)
        if any(faults in expression for faults in MAY_BE_EMPTY):
            await prometheus.query(expression)
            continue
        samples = await prometheus.awaited(expression)
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert all(label in sample["metric"] for sample in samples), (title, label)
    for rule in rules().values():
        asked |= names_in(rule["expr"])
    assert {name for name in asked if name not in known and SUFFIX.sub("", name) not in known} == set()

    judged = [rule for group in (await prometheus.ask("rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in judged} == set(rules())
    assert {rule["health"] for rule in judged} == {"ok"}, judged
    assert not [rule["name"] for rule in judged if rule["state"] == "firing"]

    # A series says whose it is, and of itself the operator says where it runs.
    (desired,) = await prometheus.query("evenkeel_desired_replicas")
    assert (desired["metric"]["namespace"], desired["metric"]["name"]) == (TEAM, "digits")
    (leader,) = await prometheus.query("evenkeel_is_leader")
    assert leader["metric"]["namespace"] == SYSTEM
    ready = await prometheus.query('evenkeel_condition{type="Ready"} == 1')
    assert {sample["metric"]["name"] for sample in ready} == {"digits", "plain"}

    everything.api.store.delete("modeldeployments", TEAM, "digits")
    await prometheus.awaited('{name="digits", __name__=~"evenkeel_.*"}', is_there=False)
    assert await prometheus.query('evenkeel_condition{name="plain"}')


@pytest.mark.parametrize(
    ("expression", "want"),
    [
        pytest.param("evenkeel_is_leader == 0", {"evenkeel_is_leader"}, id="one"),
        pytest.param(
            'sum by (model_name) (rate(inference_requests_total{model_name="model_x"}[1m]))',
            {"inference_requests_total"},
            id="not labels, nor what is in strings",
        ),
    ],
)
def test_names_in_an_expression(expression: str, want: set[str]) -> None:
    assert names_in(expression) == want
