"""What does the frontier look like? A page with a plot for every way of replaying, and the figures and faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evenkeel_operator.pages import axes, parts
from evenkeel_operator.pages.document import document
from evenkeel_operator.pages.figure import Dot, Line, Mark, figure, legend
from evenkeel_operator.pages.markup import Content, Markup, tag
from tests.bench.control import figures
from tests.bench.control.bars import BARS, missed
from tests.bench.control.faults import Row
from tests.bench.control.figures import Numbers

LEAST_TOP, TOP = 0.1, 4.0
"""The plot ends at so many times our late requests, at this share at least: what is beyond is nobody's choice."""


@dataclass(frozen=True)
class Cell:
    """One way of replaying: means over the traces for every configuration, ours first (`figures.means`)."""

    title: str
    labels: Sequence[str]
    late: Numbers
    cost: Numbers
    found: Mapping[str, float]


def page(cells: Sequence[Cell], found: Mapping[str, float], faults: Sequence[Row]) -> str:
    """Return the whole page as HTML."""
    verdict = f"Missed: {'; '.join(named)}." if (named := missed(found)) else "No bar is missed."
    head = tag("header", tag("h1", "Evenkeel's scaling beside a grid of other autoscalers"), parts.soft(verdict))
    return document(
        "Frontier of autoscalers",
        (head, (parts.section(cell.title, _frontier(cell)) for cell in cells), _figures(found), _faults(faults)),
    )


def _frontier(cell: Cell) -> Markup:
    late = 100 * cell.late
    top = max(100 * LEAST_TOP, TOP * float(late[0]))
    shown = [column for column in range(1, len(late)) if late[column] <= top]
    hull = figures.frontier(late[1:], cell.cost[1:])
    on_it = set(hull)
    marks: list[Mark] = [Line("for", [(cost, share) for share, cost in hull if share <= top])]
    for column in shown:
        is_on_it = (float(late[column]), float(cell.cost[column])) in on_it
        marks.append(_dot("for" if is_on_it else "other", cell, column))
    marks.append(_dot("stable", cell, 0))
    right = max(float(np.max(cell.cost[[0, *shown]])), 1.0)
    label = f"{cell.title}: late requests in per cent over GPU-hours. Evenkeel: {_words(cell, 0)}."
    return tag(
        "figure",
        figure(label, axes.of_numbers(1.0, right, least=1.0), axes.of_numbers(0.0, top, least=0.0, most=top), marks),
        legend(
            ("stable dot", "Evenkeel"),
            ("for dot", "settings on the frontier: neither another nor a mixture of two is better in both"),
            ("other dot", "other settings"),
        ),
        parts.soft(
            "Late requests in per cent (mean over the traces), over GPU-hours in those of one who knows the near "
            f"future (geometric mean). {len(late) - 1 - len(shown)} settings with more late requests than {top:.0f} % "
            f"are left out. {', '.join(f'{key} {value:.3f}' for key, value in cell.found.items())}."
        ),
    )


def _dot(kind: str, cell: Cell, column: int) -> Dot:
    late = 100 * float(cell.late[column])
    return Dot(kind, float(cell.cost[column]), late, late, late, f"{cell.labels[column]}: {_words(cell, column)}")


def _words(cell: Cell, column: int) -> str:
    return f"{cell.late[column]:.2%} late, {cell.cost[column]:.2f} × clairvoyant"


def _figures(found: Mapping[str, float]) -> Content:
    rows = [
        (key, f"{found[key]:g}", f"≤ {most:g}", "missed" if found[key] > most else "") for key, most in BARS.items()
    ]
    head = ("Figure", "Worst", "Bar", "")
    return parts.section("Figures", parts.table("The worst of all ways of replaying", head, rows, numbers="knnk"))


def _faults(faults: Sequence[Row]) -> Content:
    rows = [
        (
            f"{row.fault}, {row.trace}",
            f"{row.outcome.violation:.2%}",
            f"{row.outcome.gpu_s / 3600:.2f}",
            str(row.below_s),
            str(row.below),
            str(row.off_after),
        )
        for row in faults
    ]
    head = ("Fault", "Late requests", "GPU-hours", "Seconds below", "By", "Off after 10 min")
    caption = "Whole hours of single requests; below: than without the fault, in the same second"
    return parts.section("Faults", parts.table(caption, head, rows, numbers="knnnnn"))
