"""What does the status say? One state, one word, one sentence that tells what to do; counts; conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.decide import (
    accuracy,
    canary,
    canary_status,
    conditions,
    names,
    podspec,
    resources,
    retraining,
    served,
    sizing,
    words,
)
from evenkeel_operator.decide.canary import Course, Trial
from evenkeel_operator.decide.conditions import State
from evenkeel_operator.decide.failures import Failure
from evenkeel_operator.decide.gpus import Supply
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.snapshot import NoSignal, Replica, Revision, Snapshot


@dataclass(frozen=True, slots=True)
class Progress:
    """What this plan found on its way, for the sentence in the status.

    `failure` is why the target cannot go on, `preparing` that its bytes are not resolved yet, `blocked` that only a
    GPU that is not free could move it; `supply` is None for a model that needs no GPU. `trial` is of a canary, while
    one is tried.
    """

    target: str
    failure: Failure | None = None
    preparing: bool = False
    blocked: bool = False
    supply: Supply | NoSignal | None = None
    trial: Trial | None = None


def state(snapshot: Snapshot, progress: Progress) -> State:
    """Return the state of the deployment: the first of these that holds."""
    desired = snapshot.desired
    live = snapshot.live(progress.target)
    ready = sum(r.ready for r in live)
    others = [r for r in snapshot.replicas if r.revision != progress.target and not r.terminating]
    size = f"{ready} of {desired} replicas of revision {progress.target} answer"
    is_complete = not progress.preparing and len(live) == desired == ready and not others

    if progress.failure is not None:
        failure = progress.failure
        text = failure.message + _supply_note(snapshot.spec, failure.reason, progress.supply) + _still_serving(others)
        return State(failure.reason, text, is_stalled=failure.is_permanent)
    if canary.course(snapshot, progress.target) is Course.BACK:
        return canary_status.rolled_back(snapshot, progress.target)
    if canary.course(snapshot, progress.target) is Course.RETURN:
        return canary_status.returning(snapshot, progress.target, is_blocked=progress.blocked)
    if progress.trial is not None:
        return canary_status.state(snapshot, progress.trial)
    if is_complete and progress.target != (asked := names.revision_name(snapshot.name, snapshot.spec)):
        return State(Reason.ROLLED_BACK, _reverted_text(snapshot, asked, progress.target), is_stalled=True)
    if is_complete and desired == 0:
        return State(Reason.SCALED_TO_ZERO, "no replica is asked for", is_ready=True)
    if is_complete:
        return State(Reason.SERVING, size, is_ready=True)
    if snapshot.spec.rollout.paused and others:
        text = f"spec.rollout.paused holds the rollout to revision {progress.target}{_still_serving(others)}"
        return State(Reason.ROLLOUT_PAUSED, text, may_take_its_time=True)
    if progress.preparing:
        text = f"the model of revision {progress.target} is resolved, verified and inspected{_still_serving(others)}"
        return State(Reason.PREPARING, text)
    if progress.blocked:
        return State(Reason.ROLLOUT_BLOCKED_NO_GPU, _blocked_text(snapshot, progress))
    if others:
        return State(Reason.ROLLING_OUT, size + _still_serving(others))
    if snapshot.status.stable_revision == progress.target:
        return State(Reason.SCALING, size)
    return State(Reason.STARTING, size)


def status(snapshot: Snapshot, progress: Progress, found: State, now: datetime) -> Object:
    """Return the whole status. What does not exist yet is left out."""
    live = [r for r in snapshot.replicas if not r.terminating]
    ready = sum(r.ready for r in live)
    stable = stable_revision(snapshot, progress.target, found)
    selector = names.replica_selector(snapshot.name)
    answer: Object = {
        "observedGeneration": snapshot.generation,
        "replicas": len(live),
        "readyReplicas": ready,
        "selector": ",".join(f"{key}={value}" for key, value in selector.items()),
        "url": resources.url(snapshot),
        "conditions": conditions.conditions(
            found,
            available=ready,
            outdated=None if stable is None else _outdated(snapshot, stable),
            further=[
                *sizing.rows(snapshot.spec, snapshot.sizing),
                *accuracy.rows(
                    snapshot.spec,
                    snapshot.quality,
                    snapshot.status,
                    snapshot.words.get(names.ACKNOWLEDGE_ANNOTATION),
                    now,
                ),
                *canary_status.rows(snapshot, progress.target),
                *retraining.condition_rows(snapshot),
            ],
            previous=snapshot.status.conditions or (),
            generation=snapshot.generation,
            now=now,
        ),
    }
    if stable is not None:
        answer["stableRevision"] = stable.name
        answer["model"] = resources.model_status(stable.spec, stable.prepared)
    is_tried = progress.trial is not None
    rows = [
        {
            "name": name,
            "role": "Canary" if is_tried and name == progress.target else _role(name, progress.target, stable),
            "replicas": len(snapshot.live(name)),
            "readyReplicas": sum(r.ready for r in snapshot.live(name)),
        }
        for name in sorted({r.revision for r in live} | {s.revision for s in snapshot.replica_sets})
    ]
    if rows:
        answer["revisions"] = rows
    answer |= sizing.status(snapshot.spec, snapshot.sizing, snapshot.status)
    answer |= accuracy.status(snapshot.spec, snapshot.quality, snapshot.status)
    answer |= canary_status.status(snapshot, progress.target, progress.trial, now)
    if alarms := retraining.rows(snapshot, progress.target, now):
        answer["retraining"] = [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in alarms]
    answer |= words.status(snapshot, None if stable is None else stable.name)
    answer |= served.status(snapshot, progress.target, None if stable is None else stable.name, now)
    return answer


def stable_revision(snapshot: Snapshot, target: str, found: State) -> Revision | None:
    """Return the last revision that was in full service: the target once it is, until then the one before."""
    # In full service, though it is not what the spec asks for: see `served.py`.
    is_served = found.is_ready or found.reason == Reason.ROLLED_BACK
    is_through = is_served and canary.course(snapshot, target) is Course.DIRECT
    if is_through and (now_stable := snapshot.revision(target)) is not None:
        return now_stable
    return snapshot.revision(snapshot.status.stable_revision or "")


def _reverted_text(snapshot: Snapshot, asked: str, target: str) -> str:
    return (
        f"revision {asked} was left for {target}: its accuracy had decayed, and that of {target} was good to its end. "
        f"Change the spec, or keep it all the same with evenkeel promote {snapshot.name} -n {snapshot.namespace}"
    )


def _role(name: str, target: str, stable: Revision | None) -> str:
    if stable is not None and name == stable.name:
        return "Stable"
    return "Target" if name == target else "Old"


def _outdated(snapshot: Snapshot, revision: Revision) -> str | None:
    """Return what a restart would change, or None where the operator would build the same pods again."""
    spec = Spec.model_validate(revision.spec)
    today = podspec.pod_template(snapshot.name, revision.name, spec, revision.prepared, snapshot.defaults, snapshot.uid)
    if today == revision.template:
        return None
    image = resources.serving_image(spec, snapshot.defaults.runtime_image)
    what = f"runtime {image} is current, the replicas keep {revision.runtime_image}"
    if image == revision.runtime_image:
        what = "this operator would build the pods in another way; the replicas keep theirs"
    return f"{what}. To move on: evenkeel restart {snapshot.name} -n {snapshot.namespace}"


def _still_serving(others: Iterable[Replica]) -> str:
    ready = [r for r in others if r.ready]
    if not ready:
        return ""
    revisions = ", ".join(sorted({r.revision for r in ready}))
    return f". Revision {revisions} keeps serving with {len(ready)} {'replica' if len(ready) == 1 else 'replicas'}"


def _supply_note(spec: Spec, reason: str, supply: Supply | NoSignal | None) -> str:
    if reason != Reason.UNSCHEDULABLE or spec.gpu is None or not isinstance(supply, Supply):
        return ""
    return (
        f" Each replica asks for {spec.gpu.count} {spec.gpu.resource_name}; {supply.free} of {supply.total} on nodes "
        "that fit are free. Free some, add a node, or change spec.gpu or spec.replicas."
    )


def _blocked_text(snapshot: Snapshot, progress: Progress) -> str:
    gpu = snapshot.spec.gpu
    assert gpu is not None, "only a deployment with GPUs can be blocked for want of one"
    counted = "none could be had"
    if isinstance(progress.supply, Supply):
        counted = f"{progress.supply.free} of {progress.supply.total} are free"
    return (
        f"a replica of revision {progress.target} needs {gpu.count} {gpu.resource_name} beside the one that serves; "
        f"{counted}. It starts as soon as one is; or scale to 2 or more replicas, or to 0 and back."
    )
