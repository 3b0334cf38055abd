"""What do the conditions say? Ready, Reconciling and Stalled as kstatus reads them: no other tool waits for ever.

| state                                | Ready | Reconciling | Stalled |
|--------------------------------------|-------|-------------|---------|
| as the spec asks for                 | True  | False       | False   |
| on the way                           | False | True        | False   |
| a person must change something       | False | False       | True    |
| on the way for `PROGRESS_DEADLINE`   | False | False       | True    |

Available is ours: whether anything answers at all, of whatever revision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import Condition
from evenkeel_operator.decide.intent import Event

PROGRESS_DEADLINE = timedelta(minutes=10)
"""How long a deployment may be on its way before it counts as stalled: Deployment's own default."""

_MESSAGE_CHARACTERS = 1024
_MEASURED = ("LatencyMet", "Scalable")


@dataclass(frozen=True, slots=True)
class State:
    """The state in one word and one sentence, and in which row of the table above it stands."""

    reason: str
    message: str
    is_ready: bool = False
    is_stalled: bool = False
    may_take_its_time: bool = False
    """Whether waiting is what was asked for (a paused rollout), so that no deadline applies."""


@dataclass(frozen=True, slots=True)
class Row:
    """One condition; `holds` is None where that is not known."""

    type: str
    holds: bool | None
    reason: str
    message: str


def conditions(
    state: State,
    *,
    available: int,
    outdated: str | None,
    further: Iterable[Row] = (),
    previous: Iterable[Condition],
    generation: int,
    now: datetime,
) -> list[Object]:
    """Return the conditions; one whose status has not changed keeps its time.

    `available` replicas answer; `outdated` is the message of RuntimeOutdated, None where it does not hold; `further`
    are conditions of others.
    """
    before = {c.type: c for c in previous}
    stalled = state.is_stalled or _is_overdue(state, before.get("Reconciling"), before.get("Stalled"), now)
    word, text = state.reason, state.message[:_MESSAGE_CHARACTERS]
    rows = [
        Row("Ready", state.is_ready, word, text),
        Row("Reconciling", not state.is_ready and not stalled, word, text),
        Row("Stalled", stalled, word, text),
        Row(
            "Available",
            available > 0,
            "ReplicasAnswer" if available else "NoReplicaAnswers",
            f"{available} replicas answer",
        ),
    ]
    if outdated is not None:
        rows.append(Row("RuntimeOutdated", True, "RuntimeOutdated", outdated))
    rows += further
    return [_condition(row, before.get(row.type), generation, now) for row in rows]


def events(new: Iterable[Object], previous: Iterable[Condition]) -> tuple[Event, ...]:
    """Return the Events of a transition: the Ready condition's reason or status changed, or another began to hold."""
    before = {c.type: c for c in previous}
    told = []
    for condition in new:
        old = before.get(condition["type"])
        if condition["type"] == "Ready":
            if old is None or (old.status, old.reason) != (condition["status"], condition["reason"]):
                stalled = any(c["type"] == "Stalled" and c["status"] == "True" for c in new)
                told.append(Event("Warning" if stalled else "Normal", condition["reason"], condition["message"]))
        elif condition["type"] == "RuntimeOutdated" and old is None:
            told.append(Event("Normal", condition["reason"], condition["message"]))
        elif condition["type"] in _MEASURED:
            was = (old.status, old.reason) if old is not None else ("", "")
            is_bad = condition["status"] == "False"
            if was != (condition["status"], condition["reason"]) and (is_bad or was[0] == "False"):
                told.append(Event("Warning" if is_bad else "Normal", condition["reason"], condition["message"]))
    return tuple(told)


def timestamp(now: datetime) -> str:
    """Return `now` as Kubernetes writes it: RFC 3339, whole seconds, UTC."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_overdue(state: State, reconciling: Condition | None, stalled: Condition | None, now: datetime) -> bool:
    if state.is_ready or state.may_take_its_time:
        return False
    if reconciling is not None and reconciling.status == "True":
        return now - parse_time(reconciling.last_transition_time) >= PROGRESS_DEADLINE
    # Once overdue, only another reason (or Ready) starts the clock again: otherwise it would flap every deadline.
    return stalled is not None and stalled.status == "True" and stalled.reason == state.reason


def _condition(row: Row, old: Condition | None, generation: int, now: datetime) -> Object:
    status = "Unknown" if row.holds is None else str(row.holds)
    since = old.last_transition_time if old is not None and old.status == status else timestamp(now)
    return {
        "type": row.type,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": row.reason,
        "message": row.message,
    }
