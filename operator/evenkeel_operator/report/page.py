"""What does the page say, from top to bottom? First what has to be seen at a glance, then why."""

from __future__ import annotations

from evenkeel_operator.decide.quality import floors
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.pages import parts
from evenkeel_operator.pages.document import document
from evenkeel_operator.pages.markup import Content, Markup, tag
from evenkeel_operator.report.facts import Facts
from evenkeel_operator.report.measured import Measured, measured
from evenkeel_operator.report.quality import confusion, quality
from evenkeel_operator.report.tables import conditions, decisions, revisions
from evenkeel_operator.report.trial import trial


def page(known: Facts) -> str:
    """Return the whole page as HTML."""
    found = measured(known)
    return document(
        f"{known.name} in {known.namespace}: Evenkeel report",
        (
            _head(known),
            tag("ul", _tiles(known, found), class_="tiles"),
            quality(known, found),
            trial(known, found.tested),
            confusion(known, found),
            revisions(known),
            decisions(known),
            conditions(known),
        ),
    )


def _head(known: Facts) -> Markup:
    ready = next((row for row in known.status.conditions or () if row.type == "Ready"), None)
    state: Content = parts.missing("The operator has not looked at it yet.")
    if ready is not None:
        stalled = any(row.type == "Stalled" and row.status == "True" for row in known.status.conditions or ())
        kind = "good" if ready.status == "True" else "bad" if stalled else "going"
        state = tag("p", parts.chip(kind, ready.reason), " ", ready.message)
    return tag(
        "header",
        tag("h1", known.name),
        parts.soft(
            f"ModelDeployment in namespace {known.namespace}, model {known.spec.model.uri}. As of ",
            parts.moment(known.now),
            " UTC; every time on this page is in UTC.",
        ),
        state,
        (parts.missing(text) for text in known.missing),
    )


def _tiles(known: Facts, all_of_it: Measured) -> list[Markup]:
    status = known.status
    found = _accuracy(known, all_of_it)
    for row in status.latency or ():
        value = row.observed or "not known"
        found.append(parts.tile(f"Latency, {row.quantile:.4g} quantile", value, f"target {row.target}", row.state))
    replicas = f"{status.ready_replicas or 0} of {status.replicas or 0}"
    url = status.url or ""
    found.append(parts.tile("Replicas ready", replicas, url))
    if status.canary is not None:
        found.append(parts.tile("Canary", status.canary.summary, status.canary.revision))
    return found


def _accuracy(known: Facts, all_of_it: Measured) -> list[Markup]:
    """Return a tile for each objective: by the labels that were read, else as the operator said last."""
    wanted = known.spec.objectives.accuracy
    found = []
    for curve in all_of_it.curves:
        name, now, floor = curve.objective.measure.name, curve.now, curve.wanted.limit
        if isinstance(now, NoSignal):
            found.append(parts.tile(name, "no labels", floor))
        else:
            bounds = f"{floors.as_text(now.lower)} to {floors.as_text(now.upper)}, {floor}"
            found.append(parts.tile(name, floors.as_text(now.value), bounds, f"{now.labels} labels count"))
    if found or not wanted:
        return found
    said = {row.metric: row for row in known.status.accuracy or ()}
    for one in wanted:
        row = said.get(one.metric)
        if row is None or row.observed is None:
            found.append(parts.tile(one.metric, "not known", one.limit))
        else:
            bounds = f"{row.lower} to {row.upper}, {row.bound}"
            found.append(
                parts.tile(one.metric, floors.as_text(row.observed), bounds, f"{row.labels} labels, as of {row.as_of}")
            )
    return found
