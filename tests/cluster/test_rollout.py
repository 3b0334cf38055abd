"""Does a new revision replace the old one without a failed request or a GPU that is not free, and stop when told?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import gpus, samples, traffic
from tests.cluster.installation import Deployment, identities, wait_answering
from tests.cluster.kubectl import wait_until
from tests.cluster.place import REQUESTS, Place
from tests.cluster.processes import CommandFailed
from tests.cluster.state import Cluster
from tests.cluster.traffic import Tally

pytestmark = pytest.mark.cluster

NODE_PORT = 30082
L4 = {"count": 1, "products": [gpus.L4.product]}
"""Found on one node only, so that a test can use up what is there."""


@dataclass(frozen=True)
class Served:
    """A deployment, and the loopback port that its replicas answer on."""

    place: Place
    deployment: Deployment
    port: int

    def spec(self, file: str, number: int, **changes: Any) -> dict[str, Any]:
        """Return a spec that is a revision of its own for each `number`: prepared, pinned, rolled out."""
        return self.place.spec(file, pod={"annotations": {"example.com/number": str(number)}}, **changes)

    def apply(self, file: str, number: int, **changes: Any) -> None:
        self.deployment.apply(self.spec(file, number, **changes))

    @contextmanager
    def no_request_fails(self) -> Iterator[Tally]:
        """Send requests for as long as the block takes; none of them may fail."""
        path = f"/v2/models/{self.deployment.name}/infer"
        with traffic.constant(traffic.Target(self.port, path, samples.request())) as tally:
            yield tally
            time.sleep(1)  # the last revision answers a while, too
        assert tally.answered > 0
        assert tally.failures() == 0, f"{dict(tally.failed)}, the first at {tally.first_failure}"

    def answering(self) -> str:
        """Return the revision that answers one request."""
        return str(self.deployment.predict(self.port, samples.request())["model_version"])


@pytest.fixture
def served(here: Place, cluster: Cluster) -> Served:
    """One that is reachable as soon as it runs."""
    deployment = here.deployment("digits")
    deployment.expose(NODE_PORT)
    return Served(here, deployment, cluster.node_ports[str(NODE_PORT)])


def started(served: Served, **changes: Any) -> None:
    """Bring the first revision up and wait until it answers from outside."""
    served.apply("v1.pt2", 0, **changes)
    served.deployment.wait("Serving")
    wait_answering(served.deployment, served.port, samples.request())


def new_replica(deployment: Deployment, known: set[str]) -> None:
    """Wait until there is a replica that is not one of `known`."""
    wait_until(
        "a replica of the next revision starts",
        lambda: bool(set(identities(deployment.replicas())) - known),
        every_s=0.1,
    )


ROLLOUTS = [
    pytest.param(5, 1, None, id="5 of 1 replica"),
    pytest.param(3, 2, None, id="3 of 2 replicas"),
    pytest.param(2, 1, L4, id="2 of 1 replica with a GPU, another one is free"),
    pytest.param(100, 1, None, id="100 of 1 replica", marks=pytest.mark.soak),
    pytest.param(100, 2, None, id="100 of 2 replicas", marks=pytest.mark.soak),
    pytest.param(100, 1, L4, id="100 of 1 replica with a GPU, another one is free", marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("rollouts", "replicas", "gpu"), ROLLOUTS)
def test_rolling_updates_in_a_row_lose_no_request(
    rollouts: int, replicas: int, gpu: dict[str, Any] | None, served: Served, free_gpus: None
) -> None:
    changes: dict[str, Any] = {"replicas": replicas} | ({"gpu": gpu} if gpu else {})
    started(served, **changes)
    with served.no_request_fails() as tally:
        for number in range(1, rollouts + 1):
            served.apply(f"v{number % 2 + 1}.pt2", number, **changes)
            served.deployment.wait("Serving")
    revisions = {r["metadata"]["name"] for r in served.deployment.children("controllerrevisions")}
    assert set(tally.versions) >= revisions or rollouts > 10, "every revision has answered"
    assert served.deployment.get()["status"]["stableRevision"] in tally.versions


def test_a_third_spec_in_the_middle_of_a_rollout_is_the_one_that_stays(served: Served) -> None:
    started(served, replicas=2)
    first = set(identities(served.deployment.replicas()))
    with served.no_request_fails():
        served.apply("v2.pt2", 1, replicas=2)
        new_replica(served.deployment, first)
        served.apply("v1.pt2", 2, replicas=2)
        served.deployment.wait("Serving")
    newest = served.deployment.get()["status"]["stableRevision"]
    assert {pod["metadata"]["labels"]["evenkeel.dev/revision"] for pod in served.deployment.settle(2)} == {newest}
    revisions = served.deployment.children("controllerrevisions")
    assert max(revisions, key=lambda r: int(r["revision"]))["metadata"]["name"] == newest


def test_a_revision_that_never_answers_leaves_the_old_one_serving(served: Served, cluster: Cluster) -> None:
    started(served)
    before, first = identities(served.deployment.replicas()), served.answering()
    with served.no_request_fails() as tally:
        broken = {"image": cluster.images["operator"], "resources": {"requests": REQUESTS}}
        served.apply("v2.pt2", 1, runtime=broken)
        message = served.deployment.wait("CrashLooping")
        assert "keeps serving with 1 replica" in message
        time.sleep(5)  # still so when the container has been started again
        assert served.deployment.condition("Available")[0] == "True"
        assert before.items() <= identities(served.deployment.replicas()).items()
        served.apply("v1.pt2", 0)
        served.deployment.wait("Serving")
    assert set(tally.versions) == {first}
    assert identities(served.deployment.settle(1)) == before, "going back starts nothing anew"


def test_without_a_free_gpu_two_replicas_are_replaced_in_place_and_one_waits(
    served: Served, cluster: Cluster, free_gpus: None
) -> None:
    place, node = served.place, cluster.schedulable[1]
    place.block_gpus("half", 2, node)
    started(served, replicas=2, gpu=L4)
    with served.no_request_fails():
        served.apply("v2.pt2", 1, replicas=2, gpu=L4)
        assert fewest_serving(served.deployment) >= 1

        # Scaled down, the second replica's GPU goes to somebody else: one replica, and none is free.
        place.kubectl.ask("scale", "mdep", "digits", "--replicas=1", f"--namespace={place.namespace}")
        served.deployment.settle(1)
        place.block_gpus("rest", 1, node)
        before = identities(served.deployment.replicas())
        served.apply("v1.pt2", 2, replicas=1, gpu=L4)
        message = served.deployment.wait("RolloutBlockedNoGPU")
        assert "needs 1 nvidia.com/gpu beside the one that serves; 0 of 4 are free" in message
        assert identities(served.deployment.replicas()) == before
        place.free_gpus("rest")
        served.deployment.wait("Serving")
    assert not identities(served.deployment.settle(1)).keys() & before.keys()


def fewest_serving(deployment: Deployment, timeout_s: float = 180) -> int:
    """Wait until the rollout is done; return the fewest replicas that answered meanwhile."""
    fewest, deadline = 1000, time.monotonic() + timeout_s
    while deployment.condition()[1] != "Serving":
        fewest = min(fewest, deployment.get()["status"]["readyReplicas"])
        if time.monotonic() > deadline:
            raise CommandFailed(["wait"], 1, f"no end of the rollout: {deployment.condition()}")
    return fewest


def test_a_paused_rollout_stays_where_it_is_until_it_goes_on(served: Served) -> None:
    started(served, replicas=2)
    first = identities(served.deployment.replicas())
    with served.no_request_fails():
        served.apply("v2.pt2", 1, replicas=2, rollout={"paused": True})
        served.deployment.wait("RolloutPaused")
        assert identities(served.deployment.replicas()) == first, "paused before its first step"

        served.apply("v2.pt2", 1, replicas=2)
        new_replica(served.deployment, set(first))
        served.apply("v2.pt2", 1, replicas=2, rollout={"paused": True})
        served.deployment.wait("RolloutPaused")
        sizes = replica_set_sizes(served.deployment)
        assert len([size for size in sizes.values() if size]) == 2, "paused between two steps"
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert replica_set_sizes(served.deployment) == sizes

        served.apply("v2.pt2", 1, replicas=2)
        served.deployment.wait("Serving")
    assert not identities(served.deployment.settle(2)).keys() & first.keys()


def replica_set_sizes(deployment: Deployment) -> dict[str, int]:
    return {r["metadata"]["name"]: r["spec"]["replicas"] for r in deployment.children("replicasets")}


def test_history_rollback_and_restart_from_the_command_line(served: Served) -> None:
    started(served)
    first = served.answering()
    with served.no_request_fails():
        served.apply("v2.pt2", 1)
        served.deployment.wait("Serving")
        second = str(served.deployment.get()["status"]["stableRevision"])
        rows = [line.split() for line in served.deployment.evenkeel("history").splitlines()[1:]]
        assert {(row[0], row[1]) for row in rows} == {("1", first), ("2", second)}
        assert any(row[1] == second and "stable" in " ".join(row) for row in rows)

        served.deployment.evenkeel("rollback")
        served.deployment.wait("Serving")
        assert served.deployment.get()["status"]["stableRevision"] == first
        assert served.deployment.get()["status"]["model"]["digest"] == samples.version(1).digest

        served.deployment.evenkeel("rollback", "--revision=2")
        served.deployment.wait("Serving")
        assert served.deployment.get()["status"]["stableRevision"] == second

        before = identities(served.deployment.replicas())
        served.deployment.evenkeel("restart")
        served.deployment.wait("Serving")
        assert not identities(served.deployment.settle(1)).keys() & before.keys()
        assert served.deployment.get()["status"]["model"]["digest"] == samples.version(2).digest
    with pytest.raises(CommandFailed, match="there is no ModelDeployment digitz"):
        served.place.deployment("digitz").evenkeel("history")
