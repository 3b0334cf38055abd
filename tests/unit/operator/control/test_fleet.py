"""Are the GPUs of a node counted as the scheduler counts them?"""

from __future__ import annotations

from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.world.fleet import Claim, claim, joined, node_gpus
from evenkeel_operator.world.requests import extended, held

GPU = "nvidia.com/gpu"


def container(count: int, **more: Any) -> Object:
    return {"resources": {"limits": {GPU: str(count)}}, **more}


@pytest.mark.parametrize(
    ("containers", "init", "want"),
    [
        pytest.param([container(1), container(2)], [], 3, id="containers run together"),
        pytest.param([container(1)], [container(4)], 4, id="an init container that wants more"),
        pytest.param([container(2)], [container(1), container(1)], 2, id="init containers run one after another"),
        pytest.param([container(1)], [container(1, restartPolicy="Always")], 2, id="a sidecar stays"),
        pytest.param([container(1)], [container(1, restartPolicy="Always"), container(2)], 3,
                     id="an init container beside an earlier sidecar"),
        pytest.param([container(1)], [container(2), container(1, restartPolicy="Always")], 2,
                     id="an init container before the sidecar starts"),
    ],
)  # fmt: skip
def test_held(containers: list[Object], init: list[Object], want: int) -> None:
    assert held({"spec": {"containers": containers, "initContainers": init}}) == {GPU: want}


def test_only_extended_resources_count() -> None:
    quantities = {"cpu": "4", "memory": "1Gi", "hugepages-2Mi": "4Mi", "kubernetes.io/x": "1", GPU: "2", "a.b/c": 1}
    assert extended(quantities) == {GPU: 2, "a.b/c": 1}


@pytest.mark.parametrize(
    ("spec", "phase", "want"),
    [
        pytest.param({"nodeName": "n1"}, "Running", Claim("n1", {GPU: 1}), id="bound"),
        pytest.param({"nodeName": "n1"}, "Pending", Claim("n1", {GPU: 1}), id="bound and starting"),
        pytest.param({}, "Pending", None, id="not bound: it holds nothing of any node"),
        pytest.param({"nodeName": "n1"}, "Succeeded", None, id="ended"),
    ],
)
def test_claim(spec: Object, phase: str, want: Claim | None) -> None:
    assert claim({"spec": {"containers": [container(1)], **spec}, "status": {"phase": phase}}) == want


def node(name: str, *, ready: str = "True", gpus: int = 4, **spec: Any) -> Object:
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"name": name, "labels": {"zone": "a"}},
        "spec": spec,
        "status": {"allocatable": {GPU: str(gpus), "cpu": "8"}, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("obj", "want"),
    [
        pytest.param(node("n"), True, id="ready"),
        pytest.param(node("n", ready="Unknown"), False, id="its kubelet has gone quiet"),
        pytest.param(node("n", unschedulable=True), False, id="cordoned"),
    ],
)
def test_schedulable(obj: Object, want: bool) -> None:
    got = node_gpus(obj)
    assert got is not None
    assert got.schedulable is want


def test_a_node_without_extended_resources_is_not_part_of_the_fleet() -> None:
    assert node_gpus({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "8"}}}) is None


def test_joined_sums_the_claims_of_each_node() -> None:
    nodes = {u: n for u in ("b", "a") if (n := node_gpus(node(u))) is not None}
    claims = {"p1": Claim("a", {GPU: 1}), "p2": Claim("a", {GPU: 2}), "p3": Claim("elsewhere", {GPU: 9})}
    got = joined(nodes, claims)
    assert [(n.name, dict(n.requested)) for n in got] == [("a", {GPU: 3}), ("b", {})]
