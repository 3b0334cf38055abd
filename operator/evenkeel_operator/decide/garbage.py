"""Which children have nothing more to do, and go?"""

from __future__ import annotations

from collections.abc import Sequence

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import names
from evenkeel_operator.decide.intent import Ref
from evenkeel_operator.decide.snapshot import Snapshot

HISTORY_LIMIT = 10
"""Revisions without replicas that are kept to go back to: Deployment's own default."""


def finished_jobs(snapshot: Snapshot, target: str, apply: Sequence[Object]) -> list[Ref]:
    """Return the Jobs that have nothing more to say: of another revision, already pinned, or a later one has ended."""
    wanted = {o["metadata"]["name"] for o in apply if o["kind"] == "Job"}
    ended = [a for a in snapshot.attempts if a.revision == target and a.finished_at is not None]
    told = max(ended, key=lambda a: a.number, default=None)
    is_pinned = snapshot.revision(target) is not None
    return [
        Ref("batch/v1", "Job", a.name)
        for a in snapshot.attempts
        if a.revision != target or is_pinned or (wanted and a.name not in wanted and a is not told)
    ]


def empty_replica_sets(snapshot: Snapshot, target: str, apply: Sequence[Object]) -> list[Ref]:
    """Return the ReplicaSets that have no replica, and get none by this very plan."""
    growing = {o["metadata"]["name"] for o in apply if o["kind"] == "ReplicaSet" and o["spec"]["replicas"]}
    return [
        Ref("apps/v1", "ReplicaSet", s.revision)
        for s in snapshot.replica_sets
        if s.revision not in growing | {target} and s.replicas == s.observed_replicas == 0
    ]


def old_history(snapshot: Snapshot, target: str) -> list[Ref]:
    """Return the ControllerRevisions beyond those that are kept to go back to."""
    in_use = {target, snapshot.status.stable_revision} | {s.revision for s in snapshot.replica_sets}
    in_use |= {names.revision_name(snapshot.name, snapshot.spec)}
    idle = sorted((r for r in snapshot.revisions if r.name not in in_use), key=lambda r: -r.number)
    return [Ref("apps/v1", "ControllerRevision", r.name) for r in idle[HISTORY_LIMIT:]]
