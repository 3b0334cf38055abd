"""Which replicas have a node, and whose are the GPUs that the others will take?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Gpu
from evenkeel_operator.decide import placement
from evenkeel_operator.decide.failures import Failure
from evenkeel_operator.decide.gpus import Promised
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.snapshot import NO_SIGNAL, Replica, Snapshot, freeze
from tests.builders import DEFAULTS, modeldeployment, node, revision_of
from tests.plans import serving

REFUSED = Failure(Reason.UNSCHEDULABLE, "0/3 nodes are available")


def snapshot(count: int, *, gpu: dict[str, Any] | None, status: dict[str, Any] | None = None) -> Snapshot:
    deployment = modeldeployment(replicas=count, gpu=gpu, status=status)
    return freeze(deployment=deployment, children=serving(deployment, count=count), defaults=DEFAULTS)


def changed(found: Snapshot, number: int, **change: Any) -> Snapshot:
    """Return the snapshot with one of its replicas changed."""
    rows: list[Replica] = list(found.replicas)
    rows[number] = replace(rows[number], **change)
    return replace(found, replicas=tuple(rows))


THREE = snapshot(3, gpu={})
PENDING = changed(THREE, 0, node=None, ready=False)
SURGE = replace(THREE, replicas=(*THREE.replicas, replace(PENDING.replicas[0], name="digits-new")))
QUOTA = replace(THREE, replica_sets=(replace(THREE.replica_sets[0], replicas=5, failure=REFUSED),))


@pytest.mark.parametrize(
    ("found", "size", "want"),
    [
        pytest.param(THREE, 3, 0, id="nothing where each has its node"),
        pytest.param(THREE, None, 0, id="nothing either where the spec says the size"),
        pytest.param(THREE, 5, 2, id="two that are decided and asked of nobody yet"),
        pytest.param(replace(THREE, replicas=THREE.replicas[:2]), 3, 1, id="one that is not created yet"),
        pytest.param(PENDING, 3, 1, id="one that is pending"),
        pytest.param(changed(PENDING, 0, failure=REFUSED), 3, 0, id="none that the scheduler has refused"),
        pytest.param(changed(THREE, 0, terminating=True), 3, 1, id="one in the place of one that ends"),
        pytest.param(QUOTA, 5, 0, id="none that may not be created"),
        pytest.param(snapshot(3, gpu=None), 5, 0, id="nothing without GPUs"),
        pytest.param(replace(THREE, replica_sets=(), replicas=()), 3, 0, id="nothing before the model is prepared"),
    ],
)
def test_what_is_promised(found: Snapshot, size: int | None, want: int) -> None:
    got = placement.promised(found, size)
    assert (0 if got is None else got.count) == want


@pytest.mark.parametrize(
    ("found", "promised", "want"),
    [
        pytest.param(THREE, 0, (4, 0), id="what is free"),
        pytest.param(THREE, 3, (1, 0), id="less what is promised to another"),
        pytest.param(THREE, 7, (0, 0), id="and never less than none"),
        pytest.param(PENDING, 0, (3, 1), id="less what one of its own waits for"),
        pytest.param(replace(THREE, replicas=THREE.replicas[:2]), 0, (3, 1), id="also where that is not created yet"),
        pytest.param(SURGE, 0, (4, 1), id="but not what waits beside those that it replaces"),
    ],
)
def test_how_many_more_would_get_their_gpus(found: Snapshot, promised: int, want: tuple[int, int]) -> None:
    others = [Promised(Gpu(), {}, promised)]
    got = placement.fleet(found, 3, 3, (node(gpus=7, used=3),), others, 60.0)
    assert (got.free, got.waiting) == want


def test_a_canary_that_is_pending_holds_up_nobodys_growth() -> None:
    canary = revision_of(modeldeployment(runtime={"image": "registry/own:2"}))
    found = snapshot(3, gpu={}, status={"canaryRevision": canary})
    pending = replace(found.replicas[0], name="canary", revision=canary, node=None, ready=False)
    got = placement.fleet(replace(found, replicas=(*found.replicas, pending)), 3, 3, NO_SIGNAL, (), 60.0)
    assert (got.free, got.waiting) == (NO_SIGNAL, 0)
