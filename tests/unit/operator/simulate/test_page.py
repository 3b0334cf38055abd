"""Does the page of a simulation say what the table says, and why the size changed?"""

from __future__ import annotations

import re

import numpy as np
import pytest

from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.load import Trace
from evenkeel_operator.simulate.page import page
from evenkeel_operator.simulate.profile import Profile
from evenkeel_operator.simulate.replay import OTHERS, Case, Replayed, replay

PROFILE = Profile(Roofline(0.02, 0.0143, 0.0057, 8), target_s=0.2, quantile=0.95, arrivals=2400)
MINUTES = np.array([600, 600, 9000, 9000, 9000, 600, 600, 600, 600, 600], np.float32)


def case(name: str = "shop", counts: np.ndarray[tuple[int], np.dtype[np.float32]] = MINUTES) -> Case:
    return Case(Trace(name, 60, counts), Scaling(1, 8, 0.2, 0.95), PROFILE, 20, "steps", 1)


def text(*found: Replayed) -> str:
    body = page(found).partition("</head>")[2]
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", body))


@pytest.fixture(scope="module")
def shop() -> Replayed:
    return replay(case())


def test_a_page_says_what_came_of_both_and_why(shop: Replayed) -> None:
    got = text(shop)
    ours, hpa = shop.ours, shop.other
    assert (ours.row.name, hpa.row.name) == ("Evenkeel", "HPA rps")
    assert f"Late requests {ours.row.late:.2%} HPA rps: {hpa.row.late:.2%}" in got
    assert f"GPU-hours {ours.row.gpu_hours:.2f} HPA rps: {hpa.row.gpu_hours:.2f}" in got
    assert "p95 within 200ms, 1 to 8 replicas" in got
    first = ours.moves[0]
    assert f"0:02:{first.second - 120:02} {first.before} → {first.after} Demand:" in got, "the first burst"
    assert "requests/s in the last 15 s" in got, "what the other saw"


def test_the_moves_lead_from_size_to_size(shop: Replayed) -> None:
    for course in (shop.ours, shop.other):
        assert len(course.moves) == course.row.changes
        assert [move.before for move in course.moves[1:]] == [move.after for move in course.moves[:-1]]


def test_the_parts_of_time_add_up_to_the_whole(shop: Replayed) -> None:
    lengths = np.full(len(shop.demand), shop.every_s)
    lengths[-1] = shop.seconds - shop.every_s * (len(lengths) - 1)
    assert float((shop.demand * lengths).sum()) == pytest.approx(shop.requests, rel=1e-4)
    late = float((shop.ours.late * lengths).sum())
    assert late == pytest.approx(shop.ours.row.late * shop.requests, rel=1e-3)


def test_a_trace_without_five_minutes_has_no_worst_ones() -> None:
    found = replay(case(counts=MINUTES[:4]))
    assert [row.worst for row in found.rows] == [None] * len(found.rows)
    assert "Late in the worst 5 min no window HPA rps: no window" in text(found)


def test_nothing_is_asked_for_by_nobody() -> None:
    got = text(replay(case(counts=np.zeros(2, np.float32)), "static"))
    assert "Evenkeel changed nothing." in got
    assert "over 0 requests" in got


@pytest.mark.parametrize("name", OTHERS)
def test_each_of_the_others_can_be_looked_at(name: str) -> None:
    found = replay(case(counts=MINUTES[:3]), name)
    assert found.other.row.name.startswith(name)
    assert found.other.row in found.rows


def test_several_traces_on_one_page_are_told_apart(shop: Replayed) -> None:
    got = text(shop, replay(case("<script>", MINUTES[:2])))
    assert "shop: Replicas" in got
    assert "&lt;script&gt;: Replicas" in got
