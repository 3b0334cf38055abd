"""Which alarm on the accuracy stands, whatever labels are still looked at?

The labels that raised an alarm are looked at for two weeks, and are deleted some day. So status.accuracy keeps of each
metric the last alarm on the revision in service: a row, with the moments that say what it was, and no labels. The guard
goes on from there. It is over when the guard has seen the metric above its floor again, when another revision serves,
when the spec has another floor or ceiling, or when a person acknowledges it:

    kubectl annotate --overwrite mdep NAME evenkeel.dev/acknowledge=TIME      whatever was raised until then

A later alarm needs a later time, and one that is still to come acknowledges nothing: nobody acknowledges what they have
not seen, and the guard, which goes on from that time, would look at nothing until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import AccuracyObjective, Object, Spec
from evenkeel_operator.api.status import AccuracyStatus, Status
from evenkeel_operator.decide import conditions, names, served
from evenkeel_operator.decide.quality.guard import Finding, Kept, Served


def kept(spec: Spec, status: Status, acknowledged: str | None, now: datetime) -> tuple[Kept | None, ...]:
    """Return the last alarm of each objective on the revision in service, None where there was none.

    `acknowledged` is the annotation's text.
    """
    seen = _acknowledged(acknowledged)
    found = []
    for objective in spec.objectives.accuracy:
        alarm = _kept(objective, status)
        if alarm is not None and alarm.resolved is None and seen is not None and alarm.raised <= seen <= now:
            alarm = replace(alarm, resolved=seen)
        found.append(alarm)
    return tuple(found)


def told(
    wanted: Sequence[AccuracyObjective], stable: Served | None, finding: Finding | None, before: Status
) -> list[Object | None]:
    """Return each objective's last alarm as the status tells it; what nobody has looked at stays as it was."""
    if finding is None or stable is None:
        rows = before.accuracy or ()
        known = [next((row.alarm for row in rows if _is_of(row, objective)), None) for objective in wanted]
        return [None if row is None else row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in known]
    answer: list[Object | None] = []
    for objective, alarm in zip(wanted, finding.alarms, strict=True):
        if alarm.raised is None:
            answer.append(None)
            continue
        last, is_drift, began = _kept(objective, before), finding.is_drift_suspected, alarm.began
        if not alarm.stands and last is not None:
            is_drift, began = last.is_drift_suspected, last.began
        row: Object = {
            "revision": stable.revision,
            "since": conditions.timestamp(stable.since),
            "reason": "DriftSuspected" if is_drift else "Decayed",
            "began": conditions.timestamp(began or alarm.raised),
            "raised": conditions.timestamp(alarm.raised),
        }
        if alarm.resolved is not None:
            row["resolved"] = conditions.timestamp(alarm.resolved)
        answer.append(row)
    return answer


def alarm(
    wanted: Sequence[AccuracyObjective], stable: Served | None, finding: Finding | None, before: Status
) -> Kept | None:
    """Return the newest alarm that stands: by the guard, or by what is kept where it has not looked."""
    if finding is None or stable is None:
        known = [_kept(objective, before) for objective in wanted]
        found = [one for one in known if one is not None and one.resolved is None]
    else:
        found = [
            Kept(one.began or one.raised, one.raised, finding.is_drift_suspected)
            for one in finding.alarms
            if one.raised is not None and one.stands
        ]
    return max(found, key=lambda one: one.raised, default=None)


def way_out(wanted: Sequence[AccuracyObjective], alarm: Kept, acknowledged: str | None, now: datetime | None) -> str:
    """Return what ends an alarm that stands; `acknowledged` is what the annotation says."""
    at = conditions.timestamp(alarm.raised)
    end = (
        f"the alarm of {at} stands until the metric is shown to be "
        f"{'below its ceiling' if any(one.is_error for one in wanted) else 'above its floor'}, another revision "
        f"serves, or {names.ACKNOWLEDGE_ANNOTATION}={at} acknowledges it"
    )
    if acknowledged is None:
        return end
    seen = _acknowledged(acknowledged)
    if seen is None:
        return f"{end}, which is {acknowledged[:40]!r} and no time with a zone"
    if now is not None and seen > now:
        return f"{end}, which is {acknowledged[:40]!r} and still to come"
    return end


def _acknowledged(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parse_time(text)
    except ValueError:
        return None
    return None if found is None or found.tzinfo is None else found


def _is_of(row: AccuracyStatus, objective: AccuracyObjective) -> bool:
    return (row.metric, row.floor, row.ceiling) == (objective.metric, objective.floor, objective.ceiling)


def _kept(objective: AccuracyObjective, status: Status) -> Kept | None:
    stable = served.in_service(status)
    for row in status.accuracy or ():
        found = row.alarm
        if found is None or stable is None or not _is_of(row, objective):
            continue
        if (found.revision, parse_time(found.since)) == (stable.revision, stable.since):
            resolved = None if found.resolved is None else parse_time(found.resolved)
            is_drift = found.reason == "DriftSuspected"
            return Kept(parse_time(found.began), parse_time(found.raised), is_drift, resolved)
    return None
