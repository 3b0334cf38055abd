"""Why is a ModelDeployment as it is? Its state, latency, size and decisions in sentences with the numbers.

From the spec and the status alone, which any user of it may read: what the operator wrote there is all that is known,
and how old it is is said. A canary's verdict is told in sentences there (`quality/story.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_operator.api.status import Condition, DecisionInput, DecisionStatus, RetrainingStatus, Status
from evenkeel_operator.decide.sizing import duration, objective

LIMITS = {
    "Demand": "the demand asked for it",
    "Queue": "requests were waiting, and more replicas were to work them off",
    "Hold": "the size was held",
    "NoMetrics": "nothing was measured, or not all of the last minute, so nothing was taken away",
    "StaleMetrics": "only old measurements were there, so nothing was taken away",
    "SilentReplicas": "a quarter of the replicas or more were silent, so nothing was taken away",
    "Survivors": "fewer would not have held the target by themselves",
    "SLOUnattainable": "one idle replica misses the target, so that more do not help",
    "FreeGPUs": "there were no more free GPUs",
    "MinReplicas": "spec.scaling.minReplicas allows no fewer",
    "MaxReplicas": "spec.scaling.maxReplicas allows no more",
}
"""What bound a decision, by the word in the status."""

_STATES = {"NoTraffic": "no request came", "NoMetrics": "not known"}
_UNITS = {
    "demand": "requests/s",
    "capacity of a replica": "requests/s",
    "queued": "requests",
    "cold start": "s",
}
_TIMES = frozenset({"latency"})


def explanation(place: str, spec: Spec, status: Status, now: datetime) -> list[str]:
    """Return the lines that explain `place` (namespace/name) at `now`."""
    conditions = {c.type: c for c in status.conditions or ()}
    lines = [*_state(place, conditions, now), *_latency(spec, status, conditions, now), *_size(spec, conditions)]
    lines += _decisions(status, now)
    lines += _revisions(status)
    lines += _canary(status, now)
    lines += _coverage(status)
    lines += _alarms(status, now)
    lines += _others(conditions)
    return lines


def _canary(status: Status, now: datetime) -> list[str]:
    found = status.canary
    if found is None:
        return []
    since = _ago(found.decided or (found.steps_began[-1] if found.steps_began else found.began), now)
    share = f", {found.mode} {found.weight} %" if found.weight else ""
    told = f"Canary {found.revision} beside {found.stable}: {found.summary}{share}, for {since}."
    return [told, *(f"  {sentence}" for sentence in found.story)]


def _coverage(status: Status) -> Iterable[str]:
    """Yield which part of the predictions the labels are of, and whether they stand for the others."""
    for row in status.accuracy or ():
        found = row.coverage
        if found is None:
            continue
        least, most = (f"{one.share:.1%} of class {one.class_}" for one in (found.least, found.most))
        told = f"Labels for {row.metric}: of {found.share:.1%} of the predictions"
        told += "" if found.least == found.most else f", from {least} to {most}"
        if not found.skewed:
            yield f"{told}."
            continue
        weighted = "" if found.weighted is None else f", {found.weighted:.4f} with weights"
        yield f"{told}: skewed, the plain value may mislead{weighted}. Decisions are made without weights."


def _alarms(status: Status, now: datetime) -> list[str]:
    if not status.retraining:
        return []
    return ["Alarms on the accuracy, the latest first:", *(f"  {_alarm(row, now)}" for row in status.retraining)]


def _alarm(row: RetrainingStatus, now: datetime) -> str:
    value = "" if row.observed is None else f", {row.observed:g} then"
    drift = "; the data seemed to have changed" if row.reason == "DriftSuspected" else ""
    told = f"{_ago(row.at, now)} ago, {row.metric} of {row.revision} had decayed ({row.bound}{value}){drift}."
    return " ".join(filter(None, (told, _event(row), _job(row, now), _successor(row))))


def _event(row: RetrainingStatus) -> str:
    match row.event:
        case "Delivered":
            return "The event was delivered."
        case "Pending":
            return _sentence("The event is not delivered yet" + (f": {row.event_message}" if row.event_message else ""))
        case "GivenUp":
            return _sentence(f"The event was given up: {row.event_message}")
    return ""


def _job(row: RetrainingStatus, now: datetime) -> str:
    detail = "" if row.message is None else f": {row.message}"
    match row.state:
        case "Waiting":
            return _sentence(f"No Job is started yet{detail}")
        case "Starting":
            return _sentence(f"Job {row.job} is being started{detail}")
        case "Running":
            return _sentence(f"Job {row.job} has been running for {_ago(row.started or row.at, now)}{detail}")
        case "Succeeded":
            return f"Job {row.job} ended well {_ago(row.ended or row.at, now)} ago."
        case "Failed":
            return _sentence(f"Job {row.job} failed {_ago(row.ended or row.at, now)} ago{detail}")
        case "Superseded":
            return _sentence(f"No Job was needed{detail}")
    return ""


def _successor(row: RetrainingStatus) -> str:
    if row.successor is not None:
        return f"Since then the spec has asked for {row.successor}."
    return "The spec still asks for what it asked for before." if row.state == "Succeeded" else ""


def _state(place: str, conditions: dict[str, Condition], now: datetime) -> list[str]:
    ready = conditions.get("Ready")
    if ready is None:
        return [f"{place} has no status yet: no operator has looked at it."]
    since = _ago(ready.last_transition_time, now)
    stalled = conditions.get("Stalled")
    if ready.status == "True":
        word = f"{place} has been ready for {since}"
    elif stalled is not None and stalled.status == "True":
        word = f"{place} has not been ready for {since}, and does not go on by itself"
    else:
        word = f"{place} has not been ready for {since}, and is on its way"
    return [f"{word}. {ready.reason}: {_sentence(ready.message)}"]


def _latency(spec: Spec, status: Status, conditions: dict[str, Condition], now: datetime) -> list[str]:
    if objective(spec) is None:
        return ["Latency: spec.objectives.latency names none, so none is held."]
    met = conditions.get("LatencyMet")
    if met is None:
        return ["Latency: nobody has looked at it yet."]
    verdict = {"True": "held", "False": "not held"}.get(met.status, "not known")
    row = next(iter(status.latency or ()), None)
    looked = "" if row is None else f" Looked at {_ago(row.as_of, now)} ago."
    return [f"Latency: {verdict}. {_sentence(met.message)}{looked}"]


def _size(spec: Spec, conditions: dict[str, Condition]) -> list[str]:
    if spec.scaling is None:
        return [
            f"Size: spec.replicas says {spec.replicas}; without spec.scaling, kubectl scale or an autoscaler sets it."
        ]
    bounds = f"between {spec.scaling.min_replicas} and {spec.scaling.max_replicas} replicas"
    scalable = conditions.get("Scalable")
    if scalable is None:
        why = "no latency is named that it could follow from" if objective(spec) is None else "nothing is decided yet"
        return [f"Size: {bounds}; {why}."]
    follows = "it follows the demand" if scalable.status == "True" else "it cannot follow the demand now"
    return [f"Size: {bounds}, and {follows} ({scalable.reason}). {_sentence(scalable.message)}"]


def _decisions(status: Status, now: datetime) -> list[str]:
    if not status.last_decisions:
        return []
    lines = ["Changes of the size, the latest first:"]
    for row in status.last_decisions:
        lines.append(
            f"  {_ago(row.time, now)} ago, from {row.from_} to {_replicas(row.to)}: "
            f"{LIMITS.get(row.limit, f'it was bound by {row.limit}')}. {_sentence(row.message)}"
        )
        if inputs := _inputs(row):
            lines.append(f"    Known then: {inputs}.")
    return lines


def _inputs(row: DecisionStatus) -> str:
    return "; ".join(_input(given) for given in row.inputs)


def _input(given: DecisionInput) -> str:
    if given.value is None:
        return f"{given.name}: {_STATES.get(given.state, given.state)}"
    if given.name in _TIMES:
        value = duration(given.value)
    else:
        value = " ".join(filter(None, (f"{given.value:g}", _UNITS.get(given.name))))
    # What is counted at the moment of the decision has no age worth telling.
    age = f", {_span(given.age_seconds)} old" if given.age_seconds else ""
    stale = ", too old to speak for that moment" if given.state == "Stale" else ""
    return f"{given.name} {value}{age}{stale}"


def _revisions(status: Status) -> list[str]:
    if not status.revisions:
        return []
    return ["Revisions:"] + [
        f"  {row.name} ({row.role.lower()}): {row.ready_replicas} of {_replicas(row.replicas)} ready"
        + (f", {status.model.resolved}" if status.model and row.name == status.stable_revision else "")
        for row in status.revisions
    ]


def _others(conditions: dict[str, Condition]) -> Iterable[str]:
    """Yield what else holds and somebody should know."""
    told = {"Ready", "Reconciling", "Stalled", "Available", "LatencyMet", "Scalable"}
    for condition in conditions.values():
        if condition.type not in told and condition.status != "Unknown":
            holds = "" if condition.status == "True" else " does not hold"
            yield f"{condition.type}{holds} ({condition.reason}): {_sentence(condition.message)}"


def _ago(time: str, now: datetime) -> str:
    return _span(max(0.0, (now - parse_time(time)).total_seconds()))


def _span(seconds: float) -> str:
    """Return a time as people say it: 12 s, 4 minutes, 3 hours, 2 days."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"


def _replicas(count: int) -> str:
    return f"{count} replica" if count == 1 else f"{count} replicas"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
