"""Does the number of replicas follow measured latency, alone, and does nobody's request notice?

How many replicas a load needs depends on the machine, so the bounds move the size here; that the law moves it is told
by the replicas' signals reaching the status.
"""

from __future__ import annotations

from typing import Any

import pytest

from evenkeel_operator.decide.names import memory_name
from tests.cluster import samples, traffic
from tests.cluster.installation import Deployment, wait_answering
from tests.cluster.kubectl import wait_until
from tests.cluster.place import Place
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

NODE_PORT = 30082
LATENCY = {"latency": [{"quantile": 0.95, "target": "2s"}]}


def apply(here: Place, digits: Deployment, least: int, most: int) -> None:
    bounds = {"minReplicas": least, "maxReplicas": most}
    digits.apply(here.spec("v1.pt2", scaling=bounds, objectives=LATENCY))


def wait_reason(digits: Deployment, kind: str, *reasons: str) -> None:
    wait_until(f"{kind} is one of {reasons}", lambda: digits.condition(kind)[1] in reasons, timeout_s=120)


def events(digits: Deployment, reason: str) -> list[dict[str, Any]]:
    where = (f"--namespace={digits.namespace}", f"--field-selector=reason={reason}")
    found: list[dict[str, Any]] = digits.kubectl.get("events", *where)["items"]
    return found


def test_the_size_is_decided_from_signals_and_requests_survive_every_change(here: Place, cluster: Cluster) -> None:
    digits = here.deployment("digits")
    digits.expose(NODE_PORT)
    apply(here, digits, 1, 3)
    digits.settle(1)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(digits, port, samples.request())
    target = traffic.Target(port, f"/v2/models/{digits.name}/infer", samples.request())
    with traffic.constant(target) as tally:
        wait_reason(digits, "LatencyMet", "WithinTarget", "AboveTarget")
        (latency,) = digits.get()["status"]["latency"]
        assert latency["state"] == "Fresh"
        assert latency["observed"]
        assert digits.condition("Scalable")[1] not in ("MetricsMissing", "SignalsRefused")

        apply(here, digits, 3, 3)
        digits.settle(3)
        newest = digits.get()["status"]["lastDecisions"][0]
        assert newest["to"] == 3
        assert events(digits, "Scaled")

        digits.kubectl.ask("scale", "mdep/digits", "--replicas=9", f"--namespace={here.namespace}")
        wait_until("the write is answered", lambda: bool(events(digits, "ReplicasIgnored")))
        assert len(digits.settle(3)) == 3

        apply(here, digits, 1, 1)
        digits.settle(1)
    assert tally.answered > 0
    assert tally.failures() == 0, f"{dict(tally.failed)}, the first at {tally.first_failure}"
    wait_reason(digits, "LatencyMet", "NoTraffic")


def test_what_was_learnt_is_kept_and_goes_with_the_deployment(here: Place) -> None:
    digits = here.deployment("digits")
    apply(here, digits, 1, 1)
    digits.settle(1)
    where = f"--namespace={here.namespace}"

    def is_kept() -> bool:
        return f"configmap/{memory_name('digits')}" in digits.kubectl.ask("get", "cm", "--output=name", where).split()

    wait_until("the memory is kept", is_kept, timeout_s=180)
    kept = digits.kubectl.get("cm", memory_name("digits"), where)["data"]
    assert sum(map(len, kept.values())) <= 4096
    digits.kubectl.ask("delete", "mdep", "digits", where)
    wait_until("it is gone", lambda: not is_kept(), timeout_s=60)
