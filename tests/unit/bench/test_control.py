"""Does the benchmark of the control loop name what is missed, judge faults second by second, and draw the frontier?"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from evenkeel_operator.simulate.requests import Outcome
from tests.bench.control import bars, faults
from tests.bench.control.demand import Demand
from tests.bench.control.faults import AFTER_S, BEGIN_S, LONG_S, SECONDS, SHORT_S
from tests.bench.control.page import Cell, page
from tests.bench.control.replay import Replay, finish

MET = dict.fromkeys(bars.BARS, 0.0)
LOST, AWAY = "10 % of answers lost", "operator away for 5 min"


@pytest.mark.parametrize(
    ("found", "want", "code"),
    [
        pytest.param(MET, [], 0, id="every bar is met"),
        pytest.param({**MET, **bars.BARS}, [], 0, id="all of them just so"),
        pytest.param({**MET, "dominated_traces": 2}, ["dominated_traces is 2, above 0"], 1, id="one is missed"),
        pytest.param(
            {**MET, "gpu_hours_vs_frontier": 0.91, "engines_differ": 0.12},
            ["gpu_hours_vs_frontier is 0.91, above 0.85", "engines_differ is 0.12, above 0.1"],
            1,
            id="two are",
        ),
    ],
)
def test_a_missed_bar_is_named_before_the_last_line(
    found: dict[str, float], want: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bars.concluded(found, {"seeds": 1}) == code
    *named, last = capsys.readouterr().out.strip().splitlines()
    assert named == [f"missed: {text}" for text in want]
    assert json.loads(last) == {**found, "seeds": 1, "bars_missed": len(want)}


def outcome(**sizes: int) -> Outcome:
    """Return an hour of four replicas, but for those seconds: s1600=3."""
    asked = np.full(SECONDS, 4)
    for second, size in sizes.items():
        asked[int(second[1:])] = size
    return Outcome(1000, 10, 3600.0, 2, asked)


@pytest.mark.parametrize(
    ("name", "sizes", "want"),
    [
        pytest.param(LOST, {}, (0, 0, 0, 0), id="nothing differs"),
        pytest.param(LOST, {"s1600": 3, "s1601": 2}, (2, 2, 0, 0), id="a second below is one"),
        pytest.param(LOST, {f"s{BEGIN_S - 1}": 3, f"s{BEGIN_S + LONG_S}": 3}, (0, 0, 0, 0), id="before and after"),
        pytest.param(LOST, {"s1600": 9}, (0, 0, 0, 0), id="more cost only"),
        pytest.param(LOST, {f"s{BEGIN_S + LONG_S + AFTER_S}": 6}, (0, 0, 0, 2), id="not back ten minutes later"),
        pytest.param(AWAY, {f"s{BEGIN_S + 9}": 3, f"s{BEGIN_S + SHORT_S + 60}": 3}, (1, 1, 1, 0), id="away, then back"),
        pytest.param(faults.NONE, {"s1600": 3}, (0, 0, 0, 0), id="no fault"),
    ],
)
def test_a_size_under_a_fault_is_held_against_the_same_second_without(
    name: str, sizes: dict[str, int], want: tuple[int, int, int, int]
) -> None:
    got = faults.row(name, "x", outcome(**sizes), outcome())
    assert (got.below_s, got.below, got.back_s, got.off_after) == want


def test_the_frontier_is_drawn_with_the_figures_and_the_faults() -> None:
    late, cost = np.array([0.03, 0.05, 0.01, 0.02, 0.9]), np.array([1.5, 1.6, 2.5, 2.6, 1.1])
    cell = Cell("Starts of 60 s", ["Evenkeel", "a", "b", "c", "d"], late, cost, {"gpu_hours_vs_frontier": 0.91})
    rows = [faults.row(LOST, "shop", outcome(s1600=3), outcome())]
    found = page([cell], {**MET, "gpu_hours_vs_frontier": 0.91}, rows)
    dots = [html.unescape(text) for text in re.findall(r"<title>([^<]*× clairvoyant)</title>", found)]
    want = ["a: 5.00% late, 1.60", "b: 1.00% late, 2.50", "c: 2.00% late, 2.60", "Evenkeel: 3.00% late, 1.50"]
    assert dots == [f"{text} × clairvoyant" for text in want] * 2, "for wide and for narrow windows"
    assert len(re.findall('class="dot for"', found)) == 2 * 2, "those that none beats in both"
    text = html.unescape(re.sub("<[^>]*>", " ", found))
    assert "Missed: gpu_hours_vs_frontier is 0.91, above 0.85." in text
    assert "1 settings with more late requests than 12 % are left out" in text
    assert re.search(rf"{re.escape(LOST)}, shop\s+1\.00%\s+1\.00\s+1\s+1\s+0", text)
    assert "http" not in found.partition("</head>")[2], "it loads nothing"


def test_pieces_of_other_processes_are_those_of_this_one(tmp_path: Path) -> None:
    expected = [np.full(length, rate, np.float32) for length, rate in ((30, 40.0), (40, 90.0), (40, 10.0))]
    demands = [Demand(f"trace {i}", ("steps",), each) for i, each in enumerate(expected)]
    here, there = (Replay(10, "closed", tmp_path / name) for name in ("here", "there"))
    want = here.results(demands, 0)["steps"]
    finish([there], demands, 1, 2)
    kept = sorted(path.name for path in there.kept.iterdir())
    assert kept == sorted(path.name for path in here.kept.iterdir())
    assert len(kept) == 2 * 2, "two lengths, the law and the grid"
    for one, other in zip(want, there.results(demands, 0)["steps"], strict=True):
        assert (one.trace, one.clairvoyant_s) == (other.trace, other.clairvoyant_s)
        for mine, its in ((one.late, other.late), (one.gpu_s, other.gpu_s), (one.changes, other.changes)):
            assert mine.tobytes() == its.tobytes()
    assert len(list(there.kept.iterdir())) == len(kept), "nothing was done twice"
