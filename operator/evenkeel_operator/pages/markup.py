"""How do values become HTML? As a tree of tags whose text is escaped where it is put in, so that none can be forgotten.

Names, messages and classes come from a cluster and from its users: `<script>` in any of them is a text to be read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""What no page may hold (controls, halves of surrogate pairs), and what turns the text beside it around."""


class Markup(str):
    """HTML; everything else is text."""

    __slots__ = ()


Content = Markup | str | Iterable["Content"] | None

_VOID = frozenset({"meta", "br", "hr", "path", "line", "circle", "rect"})


def escaped(content: Content) -> Markup:
    """Return content as HTML: markup as it is, texts escaped, one after the other; nothing for None."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", content)))
    return Markup("".join(escaped(part) for part in content))


def tag(element: str, /, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """Return an element. Attributes: `class_` is `class`, `stroke_width` is `stroke-width`; None and False are absent.

    Numbers are written with two decimals at most, which is finer than a screen.
    """
    found = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_attribute(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if element in _VOID and not content:
        return Markup(f"<{element}{found}/>")
    return Markup(f"<{element}{found}>{escaped(content)}</{element}>")


def number(value: float) -> str:
    """Return a coordinate."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _attribute(value: str | float) -> str:
    return escaped(value if isinstance(value, str) else number(value))
