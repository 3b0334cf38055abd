"""Do axes have round ticks, few enough, and do marks stand where their values are?"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evenkeel_operator.pages import axes
from evenkeel_operator.pages.axes import Axis
from evenkeel_operator.pages.figure import Band, Dot, Frame, Level, Line, Mark, Moments, figure, legend
from evenkeel_operator.pages.markup import escaped

START = datetime(2026, 1, 5, 22, tzinfo=UTC)


def labels(axis: Axis, most: int = 5) -> list[str]:
    return [text for _, text in axis.ticks(axis.lower, axis.upper, most)]


@pytest.mark.parametrize(
    ("axis", "most", "want"),
    [
        pytest.param(axes.Axis(0.9, 1.0, axes.numbers), 5, "0.90 0.92 0.94 0.96 0.98 1.00", id="shares"),
        pytest.param(axes.Axis(0.0, 100.0, axes.numbers), 5, "0 20 40 60 80 100", id="whole numbers"),
        pytest.param(axes.Axis(-0.2, 0.2, axes.numbers), 4, "-0.2 -0.1 0.0 0.1 0.2", id="on both sides of zero"),
        pytest.param(axes.of_odds(-3.5, 3.3), 5, "10⁻⁴ 1/100 1 100 10⁴", id="odds, every other"),
        pytest.param(axes.of_odds(-1, 5), 7, "1/10 1 10 100 1000 10⁴ 10⁵", id="odds, all"),
        pytest.param(axes.of_time(START, START + timedelta(hours=5)), 6, "22:00 23:00 6 Jan 01:00 02:00 03:00",
                     id="hours, and the day where it begins"),
        pytest.param(axes.of_time(START, START + timedelta(days=4)), 6, "6 Jan 7 Jan 8 Jan 9 Jan", id="days"),
        pytest.param(axes.of_time(START, START), 6, "22:00 22:01", id="a time without length"),
        pytest.param(axes.of_elapsed(1800), 6, "0:00 0:05 0:10 0:15 0:20 0:25 0:30", id="minutes since a beginning"),
        pytest.param(axes.of_elapsed(2.2 * 86400), 6, "0:00 12:00 1 d 1 d 12:00 2 d", id="hours and days since"),
        pytest.param(axes.of_elapsed(20), 6, "0:00 0:01", id="less than a minute since"),
    ],
)  # fmt: skip
def test_ticks(axis: Axis, most: int, want: str) -> None:
    assert " ".join(labels(axis, most)) == want


@example(lower=1.0, span=400001.0, most=2)
@given(
    lower=st.floats(-1e6, 1e6),
    span=st.floats(1e-6, 1e6),
    most=st.integers(2, 12),
)
def test_ticks_are_few_inside_and_in_order(lower: float, span: float, most: int) -> None:
    found = [value for value, _ in axes.numbers(lower, lower + span, most)]
    assert 1 <= len(found) <= most + 1
    slack = 1e-6 * span + 4 * math.ulp(max(abs(lower), abs(lower + span)))
    assert all(lower - slack <= value <= lower + span + slack for value in found)
    assert all(a < b for a, b in pairwise(found))


def test_an_axis_has_air_and_knows_its_bounds() -> None:
    got = axes.of_numbers(0.9, 1.0, least=0.0, most=1.0)
    assert (round(got.lower, 4), got.upper) == (0.892, 1.0)
    alone = axes.of_numbers(0.5, 0.5)
    assert alone.lower < 0.5 < alone.upper
    assert (got.share(-3), got.share(7)) == (0.0, 1.0), "what lies outside is drawn at the edge"


def frame() -> Frame:
    return Frame(Axis(0, 10, axes.numbers), Axis(0, 1, axes.numbers), left=100, right=200, top=0, bottom=50)


@pytest.mark.parametrize(
    ("mark", "want"),
    [
        pytest.param(Line("a", [(0, 0), (5, 1)]), 'd="M100 50L150 0"', id="a line"),
        pytest.param(Line("a", [(0, 0), (5, 1)], is_stepped=True), 'd="M100 50H150V0"', id="a value holds until next"),
        pytest.param(Band("a", [(0, 0, 1), (10, 0.5, 1)]), 'd="M100 50L200 25L200 0L100 0Z"', id="a band"),
        pytest.param(Dot("a", 5, 0.5, 0, 1, "<x>"), "<title>&lt;x&gt;</title>", id="what a dot says"),
        pytest.param(Dot("a", 5, 0.5, 0, 1, ""), 'cx="150" cy="25"', id="where a dot stands"),
        pytest.param(Dot("a", 10, 0.5, 0, 1, "", aside=4), 'cx="200"', id="a dot aside stays inside"),
        pytest.param(Level("a", 0.5, "n"), 'x1="100" x2="200" y1="25" y2="25"', id="a level"),
        pytest.param(Moments([(5, "n")]), 'x1="150" x2="150"', id="a moment"),
    ],
)
def test_marks_stand_where_their_values_are(mark: Mark, want: str) -> None:
    assert want in escaped(mark.drawn(frame()))


def test_names_of_moments_do_not_lie_on_each_other() -> None:
    got = escaped(Moments([(1, "first"), (1.1, "second"), (9, "third")]).drawn(frame()))
    assert re.findall("<text.*?>(.*?)</text>", got) == ["first", "third"]
    assert re.findall("<title>(.*?)</title>", got) == ["first", "second", "third"]


def test_a_figure_is_drawn_for_wide_and_for_narrow_windows_and_says_what_it_shows() -> None:
    got = figure("What <it> shows.", Axis(0, 10, axes.numbers), Axis(0, 1, axes.numbers), [])
    assert re.findall('class="plot (.*?)" viewBox="0 0 (\\d+)', got) == [("wide", "960"), ("narrow", "360")]
    assert got.count('role="img" aria-label="What &lt;it&gt; shows."') == 2
    assert '<span class="swatch a line"></span>b' in legend(("a line", "b"))
