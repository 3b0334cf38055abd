"""Which revisions are there, what was decided on their number, and what do the conditions say?"""

from __future__ import annotations

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.status import DecisionInput
from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.pages import parts
from evenkeel_operator.pages.markup import Content, Markup
from evenkeel_operator.report.facts import Facts


def revisions(known: Facts) -> Markup:
    """Return the revisions that have replicas, and those whose predictions are counted."""
    standing = {row.name: row for row in known.status.revisions or ()}
    counted = {} if isinstance(known.counted, NoSignal) else known.counted.revisions
    rows: list[tuple[Content, ...]] = []
    for name in (*standing, *(name for name in sorted(counted) if name not in standing)):
        row = standing.get(name)
        state = (row.role, f"{row.ready_replicas} of {row.replicas}") if row is not None else ("none", "0")
        rows.append((name, *state, *_counts(known, name)))
    if not rows:
        return parts.section("Revisions", parts.soft("There is none yet."))
    head = ("Revision", "Role", "Replicas ready", "Predictions", "Labels", "Coverage", "Coverage by class")
    days = round((known.now - known.since).total_seconds() / 86400, 1)
    return parts.section(
        "Revisions",
        parts.table(f"Predictions and labels of the last {days:g} days, whether they count yet or not", head, rows,
                    numbers="k nnnn"),
    )  # fmt: skip


def decisions(known: Facts) -> Markup:
    """Return the last decisions on the number of replicas."""
    rows = [
        (
            parts.moment(parse_time(row.time)),
            f"{row.from_} → {row.to}",
            row.limit,
            row.message,
            "; ".join(_input(given) for given in row.inputs),
        )
        for row in known.status.last_decisions or ()
    ]
    if not rows:
        text = "None is kept: with spec.scaling and a latency objective, the number of replicas follows the demand."
        return parts.section("Decisions on the number of replicas", parts.soft(text))
    head = ("Time (UTC)", "Replicas", "Bound by", "Why", "Made from")
    caption = "The newest first"
    return parts.section("Decisions on the number of replicas", parts.table(caption, head, rows, numbers="kk tt"))


def conditions(known: Facts) -> Markup:
    """Return every condition."""
    rows = [
        (row.type, row.status, row.reason, row.message, parts.moment(parse_time(row.last_transition_time)))
        for row in known.status.conditions or ()
    ]
    if not rows:
        return parts.section("Conditions", parts.soft("The operator has not looked at it yet."))
    head = ("Condition", "Holds", "Reason", "Message", "Since (UTC)")
    caption = "As kubectl describe shows them"
    return parts.section("Conditions", parts.table(caption, head, rows, numbers="k  tk"))


def _counts(known: Facts, name: str) -> tuple[str, str, str, str]:
    if isinstance(known.counted, NoSignal):
        return "unknown", "unknown", "unknown", ""
    one = known.counted.revisions.get(name)
    if one is None:
        return "0", "0", "none", ""
    labels = sum(sum(row.labels) for row in one.cohorts)
    mirrored = sum(sum(row.labels.values()) for row in _pairs(known, name))
    found = cohorts.coverage(one.cohorts, one.classes or 1) if one.cohorts else None
    total = "none" if found is None or isinstance(found.total, NoSignal) else f"{found.total:.1%}"
    spread = ""
    if found is not None and found.by_class:
        shares = found.by_class.values()
        skewed = ": skewed, the plain metric may mislead" if found.is_skewed else ""
        spread = f"{min(shares):.1%} to {max(shares):.1%}{skewed}"
    predictions = sum(sum(row.predictions) for row in one.cohorts)
    return str(predictions), str(labels) + (f" + {mirrored} mirrored" if mirrored else ""), total, spread


def _pairs(known: Facts, canary: str) -> tuple[cohorts.Pairs, ...]:
    """Return what a revision has answered as a mirrored canary; nothing else counts those."""
    if isinstance(known.counted, NoSignal):
        return ()
    return tuple(row for one in known.counted.revisions.values() for row in one.pairs.get(canary, ()))


def _input(given: DecisionInput) -> str:
    value = "" if given.value is None else f" {given.value:g}"
    age = "" if given.age_seconds is None else f", {given.age_seconds:g} s old"
    return f"{given.name}{value} ({given.state}{age})"
