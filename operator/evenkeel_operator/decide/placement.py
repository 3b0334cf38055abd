"""Which replicas have a node, for how many more are there GPUs, and which GPUs are promised to those that wait?

A replica takes its GPU when a node is found for it, seconds after it was asked for. Until then the nodes show that GPU
as free: counter-example to going by the nodes alone: of two ModelDeployments that need one replica more, both grow into
the last GPU, and one of the pods is Pending for good.
"""

from __future__ import annotations

from collections.abc import Sequence

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import gpus, replicas
from evenkeel_operator.decide.gpus import Promised
from evenkeel_operator.decide.snapshot import Fleet, NoSignal, Snapshot


def fleet(
    snapshot: Snapshot, asked: int, ready: int, nodes: Fleet | NoSignal, promised: Sequence[Promised], start_s: float
) -> replicas.Fleet:
    """Return how the replicas of `snapshot` stand, of which there are `asked` for and `ready`, its canary's aside.

    `promised` are those of the others that have no node yet; a start takes `start_s`.
    """
    gpu, beside = snapshot.spec.gpu, snapshot.status.canary_revision
    live = [r for r in snapshot.replicas if not r.terminating and r.revision != beside]
    placed = sum(r.node is not None for r in live)
    free: int | NoSignal | None = None
    if gpu is not None:
        supply = gpus.supply(gpu, _pod_spec(snapshot), nodes, promised)
        # A replica that waits for its GPU is asked for and holds none: it is no room for another.
        free = supply if isinstance(supply, NoSignal) else max(0, supply.slots - max(0, asked - placed))
    # While one revision replaces another, more may be placed than are asked for, and one of them wait.
    return replicas.Fleet(asked, ready, free, start_s, waiting=max(asked - placed, len(live) - placed))


def promised(snapshot: Snapshot, size: int | None) -> Promised | None:
    """Return what the replicas will take that are asked for and have no node yet; None where that is nothing.

    `size` is decided, though the ReplicaSets may not have been told yet; None where the spec says it. Replicas that the
    scheduler has refused, or the API server, take nothing while that lasts: what is free is for others.
    """
    gpu, beside = snapshot.spec.gpu, snapshot.status.canary_revision
    if gpu is None or not snapshot.replica_sets:
        return None
    count = 0
    for own in snapshot.replica_sets:
        live = snapshot.live(own.revision)
        refused = sum(r.node is None and r.failure is not None for r in live)
        asked = own.replicas if own.failure is None else len(live)
        count += max(0, asked - refused - sum(r.node is not None for r in live))
    if size is not None and all(s.failure is None for s in snapshot.replica_sets):
        count += max(0, size - sum(s.replicas for s in snapshot.replica_sets if s.revision != beside))
    return Promised(gpu, _pod_spec(snapshot), count) if count else None


def _pod_spec(snapshot: Snapshot) -> Object:
    found: Object = snapshot.revisions[-1].template["spec"] if snapshot.revisions else {}
    return found
