"""Is a new revision tried on a share of real traffic, promoted when it is as good, and taken back when it is not?

Everything is real: the replicas, the Service, the feedback service with its database, an application that sends
requests through the Service and posts the truths to the replicas.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import installation, labelled, samples
from tests.cluster.installation import Deployment
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.labelled import Application
from tests.cluster.place import Place
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

QUICK = "--quality-seconds=5"
"""Evidence is looked at every five seconds here, so that a test need not wait for a minute."""


@pytest.fixture(scope="module", autouse=True)
def looks_often(cluster: Cluster, installed: None) -> None:
    installation.install(cluster, f"extraArgs={{{QUICK}}}")


def spec(here: Place, bias: float, *steps: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Return a spec for a voter of that bias, with steps of weight and samples."""
    here.put(**{f"voter-{bias}__pt2": samples.voter(bias)})
    rows = [{"weight": weight, "minDuration": "10s", "minSamples": count} for weight, count in steps]
    return here.spec(
        f"voter-{bias}.pt2",
        rollout={"strategy": "Canary", "canary": {"mode": "Split", "steps": rows, **more.pop("canary", {})}},
        **more,
    )


def canary(deployment: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = (deployment.get().get("status") or {}).get("canary") or {}
    return found


def wait_state(deployment: Deployment, *states: str, timeout_s: float = 120) -> dict[str, Any]:
    def is_there() -> bool:
        return canary(deployment).get("state") in states

    wait_until(f"the canary of {deployment.name} is {' or '.join(states)}", is_there, timeout_s)
    return canary(deployment)


def went_on(row: dict[str, Any]) -> bool:
    """Return whether the first step is over."""
    return len(row.get("stepsBegan", ())) == 2 or row.get("state") == "Promoted"


def shares(before: dict[str, int], after: dict[str, int], revision: str) -> tuple[int, int]:
    """Return how many answers came between two counts, and how many of them from `revision`."""
    total = sum(after.values()) - sum(before.values())
    return total, after.get(revision, 0) - before.get(revision, 0)


def require_unfailed(application: Application) -> None:
    counts = application.counts()
    assert counts.failed == {}, f"the first at {counts.first}"
    assert set(counts.labels) == {"accepted"}, counts.labels


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(((25, 20),), id="one step"),
        pytest.param(((25, 20), (50, 20)), id="two steps", marks=pytest.mark.soak),
    ],
)
def test_a_canary_walks_its_steps_and_is_promoted_on_its_answers(
    steps: tuple[tuple[int, int], ...], here: Place, kubectl: Kubectl
) -> None:
    voters = here.deployment("voters")
    voters.apply(spec(here, 0.0, *steps, replicas=2))
    voters.settle(2)
    stable = voters.get()["status"]["stableRevision"]
    with labelled.application(here, voters, labelled.rows(500, noise=0.04), rps=40) as application:
        voters.apply(spec(here, 0.01, *steps, replicas=2))
        first = wait_state(voters, "Canary")
        new = first["revision"]
        wait_until("its first step begins", lambda: len(canary(voters).get("stepsBegan", ())) == 1)
        wait_until("it answers", lambda: application.counts().versions.get(new, 0) > 0, timeout_s=30)
        assert voters.condition()[1] == "CanaryRunning"
        begun = application.counts().versions
        after = "its second step begins" if len(steps) == 2 else "it is promoted"
        wait_until(after, lambda: went_on(canary(voters)), timeout_s=200)
        total, its = shares(begun, application.counts().versions, new)
        assert 0.1 * total < its < 0.45 * total, f"{its} of {total} at 25 %"
        done = wait_state(voters, "Promoted", timeout_s=200)
        assert done["why"] == "AnswersGood"
        voters.settle(2)
        wait_until("it is the stable one", lambda: voters.get()["status"]["stableRevision"] == new)
        require_unfailed(application)
    line = kubectl.ask("get", "mdep", "voters", f"--namespace={here.namespace}")
    assert "Promoted" in line
    assert stable != new
