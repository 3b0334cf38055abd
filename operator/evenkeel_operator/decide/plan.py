"""What shall be done about one ModelDeployment now?

`plan` reads top to bottom: what the spec asks for (a revision), whether its bytes are resolved (prepare), how far it
may be rolled out (sizes), what is left over (history), and what to say about it (status). It is a pure function of the
snapshot and the time; the same snapshot gives the same plan, and a plan carried out twice changes nothing the second
time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import (
    canary,
    canary_status,
    conditions,
    garbage,
    gpus,
    resources,
    retraining,
    rollout,
    served,
    sizing,
)
from evenkeel_operator.decide.canary import Course
from evenkeel_operator.decide.conditions import State
from evenkeel_operator.decide.failures import Failure, is_over, prepare_retry_delay
from evenkeel_operator.decide.intent import Plan, Ref
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.quality import verdict
from evenkeel_operator.decide.rollout import Standing
from evenkeel_operator.decide.snapshot import Attempt, NoSignal, Revision, Snapshot
from evenkeel_operator.decide.status import Progress, state, status
from evenkeel_runtime import contract

BLOCKED_LOOK_AGAIN_S = 10.0
REJECTED_LOOK_AGAIN_S = 15.0
"""No event tells that a quota was raised or an admission webhook has changed its mind; asking costs one write."""

REPORT_ARRIVES = timedelta(seconds=5)
"""Jobs and pods are watched apart: an ended Job may be seen this long before the pod that holds its report."""


def plan(snapshot: Snapshot, now: datetime) -> Plan:
    """Return what to apply, what to delete, the status, what to tell and when to look again."""
    snapshot, target = served.settled(snapshot)
    way = canary.course(snapshot, target)
    apply: list[Object] = [
        resources.service(snapshot, canary.selected(snapshot, target)),
        resources.pod_disruption_budget(snapshot),
    ]
    delete: list[Ref] = []
    look_again: list[float] = []

    revision = _pinned(snapshot, target)
    progress = Progress(target)
    if target in snapshot.unreadable:
        progress = Progress(target, failure=_unreadable(snapshot, target), preparing=True)
    elif revision is None:
        snapshot, wait_s = _without_news(snapshot, now)
        look_again += [] if wait_s is None else [wait_s]
        attempt = _newest_attempt(snapshot, target)
        if attempt is not None and attempt.report is not None:
            revision = resources.new_revision(snapshot, target, attempt.report)
        else:
            progress = Progress(target, failure=_last_failure(snapshot, target), preparing=True)
            number, wait_s = _next_attempt(attempt, now)
            if not _is_held(snapshot):
                apply.append(resources.prepare_job(snapshot, target, number))
            if wait_s is not None:
                look_again.append(wait_s)
    if revision is not None:
        newest = max((r.number for r in snapshot.revisions), default=0)
        if snapshot.revision(target) is not None and revision.number < newest:
            revision = replace(revision, number=newest + 1)  # back to an old revision: it is the newest again
        if snapshot.defaults.feedback is not None and snapshot.spec.runtime.image is None:
            apply.append(resources.receipt_secret(snapshot, snapshot.defaults.feedback))
        apply.append(resources.controller_revision(snapshot, revision))
    if way is Course.RETURN:
        progress = _returned(snapshot, progress, apply)
    elif revision is not None:
        step = _rolled_out if way is Course.DIRECT else _beside_stable
        progress = step(snapshot, revision, apply)
    elif way is Course.DIRECT:
        _held(snapshot, apply)
    else:
        _apply_sizes(snapshot, _stable_alone(snapshot), apply, None)

    delete += garbage.finished_jobs(snapshot, target, apply)
    delete += garbage.empty_replica_sets(snapshot, target, apply)
    delete += garbage.old_history(snapshot, target)
    delete += retraining.left_over(snapshot)
    found = state(snapshot, progress)
    answer = status(snapshot, progress, found, now)
    alarms = retraining.rows(snapshot, target, now)
    look_again += retraining.look_again(snapshot, alarms, now)
    if progress.blocked:
        look_again.append(BLOCKED_LOOK_AGAIN_S)
    look_again += _until_deadline(answer["conditions"], now)
    return Plan(
        apply=tuple(apply),
        delete=tuple(delete),
        status=answer,
        events=(
            *conditions.events(answer["conditions"], snapshot.status.conditions or ()),
            *sizing.events(snapshot.sizing, snapshot.status),
            *canary_status.events(answer, snapshot.status.canary),
            *retraining.events(alarms, snapshot.status.retraining or ()),
        ),
        victims=_victims(snapshot, apply),
        start=retraining.job(snapshot, alarms),
        look_again_after_s=min(look_again, default=None),
    )


def rejected(snapshot: Snapshot, reason: str, message: str, now: datetime) -> Plan:
    """Return the plan for a deployment one of whose children the API server refuses: say so, touch nothing."""
    snapshot, target = served.settled(snapshot)
    progress = Progress(target, failure=Failure(reason, message))
    answer = status(snapshot, progress, state(snapshot, progress), now)
    told = conditions.events(answer["conditions"], snapshot.status.conditions or ())
    return Plan(apply=(), delete=(), status=answer, events=told, look_again_after_s=REJECTED_LOOK_AGAIN_S)


def invalid(deployment: Object, message: str, now: datetime) -> Plan:
    """Return the plan for an object whose stored spec cannot be read: say so, touch nothing that serves.

    The CRD refuses such a spec; one stored under an older CRD, or past it, is not answered by silence.
    """
    before = Status.model_validate(deployment.get("status") or {})
    generation = deployment["metadata"]["generation"]
    rows = conditions.conditions(
        State(contract.Reason.INVALID, message, is_stalled=True),
        available=before.ready_replicas or 0,
        outdated=None,
        previous=before.conditions or (),
        generation=generation,
        now=now,
    )
    answer = {**(deployment.get("status") or {}), "observedGeneration": generation, "conditions": rows}
    return Plan(apply=(), delete=(), status=answer, events=conditions.events(rows, before.conditions or ()))


def _pinned(snapshot: Snapshot, target: str) -> Revision | None:
    """Return the target as it was resolved, also where its ControllerRevision was deleted by hand."""
    if (kept := snapshot.revision(target)) is not None:
        return kept
    carried = snapshot.replica_set(target)
    if carried is None or carried.prepared is None:
        return None
    rebuilt = resources.new_revision(snapshot, target, carried.prepared)
    if _holds(rebuilt.template, carried.template):
        return rebuilt  # word for word as before: with the API server's defaults in it, it would count as outdated
    image = next(c["image"] for c in carried.template["spec"]["containers"] if c["name"] == "serve")
    return replace(rebuilt, runtime_image=image, template=carried.template)


def _holds(asked: Any, stored: Any) -> bool:
    """Return whether `stored` is what the API server makes of `asked`: defaults added, numbers written as words."""
    if isinstance(asked, dict):
        return isinstance(stored, dict) and all(k in stored and _holds(v, stored[k]) for k, v in asked.items())
    if isinstance(asked, list):
        return isinstance(stored, list) and len(asked) == len(stored) and all(map(_holds, asked, stored))
    return str(asked) == str(stored)


def _unreadable(snapshot: Snapshot, target: str) -> Failure:
    return Failure(
        contract.Reason.INVALID,
        f"ControllerRevision {target} was not written by this version of the operator, and what it holds cannot be "
        f"changed. Delete it, and the model is prepared again: "
        f"kubectl delete controllerrevision {target} -n {snapshot.namespace}",
    )


def _without_news(snapshot: Snapshot, now: datetime) -> tuple[Snapshot, float | None]:
    """Return the snapshot in which a Job that has just ended in silence still runs, and the seconds until it counts."""
    waits: list[float] = []

    def seen(attempt: Attempt) -> Attempt:
        if not attempt.is_silent or attempt.finished_at is None or is_over(attempt.finished_at, REPORT_ARRIVES, now):
            return attempt
        waits.append((attempt.finished_at + REPORT_ARRIVES - now).total_seconds())
        return replace(attempt, finished_at=None, failure=None)

    return replace(snapshot, attempts=tuple(seen(a) for a in snapshot.attempts)), min(waits, default=None)


def _newest_attempt(snapshot: Snapshot, revision: str) -> Attempt | None:
    return max((a for a in snapshot.attempts if a.revision == revision), key=lambda a: a.number, default=None)


def _last_failure(snapshot: Snapshot, revision: str) -> Failure | None:
    """Return why the newest attempt that has failed did so: while the next one runs, nothing has got better yet."""
    failed = [a for a in snapshot.attempts if a.revision == revision and a.failure is not None]
    newest = max(failed, key=lambda a: a.number, default=None)
    return None if newest is None else newest.failure


def _next_attempt(attempt: Attempt | None, now: datetime) -> tuple[int, float | None]:
    """Return which attempt should stand now, and in how many seconds the next one is due (None: on an event)."""
    if attempt is None:
        return 1, None
    if attempt.finished_at is None or attempt.failure is None:
        return attempt.number, None
    delay = prepare_retry_delay(attempt.failure, attempt.number)
    if is_over(attempt.finished_at, delay, now):
        return attempt.number + 1, None
    return attempt.number, (attempt.finished_at + delay - now).total_seconds()


def _is_held(snapshot: Snapshot) -> bool:
    return snapshot.spec.rollout.paused and any(s.replicas for s in snapshot.replica_sets)


def _rolled_out(snapshot: Snapshot, revision: Revision, apply: list[Object], *, paused: bool | None = None) -> Progress:
    """Append every ReplicaSet at its next size; return how the rollout stands.

    What the Service does not lead to yet, other than the target itself, was tried and serves in nobody's place.
    """
    trusted = {s.revision for s in snapshot.replica_sets if canary.is_trusted(snapshot, s.revision)}
    supply = _supply(snapshot, revision)
    live = snapshot.live(revision.name)
    free_slots: int | None = None
    if isinstance(supply, gpus.Supply):
        free_slots = supply.slots
    elif isinstance(supply, NoSignal):
        # Nodes may not be read: one replica may try, since a pending pod takes nothing from anybody.
        is_refused = any(r.failure is not None and r.failure.reason == Reason.UNSCHEDULABLE for r in live)
        free_slots = 0 if is_refused else 1
    step = rollout.next_step(
        desired=snapshot.desired,
        target=revision.name,
        standing={
            s.revision: _standing(snapshot, s.revision)
            for s in snapshot.replica_sets
            if s.revision in trusted | {revision.name}
        },
        terminating=sum(1 for r in snapshot.replicas if r.terminating and r.node is not None),
        free_slots=free_slots,
        paused=snapshot.spec.rollout.paused if paused is None else paused,
    )
    _apply_sizes(snapshot, {s.revision: 0 for s in snapshot.replica_sets} | {**step.sizes}, apply, revision)
    return Progress(revision.name, failure=_failure(snapshot, revision.name), blocked=step.blocked, supply=supply)


def _returned(snapshot: Snapshot, progress: Progress, apply: list[Object]) -> Progress:
    """Append the sizes on the way back to stable alone, of which those that serve in its place are taken one by one."""
    stable = snapshot.revision(snapshot.status.stable_revision or "")
    assert stable is not None, "there is a revision to return to"
    # What a person takes back does not wait for the end of a pause.
    is_given_up = canary.final(snapshot, progress.target) is verdict.State.ROLLED_BACK
    found = _rolled_out(snapshot, stable, apply, paused=snapshot.spec.rollout.paused and not is_given_up)
    failure = progress.failure or found.failure
    return replace(progress, failure=failure, blocked=found.blocked, supply=found.supply)


def _beside_stable(snapshot: Snapshot, revision: Revision, apply: list[Object]) -> Progress:
    """Append the stable revision at its size, the canary beside it at its own, and nothing of any other revision."""
    sizes, supply, found, failure = _stable_alone(snapshot), _supply(snapshot, revision), None, None
    if canary.course(snapshot, revision.name) is Course.TRIAL:
        found = canary.trial(snapshot, revision.name, supply)
        sizes[found.stable] -= found.lent
        if canary.untold(snapshot) is None and (found.size or revision.name in sizes):
            sizes[revision.name] = found.size
        failure = _failure(snapshot, revision.name)
        if failure is not None and failure.reason == Reason.UNSCHEDULABLE:
            # Those that have a node are tried without the one that waits for it.
            failure = None if any(r.ready for r in snapshot.live(revision.name)) else failure
    _apply_sizes(snapshot, sizes, apply, revision)
    return Progress(
        revision.name,
        failure=failure,
        blocked=found is not None and found.is_blocked,
        supply=supply,
        trial=found,
    )


def _stable_alone(snapshot: Snapshot) -> dict[str, int]:
    stable = snapshot.status.stable_revision
    assert stable is not None, "there is a revision to be compared with, or to be back at"
    return {s.revision: 0 for s in snapshot.replica_sets} | {stable: snapshot.desired}


def _supply(snapshot: Snapshot, revision: Revision) -> gpus.Supply | NoSignal | None:
    gpu = Spec.model_validate(revision.spec).gpu
    return None if gpu is None else gpus.supply(gpu, revision.template["spec"], snapshot.fleet)


def _failure(snapshot: Snapshot, revision: str) -> Failure | None:
    """Return why a revision's replicas cannot go on: what only a person can mend, before what may pass."""
    live, own = snapshot.live(revision), snapshot.replica_set(revision)
    failed = [r.failure for r in live if r.failure is not None]
    if own is not None and own.failure is not None and len(live) < own.replicas:
        failed.append(own.failure)
    return next((f for f in failed if f.is_permanent), failed[0] if failed else None)


