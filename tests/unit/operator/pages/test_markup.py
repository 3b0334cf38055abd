"""Is every text of a page a text, whatever it holds, and does a page load nothing?"""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.pages import parts
from evenkeel_operator.pages.document import document
from evenkeel_operator.pages.markup import Markup, escaped, tag


@pytest.mark.parametrize(
    ("got", "want"),
    [
        pytest.param(tag("p", "a < b & c"), "<p>a &lt; b &amp; c</p>", id="text is escaped"),
        pytest.param(tag("p", tag("b", "x"), None, ["y", ("z",)]), "<p><b>x</b>yz</p>", id="markup, nothing and lists"),
        pytest.param(tag("p", title='"><script>'), '<p title="&quot;&gt;&lt;script&gt;"></p>', id="an attribute"),
        pytest.param(tag("meta", charset="utf-8"), '<meta charset="utf-8"/>', id="an element without an end"),
        pytest.param(tag("p", class_="a", aria_hidden="true"), '<p class="a" aria-hidden="true"></p>', id="names"),
        pytest.param(tag("p", a=True, b=False, c=None), "<p a></p>", id="attributes that are there or not"),
        pytest.param(tag("p", x=1 / 3, y=2.0, z=10), '<p x="0.33" y="2" z="10"></p>', id="numbers are rounded"),
        pytest.param(escaped("a\0b\ud800c\u202ed"), "a\ufffdb\ufffdc\ufffdd", id="what no page may hold"),
        pytest.param(escaped("a\tb\nc"), "a\tb\nc", id="white space stays"),
    ],
)
def test_a_tree_becomes_html(got: Markup, want: str) -> None:
    assert got == want


class Reader(HTMLParser):
    """What a browser finds."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_a_text_is_read_as_it_was_written_and_adds_no_element(text: str) -> None:
    reader = Reader()
    reader.feed(tag("p", text, title=text))
    reader.close()
    assert reader.tags == ["p"]
    assert "\ufffd" in reader.text or reader.text == text
    tag("p", text).encode()


def test_a_page_may_load_nothing_but_its_own_style() -> None:
    page = document("<title>", parts.section("one", "two"))
    (style,) = re.findall("<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy.replace("&#x27;", "'").split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "url(" not in style
    assert "@import" not in style
    assert "<title>&lt;title&gt;</title>" in page


def test_the_first_column_of_a_table_names_its_rows() -> None:
    got = parts.table("Two", ("A", "B"), [("x", "1")], numbers=" n")
    assert '<th scope="row">x</th><td class="n">1</td>' in got
    assert '<th scope="col">A</th><th scope="col" class="n">B</th>' in got
    assert got.count('aria-label="Two"') == 1
