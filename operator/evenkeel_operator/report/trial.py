"""What became of the canary, or is becoming? Its story, the evidence over time, and each test by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.status import CanaryStatus
from evenkeel_operator.decide import canary
from evenkeel_operator.decide.quality import story
from evenkeel_operator.decide.quality.evidence import Moment
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.pages import axes, parts
from evenkeel_operator.pages.figure import Level, Line, Mark, Moments, figure, legend
from evenkeel_operator.pages.markup import Content, Markup, tag
from evenkeel_operator.report.facts import Facts
from evenkeel_operator.report.measured import Tested
from evenkeel_operator.report.quality import told

MOST_POINTS = 300
MOST_DECADES = 8
"""Of evidence: what is beyond lies at the edge of the plot."""
LEAST_DECADES = -2

_CHIPS = {"Promoted": "good", "RolledBack": "bad", "Held": "unknown", "Inconclusive": "unknown"}


def trial(known: Facts, tested: Tested | None) -> Markup:
    """Return the section on the canary."""
    last = known.status.canary
    if last is None:
        text = "There is none, and no verdict on one is kept."
        if known.spec.rollout.strategy != "Canary":
            text += " With spec.rollout.strategy Canary a new revision is tried on a share of the traffic first."
        return parts.section("Canary", parts.soft(text))
    lines = tag("ol", (tag("li", sentence) for sentence in last.story), class_="story") if last.story else None
    head = tag("p", parts.chip(_CHIPS.get(last.state, "going"), last.state), " ", _what(last))
    return parts.section("Canary", head, lines, _evidence(known, last, tested))


def _what(last: CanaryStatus) -> Content:
    how = "is sent copies of" if last.mode == "Mirror" else "answers"
    share = f", {how} {last.weight} % of the requests now" if last.weight else ""
    times: list[Content] = [" Prepared since ", parts.moment(parse_time(last.began)), " UTC"]
    if last.decided is not None:
        times += [", decided at ", parts.moment(parse_time(last.decided)), " UTC"]
    return f"{last.revision} beside {last.stable}{share}.", times, "."


def _evidence(known: Facts, last: CanaryStatus, tested: Tested | None) -> Content:
    if not last.steps_began:
        return parts.soft("Its test has not begun: no step has.")
    if tested is None:
        return parts.missing("The evidence cannot be shown: what it is made of could not be read.")
    found: list[Content] = [tag("h3", "Evidence")]
    if tested.problem is not None:
        found.append(parts.missing(f"{tested.problem}."))
    if isinstance(known.answers, NoSignal):
        found.append(
            parts.missing(
                "How the revisions have answered (failing and slow samples) could not be read: the evidence is of "
                "labels alone."
            )
        )
    found += [_plot(known, last, tested), _tests(tested), _compared(tested)]
    return found


def _plot(known: Facts, last: CanaryStatus, tested: Tested) -> Content:
    evidence, way = tested.evidence, _thinned(tested.moments)
    if not way:
        return parts.soft("Nothing counts yet.")
    began = tested.trial.started
    against = [(began.timestamp(), 0.0), *((m.at.timestamp(), _decades(m.log_e)) for m in way)]
    against.append((tested.end.timestamp(), against[-1][1]))
    refused, shown = _decades(evidence.log_threshold), _decades(evidence.shown_log_threshold)
    lines: list[Mark] = [
        Level("against", refused, f"rollback at {story.times(evidence.log_threshold)} to 1", is_left=True)
    ]
    values = [refused, 0.0, *(y for _, y in against)]
    if tested.objectives:
        support = [(began.timestamp(), 0.0), *((m.at.timestamp(), _decades(min(m.shown))) for m in way)]
        support.append((tested.end.timestamp(), support[-1][1]))
        values += [shown, *(y for _, y in support)]
        threshold = f"promotion at {story.times(evidence.shown_log_threshold)} to 1"
        lines += [Level("for", shown, threshold, is_below=True, is_left=True), Line("for", support, is_stepped=True)]
    lines.append(Line("against", against, is_stepped=True))
    weights = [step.weight for step in canary.options(known.spec).steps]
    steps = [
        (parse_time(at).timestamp(), f"step {n + 1}" + (f", {weights[n]} %" if n < len(weights) else ""))
        for n, at in enumerate(last.steps_began)
    ]
    if last.decided is not None:
        steps.append((tested.end.timestamp(), "decided"))
    lower = max(LEAST_DECADES, min(values))
    upper = min(MOST_DECADES, max(values) + 0.3)
    label = (
        f"Evidence about canary {last.revision} over time, as odds. Against it: {story.times(evidence.log_e)} to 1 of "
        f"{story.times(evidence.log_threshold)} that a rollback needs."
    )
    names = [("against line", "evidence against the canary, all tests together")]
    if tested.objectives:
        label += (
            f" For it, in its weakest objective: {story.times(min(evidence.shown))} to 1 of "
            f"{story.times(evidence.shown_log_threshold)} that a promotion needs."
        )
        names.append(("for line", "evidence that it is not worse, in its weakest objective: the most so far"))
    x, y = axes.of_time(began, max(tested.end, way[-1].at)), axes.of_odds(lower, upper)
    return (
        tag("figure", figure(label, x, y, [*lines, Moments(steps)]), legend(*names)),
        parts.soft(
            "Odds to 1, in powers of ten, by the time at which they were known. Folded anew from the rows by the spec "
            "as it is now; a dashed line is what the line of its colour has to reach."
        ),
    )


def _thinned(found: Sequence[Moment]) -> list[Moment]:
    """Return few enough moments to be drawn, the last and those of most evidence among them."""
    if len(found) <= MOST_POINTS:
        return list(found)
    size = -(-len(found) // MOST_POINTS)
    groups = [found[i : i + size] for i in range(0, len(found), size)]
    kept = {id(m): m for group in groups for m in (max(group, key=lambda m: m.log_e), group[-1])}
    return sorted(kept.values(), key=lambda m: m.at)


def _decades(log: float) -> float:
    return log / math.log(10)


def _tests(tested: Tested) -> Content:
    evidence = tested.evidence
    rows = [
        (
            story.claim(finding)[:1].upper() + story.claim(finding)[1:],
            f"{story.times(finding.log_e)} to 1",
            f"{finding.share:.0%}",
            "yes" if finding.counts else "no: the stable revision is not seen to meet it",
        )
        for finding in evidence.against
    ]
    whole = f"{story.times(evidence.log_e)} to 1 of {story.times(evidence.log_threshold)}"
    rows.append(("All together", whole, "100%", "a rollback" if evidence.refused_at is not None else "no rollback"))
    head = ("Against the canary: that it", "Evidence", "Weight", "Counts")
    caption = "Each test against the canary"
    if evidence.refused_at is not None:
        caption += f", as of {evidence.refused_at:%Y-%m-%d %H:%M} UTC, when all together sufficed"
    found = [parts.table(caption, head, rows, numbers=" nn ")]
    if tested.objectives:
        support = [
            (objective.measure.name, f"{story.times(log)} to 1", f"{story.times(evidence.shown_log_threshold)} to 1")
            for objective, log in zip(tested.objectives, evidence.shown, strict=True)
        ]
        names = ("For the canary: not worse in", "Most evidence so far", "A promotion needs")
        found.append(parts.table("Each objective for the canary", names, support, numbers=" nn"))
    return found


def _compared(tested: Tested) -> Content:
    rows = [
        (row.measure, _interval(row.canary), _interval(row.stable), row.limit, f"{row.margin:g}")
        for row in tested.compared
    ]
    head = ("Metric", "Canary", "Stable", "Limit", "Margin")
    caption = "Both revisions over the same cohorts, those that count since the test began"
    return parts.table(caption, head, rows, numbers=" nnnn") if rows else None


def _interval(found: Interval | NoSignal) -> str:
    return "no label yet" if isinstance(found, NoSignal) else f"{told(found)}, {found.labels} labels"
