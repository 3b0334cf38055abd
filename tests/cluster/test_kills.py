"""Does a killed operator cost a pod, or leave anything half done?

It is killed at random moments while a user creates, changes, scales and deletes; its successor goes on from what is in
the cluster. `EVENKEEL_SEED` repeats the choices of a run that failed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.cluster.faults import audit, process
from tests.cluster.faults.world import UNTOUCHED, World, made

pytestmark = pytest.mark.cluster

LEASE_S = 6
"""How long the successor of a killed operator waits at most."""
LATEST_S = 2.5
"""A change takes about this long; the kill comes at any moment of it."""
SEED = int(os.environ.get("EVENKEEL_SEED", "0")) or random.SystemRandom().randrange(2**32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with made("kills-test", tmp_path_factory.mktemp("kills")) as found:
        yield found


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, id="three times"),
        pytest.param(20, id="twenty times", marks=pytest.mark.soak),
    ],
)
def test_killing_the_operator_at_any_moment_costs_no_pod(kills: int, world: World) -> None:
    """After each kill the pods that controllers have created are counted: as many as were asked for, not one more."""
    chance = random.Random(SEED)
    operator = process.Operator(world.found.kubeconfig, world.namespace, world.folder, LEASE_S)
    operator.wait_leading()
    try:
        world.reset("a", "b", "c")
        untouched = world.pods(*UNTOUCHED)
        for number in range(kills):
            started = audit.now()
            replicas, prepares, what = _change(world, chance, number)
            moment_s = chance.uniform(0, LATEST_S)
            time.sleep(moment_s)
            operator.kill()
            operator.wait_leading()
            world.settle(operator.keep_up)
            case = f"seed {SEED}, kill {number}, {moment_s:.2f} s after {what}"
            assert _created(world, "replicaset-controller", started) == replicas, case
            assert _created(world, "job-controller", started) == prepares, case
            assert world.pods(*UNTOUCHED) == untouched, case
        world.reset()
    finally:
        operator.stop()


def _change(world: World, chance: random.Random, number: int) -> tuple[int, int, str]:
    """Make one change; return how many replicas and prepare pods it is worth, and what it was."""
    name = chance.choice("abc")
    old = world.wanted.get(name)
    size = chance.randint(1, 3)
    if old is None:
        world.write(name, size)
        return size, 1, f"create {name} with {size}"
    if chance.random() < 0.25:
        world.delete(name)
        return 0, 0, f"delete {name}"
    if chance.random() < 0.5:
        world.write(name, size, old[1])
        return max(0, size - old[0]), 0, f"scale {name} from {old[0]} to {size}"
    world.write(name, old[0], f"change-{number}")
    return old[0], 1, f"change {name} with {old[0]}"


def _created(world: World, controller: str, since: str) -> int:
    """Return how many pods that controller has created here."""
    found = audit.requests(world.found, f'"namespace":"{world.namespace}"', since)
    user = f"system:serviceaccount:kube-system:{controller}"
    return sum((r.user, r.verb, r.resource, r.code) == (user, "create", "pods", 201) for r in found)
