"""What becomes of a new revision that has to be tried first, and what are the stable replicas told of it?

    Direct  it simply replaces the stable revision: nothing is to be tried, or it was promoted
    Trial   it stands beside the stable revision, which keeps its full size: whatever the canary fails, stable answers,
            and when it has to go, nothing has to be started before its share of the traffic returns
    Back    it was rolled back: the stable revision serves alone until the spec asks for another one
    Return  before either of these: another revision serves in the place of some of stable's replicas, since its
            rollout was given up midway. Stable replaces it step by step, as in any rollout, until it has its size

While a revision is tried, and after it was rolled back, the Service leads to the stable replicas alone; these pass on
the canary's share (`directive`). After a promotion it leads to both, and the rollout goes on as any other.

Trusted is stable, and whatever was promoted or rolled out without a trial: to these alone the Service ever leads, so
that whom it leads to at present says who is trusted (`is_trusted`). Not trusted is what is tried, or was found to be
bad. Invariant of every plan, pauses and all: of the trusted replicas that answer, those that the Service leads to
never become fewer, but for what a rollout takes while another goes on serving (`rollout.next_step`), or what a canary
borrows. Counter-example without Return: 1 replica of stable and 3 of a promoted revision answer when a person aborts;
the Service led to 1 of 4 until the others had started.

What is kept is in status.canary: when each step began, the mode, and a final verdict. All else is found anew. What is
said of it is in `canary_status.py`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.api.core import parse_time, seconds
from evenkeel_operator.api.modeldeployment import CanaryOptions, Object, Spec
from evenkeel_operator.api.status import CanaryStatus
from evenkeel_operator.decide import sizing
from evenkeel_operator.decide.gpus import Supply
from evenkeel_operator.decide.quality import verdict
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.verdict import OnMissingLabels, Rules, State, Step, Verdict, Why
from evenkeel_operator.decide.snapshot import NoSignal, Replica, Snapshot
from evenkeel_runtime import contract
from evenkeel_runtime.contract import MIRROR, SPLIT

EXPIRES_S = 300.0
"""For how long a stable replica goes on by itself after it was told last: a dead operator means stable only, then."""


class Course(enum.Enum):
    """Which of the ways a rollout takes."""

    DIRECT = enum.auto()
    TRIAL = enum.auto()
    BACK = enum.auto()
    RETURN = enum.auto()


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found out about a canary: the verdict on `revision`, and why labels cannot be judged, if they cannot."""

    revision: str
    verdict: Verdict
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan's view of a canary. `size`: its replicas; `lent`: those of stable that make room for it."""

    stable: str
    revision: str
    mode: str
    size: int
    lent: int = 0
    is_blocked: bool = False
    steps_began: tuple[datetime, ...] = ()
    verdict: Verdict | None = None
    problem: str | None = None


def options(spec: Spec) -> CanaryOptions:
    """Return how a canary is tried."""
    return spec.rollout.canary or CanaryOptions()


def course(snapshot: Snapshot, target: str) -> Course:
    """Return which way the rollout to `target` takes."""
    stable = snapshot.status.stable_revision
    if (
        snapshot.spec.rollout.strategy != "Canary"
        or stable in (None, target)
        or snapshot.revision(stable or "") is None
    ):
        return Course.DIRECT
    found = final(snapshot, target)
    if found is State.PROMOTED:
        return Course.DIRECT
    if _is_replaced(snapshot, target):
        return Course.RETURN
    return Course.BACK if found is State.ROLLED_BACK else Course.TRIAL


def is_trusted(snapshot: Snapshot, revision: str) -> bool:
    """Return whether the Service leads to `revision` at present, which it does to what is trusted and to nothing else.

    Without a Service nobody is led anywhere, and all are trusted but what is known to be tried or rolled back.
    """
    if isinstance(snapshot.led_to, NoSignal):
        known = kept(snapshot, revision)
        return known is None or State(known.state) is State.PROMOTED
    return snapshot.led_to in (None, revision)


def _is_replaced(snapshot: Snapshot, target: str) -> bool:
    """Return whether stable has not its size, and trusted replicas of another revision answer in its place."""
    stable = snapshot.status.stable_revision or ""
    if sum(r.ready for r in snapshot.live(stable)) >= snapshot.desired:
        return False
    return any(
        s.replicas > 0 and any(r.ready for r in snapshot.live(s.revision))
        for s in snapshot.replica_sets
        if s.revision != stable
        and is_trusted(snapshot, s.revision)
        and not (s.revision == target and _is_bad(snapshot, target))
    )


