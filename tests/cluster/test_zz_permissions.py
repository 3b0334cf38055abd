"""Does the chart grant what the operator uses, all of it and nothing else?

Named so that it runs last: what other tests had installed operators do is in the audit log by then and counts, too. An
operator of its own goes through whatever an operator can come across, so that the test also stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from evenkeel_operator.decide.names import memory_name
from tests.cluster import installation
from tests.cluster.faults import audit, deployments
from tests.cluster.faults.world import World, made
from tests.cluster.kubectl import wait_until
from tests.cluster.processes import CommandFailed

pytestmark = pytest.mark.cluster

RELEASE = "permissions"
SYSTEM = "permissions-system"
HISTORY = 12
"""Revisions, more than are kept."""
STARTED = audit.now()
"""When the tests were collected: the log also holds what older operators did."""
OPERATORS = re.compile(r"system:serviceaccount:[^:]+:(.+-)?evenkeel")
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{RELEASE}-evenkeel"

Permission = tuple[str, str, str]
"""Verb, API group, resource."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with made("permissions-test", tmp_path_factory.mktemp("permissions")) as found:
        yield found


@pytest.fixture(scope="module")
def requests(world: World) -> Iterator[list[audit.Request]]:
    """Every request of operators that Helm has installed; one of them is at work here."""
    with installation.namespace(world.kubectl, SYSTEM):
        installation.helm(world.found, "install", RELEASE, *_values(world), "--wait", "--timeout=120s")
        try:
            _live(world)
            found = audit.requests(world.found, '"username":"system:serviceaccount:', STARTED)
            yield [r for r in found if OPERATORS.fullmatch(r.user)]
        finally:
            installation.helm(world.found, "uninstall", RELEASE, f"--namespace={SYSTEM}", "--wait")


def test_everything_used_is_granted(world: World, requests: list[audit.Request]) -> None:
    denied = [r for r in requests if r.is_denied]
    assert [r for r in denied if r.user == ACCOUNT] == []
    # In named namespaces nodes, and the pods on them, may not be seen; in a release that ends, the role goes first.
    assert [r for r in denied if r.namespace and r.resource != "leases"] == []
    own = _used([r for r in requests if r.user == ACCOUNT])
    assert own - _granted(world) == set(), "granted by a role that is not the chart's"


def test_everything_granted_is_used(world: World, requests: list[audit.Request]) -> None:
    assert _granted(world) - _used([r for r in requests if not r.is_denied]) == set()


@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "update", "patch", "delete"])
def test_secrets_are_out_of_reach(verb: str, world: World, requests: list[audit.Request]) -> None:
    with pytest.raises(CommandFailed, match="no"):
        world.kubectl.ask("auth", "can-i", verb, "secrets", "--all-namespaces", f"--as={ACCOUNT}")


def _live(world: World) -> None:
    """Have the operator create, change, scale, go back, forget revisions and be deleted under."""
    for number in range(HISTORY):
        world.write("a", 1 + number % 2, str(number))
        world.settle()
    world.write("a", 1, "5")
    world.settle()
    for size in (2, 1):
        _hold(world, size)
    wait_until("what the decisions remember is kept", lambda: _remembers(world), timeout_s=180)
    wait_until("the CronJob is looked for", lambda: _retrainable(world) == "CronJobMissing", timeout_s=60)
    kinds = "controllerrevisions,replicasets,services,poddisruptionbudgets"
    selector = "--selector=evenkeel.dev/modeldeployment=a"
    world.kubectl.ask("delete", kinds, selector, f"--namespace={world.namespace}")
    world.settle()
    world.reset()


def _hold(world: World, size: int) -> None:
    """Have the operator decide the size, between bounds that leave it no choice."""
    made = deployments.deployment(world.namespace, "a", world.namespace, replicas=size, variant="5")
    made["spec"] |= {
        "scaling": {"minReplicas": size, "maxReplicas": size},
        "objectives": {
            "latency": [{"quantile": 0.95, "target": "200ms"}],
            "accuracy": [{"metric": "Accuracy", "floor": 0.9}],
        },
        "rollout": {"strategy": "Canary"},
        "retraining": {"cronJobRef": {"name": "retrain"}},
    }
    world.wanted["a"] = size, "5"
    world.kubectl.apply(made)
    world.settle()


def _remembers(world: World) -> bool:
    found = world.kubectl.ask("get", "configmaps", "--output=name", f"--namespace={world.namespace}")
    return f"configmap/{memory_name('a')}" in found.split()


def _retrainable(world: World) -> str | None:
    """Return why a Job can be started, or cannot."""
    found = world.kubectl.get("mdep", "a", f"--namespace={world.namespace}")
    rows = {row["type"]: row["reason"] for row in (found.get("status") or {}).get("conditions") or ()}
    return rows.get("Retrainable")


def _values(world: World) -> tuple[str, ...]:
    repository, _, tag = world.found.images["operator"].rpartition(":")
    values = {"image.repository": repository, "image.tag": tag, "crds.install": "false"}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return (str(installation.CHART), f"--namespace={SYSTEM}", *words)


def _used(requests: list[audit.Request]) -> set[Permission]:
    """An apply that has created something has used two permissions."""
    found = {r.what for r in requests if r.resource}
    return found | {("create", r.group, r.resource) for r in requests if r.verb == "patch" and r.code == 201}


def _granted(world: World) -> set[Permission]:
    """Return what the roles that are bound to the operator's service account grant."""
    installed = installation.helm(world.found, "get", "manifest", RELEASE, f"--namespace={SYSTEM}")
    objects: list[dict[str, Any]] = [o for o in yaml.safe_load_all(installed) if o]
    bound = {o["roleRef"]["name"] for o in objects if o["kind"].endswith("RoleBinding")}
    return {
        (verb, group, resource)
        for o in objects
        if o["kind"] in ("Role", "ClusterRole") and o["metadata"]["name"] in bound
        for rule in o["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
