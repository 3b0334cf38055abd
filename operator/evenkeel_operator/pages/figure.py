"""How is a plot drawn? As SVG inside the page, once for wide windows and once for narrow ones; the style shows one.

A drawing that is scaled down to a telephone has letters that nobody can read, so a narrow one is drawn anew, with fewer
ticks. Colours are the style's (`document`), by the marks' `kind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evenkeel_operator.pages.axes import Axis
from evenkeel_operator.pages.markup import Content, Markup, number, tag

WIDE, NARROW = (960, 300), (360, 240)
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 22, 26
_LABEL_WIDTH = 7
"""Of one letter, about."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the values of a drawing lie, in its pixels."""

    x: Axis
    y: Axis
    left: float
    right: float
    top: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        return (
            self.left + self.x.share(x) * (self.right - self.left),
            self.bottom - self.y.share(y) * (self.bottom - self.top),
        )


class Mark(Protocol):
    """Something that a figure shows."""

    def drawn(self, frame: Frame) -> Content:
        """Return it as SVG."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; with `is_stepped` a value holds until the next one."""

    kind: str
    points: Sequence[tuple[float, float]]
    is_stepped: bool = False

    def drawn(self, frame: Frame) -> Content:
        path: list[str] = []
        for x, y in (frame.at(*point) for point in self.points):
            if path and self.is_stepped:
                path.append(f"H{number(x)}V{number(y)}")
            else:
                path.append(f"{'L' if path else 'M'}{number(x)} {number(y)}")
        return tag("path", class_=f"line {self.kind}", d="".join(path))


@dataclass(frozen=True, slots=True)
class Band:
    """What lies between two lines: x, lower, upper."""

    kind: str
    points: Sequence[tuple[float, float, float]]

    def drawn(self, frame: Frame) -> Content:
        lower = [frame.at(x, low) for x, low, _ in self.points]
        upper = [frame.at(x, high) for x, _, high in reversed(self.points)]
        places = "L".join(f"{number(x)} {number(y)}" for x, y in (*lower, *upper))
        return tag("path", class_=f"band {self.kind}", d=f"M{places}Z")


@dataclass(frozen=True, slots=True)
class Dot:
    """One measurement, between its bounds; `text` is told where the pointer rests on it.

    `aside`: by how many pixels it is drawn beside its place, where another would lie below it.
    """

    kind: str
    x: float
    y: float
    lower: float
    upper: float
    text: str
    aside: float = 0.0

    def drawn(self, frame: Frame) -> Content:
        x, y = frame.at(self.x, self.y)
        x = min(frame.right, x + self.aside)
        return tag(
            "g",
            tag("title", self.text),
            tag("line", class_="whisker", x1=x, x2=x, y1=frame.at(0, self.lower)[1], y2=frame.at(0, self.upper)[1]),
            tag("circle", cx=x, cy=y, r=3),
            class_=f"dot {self.kind}",
        )


@dataclass(frozen=True, slots=True)
class Level:
    """A value that something is held against: a line across, with its name at one end, above it or below it."""

    kind: str
    y: float
    name: str
    is_below: bool = False
    is_left: bool = False

    def drawn(self, frame: Frame) -> Content:
        _, y = frame.at(0, self.y)
        return (
            tag("line", class_=f"level {self.kind}", x1=frame.left, x2=frame.right, y1=y, y2=y),
            tag(
                "text",
                self.name,
                class_=f"name {self.kind}{' left' if self.is_left else ''}",
                x=frame.left + 4 if self.is_left else frame.right - 4,
                y=y + (14 if self.is_below else -5),
            ),
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """Times at which something happened; names that would lie on each other are left to the pointer."""

    at: Sequence[tuple[float, str]]

    def drawn(self, frame: Frame) -> Content:
        found, free = [], frame.left
        for time, name in self.at:
            x, _ = frame.at(time, 0)
            width = _LABEL_WIDTH * len(name)
            start = min(x, frame.right - width)
            text: Content = None
            if start >= free:
                text, free = tag("text", name, class_="moment", x=start, y=frame.top - 8), start + width + 8
            line = tag("line", class_="moment", x1=x, x2=x, y1=frame.top - 4, y2=frame.bottom)
            found.append(tag("g", tag("title", name), line, text))
        return found


def figure(label: str, x: Axis, y: Axis, marks: Sequence[Mark]) -> Markup:
    """Return a figure. `label` says in a sentence what it shows, to whoever does not see it."""
    return Markup(
        "".join(_drawing(label, x, y, marks, size, name) for size, name in ((WIDE, "wide"), (NARROW, "narrow")))
    )


def legend(*rows: tuple[str, str]) -> Markup:
    """Return what the marks are: ("kind line", "kind dot", "kind area" or "kind level", what it is)."""
    return tag("ul", (tag("li", tag("span", class_=f"swatch {kind}"), what) for kind, what in rows), class_="legend")


def _drawing(label: str, x: Axis, y: Axis, marks: Sequence[Mark], size: tuple[int, int], name: str) -> Markup:
    width, height = size
    frame = Frame(x, y, _LEFT, width - _RIGHT, _TOP, height - _BOTTOM)
    return tag(
        "svg",
        _grid(frame),
        [mark.drawn(frame) for mark in marks],
        class_=f"plot {name}",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=label,
    )


def _grid(frame: Frame) -> list[Markup]:
    found = []
    for value, text in frame.y.ticks(frame.y.lower, frame.y.upper, 5):
        _, y = frame.at(0, value)
        found.append(tag("line", class_="grid", x1=frame.left, x2=frame.right, y1=y, y2=y))
        found.append(tag("text", text, class_="tick y", x=frame.left - 6, y=y + 4))
    most = max(2, int((frame.right - frame.left) / 72))
    for value, text in frame.x.ticks(frame.x.lower, frame.x.upper, most):
        x, _ = frame.at(value, 0)
        found.append(tag("line", class_="grid", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 4))
        # Half of a name has to fit: one at an end would be cut.
        if frame.left - 20 <= x <= frame.right - 8:
            found.append(tag("text", text, class_="tick x", x=x, y=frame.bottom + 17))
    return found