def _is_bad(snapshot: Snapshot, target: str) -> bool:
    """Return whether a test, and not a person, has rolled `target` back: it answers nobody for even a moment more."""
    before = kept(snapshot, target)
    is_by_hand = snapshot.aborted == target or (before is not None and before.why == Why.BY_HAND)
    return final(snapshot, target) is State.ROLLED_BACK and not is_by_hand


def selected(snapshot: Snapshot, target: str) -> str | None:
    """Return the only revision that the Service leads to, None where it leads to all."""
    stable = snapshot.status.stable_revision
    if snapshot.spec.rollout.strategy != "Canary" or stable is None or snapshot.revision(stable) is None:
        return None
    match course(snapshot, target):
        case Course.TRIAL | Course.BACK:
            return stable
        case Course.RETURN:
            return None
    return stable if target == stable and not _is_replaced(snapshot, target) else None


def untold(snapshot: Snapshot) -> str | None:
    """Return why the stable replicas cannot be told of a canary, None where they can."""
    feedback, stable = snapshot.defaults.feedback, snapshot.revision(snapshot.status.stable_revision or "")
    if feedback is None:
        return (
            "a canary needs the feedback service, with whose key the stable replicas are told of it: install the chart "
            "with feedback.enabled, or set spec.rollout.strategy to Direct"
        )
    if stable is not None and key_id(stable.template) not in feedback.master_keys:
        return (
            f"the replicas of the stable revision {stable.name} have no key to be told of a canary with: they are "
            "older than the feedback service. Replace them once with spec.rollout.strategy Direct, or with "
            f"evenkeel promote {snapshot.name} -n {snapshot.namespace}"
        )
    return None


def key_id(template: Object) -> int | None:
    """Return the number of the master key that replicas of this pod template have theirs from, None without one."""
    for container in template["spec"]["containers"]:
        for variable in container.get("env") or ():
            if variable["name"] == contract.Env.RECEIPT_KEY_ID and variable.get("value", "").isdecimal():
                return int(variable["value"])
    return None


def trial(snapshot: Snapshot, target: str, supply: Supply | NoSignal | None) -> Trial:
    """Return how the trial of `target` stands and how many replicas it may have; its course has to be TRIAL.

    `supply` is what is free for a replica of it, None where it needs no GPU.
    """
    stable, before = snapshot.status.stable_revision, kept(snapshot, target)
    assert stable is not None, "a canary is beside something"
    judged = snapshot.judged if snapshot.judged is not None and snapshot.judged.revision == target else None
    began = tuple(parse_time(text) for text in before.steps_began) if before is not None else ()
    steps = options(snapshot.spec).steps
    found = judged.verdict if judged is not None else None
    step = found.step if found is not None and found.step is not None else max(0, len(began) - 1)
    weight = steps[min(max(step, len(began) - 1), len(steps) - 1)].weight
    needed = math.ceil(snapshot.desired * weight / 100)
    live = snapshot.live(target)
    placed = sum(1 for r in live if r.node is not None)
    reach, lent = needed, before.lent if before is not None else 0
    if isinstance(supply, Supply):
        returned = lent if snapshot.sizing is not None and snapshot.sizing.needs_all else 0
        lent -= returned
        # A replica of stable that waits for a GPU has the first that is free: it may be the one that it had lent.
        waiting = max(0, snapshot.desired - lent - sum(1 for r in snapshot.live(stable) if r.node is not None))
        reach = min(needed, placed + max(-min(returned, placed), supply.slots - waiting))
        if reach == 0 and not lent and _can_spare(snapshot):
            lent = 1
        if lent:
            # The GPU is the canary's as soon as the replica that had it has ended; until then the canary waits.
            reach = min(needed, lent)
    elif isinstance(supply, NoSignal):
        # Nodes may not be read: one more is asked for until it waits, since a pending pod takes nothing from anybody.
        reach = min(needed, placed + 1)
    own = snapshot.replica_set(target)
    size = reach
    if snapshot.spec.rollout.paused:
        size = 0 if own is None else min(own.replicas, reach)
    return Trial(
        stable=stable,
        revision=target,
        mode=before.mode if before is not None else _mode(snapshot, lent),
        size=size,
        lent=min(lent, max(0, snapshot.desired - 1)),
        is_blocked=needed > 0 and reach == 0,
        steps_began=began,
        verdict=found,
        problem=judged.problem if judged is not None else None,
    )


