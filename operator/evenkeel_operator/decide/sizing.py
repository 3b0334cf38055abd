"""What is said about the measured latency and the size that follows from it: status, conditions, Events?

| measured                          | LatencyMet | reason         |
|-----------------------------------|------------|----------------|
| now, and the hour is in budget    | True       | WithinTarget   |
| now, and too many minutes missed  | False      | AboveTarget    |
| no request came                   | Unknown    | NoTraffic      |
| once, but no more                 | Unknown    | MetricsStale   |
| never                             | Unknown    | MetricsMissing |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from evenkeel_operator.api.core import seconds
from evenkeel_operator.api.modeldeployment import LatencyObjective, Object, Spec
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import conditions, replicas
from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.conditions import Row
from evenkeel_operator.decide.intent import Event
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.readings import Flaw
from evenkeel_operator.decide.replicas import Decision, Fresh, Limit, Measurement, NoMetrics, NoTraffic, Signals, Stale
from evenkeel_operator.decide.snapshot import NoSignal, Snapshot

KEPT_DECISIONS = 5

_SCALABLE: Mapping[Limit, Reason] = {
    Limit.NO_METRICS: Reason.METRICS_MISSING,
    Limit.STALE_METRICS: Reason.METRICS_STALE,
    Limit.SILENT_REPLICAS: Reason.REPLICAS_SILENT,
    Limit.FREE_GPUS: Reason.GPU_CAPACITY_LIMITED,
    Limit.MAX_REPLICAS: Reason.MAX_REPLICAS,
}
"""Limits at which the size does not follow the demand; at any other it does."""

_BLIND = frozenset({Limit.NO_METRICS, Limit.STALE_METRICS, Limit.SILENT_REPLICAS})


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a replica is not heard: the first of `count` such replicas."""

    replica: str
    flaw: Flaw
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class Sizing:
    """What was measured and decided. `size` is None where the spec leaves the number to somebody else.

    `missed` of the last `minutes` full minutes with requests were above the target. `decisions` are rows of
    status.lastDecisions, the newest first. `ignored` is what was written to spec.replicas in vain.
    `can_spare`: one replica less would hold the target too; `needs_all`: it would not. Between the two, and while it
    is not known, neither holds.
    """

    size: int | None
    latency: Measurement
    measured_at: datetime
    decision: Decision | None = None
    is_attainable: bool = True
    missed: int = 0
    minutes: int = 0
    refused: Refused | None = None
    decisions: tuple[Object, ...] = ()
    ignored: int | None = None
    can_spare: bool = False
    needs_all: bool = False
    in_flight: Mapping[str, int] = field(default_factory=dict)


def objective(spec: Spec) -> LatencyObjective | None:
    """Return the latency that shall be held, None where none is named."""
    return next((o for o in spec.objectives.latency if o.metric == "EndToEnd"), None)


def scaling(spec: Spec) -> replicas.Scaling | None:
    """Return the bounds and the target of the law, None where the number is somebody else's."""
    found = objective(spec)
    if spec.scaling is None or found is None:
        return None
    bounds = spec.scaling
    return replicas.Scaling(bounds.min_replicas, bounds.max_replicas, seconds(found.target), found.quantile)


def spare(signals: Signals | None, size: int | None, carries: Capacity | NoSignal) -> tuple[bool, bool]:
    """Return whether one of `size` replicas can be spared, by what the survivors of a removal are asked, and whether
    every one is needed, by what a replica more is asked for (`replicas`): a lent one goes back for that, not for less.

    Of all replicas. Counter-example to what those tell that were heard: one of two answers is lost, and what is left of
    the demand is so little that one replica seems to be too many.
    """
    if isinstance(carries, NoSignal) or signals is None or size is None:
        return False, False
    if isinstance(signals.demand, NoTraffic):
        return True, False
    demand, most = replicas.arriving(signals), replicas.at_most(signals)
    if demand is None or most is None:
        return False, False
    now = max(0.0, demand - math.sqrt(demand * signals.dispersion / replicas.TICK_S))
    return most <= (size - 1) * carries.shrink_rate, now > (size - 1) * carries.rate


def unless_rolling(snapshot: Snapshot, size: int, decision: Decision) -> Decision:
    """Return the decision, held where it would shrink a deployment of `size` replicas between two revisions."""
    beside = snapshot.status.canary_revision
    revisions = {r.revision for r in snapshot.replicas if not r.terminating and r.revision != beside}
    if decision.size >= size or len(revisions) <= 1:
        return decision
    text = f"the size is held while one revision replaces another; {decision.size} wanted: {decision.message}"
    return replace(decision, size=size, limit=Limit.HOLD, message=text)


def decided(decision: Decision, before: int, now: datetime) -> Object:
    """Return the row of status.lastDecisions for `decision`."""
    rows: list[Object] = []
    for given in decision.inputs:
        row: Object = {"name": given.name, "state": given.state}
        if given.value is not None:
            row["value"] = float(f"{given.value:.4g}")
        if given.age_s is not None:
            row["ageSeconds"] = round(given.age_s, 1)
        rows.append(row)
    return {
        "time": conditions.timestamp(now),
        "from": before,
        "to": decision.size,
        "limit": str(decision.limit),
        "message": decision.message[:1024],
        "inputs": rows,
    }


def rebounded(size: int, before: int, last: Decision | None) -> Decision:
    """Return the decision for `size`, the nearer one of bounds that have changed past the size before."""
    limit = Limit.MIN_REPLICAS if size > before else Limit.MAX_REPLICAS
    return Decision(size, limit, "the bounds in spec.scaling have changed", () if last is None else last.inputs)