def _held(snapshot: Snapshot, apply: list[Object]) -> None:
    """Append the ReplicaSets that exist, the mix of revisions as it is: the next one has nothing to run yet."""
    standing = {
        s.revision: _standing(snapshot, s.revision)
        for s in snapshot.replica_sets
        if canary.is_trusted(snapshot, s.revision)
    }
    if not standing:
        return
    best = max(standing, key=lambda name: (standing[name].ready, standing[name].asked, name))
    step = rollout.next_step(
        desired=snapshot.desired,
        target=best,
        standing=standing,
        terminating=0,
        free_slots=None,
        paused=True,
    )
    _apply_sizes(snapshot, {s.revision: 0 for s in snapshot.replica_sets} | {**step.sizes}, apply, None)


def _standing(snapshot: Snapshot, revision: str) -> Standing:
    live = snapshot.live(revision)
    asked = next(s.replicas for s in snapshot.replica_sets if s.revision == revision)
    return Standing(asked, sum(1 for r in live if r.node is not None), sum(1 for r in live if r.ready))


def _apply_sizes(snapshot: Snapshot, sizes: dict[str, int], apply: list[Object], target: Revision | None) -> None:
    # What shrinks goes first: the room it makes is what the next step grows into.
    before = {s.revision: s.replicas for s in snapshot.replica_sets}
    for name in sorted(sizes, key=lambda n: (sizes[n] - before.get(n, 0), n)):
        kept = target if target is not None and target.name == name else snapshot.revision(name)
        carried = snapshot.replica_set(name)
        if kept is not None:
            apply.append(resources.replica_set(snapshot, name, kept.template, kept.prepared, sizes[name]))
        elif carried is not None:
            apply.append(resources.replica_set(snapshot, name, carried.template, carried.prepared, sizes[name]))