def directive(snapshot: Snapshot, target: str) -> contract.Canary | None:
    """Return what the stable replicas are told: of the canary while one is tried and answers, else that there is none.

    A canary with fewer replicas than its share needs gets the share that these can carry.
    """
    before = kept(snapshot, target)
    if course(snapshot, target) is not Course.TRIAL or before is None or not before.steps_began:
        return None
    ready = [r for r in snapshot.live(target) if r.ready and r.address is not None]
    if not ready or snapshot.desired == 0:
        return None
    wanted = options(snapshot.spec)
    weight = wanted.steps[min(len(before.steps_began), len(wanted.steps)) - 1].weight / 100
    return contract.Canary(
        revision=target,
        mode=before.mode,
        share=min(weight, len(ready) / snapshot.desired) if weight * snapshot.desired > 1 else weight,
        addresses=tuple(sorted(_address(r) for r in ready))[: contract.MOST_CANARY_ADDRESSES],
        expires_s=EXPIRES_S,
        affinity_header=wanted.affinity_header,
    )


def rules(spec: Spec, objectives: Sequence[Objective]) -> Rules:
    """Return what the spec says about a canary, in the words of the tests."""
    wanted, latency = options(spec), sizing.objective(spec)
    return Rules(
        steps=tuple(Step(s.weight, timedelta(seconds=seconds(s.min_duration)), s.min_samples) for s in wanted.steps),
        objectives=tuple(objectives),
        slow_budget=None if latency is None else round(1 - latency.quantile, 6),
        on_missing_labels=OnMissingLabels(wanted.on_missing_labels),
        max_duration=timedelta(seconds=seconds(wanted.max_duration)),
    )


def steps_began(snapshot: Snapshot, found: Trial, now: datetime) -> tuple[datetime, ...]:
    """Return when each step began: one more now where it is due and the canary has the replicas that it needs.

    One that the scheduler has refused is not waited for: the share is what the others can carry.
    """
    live = snapshot.live(found.revision)
    ready, refused = sum(r.ready for r in live), sum(r.node is None and r.failure is not None for r in live)
    if ready == 0 or ready < found.size - refused or snapshot.spec.rollout.paused:
        return found.steps_began
    if not found.steps_began:
        return (now,)
    judged = found.verdict
    if judged is not None and judged.why is Why.STEP_PASSED and judged.step == len(found.steps_began):
        return (*found.steps_began, now)
    return found.steps_began


def progress(snapshot: Snapshot, target: str) -> verdict.Progress:
    """Return how far the canary has come, for its judge."""
    before = kept(snapshot, target)
    began = tuple(parse_time(text) for text in before.steps_began) if before is not None else ()
    live = snapshot.live(target)
    return verdict.Progress(any(r.node for r in live), any(r.ready for r in live), began)


def kept(snapshot: Snapshot, target: str) -> CanaryStatus | None:
    """Return what status.canary keeps of `target`, None where it keeps another one, or nothing."""
    kept = snapshot.status.canary
    return kept if kept is not None and kept.revision == target else None


def final(snapshot: Snapshot, target: str) -> State | None:
    """Return the final verdict on `target`: a person's, the kept one, or the one that has just fallen."""
    if snapshot.promoted == target:
        return State.PROMOTED
    if snapshot.aborted == target:
        return State.ROLLED_BACK
    before = kept(snapshot, target)
    if before is not None and before.state in verdict.FINAL:
        return State(before.state)
    judged = snapshot.judged
    if judged is None or judged.revision != target or judged.verdict.state not in verdict.FINAL:
        return None
    if judged.verdict.state is State.PROMOTED and snapshot.spec.rollout.paused:
        return None
    return judged.verdict.state


def _mode(snapshot: Snapshot, lent: int) -> str:
    wanted = options(snapshot.spec).mode
    if wanted != "Auto":
        return MIRROR if wanted == "Mirror" else SPLIT
    # A replica that has made room is missed: what takes its place has to carry requests. Of numbers no pairs are told.
    judged = snapshot.spec.objectives.accuracy
    return MIRROR if judged and not lent and not any(one.is_error for one in judged) else SPLIT


def _can_spare(snapshot: Snapshot) -> bool:
    """Return whether one replica of stable may make room: the latency loop says that the others hold the target."""
    return snapshot.desired >= 2 and snapshot.sizing is not None and snapshot.sizing.can_spare


def _address(replica: Replica) -> str:
    host = f"[{replica.address}]" if replica.address is not None and ":" in replica.address else replica.address
    return f"{host}:{contract.HTTP_PORT}"
