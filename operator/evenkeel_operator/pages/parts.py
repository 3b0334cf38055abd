"""What do pages consist of? Sections, tables that scroll by themselves, chips, notes, times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from evenkeel_operator.pages.markup import Content, Markup, tag

MARKS = {"good": "✓", "bad": "✕", "unknown": "?", "going": "●"}


def section(title: str, *content: Content) -> Markup:
    """Return a part of the page with its heading."""
    return tag("section", tag("h2", title), content)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Content]], *, numbers: str = "") -> Markup:
    """Return a table; its first column names the rows. Columns of `numbers`, a letter each, are: n numbers, k words
    that are kept on one line, t text; others are as they come."""
    kinds = {"n": "n", "k": "keep", "t": "text"}
    classes = [kinds.get(letter) for letter in numbers.ljust(len(head))]
    top = tag("tr", (tag("th", name, scope="col", class_=kind) for name, kind in zip(head, classes, strict=True)))
    body = [
        tag(
            "tr",
            (
                tag("td" if column else "th", cell, class_=classes[column], scope=None if column else "row")
                for column, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    return scrolled(caption, tag("table", tag("caption", tag("span", caption)), tag("thead", top), tag("tbody", body)))


def scrolled(label: str, content: Content) -> Markup:
    """Return what may be wider than the window; who has no pointer scrolls it by keys."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def beside(*columns: tuple[str, Content]) -> Markup:
    """Return contents with their headings, next to each other where there is room; figures are drawn narrow."""
    return tag("div", (tag("div", tag("h3", name), content) for name, content in columns), class_="beside")


def folded(summary: str, *content: Content) -> Markup:
    """Return what is shown when somebody asks."""
    return tag("details", tag("summary", summary), content)


def chip(kind: str, text: str) -> Markup:
    """Return a word with its mark: good, bad, unknown or going on, told by more than a colour."""
    return tag("span", tag("span", MARKS[kind] + " ", aria_hidden="true"), text, class_=f"chip {kind}")


def tile(name: str, value: Content, *more: Content) -> Markup:
    """Return one figure to be seen first."""
    return tag(
        "li",
        tag("span", name, class_="soft"),
        tag("b", value),
        (tag("div", m, class_="soft") for m in more if m),
        class_="tile",
    )


def missing(text: str) -> Markup:
    """Return a note of what is not known."""
    return tag("p", text, class_="missing")


def soft(*content: Content) -> Markup:
    """Return a line of less weight."""
    return tag("p", content, class_="soft")


def moment(at: datetime) -> Markup:
    """Return a time, in UTC."""
    return tag("time", f"{at:%Y-%m-%d %H:%M}", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}")