def status(spec: Spec, found: Sizing | None, before: Status) -> Object:
    """Return status.latency and status.lastDecisions; what nobody has looked at yet stays as it was."""
    wanted = objective(spec)
    answer: Object = {}
    if wanted is not None and found is not None:
        row: Object = {
            "metric": wanted.metric,
            "quantile": wanted.quantile,
            "state": type(found.latency).__name__,
            "target": wanted.target,
            "asOf": conditions.timestamp(found.measured_at),
        }
        if isinstance(found.latency, Fresh | Stale):
            row["observed"] = duration(found.latency.value)
        answer["latency"] = [row]
    elif wanted is not None and before.latency:
        answer["latency"] = [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in before.latency]
    if spec.scaling is not None:
        kept = [d.model_dump(mode="json", by_alias=True, exclude_none=True) for d in before.last_decisions or ()]
        if rows := list(found.decisions) if found is not None and found.decisions else kept:
            answer["lastDecisions"] = rows[:KEPT_DECISIONS]
    return answer


def rows(spec: Spec, found: Sizing | None) -> list[Row]:
    """Return the conditions LatencyMet and Scalable, each where the spec asks for what it is about."""
    wanted = objective(spec)
    if wanted is None:
        return []
    answer = [_latency_met(wanted, found)]
    if spec.scaling is not None:
        answer.append(_scalable(wanted, found))
    return answer


def events(found: Sizing | None, before: Status) -> tuple[Event, ...]:
    """Return what to tell: each other size since the last status, and a write to spec.replicas that changes nothing."""
    if found is None:
        return ()
    told = []
    known = {(row.time, row.from_, row.to) for row in before.last_decisions or ()}
    for row in reversed(found.decisions):
        if (row["time"], row["from"], row["to"]) not in known and row["from"] != row["to"]:
            text = f"{row['from']} -> {row['to']} replicas ({row['limit']}): {row['message']}"
            told.append(Event("Normal", Reason.SCALED, text))
    if found.ignored is not None:
        text = (
            f"spec.replicas was set to {found.ignored}, which changes nothing: with spec.scaling the number follows "
            "from the measured latency. Change spec.scaling, or remove it to set the number yourself."
        )
        told.append(Event("Warning", Reason.REPLICAS_IGNORED, text))
    return tuple(told)


def follows_demand(decision: Decision, is_attainable: bool) -> bool:
    """Return whether the size is what the demand asks for."""
    return is_attainable and decision.limit not in _SCALABLE


def duration(value_s: float) -> str:
    """Return seconds as people write them: 143ms, 1.25s."""
    if value_s < 0.01:
        return f"{value_s * 1000:.2g}ms"
    return f"{value_s * 1000:.0f}ms" if value_s < 1.0 else f"{value_s:.3g}s"


def _latency_met(wanted: LatencyObjective, found: Sizing | None) -> Row:
    name, target = f"p{wanted.quantile * 100:g}", f"target {wanted.target}"
    match found.latency if found is not None else NoMetrics():
        case Fresh(value=value):
            assert found is not None, "measured"
            is_met = found.missed <= wanted.violation_budget * found.minutes
            text = f"{name} was {duration(value)} over the last minute, {target}"
            if found.minutes:
                text += f"; {found.missed} of {found.minutes} minutes of the last hour were above it"
            return Row("LatencyMet", is_met, Reason.WITHIN_TARGET if is_met else Reason.ABOVE_TARGET, text)
        case NoTraffic():
            return Row("LatencyMet", None, Reason.NO_TRAFFIC, f"no request came in the last minute; {target}")
        case Stale(value=value):
            text = f"{name} was {duration(value)} when it was last measured; no replica answers what its latency is now"
            return Row("LatencyMet", None, Reason.METRICS_STALE, text + _why(found))
        case _:
            text = f"no replica has answered yet what its latency is; {target}"
            return Row("LatencyMet", None, Reason.METRICS_MISSING, text + _why(found))


def _scalable(wanted: LatencyObjective, found: Sizing | None) -> Row:
    decision = found.decision if found is not None else None
    if found is None or decision is None:
        text = "no replica has answered yet; the number of replicas is held"
        return Row("Scalable", False, Reason.METRICS_MISSING, text + _why(found))
    if decision.limit in _BLIND and found.refused is not None:
        return Row("Scalable", False, Reason.SIGNALS_REFUSED, f"the number of replicas is held{_why(found)}")
    if not found.is_attainable:
        text = (
            f"one replica that is nearly idle misses the target of {wanted.target}: more of them do not help. "
            "Raise the target, or serve a faster model, on a faster GPU or with a smaller "
            "spec.runtime.batching.maxSize. Until then replicas are planned for their throughput."
        )
        return Row("Scalable", False, Reason.SLO_UNATTAINABLE, text)
    reason = _SCALABLE.get(decision.limit)
    text = f"{decision.size} replicas ({decision.limit}): {decision.message}"
    return Row("Scalable", reason is None, reason or Reason.AS_NEEDED, text)


def _why(found: Sizing | None) -> str:
    if found is None or found.refused is None:
        return ""
    refused = found.refused
    others = f" and {refused.count - 1} more" if refused.count > 1 else ""
    return f": replica {refused.replica}{others} is not heard ({refused.flaw}: {refused.message})"
