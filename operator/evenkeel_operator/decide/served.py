"""Which revisions were in service, from when until when, and which one shall be now?

The one that the spec asks for; unless it has decayed since it serves, an earlier one was good to its end, and the guard
(`quality/guard.py`) says to go back. Then that one is rolled out as if a person had asked for it, and stays until the
spec asks for another revision, or a person promotes the one that was left.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import ServedStatus, Status
from evenkeel_operator.decide import conditions, names
from evenkeel_operator.decide.quality.guard import Outcome, Served
from evenkeel_operator.decide.snapshot import Snapshot

KEPT = 10


def settled(snapshot: Snapshot) -> tuple[Snapshot, str]:
    """Return which revision shall serve, and the snapshot, in which one that the spec does not ask for is promoted."""
    asked = names.revision_name(snapshot.name, snapshot.spec)
    target = _wanted(snapshot, asked)
    return (snapshot if target == asked else replace(snapshot, promoted=target)), target


def in_service(status: Status) -> Served | None:
    """Return the revision in service, None where nothing is known of its beginning."""
    first = next(iter(status.served or ()), None)
    return None if first is None else _served(first)


def earlier(snapshot: Snapshot) -> tuple[Served, ...]:
    """Return the revisions that may be gone back to, the newest first: those that were not left for their decay."""
    rows = list(snapshot.status.served or ())[1:]
    left = {row.revision for row in rows if row.decayed} | {row.revision for row in (snapshot.status.served or ())[:1]}
    good = [row for row in rows if row.revision not in left and snapshot.revision(row.revision) is not None]
    return tuple(map(_served, good))


def last_rollback(status: Status) -> datetime | None:
    """Return when a revision was last left for its decay."""
    found = [parse_time(row.until) for row in status.served or () if row.decayed and row.until is not None]
    return max(found, default=None)


def status(snapshot: Snapshot, target: str, stable: str | None, now: datetime) -> Object:
    """Return status.served, and status.reverted where the spec asks for another revision than shall serve."""
    answer: Object = {}
    kept = snapshot.status.served or ()
    rows: list[Object] = [row.model_dump(mode="json", by_alias=True, exclude_defaults=True) for row in kept]
    asked = names.revision_name(snapshot.name, snapshot.spec)
    if stable is not None and (not rows or rows[0]["revision"] != stable):
        if rows:
            rows[0]["until"] = conditions.timestamp(now)
            if target == stable != asked == rows[0]["revision"]:
                rows[0]["decayed"] = True
        rows.insert(0, {"revision": stable, "since": conditions.timestamp(now)})
    if rows:
        answer["served"] = rows[:KEPT]
    if target != asked:
        before = snapshot.status.reverted
        is_same = before is not None and (before.revision, before.to) == (asked, target)
        at = before.at if before is not None and is_same else conditions.timestamp(now)
        answer["reverted"] = {"revision": asked, "to": target, "at": at}
    return answer


def _wanted(snapshot: Snapshot, asked: str) -> str:
    if snapshot.promoted == asked:
        return asked
    kept = snapshot.status.reverted
    if kept is not None and kept.revision == asked and snapshot.revision(kept.to) is not None:
        return kept.to
    found = None if snapshot.quality is None else snapshot.quality.finding
    if found is None or found.outcome is not Outcome.ROLL_BACK or found.target is None:
        return asked
    is_about_it = found.quarantine == asked == snapshot.status.stable_revision
    return found.target if is_about_it and snapshot.revision(found.target) is not None else asked


def _served(row: ServedStatus) -> Served:
    return Served(row.revision, parse_time(row.since), None if row.until is None else parse_time(row.until))
