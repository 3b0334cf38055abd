"""Are the losses of all experts what a replay of each would give, and does every level follow its cheapest?"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.experts import COUNT, HOLDS_S, MAX_LEVELS, SIGNALS, SLOPE, Experts, Kept, Tuning, sizes

STEP = 10.0
THRESHOLDS = [STEP * size for size in (1, 2, 3, 4)]
TICK_S = 5.0
COLD_START_S = 60.0
NO_BANDS = [0.0] * len(SIGNALS)


class Replay:
    """One level and one signal, by the definitions: when it was above, and what every hold would have cost."""

    def __init__(self, level: int, tuning: Tuning) -> None:
        self._threshold = (level + 1) * STEP
        self._tuning = tuning
        self._spells: list[tuple[float, float]] = []
        self._is_above = False
        self._missed = [0.0] * len(HOLDS_S)

    def observe(self, signal: float, arrived: float, rate: float, band: float, now: float) -> None:
        if self._is_above:
            self._spells[-1] = self._spells[-1][0], now
        if signal > self._threshold and not self._is_above:
            self._spells.append((now, now))
            self._is_above = True
        elif signal + band <= self._threshold:
            self._is_above = False
        if rate > self._threshold:
            for hold, seconds in enumerate(HOLDS_S):
                if not any(begin <= now - COLD_START_S and now <= end for begin, end in self._on(seconds, now)):
                    self._missed[hold] += self._tuning.price * arrived / STEP * self._weight(now)

    def loss(self, hold: int, now: float) -> float:
        return self._missed[hold] + sum(
            self._area(min(now, end)) - self._area(begin) for begin, end in self._on(HOLDS_S[hold], now)
        )

    def _on(self, hold_s: float, now: float) -> list[tuple[float, float]]:
        """Return the spells with the holding time after each, those that touch as one."""
        found: list[tuple[float, float]] = []
        for begin, end in self._spells:
            is_present = self._is_above and end == now
            until = math.inf if is_present else end + hold_s
            if found and begin <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], until)
            else:
                found.append((begin, until))
        return found

    def _weight(self, now: float) -> float:
        return float(2.0 ** (now / self._tuning.half_life_s))

    def _area(self, now: float) -> float:
        return self._weight(now) * self._tuning.half_life_s / math.log(2)


loads = st.lists(st.tuples(st.sampled_from([0.0, 4.0, 12.0, 18.0, 25.0]), st.integers(1, 30)), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(loads)
def test_losses_are_those_of_a_replay(load: list[tuple[float, int]]) -> None:
    tuning = Tuning(half_life_s=600.0)
    experts = Experts(2, tuning)
    signal = 3
    replays = [Replay(level, tuning) for level in range(2)]
    now = 0.0
    for rate, ticks in load:
        for _ in range(ticks):
            now += TICK_S
            signals = [0.0] * len(SIGNALS)
            signals[signal] = 1.3 * rate
            experts.observe(signals, rate * TICK_S, rate, THRESHOLDS, [2.0] * len(SIGNALS), COLD_START_S, now)
            for replay in replays:
                replay.observe(1.3 * rate, rate * TICK_S, rate, 2.0, now)
    experts.choose(now, parts=1)
    for level, replay in zip(experts.levels, replays, strict=True):
        got = level.row[signal * len(HOLDS_S) : (signal + 1) * len(HOLDS_S)]
        assert got == pytest.approx([replay.loss(hold, now) for hold in range(len(HOLDS_S))])


def follow(load: list[tuple[float, float]], hours: float) -> Experts:
    """Return one level's experts after hours of a load of (rate, seconds) that repeats; every signal is the rate."""
    experts = Experts(1)
    now = 0.0
    while now < hours * 3600.0:
        for rate, seconds in load:
            for _ in range(int(seconds / TICK_S)):
                now += TICK_S
                signals = [1.05 * rate] * (SLOPE + 1) + [0.0] * (len(SIGNALS) - SLOPE - 1)
                experts.observe(signals, rate * TICK_S, rate, THRESHOLDS, NO_BANDS, COLD_START_S, now)
                experts.choose(now)
    return experts


@pytest.mark.parametrize(
    ("load", "least", "most"),
    [
        pytest.param([(15.0, 60.0), (5.0, 240.0)], 240.0, 1200.0, id="a minute in five is held over"),
        pytest.param([(12.0, 1800.0), (5.0, 14400.0)], 0.0, 120.0, id="half an hour in five is not"),
    ],
)
def test_a_level_learns_how_long_to_hold(load: list[tuple[float, float]], least: float, most: float) -> None:
    experts = follow(load, 10.0)
    got = HOLDS_S[experts.levels[0].chosen % len(HOLDS_S)]
    assert least <= got <= most


