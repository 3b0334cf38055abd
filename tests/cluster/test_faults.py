"""Does everything converge, whatever the API server does?

A proxy between one operator and the real API server injects what servers and networks do. In every case the same
changes are made by a user: one ModelDeployment is created, one scaled, one changed, one deleted. Two are never touched:
their pods must be the same ones afterwards, and the operator must not have been started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.faults import audit, process, proxy
from tests.cluster.faults.proxy import Fault, Proxy
from tests.cluster.faults.world import UNTOUCHED, World, made
from tests.cluster.kubectl import wait_until
from tests.cluster.processes import ask

pytestmark = pytest.mark.cluster

LEASE_S = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with made("faults-test", tmp_path_factory.mktemp("faults")) as found:
        yield found


@pytest.fixture(scope="module")
def between(world: World) -> Iterator[Proxy]:
    with proxy.running(world.found.kubeconfig, world.folder) as started:
        yield started


@pytest.fixture(scope="module")
def operator(world: World, between: Proxy) -> Iterator[process.Operator]:
    with process.running(between.kubeconfig, world.namespace, world.folder, LEASE_S) as started:
        world.reset()
        yield started


@pytest.fixture(autouse=True)
def disarmed(between: Proxy) -> Iterator[None]:
    yield
    between.clear()


def refuse(
    status: int,
    times: int,
    path: str = "/",
    *,
    verbs: tuple[str, ...] = ("POST", "PATCH", "DELETE"),
    retry_after_s: int | None = None,
    is_lost: bool = False,
) -> Callable[[Proxy], Fault]:
    """Return what has the next `times` writes below `path` answered with `status`, or, if `is_lost`, not at all."""
    return lambda between: between.inject(Fault(verbs, path, status, times, retry_after_s, is_lost))


def cut(between: Proxy) -> Fault:
    return Fault((), hits=between.cut_watches())


def expire(between: Proxy) -> Fault:
    return Fault((), hits=between.expire_watches())


def refuse_watches(status: int, times: int, retry_after_s: int | None = None) -> Callable[[Proxy], Fault]:
    """Return what cuts every watch and has the next `times` answered with `status`."""

    def act(between: Proxy) -> Fault:
        fault = between.inject(Fault(("GET",), "/", status, times, retry_after_s, on_watches=True))
        between.cut_watches()
        return fault

    return act


def refuse_lists(status: int, times: int, retry_after_s: int | None = None) -> Callable[[Proxy], Fault]:
    """Return what makes every watch list anew, and has the next `times` lists answered with `status`."""

    def act(between: Proxy) -> Fault:
        fault = between.inject(Fault(("GET",), "/namespaces/", status, times, retry_after_s))
        between.expire_watches()
        return fault

    return act


@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(cut, id="every watch is cut"),
        pytest.param(expire, id="every watch expires in the stream"),
        pytest.param(refuse_watches(429, 10, 1), id="ten watches are answered with 429 and Retry-After"),
        pytest.param(refuse_watches(503, 10), id="ten watches are answered with 503"),
        pytest.param(refuse_lists(429, 10, 1), id="ten lists are answered with 429 and Retry-After"),
        pytest.param(refuse_lists(500, 10), id="ten lists are answered with 500"),
        pytest.param(refuse(409, 10), id="ten writes are answered with 409"),
        pytest.param(refuse(409, 6, "/scaled/status"), id="six writes of one status are answered with 409"),
        pytest.param(refuse(409, 2, verbs=("DELETE",)), id="two deletes are answered with 409"),
        pytest.param(refuse(429, 10, retry_after_s=1), id="ten writes are answered with 429 and Retry-After"),
        pytest.param(refuse(500, 10), id="ten writes are answered with 500"),
        pytest.param(refuse(0, 10, is_lost=True), id="ten writes are carried out and their answers lost"),
    ],
)
def test_everything_converges_although(
    strike: Callable[[Proxy], Fault], world: World, between: Proxy, operator: process.Operator
) -> None:
    world.reset("scaled", "changed", "deleted")
    before, starts = world.pods(*UNTOUCHED, "scaled"), operator.starts
    fault = strike(between)
    world.write("created", 2)
    world.write("scaled", 3)
    world.write("changed", 1, variant="1")
    world.delete("deleted")
    world.settle()
    assert fault.hits > 0
    after = world.pods(*UNTOUCHED, "scaled")
    assert before["scaled"] < after["scaled"], "the replica that was there goes on"
    assert {n: after[n] for n in UNTOUCHED} == {n: before[n] for n in UNTOUCHED}
    assert operator.starts == starts, operator.log()
    assert operator.answer("/healthz") == "ok leading\n", operator.log()


def test_deletions_inside_a_watch_gap_are_noticed(world: World, between: Proxy, operator: process.Operator) -> None:
    world.reset("robbed", "deleted", "replaced")
    old = world.uid("replaced")
    with between.watch_gap():
        for kind in ("replicaset", "service", "poddisruptionbudget"):
            selector = "--selector=evenkeel.dev/modeldeployment=robbed"
            world.kubectl.ask("delete", kind, selector, f"--namespace={world.namespace}")
        world.delete("deleted")
        world.kubectl.ask("delete", "mdep", "replaced", f"--namespace={world.namespace}")
        world.write("replaced", 2)
    world.settle()
    assert world.uid("replaced") != old
    wait_until("the operator has forgotten", lambda: operator.metric("evenkeel_modeldeployments") == len(world.wanted))


def test_an_api_server_that_restarts_changes_nothing(world: World, between: Proxy, operator: process.Operator) -> None:
    world.reset("scaled", "changed")
    before = world.pods(*UNTOUCHED, "scaled")
    words, env = audit.docker(world.found)
    node = world.found.control_plane
    old = ask([*words, "exec", node, "pidof", "kube-apiserver"], env=env)
    world.write("changed", 1, variant="1")
    ask([*words, "exec", node, "kill", "-9", *old.split()], env=env)
    wait_until("the API server is back", world.kubectl.answers, timeout_s=120)
    assert ask([*words, "exec", node, "pidof", "kube-apiserver"], env=env) != old
    world.write("scaled", 2)
    world.settle(operator.keep_up)
    after = world.pods(*UNTOUCHED, "scaled")
    assert before["scaled"] < after["scaled"]
    assert {n: after[n] for n in UNTOUCHED} == {n: before[n] for n in UNTOUCHED}
