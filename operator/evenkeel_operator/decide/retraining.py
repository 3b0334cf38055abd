"""What follows from an alarm on the accuracy: what is posted, which Job is started when, and what came of both?

    Waiting     the Job is wanted, and something keeps it from being started: the message says what
    Starting    decided, and written down; the Job is created after that, so that an operator that is killed in between
                neither forgets that it was counted nor starts a second one
    Running     the Job was seen
    Succeeded   it ended well. What it wrote into spec.model is tried as a canary, as anybody's change would be
    Failed      it did not, or was deleted before its end; it is not started again for the same alarm
    Superseded  another revision came into service first, or the spec asks for no Job any more

The operator never writes spec.model: it is its user's, or their GitOps tool's. The Job does, with its own rights.

What is kept is in status.retraining, a row for each alarm. The Job's name follows from the alarm, there is one for an
alarm at most, and rows that count for the budget are kept for as long as they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import RetrainingStatus
from evenkeel_operator.decide import alarms, canary, conditions, names, resources
from evenkeel_operator.decide.canary import Course
from evenkeel_operator.decide.conditions import Row
from evenkeel_operator.decide.intent import Event, Ref
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.snapshot import Snapshot
from evenkeel_operator.decide.trainings import Template, Training, Unusable

WEEK = timedelta(days=7)
KEPT = 10
"""Rows in the status. At most seven of them are of the last seven days and count for the budget."""

GIVE_UP_AFTER = timedelta(hours=1)
"""How long after an alarm its event is tried to be delivered; it is tried once in any case."""

_RETRY_FIRST = timedelta(seconds=5)
_RETRY_MOST = timedelta(minutes=5)
_FINAL = ("Succeeded", "Failed", "Superseded")
_MESSAGE_CHARACTERS = 1024
_EVENT_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of an alarm's event so far, and why it is not delivered."""

    outcome: Literal["Pending", "Delivered", "GivenUp"]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the ModelDeployment and its children.

    `template` is None while nobody has looked at the CronJob; `deliveries` and `refusals` (of the Job, by the API
    server) are by alarm.
    """

    template: Template | Unusable | None = None
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)


def retry_delay(attempt: int) -> timedelta:
    """Return how long to wait after the `attempt`-th failure to deliver an event, counted from 1."""
    factor: int = 2 ** min(attempt - 1, 10)
    return min(_RETRY_FIRST * factor, _RETRY_MOST)


def rows(snapshot: Snapshot, target: str, now: datetime) -> tuple[RetrainingStatus, ...]:
    """Return status.retraining, the newest alarm first."""
    known = list(snapshot.status.retraining or ())
    alarm = None
    if snapshot.spec.retraining is not None:
        alarm = alarms.standing(snapshot, conditions.timestamp(now))
    if alarm is not None and all(row.alarm != alarm.alarm for row in known):
        known.insert(0, alarm)
    stands = None if alarm is None else alarm.alarm
    known = [_with_event(snapshot, row, stands) for row in known]
    known = [_with_job(snapshot, row, now) if row.job is not None else row for row in known]
    for number in reversed(range(len(known))):  # the oldest first, one after the other: one Job runs at a time
        if known[number].job is None:
            known[number] = _without_job(snapshot, target, known[number], stands, known, now)
    return tuple(_bounded(known, now))


def job(snapshot: Snapshot, told: Iterable[RetrainingStatus]) -> Object | None:
    """Return the Job that the rows `told` have decided on and that is not there yet."""
    found = None if snapshot.retraining is None else snapshot.retraining.template
    if not isinstance(found, Template):
        return None
    for row in told:
        if row.state == "Starting" and row.job is not None and _training(snapshot, row) is None:
            return resources.retraining_job(snapshot, row.job, row.alarm, found, alarms.environment(snapshot, row))
    return None


def left_over(snapshot: Snapshot) -> list[Ref]:
    """Return the Jobs that have ended and whose end is written down, but for the newest: its log may be wanted."""
    told = {row.job for row in snapshot.status.retraining or () if row.ended is not None}
    newest = max((t.created_at for t in snapshot.trainings), default=None)
    return [
        Ref("batch/v1", "Job", t.name)
        for t in snapshot.trainings
        if t.ended_at is not None and t.name in told and t.created_at != newest
    ]


def look_again(snapshot: Snapshot, told: Sequence[RetrainingStatus], now: datetime) -> list[float]:
    """Return the seconds until the budget allows what waits now: no event comes at that moment."""
    wanted = snapshot.spec.retraining
    if wanted is None or all(row.state != "Waiting" for row in told):
        return []
    free = _free_at(snapshot, told, wanted.max_per_week)
    return [] if free is None or free <= now else [(free - now).total_seconds()]


def condition_rows(snapshot: Snapshot) -> list[Row]:
    """Return the condition Retrainable, where the spec names a CronJob."""
    wanted = snapshot.spec.retraining
    if wanted is None or wanted.cron_job_ref is None:
        return []
    found = None if snapshot.retraining is None else snapshot.retraining.template
    if found is None:
        return [Row("Retrainable", None, Reason.NOT_LOOKED_AT, _unseen(wanted.cron_job_ref.name))]
    if isinstance(found, Unusable):
        return [Row("Retrainable", False, found.reason, found.message)]
    text = (
        f"a Job of CronJob {found.cron_job} is started when the accuracy decays, {wanted.max_per_week} a week at most"
    )
    return [Row("Retrainable", True, Reason.CRON_JOB_AT_HAND, text)]


def events(told: Sequence[RetrainingStatus], before: Iterable[RetrainingStatus]) -> tuple[Event, ...]:
    """Return what to tell of alarms: that there is one, and each change of what follows from it."""
    was = {row.alarm: row for row in before}
    found: list[Event] = []
    for row in reversed(told):
        old = was.get(row.alarm)
        if old is None:
            found.append(Event("Warning", Reason.ACCURACY_ALARM, _alarm_text(row)))
        if row.event == "GivenUp" and (old is None or old.event != "GivenUp"):
            text = f"the event of alarm {row.alarm} is given up: {row.event_message}"
            found.append(Event("Warning", Reason.ALARM_NOT_DELIVERED, text))
        if row.state is not None and (old is None or (old.state, old.job) != (row.state, row.job)):
            found += _job_events(row)
    return tuple(found)


def _alarm_text(row: RetrainingStatus) -> str:
    value = "" if row.observed is None else f" is {row.observed:g}"
    drift = "; the data seem to have changed" if row.reason == "DriftSuspected" else ""
    return f"{row.metric} of revision {row.revision}{value}, {row.bound}: it has decayed{drift}"


def _job_events(row: RetrainingStatus) -> list[Event]:
    match row.state:
        case "Waiting":
            return [Event("Normal", Reason.RETRAINING_WAITS, row.message or "")]
        case "Starting":
            text = f"Job {row.job} retrains the model, as the accuracy of revision {row.revision} has decayed"
            return [Event("Normal", Reason.RETRAINING_STARTED, text)]
        case "Succeeded":
            return [Event("Normal", Reason.RETRAINED, f"Job {row.job} has ended well")]
        case "Failed":
            return [Event("Warning", Reason.RETRAINING_FAILED, f"Job {row.job} has failed: {row.message}")]
    return []


def _with_event(snapshot: Snapshot, row: RetrainingStatus, stands: str | None) -> RetrainingStatus:
    wanted = snapshot.spec.retraining
    is_asked_for = wanted is not None and wanted.event_url is not None
    if row.event is None:
        return _but(row, event="Pending") if is_asked_for and row.alarm == stands else row
    if row.event != "Pending":
        return row
    if not is_asked_for:
        return _but(row, event="GivenUp", event_message="spec.retraining.eventURL names nobody any more")
    found = None if snapshot.retraining is None else snapshot.retraining.deliveries.get(row.alarm)
    if found is None:
        return row
    return _but(row, event=found.outcome, event_message=found.message[:_EVENT_CHARACTERS] or None)


def _with_job(snapshot: Snapshot, row: RetrainingStatus, now: datetime) -> RetrainingStatus:
    """Return the row of an alarm whose Job was decided on, as it stands now."""
    if row.state in _FINAL:
        return _with_successor(snapshot, row)
    found = _training(snapshot, row)
    if found is None:
        return _with_no_job_seen(snapshot, row, now)
    # Counted from when it was made: an operator may have been dead for days after it had decided.
    row = _but(_with_successor(snapshot, row), started=conditions.timestamp(found.created_at))
    message = found.trouble[:_MESSAGE_CHARACTERS] or None
    if found.ended_at is None:
        return _but(row, state="Running", message=message)
    state = "Succeeded" if found.is_complete else "Failed"
    return _but(row, state=state, message=message, ended=conditions.timestamp(found.ended_at))


def _with_no_job_seen(snapshot: Snapshot, row: RetrainingStatus, now: datetime) -> RetrainingStatus:
    ended = conditions.timestamp(now)
    if row.state != "Starting":
        return _but(row, state="Failed", message="the Job was deleted before it had ended", ended=ended)
    wanted = snapshot.spec.retraining
    if wanted is None or wanted.cron_job_ref is None:
        return _but(row, state="Superseded", message="spec.retraining names no CronJob any more", ended=ended)
    if alarms.is_over(snapshot, row):
        return _but(row, state="Superseded", message="another revision came into service first", ended=ended)
    found, refused = None, None
    if snapshot.retraining is not None:
        found, refused = snapshot.retraining.template, snapshot.retraining.refusals.get(row.alarm)
    message = found.message if isinstance(found, Unusable) else refused
    return _but(row, message=None if message is None else message[:_MESSAGE_CHARACTERS])


def _with_successor(snapshot: Snapshot, row: RetrainingStatus) -> RetrainingStatus:
    asked = names.revision_name(snapshot.name, snapshot.spec)
    return _but(row, successor=asked) if row.successor is None and asked != row.asked else row


def _without_job(
    snapshot: Snapshot,
    target: str,
    row: RetrainingStatus,
    stands: str | None,
    known: Sequence[RetrainingStatus],
    now: datetime,
) -> RetrainingStatus:
    """Return the row of an alarm no Job of which was decided on, with a Job if one may be started now."""
    wanted = snapshot.spec.retraining
    if row.state in _FINAL:
        return row
    name = names.retraining_job_name(snapshot.name, row.alarm)
    lost = next((t for t in snapshot.trainings if t.name == name), None)
    if lost is not None:
        return _but(row, state="Running", message=None, job=name, started=conditions.timestamp(lost.created_at))
    if wanted is None or wanted.cron_job_ref is None:
        return _but(row, state=None, message=None)
    if row.state == "Waiting" and alarms.is_over(snapshot, row):
        return _but(row, state="Superseded", message="another revision came into service first")
    if row.alarm != stands and not (row.state == "Waiting" and alarms.was_left(snapshot, row)):
        return row  # over, or nobody can say at present
    if (message := _in_the_way(snapshot, target, known, wanted.max_per_week, now)) is not None:
        return _but(row, state="Waiting", message=message[:_MESSAGE_CHARACTERS])
    return _but(row, state="Starting", message=None, job=name, started=conditions.timestamp(now))


def _in_the_way(
    snapshot: Snapshot, target: str, known: Sequence[RetrainingStatus], most: int, now: datetime
) -> str | None:
    """Return what keeps a Job from being started now: the first of these."""
    found = None if snapshot.retraining is None else snapshot.retraining.template
    if snapshot.spec.rollout.strategy != "Canary":
        return "a retrained model would serve untried: set spec.rollout.strategy to Canary"
    if found is None:
        assert snapshot.spec.retraining is not None, "asked for"
        assert snapshot.spec.retraining.cron_job_ref is not None, "asked for"
        return _unseen(snapshot.spec.retraining.cron_job_ref.name)
    if isinstance(found, Unusable):
        return found.message
    running = [row.job for row in known if row.state in ("Starting", "Running")]
    running += [t.name for t in snapshot.trainings if t.ended_at is None]
    if running:
        return f"Job {running[0]} of an earlier alarm still runs"
    way = canary.course(snapshot, target)
    if way is Course.TRIAL:
        return f"canary {target} is being tried, and may be the remedy"
    if way is Course.RETURN:
        return f"revision {snapshot.status.stable_revision} gets its size back first"
    if way is Course.DIRECT and target != snapshot.status.stable_revision:
        return f"revision {target} is being rolled out"
    free = _free_at(snapshot, known, most)
    if free is not None and now < free:
        return f"{most} a week were started already: the next one may be at {conditions.timestamp(free)}"
    return None


def _free_at(snapshot: Snapshot, known: Iterable[RetrainingStatus], most: int) -> datetime | None:
    """Return from when on another Job is within the budget, None where there never were so many."""
    started = {row.job or row.alarm: parse_time(row.started) for row in known if row.started is not None}
    # A Job whose row was lost, as with a status that was restored from a backup, counts all the same.
    started = {t.name: t.created_at for t in snapshot.trainings} | started
    latest = sorted(started.values(), reverse=True)
    return latest[most - 1] + WEEK if len(latest) >= most else None


def _training(snapshot: Snapshot, row: RetrainingStatus) -> Training | None:
    return next((t for t in snapshot.trainings if t.name == row.job), None)


def _bounded(known: Sequence[RetrainingStatus], now: datetime) -> list[RetrainingStatus]:
    """Return at most `KEPT` rows: the oldest go first, but none that counts for the budget, or whose Job runs."""

    def has_to_stay(row: RetrainingStatus) -> bool:
        is_counted = row.started is not None and now < parse_time(row.started) + WEEK
        return is_counted or row.state in ("Starting", "Running")

    found = list(known)
    for row in reversed(known):
        if len(found) > KEPT and not has_to_stay(row):
            found.remove(row)
    return found[:KEPT]


def _unseen(cron_job: str) -> str:
    return f"CronJob {cron_job} has not been looked at yet"


def _but(row: RetrainingStatus, **changes: Any) -> RetrainingStatus:
    return row.model_copy(update=changes)
