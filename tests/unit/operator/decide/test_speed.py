"""Is what is learnt of a replica's speed bounded, whatever replicas and a ConfigMap say?"""

from __future__ import annotations

import pytest

from evenkeel_operator.api.modeldeployment import MOST_ROWS
from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.observed import Batches
from evenkeel_operator.decide.readings import MOST_SIZES
from evenkeel_operator.decide.speed import ENOUGH, Speed


def test_of_many_sizes_those_with_the_most_batches_are_kept() -> None:
    speed = Speed()
    speed.note([Batches(8, 1000, 8000, 80.0)], 0.0)
    for tick in range(20):
        speed.note([Batches(100 + tick * MOST_SIZES + n, 1, 1, 99.0) for n in range(MOST_SIZES)], 5.0)
    points = speed._points(())
    assert len(points) <= MOST_SIZES
    count, seconds = points[8]
    assert seconds / count == pytest.approx(0.08)


TRUE = Roofline(0.08, 0.02, 0.015, 16)


def served(speed: Speed, count: int) -> None:
    """Let `speed` see so many batches of some sizes."""
    speed.note([Batches(rows, count, count * rows, count * TRUE.seconds(rows)) for rows in (1, 4, 8, 16)], 5.0)


def profile(factor: float) -> tuple[tuple[int, float], ...]:
    return tuple((rows, factor * TRUE.seconds(rows)) for rows in (1, 16))


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_wrong_profile_is_believed_no_longer_than_until_batches_have_been_seen(factor: float) -> None:
    speed = Speed()
    speed.learn(profile(factor), 16, 0.0)
    assert not speed.is_due(0.0)
    assert speed.to_json() is None, "replicas tell their profile again"
    served(speed, ENOUGH)
    assert speed.is_due(0.0)
    got = speed.learn(profile(factor), 16, 5.0)
    assert isinstance(got, Roofline)
    assert [got.seconds(rows) for rows in (1, 16)] == pytest.approx([TRUE.seconds(rows) for rows in (1, 16)], rel=0.01)
    assert not speed.is_due(0.0)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_profile_that_is_wrong_about_small_batches_is_so_about_large_ones(factor: float) -> None:
    speed = Speed()
    speed.note([Batches(1, 1000, 1000, 1000 * TRUE.seconds(1))], 5.0)
    got = speed.learn(profile(factor), 16, 5.0)
    assert isinstance(got, Roofline)
    assert got.seconds(16) == pytest.approx(TRUE.seconds(16), rel=0.02)


@pytest.mark.parametrize("mean", [9.4, 10.6, 11.4])
def test_batches_of_a_broken_number_of_rows_on_average_tell_the_time_of_full_ones(mean: float) -> None:
    speed = Speed()
    for most, rows in ((8, 5.8), (16, mean)):
        took = 1000 * (TRUE.fixed_s + TRUE.row_s * rows)
        speed.note([Batches(most, 1000, round(1000 * rows), took)], 5.0)
    got = speed.learn((), 16, 5.0)
    assert isinstance(got, Roofline)
    assert got.seconds(16) == pytest.approx(TRUE.seconds(16), rel=0.001)


def test_a_model_that_was_measured_moves_slowly() -> None:
    speed = Speed()
    served(speed, ENOUGH)
    speed.learn((), 16, 0.0)
    speed.note([Batches(16, 10_000, 160_000, 20_000 * TRUE.seconds(16))], 5.0)
    got = speed.learn((), 16, 60.0)
    assert isinstance(got, Roofline)
    assert 1.0 < got.seconds(16) / TRUE.seconds(16) < 1.03


def test_what_was_written_is_read() -> None:
    speed = Speed()
    served(speed, ENOUGH)
    speed.learn((), MOST_ROWS, 0.0)
    speed.derating.factor = 0.81
    text = speed.to_json()
    assert text is not None
    got = Speed.from_json(text)
    assert (got.roofline, got.derating.factor) == (speed.roofline, 0.81)
    assert Speed.from_json("[1,1,1,8]").derating.factor == 1.0, "what an older operator wrote"
    assert text.count(",") == 4, "nor does an older one read more of a replica with one engine"


def test_engines_are_kept_and_others_of_them_replace_the_model_at_once() -> None:
    speed = Speed()
    served(speed, ENOUGH)
    speed.learn((), 16, 0.0, 4)
    text = speed.to_json()
    assert text is not None
    kept = Speed.from_json(text)
    assert kept.roofline == speed.roofline
    assert kept.roofline is not None
    assert kept.roofline.engines == 4
    served(kept, ENOUGH)
    slow = [Batches(16, 100_000, 1_600_000, 200_000 * TRUE.seconds(16))]
    kept.note(slow, 5.0)
    got = kept.learn((), 16, 60.0, 2)
    assert isinstance(got, Roofline)
    assert got.engines == 2
    assert got.seconds(16) == pytest.approx(2 * TRUE.seconds(16), rel=0.02)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("null", id="null"),
        pytest.param("[1,1,1]", id="a number too few"),
        pytest.param('[1,1,1,"x"]', id="a word"),
        pytest.param("[1,1,1,0]", id="no rows"),
        pytest.param(f"[1,1,1,{MOST_ROWS + 1}]", id="more rows than a call may have"),
        pytest.param(f"[1,1,1,{2**62}]", id="batches that no memory holds"),
        pytest.param("[1,1,1,Infinity]", id="rows without end"),
        pytest.param(f"[{10**400},1,1,8]", id="a time beyond all floats"),
        pytest.param("[1,NaN,1,8]", id="a time that is no number"),
        pytest.param("[1,-1,1,8]", id="a time below zero"),
        pytest.param("[0,0,0,8]", id="no time"),
        pytest.param("[1,1,1,8,0.1]", id="less than is ever believed"),
        pytest.param("[1,1,1,8,NaN]", id="a part that is no number"),
        pytest.param("[1,1,1,8,1,1,1]", id="a number too many"),
        pytest.param("[1,1,1,8,1,0]", id="no engine"),
        pytest.param("[1,1,1,8,1,65]", id="more engines than GPUs in a pod"),
        pytest.param("[" * 100_000, id="lists in lists without end"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the batch times cannot be read"):
        Speed.from_json(text)