def _victims(snapshot: Snapshot, apply: list[Object]) -> tuple[str, ...]:
    """Return the replicas that go where a ReplicaSet shrinks: those with the fewest requests, of these the newest.

    Left to itself, its controller takes the newest, busy or not. Replicas that do not answer it takes first anyway.
    They are chosen once, with the write of the smaller size: a mark stays, and until the last of them is gone every
    look counts other requests and would mark others.
    """
    if snapshot.sizing is None:
        return ()
    busy = snapshot.sizing.in_flight
    before = {s.revision: s.replicas for s in snapshot.replica_sets}
    found: list[str] = []
    for obj in apply:
        if obj["kind"] != "ReplicaSet":
            continue
        name, size = obj["metadata"]["name"], obj["spec"]["replicas"]
        if before.get(name, 0) <= size:
            continue
        ready = [r for r in snapshot.live(name) if r.ready]
        newest_first = sorted(ready, key=lambda r: (r.created_at is not None, r.created_at, r.name), reverse=True)
        found += [r.name for r in sorted(newest_first, key=lambda r: busy.get(r.name, 0))[: max(0, len(ready) - size)]]
    return tuple(found)


def _until_deadline(rows: list[Object], now: datetime) -> list[float]:
    """Return the seconds until being on the way counts as stalled: no event comes at that moment."""
    for row in rows:
        if row["type"] == "Reconciling" and row["status"] == "True":
            since = parse_time(row["lastTransitionTime"])
            return [max(1.0, (since + conditions.PROGRESS_DEADLINE - now).total_seconds())]
    return []
