"""Does the size follow what people and autoscalers write to the scale subresource, to zero and back?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.installation import Deployment, identities
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.place import Place

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def digits(shared: Place) -> Deployment:
    made = shared.deployment("digits")
    made.apply(shared.spec("v1.pt2"))
    made.settle(1)
    return made


def scale(digits: Deployment, replicas: int) -> None:
    where = f"--namespace={digits.namespace}"
    digits.kubectl.ask("scale", f"mdep/{digits.name}", f"--replicas={replicas}", where)


def test_kubectl_scale_up_and_down_keeps_the_replicas_that_may_stay(digits: Deployment) -> None:
    first = identities(digits.settle(1))
    scale(digits, 3)
    assert digits.wait("Serving").startswith("3 of 3 replicas")
    three = identities(digits.settle(3))
    assert first.items() <= three.items()
    scale(digits, 1)
    digits.wait("Serving")
    assert identities(digits.settle(1)).items() <= three.items()
    (replica_set,) = digits.children("replicasets")
    assert replica_set["spec"]["replicas"] == 1


def test_scaled_to_zero_and_back_keeps_the_revision(digits: Deployment) -> None:
    digits.settle(1)
    revision = digits.get()["status"]["stableRevision"]
    scale(digits, 0)
    digits.wait("ScaledToZero")
    assert digits.condition()[0] == "True"
    assert digits.condition("Available")[0] == "False"
    wait_until("no pod is left", lambda: not digits.children("pods"), timeout_s=60)
    status = digits.get()["status"]
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)
    scale(digits, 1)
    digits.wait("Serving")
    digits.settle(1)
    assert digits.get()["status"]["stableRevision"] == revision
    assert not digits.children("jobs"), "what is pinned is not prepared again"


def test_a_horizontal_pod_autoscaler_reads_and_writes_the_scale(
    digits: Deployment, shared: Place, kubectl: Kubectl
) -> None:
    digits.settle(1)
    path = f"/apis/evenkeel.dev/v1alpha1/namespaces/{shared.namespace}/modeldeployments/digits/scale"
    got = json.loads(kubectl.ask("get", f"--raw={path}"))
    assert (got["spec"]["replicas"], got["status"]["replicas"]) == (1, 1)
    where, selector = f"--namespace={shared.namespace}", f"--selector={got['status']['selector']}"
    (selected,) = kubectl.get("pods", where, selector)["items"]
    assert selected["metadata"]["name"] in identities(digits.replicas())

    shared.apply(
        "HorizontalPodAutoscaler",
        "digits",
        version="autoscaling/v2",
        spec={
            "scaleTargetRef": {"apiVersion": "evenkeel.dev/v1alpha1", "kind": "ModelDeployment", "name": "digits"},
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
        },
    )
    digits.settle(2)  # it wrote the least that it may

    def judged() -> dict[str, Any]:
        status: dict[str, Any] = kubectl.get("hpa", "digits", where).get("status") or {}
        return status

    def is_active() -> bool:
        rows = {row["type"]: row["status"] for row in judged().get("conditions") or ()}
        return rows.get("AbleToScale") == rows.get("ScalingActive") == "True"

    wait_until("the autoscaler reads the replicas' CPU", is_active, timeout_s=120)
    (metric,) = judged()["currentMetrics"]
    assert metric["resource"]["current"]["averageUtilization"] < 80, "nobody asks these replicas anything"
    kubectl.ask("delete", "hpa", "digits", where)
    scale(digits, 1)
    digits.settle(1)
