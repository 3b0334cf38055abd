"""What is said of a canary: the deployment's state, its condition, status.canary, Events?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import CanaryStatus
from evenkeel_operator.decide import conditions
from evenkeel_operator.decide.canary import Course, Trial, course, final, kept, options, steps_began, untold
from evenkeel_operator.decide.conditions import Row
from evenkeel_operator.decide.conditions import State as Standing
from evenkeel_operator.decide.intent import Event
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.quality import story, verdict
from evenkeel_operator.decide.quality.verdict import State, Verdict, Why
from evenkeel_operator.decide.snapshot import Snapshot
from evenkeel_runtime.contract import SPLIT

_SENTENCES = 32


def state(snapshot: Snapshot, found: Trial) -> Standing:
    """Return the state of the deployment while a canary is tried."""
    serving = f" Revision {found.stable} keeps serving."
    if (problem := untold(snapshot)) is not None:
        return Standing(Reason.CANARY_UNTOLD, problem + "." + serving, is_stalled=True)
    if found.problem is not None:
        return Standing(Reason.CANNOT_BE_JUDGED, found.problem + "." + serving, is_stalled=True)
    judged = _standing_verdict(snapshot, found)
    text = f"canary {found.revision}: {story.sentences(judged)[0]}"
    if found.is_blocked:
        spare = snapshot.sizing is not None and snapshot.sizing.needs_all
        why = ": stable needs each of its own to hold the latency" if spare else ""
        return Standing(Reason.ROLLOUT_BLOCKED_NO_GPU, f"canary {found.revision} has no GPU to run on{why}." + serving)
    if judged.state is State.HELD:
        return Standing(Reason.CANARY_HELD, text + serving, is_stalled=True)
    if judged.state is State.INCONCLUSIVE:
        return Standing(Reason.CANARY_INCONCLUSIVE, text + serving, is_stalled=True)
    if judged.state in (State.PENDING, State.WARMING):
        return Standing(Reason.CANARY_STARTING, text + serving)
    return Standing(Reason.CANARY_RUNNING, text, may_take_its_time=True)


def rolled_back(snapshot: Snapshot, target: str) -> Standing:
    """Return the state of a deployment whose new revision was rolled back."""
    told = _told(snapshot, target)
    text = (
        f"revision {target} was rolled back, {snapshot.status.stable_revision} serves. {' '.join(told[:2])} Change the "
        f"spec, or try it again with evenkeel promote {snapshot.name} -n {snapshot.namespace}"
    )
    return Standing(Reason.ROLLED_BACK, text, is_stalled=True)


def returning(snapshot: Snapshot, target: str, *, is_blocked: bool) -> Standing:
    """Return the state of a deployment whose stable revision gets its size back, before all else."""
    stable = snapshot.status.stable_revision or ""
    ready = sum(r.ready for r in snapshot.live(stable))
    others = sorted({r.revision for r in snapshot.replicas if r.ready and not r.terminating and r.revision != stable})
    is_given_up = final(snapshot, target) is State.ROLLED_BACK
    why = f"since revision {target} was rolled back" if is_given_up else f"before revision {target} is tried"
    text = f"{ready} of {snapshot.desired} replicas of revision {stable} answer: it gets its size back, {why}"
    serving = f". Revision {', '.join(others)} serves until then"
    if is_blocked:
        return Standing(Reason.ROLLOUT_BLOCKED_NO_GPU, f"{text}, and no GPU is free for another one{serving}")
    if snapshot.spec.rollout.paused:
        return Standing(
            Reason.ROLLOUT_PAUSED, f"{text}: spec.rollout.paused holds that{serving}", may_take_its_time=True
        )
    return Standing(Reason.ROLLING_OUT, text + serving)


def rows(snapshot: Snapshot, target: str) -> list[Row]:
    """Return the condition RolledBack, where it holds."""
    if course(snapshot, target) not in (Course.BACK, Course.RETURN) or final(snapshot, target) is not State.ROLLED_BACK:
        return []
    return [Row("RolledBack", True, Reason.ROLLED_BACK, " ".join(_told(snapshot, target))[:1024])]


def status(snapshot: Snapshot, target: str, found: Trial | None, now: datetime) -> Object:
    """Return status.canary and status.canaryRevision; nothing where no canary is, or was and still stands."""
    before = kept(snapshot, target)
    if found is not None:
        judged, began = _standing_verdict(snapshot, found), steps_began(snapshot, found, now)
        row = _row(snapshot, target, judged, began, found.mode, before, now)
        return {"canaryRevision": target, "canary": row | ({"lent": found.lent} if found.lent else {})}
    fallen = final(snapshot, target)
    is_new = fallen is not None and (before is None or State(before.state) is not fallen)
    if fallen is not None and is_new and snapshot.status.stable_revision not in (None, target):
        began = tuple(parse_time(text) for text in before.steps_began) if before is not None else ()
        mode = before.mode if before is not None else SPLIT
        return {"canary": _row(snapshot, target, _verdict(snapshot, target, fallen), began, mode, before, now)}
    last = snapshot.status.canary
    if last is None:
        return {}
    # That of another revision is told while its replicas stand: it says why.
    still_stands = snapshot.replica_set(last.revision) is not None and State(last.state) in verdict.FINAL
    if last.revision == target or still_stands:
        return {"canary": last.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)}
    return {}


def events(after: Object, before: CanaryStatus | None) -> tuple[Event, ...]:
    """Return what to tell of a canary: another state, or another step."""
    row = after.get("canary")
    if row is None:
        return ()
    was = None if before is None or before.revision != row["revision"] else (before.state, len(before.steps_began))
    now = (row["state"], len(row.get("stepsBegan", ())))
    if was == now or (was is None and row["state"] in (State.PENDING, State.WARMING)):
        return ()
    is_bad = row["state"] in (State.ROLLED_BACK, State.HELD, State.INCONCLUSIVE)
    text = f"canary {row['revision']}, {row['summary']}: {' '.join(row['story'])}"
    word = Reason.CANARY_STEP if row["state"] == State.CANARY else f"Canary{row['state']}"
    return (Event("Warning" if is_bad else "Normal", word, text[:1024]),)


def _row(
    snapshot: Snapshot,
    target: str,
    judged: Verdict,
    began: tuple[datetime, ...],
    mode: str,
    before: CanaryStatus | None,
    now: datetime,
) -> Object:
    steps = options(snapshot.spec).steps
    is_final = judged.state in verdict.FINAL
    weight = steps[min(len(began), len(steps)) - 1].weight if began and not is_final else 0
    row: Object = {
        "revision": target,
        "stable": snapshot.status.stable_revision,
        "state": str(judged.state),
        "why": str(judged.why),
        "summary": _summary(judged.state, len(began), len(steps), weight),
        "mode": mode,
        "weight": weight,
        "began": before.began if before is not None else conditions.timestamp(now),
        "samples": judged.samples,
        "labels": judged.evidence.labels if judged.evidence is not None else 0,
        "story": list(story.sentences(judged)[:_SENTENCES]),
    }
    if began:
        row["stepsBegan"] = [conditions.timestamp(at) for at in began]
    if is_final:
        row["decided"] = before.decided if before is not None and before.decided else conditions.timestamp(now)
    return row


def _summary(state: State, step: int, steps: int, weight: int) -> str:
    if state is State.CANARY and step:
        return f"{step}/{steps} {weight}%"
    return f"{state} {step}/{steps}" if state is State.HELD and step else str(state)


def _verdict(snapshot: Snapshot, target: str, fallen: State) -> Verdict:
    judged = snapshot.judged
    if judged is not None and judged.revision == target:
        if judged.verdict.state is fallen:
            return judged.verdict
        return replace(judged.verdict, state=fallen, why=Why.BY_HAND, quarantine=_quarantine(fallen, target))
    return Verdict(fallen, Why.BY_HAND, quarantine=_quarantine(fallen, target))


def _quarantine(fallen: State, target: str) -> str | None:
    return target if fallen is State.ROLLED_BACK else None


def _told(snapshot: Snapshot, target: str) -> Sequence[str]:
    before, fallen = kept(snapshot, target), final(snapshot, target)
    if before is not None and fallen is not None and State(before.state) is fallen and before.story:
        return before.story
    return story.sentences(_verdict(snapshot, target, fallen or State.ROLLED_BACK))


def _standing_verdict(snapshot: Snapshot, found: Trial) -> Verdict:
    """Return the verdict of a trial; before its first step, and before anybody has judged, what is seen of its pods."""
    live = snapshot.live(found.revision)
    if not found.steps_began:
        if not any(r.node for r in live):
            return Verdict(State.PENDING, Why.NOT_PLACED)
        if not any(r.ready for r in live):
            return Verdict(State.WARMING, Why.STARTING)
        return Verdict(State.CANARY, Why.STEP_PASSED, 0)
    if found.is_blocked:
        return Verdict(State.HELD, Why.NO_GPU, len(found.steps_began) - 1)
    if found.problem is not None:
        return Verdict(State.HELD, Why.CANNOT_BE_JUDGED, len(found.steps_began) - 1)
    if found.verdict is None or found.verdict.state in verdict.FINAL:
        return Verdict(State.CANARY, Why.TESTING, len(found.steps_began) - 1)
    return found.verdict