def test_a_level_is_wanted_for_its_holding_time() -> None:
    experts = Experts(2)
    high, low = [25.0] * len(SIGNALS), [5.0] * len(SIGNALS)
    experts.observe(high, 0.0, 5.0, THRESHOLDS, NO_BANDS, COLD_START_S, 10.0)
    assert experts.wanted(10.0) == 2
    experts.observe(low, 0.0, 5.0, THRESHOLDS, NO_BANDS, COLD_START_S, 20.0)
    assert [experts.wanted(now) for now in (20.0, 619.0, 620.0, 621.0)] == [2, 2, 2, 0]


def test_a_signal_has_to_fall_by_the_band_before_a_level_goes() -> None:
    experts = Experts(1)
    for now, value, want in ((5.0, 10.5, 1), (10.0, 9.0, 1), (615.0, 9.0, 1), (620.0, 7.0, 1), (1300.0, 7.0, 0)):
        experts.observe([value] * len(SIGNALS), 0.0, 5.0, THRESHOLDS, [2.0] * len(SIGNALS), COLD_START_S, now)
        assert experts.wanted(now) == want, f"at {now} s"


def test_new_levels_start_with_the_expert_below_and_removed_ones_leave_nothing() -> None:
    experts = follow([(15.0, 60.0), (5.0, 240.0)], 1.0)
    experts.resize(3)
    assert {level.chosen for level in experts.levels} == {experts.levels[0].chosen}
    experts.resize(1)
    experts.observe([35.0] * len(SIGNALS), 0.0, 5.0, THRESHOLDS, NO_BANDS, COLD_START_S, 3700.0)
    assert experts.wanted(3700.0) == 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 1e10), st.floats(0.0, 1e10))
def test_no_absence_is_too_long(first: float, second: float) -> None:
    """Weights grow by the half-life: a century later they would exceed every float."""
    experts = Experts(1)
    for now in (0.0, first, first + second):
        experts.observe([25.0] * len(SIGNALS), 100.0, 25.0, THRESHOLDS, NO_BANDS, COLD_START_S, now)
        experts.choose(now, parts=1)
        assert all(map(math.isfinite, experts.levels[0].row))
        kept = experts.kept(now)
        assert Experts.of(kept, now).levels[0].chosen == experts.levels[0].chosen


def test_what_is_kept_is_what_was_lost() -> None:
    experts = follow([(15.0, 60.0), (5.0, 240.0)], 2.0)
    now = 2.0 * 3600.0
    (level,) = experts.kept(now)
    again = Experts.of([level], now)
    assert again.levels[0].chosen == level.chosen
    again.choose(now, parts=1)
    assert again.levels[0].row == pytest.approx(level.losses), "what has been held since is not counted twice"


def test_a_level_that_comes_back_looks_at_its_neighbours_at_once() -> None:
    free, dear = [0.0] * COUNT, [1000.0] * COUNT
    free[0], dear[0] = 10.0, 0.0
    experts = Experts.of([Kept(-1, 0, free), Kept(-1, 0, dear)], 0.0)
    experts.choose(0.0)
    assert experts.levels[0].chosen == 0, "what is free here costs the next level a thousand"


def test_nobody_is_charged_for_what_nobody_saw() -> None:
    experts = Experts(1)
    signals = [25.0] * 3 + [5.0] * (len(SIGNALS) - 3)
    for now in (5.0, 10.0):
        experts.observe(signals, 0.0, 5.0, THRESHOLDS, NO_BANDS, COLD_START_S, now)
    before = experts.kept(10.0)[0].losses
    experts.excuse(10.0, 400.0)
    assert experts.kept(400.0)[0].losses == pytest.approx([x / 2.0 ** (390.0 / 21600.0) for x in before])


def test_what_is_missing_right_after_a_gap_is_no_experts_fault() -> None:
    for seen_s, is_charged in ((0.0, False), (COLD_START_S - 5.0, False), (COLD_START_S, True), (math.inf, True)):
        experts = Experts(1)
        experts.observe([0.0] * len(SIGNALS), 100.0, 25.0, THRESHOLDS, NO_BANDS, COLD_START_S, 5.0, seen_s)
        assert (max(experts.kept(5.0)[0].losses) > 0.0) is is_charged, f"after {seen_s} s"


def test_holds_rise() -> None:
    assert all(a < b for a, b in pairwise(HOLDS_S))


def test_levels_are_as_fine_as_their_number_allows() -> None:
    for most in range(1, 1001):
        found = sizes(most)
        steps = [above - below for below, above in pairwise(found)]
        assert (found[0], found[-1], len(steps)) == (1, most, min(most - 1, MAX_LEVELS))
        assert all(0 < step <= 1 + 0.13 * (size + 1) for size, step in zip(found, steps, strict=False)), most
    assert sizes(49) == tuple(range(1, 50))
