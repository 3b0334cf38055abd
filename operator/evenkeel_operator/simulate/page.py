"""What does the page of a simulation show? The law and one other autoscaler next to each other, over time; then cost.

Both have the same axes, so that what is larger looks larger. A trace of months is drawn with MOST_POINTS points, each
the beginning of an interval; the table of decisions leaves none out, up to MOST_MOVES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from evenkeel_operator.decide import sizing
from evenkeel_operator.pages import axes, parts
from evenkeel_operator.pages.axes import Axis
from evenkeel_operator.pages.document import document
from evenkeel_operator.pages.figure import Band, Dot, Level, Line, Mark, figure, legend
from evenkeel_operator.pages.markup import Content, Markup, tag
from evenkeel_operator.simulate.assumed import sentences
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.replay import Course, Replayed, Row, worst

MOST_MOVES = 200
"""Of each, the first so many."""

MOST_TARGETS = 3.0
"""Latencies beyond lie at the edge of the plot: under overload they grow without bound."""


def page(found: Sequence[Replayed]) -> str:
    """Return the whole page as HTML; `found` has one entry for every trace."""
    names = ", ".join(each.case.trace.name for each in found)
    several = len(found) > 1
    return document(
        f"{names}: Evenkeel simulation",
        (_head(found), (_of_trace(each, f"{each.case.trace.name}: " if several else "") for each in found)),
    )


def _head(found: Sequence[Replayed]) -> Markup:
    case = found[0].case
    scaling, capacity = case.scaling, case.profile.capacity
    return tag(
        "header",
        tag("h1", "What would have happened"),
        parts.soft(
            f"A simulation of {', '.join(each.case.trace.name for each in found)}: p{100 * scaling.quantile:g} within "
            f"{sizing.duration(scaling.target_s)}, {scaling.least} to {scaling.most} replicas that carry "
            f"{capacity.rate:.1f} requests/s each within it, {capacity.max_rate:.1f} at most, and need "
            f"{case.cold_start_s} s to start. Seconds of a minute are filled as {case.expansion}; arrivals are drawn "
            f"with seed {case.seed}. Times are since the beginning, in hours and minutes."
        ),
    )


def _of_trace(found: Replayed, prefix: str) -> Iterator[Markup]:
    both = (found.ours, found.other)
    yield tag("ul", _tiles(found, prefix), class_="tiles")
    yield parts.section(f"{prefix}Replicas", parts.beside(*_each(both, lambda course: _replicas(found, course))))
    yield parts.section(
        f"{prefix}Demand and late requests", parts.beside(*_each(both, lambda course: _late(found, course)))
    )
    yield parts.section(
        f"{prefix}Latency against the target", parts.beside(*_each(both, lambda course: _latency(found, course)))
    )
    yield parts.section(f"{prefix}Cost and late requests", _costs(found), _table(found))
    yield parts.section(f"{prefix}Decisions", *(_decisions(course) for course in both))
    assumed = [tag("li", sentence) for sentence in sentences(found.case)]
    yield parts.section(f"{prefix}What is assumed", tag("ul", assumed, class_="story"))


def _each(both: Sequence[Course], drawn: Callable[[Course], Content]) -> Iterator[tuple[str, Content]]:
    for course in both:
        yield course.row.name, drawn(course)


def _tiles(found: Replayed, prefix: str) -> list[Markup]:
    ours, other = found.ours.row, found.other.row
    name = other.name
    return [
        parts.tile(f"{prefix}Late requests", f"{ours.late:.2%}", f"{name}: {other.late:.2%}"),
        parts.tile(f"{prefix}Late in the worst 5 min", worst(ours), f"{name}: {worst(other)}"),
        parts.tile(f"{prefix}GPU-hours", f"{ours.gpu_hours:.2f}", f"{name}: {other.gpu_hours:.2f}"),
        parts.tile(f"{prefix}Changes of the size", f"{ours.changes}", f"{name}: {other.changes}"),
    ]


def _line(found: Replayed, values: Floats) -> list[tuple[float, float]]:
    """Return a line through the beginnings of the intervals, with the last value held to the end."""
    points = [(float(found.every_s * n), float(value)) for n, value in enumerate(values)]
    return [*points, (float(found.seconds), points[-1][1])]


def _time(found: Replayed) -> Axis:
    return axes.of_elapsed(found.seconds)


def _replicas(found: Replayed, course: Course) -> Content:
    need = _line(found, found.demand / found.case.profile.capacity.rate)
    most = max(float(c.asked.max()) for c in (found.ours, found.other))
    marks: list[Mark] = [
        Band("other", [(x, 0.0, y) for x, y in need]),
        Line("for", _line(found, course.ready), is_stepped=True),
        Line("stable", _line(found, course.asked), is_stepped=True),
    ]
    label = f"Replicas of {course.row.name} over time: up to {int(course.asked.max())} wanted."
    return tag(
        "figure",
        figure(label, _time(found), axes.of_numbers(0.0, max(most, 1.0), least=0.0), marks),
        legend(
            ("stable line", "wanted"),
            ("for line", "ready"),
            ("other area", "the demand, in replicas at their capacity"),
        ),
    )


def _late(found: Replayed, course: Course) -> Content:
    late = _line(found, course.late)
    marks: list[Mark] = [
        Band("against", [(x, 0.0, y) for x, y in late]),
        Line("against", late, is_stepped=False),
        Line("stable", _line(found, found.demand)),
    ]
    label = f"Requests per second over time, and those late under {course.row.name}: {course.row.late:.2%} of all."
    top = max(float(found.demand.max()), 1e-3)
    return tag(
        "figure",
        figure(label, _time(found), axes.of_numbers(0.0, top, least=0.0), marks),
        legend(("stable line", "requests a second"), ("against area", "late requests a second")),
    )


def _latency(found: Replayed, course: Course) -> Content:
    scaling = found.case.scaling
    top = MOST_TARGETS * scaling.target_s
    share, target = f"p{100 * scaling.quantile:g}", sizing.duration(scaling.target_s)
    marks: list[Mark] = [
        Line("stable", [(x, min(y, top)) for x, y in _line(found, course.latency_s)]),
        Level("floor", scaling.target_s, f"target {target}", is_left=True),
    ]
    label = f"Latency ({share}) under {course.row.name} over time, against a target of {target}."
    return tag(
        "figure",
        figure(label, _time(found), Axis(0.0, top, axes.numbers), marks),
        legend(("stable line", f"{share} in seconds; beyond {MOST_TARGETS:g} times the target at the edge")),
    )


def _costs(found: Replayed) -> Content:
    """Return the plot of all configurations: what is to the left and below is better in both."""
    ours, other = found.ours.row, found.other.row
    named = [row for row in found.rows if row not in (ours, other)]
    top = 100 * max(row.late for row in found.rows)
    dots: list[Mark] = [_dot("other", row, top) for row in found.grid]
    dots += [_dot("for", row, top) for row in named]
    dots += [_dot("canary", other, top), _dot("stable", ours, top)]
    right = max(row.gpu_hours for row in (*found.rows, *found.grid))
    label = (
        f"Late requests in per cent over GPU-hours for {len(found.grid)} configurations. "
        f"Evenkeel: {ours.late:.2%} late for {ours.gpu_hours:.2f} GPU-hours."
    )
    x, y = axes.of_numbers(0.0, right, least=0.0), axes.of_numbers(0.0, max(top, 0.1), least=0.0)
    return tag(
        "figure",
        figure(label, x, y, dots),
        legend(
            ("stable dot", "Evenkeel"),
            ("canary dot", other.name),
            ("for dot", "the others' defaults"),
            ("other dot", "other settings of theirs"),
        ),
        parts.soft("Late requests in per cent, over GPU-hours; what is worse than every default lies at the edge."),
    )


def _dot(kind: str, row: Row, top: float) -> Dot:
    late = min(100 * row.late, max(top, 0.1))
    return Dot(kind, row.gpu_hours, late, late, late, f"{row.name}: {row.late:.2%} late, {row.gpu_hours:.2f} GPU-hours")


def _table(found: Replayed) -> Content:
    rows = [(row.name, f"{row.late:.2%}", worst(row), f"{row.gpu_hours:.2f}", str(row.changes)) for row in found.rows]
    head = ("Autoscaler", "Late requests", "Worst 5 min", "GPU-hours", "Changes")
    caption = f"All at their defaults, over {found.requests:.0f} requests"
    return parts.table(caption, head, rows, numbers="knnnn")


def _decisions(course: Course) -> Content:
    if not course.moves:
        return parts.soft(f"{course.row.name} changed nothing.")
    shown = course.moves[:MOST_MOVES]
    rows = [(_clock(move.second), f"{move.before} → {move.after}", move.why) for move in shown]
    more = len(course.moves) - len(shown)
    caption = f"{course.row.name}: the first {len(shown)}; {more} more follow" if more else course.row.name
    count = len(course.moves)
    return parts.folded(
        f"{course.row.name}: {count} change{'s' * (count != 1)} of the size",
        parts.table(caption, ("Since the beginning", "Replicas", "Why"), rows, numbers="kkt"),
    )


def _clock(second: int) -> str:
    return f"{second // 3600}:{second // 60 % 60:02}:{second % 60:02}"
