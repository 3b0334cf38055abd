"""Does what the law has learnt outlive the process, in few bytes, and is anything else refused?"""

from __future__ import annotations

import base64
import json
import math
import tracemalloc
import zlib
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.experts import COUNT, MAX_LEVELS, Experts, Kept
from evenkeel_operator.decide.memory import LIMIT_BYTES, Memory
from evenkeel_operator.decide.replicas import Fleet, Fresh, NoMetrics, Scaling, Signals, decide
from evenkeel_operator.decide.window import Rates

CARRIES = Capacity(10.0, 9.5, 15.0)


def learnt(ticks: int, most: int, rate: float = 35.0) -> tuple[Memory, int]:
    """Return what is remembered after a load that doubles every ten minutes for one, and the size in the end."""
    memory, size = Memory(), 1
    for tick in range(ticks):
        now = 5.0 * (tick + 1)
        burst = 2.0 if now % 600 < 60 else 1.0
        signals = Signals(Fresh(burst * rate), Fresh(0.0), NoMetrics(), size, size)
        decision, memory = decide(signals, Fleet(size, size), Scaling(1, most, 1.0, 0.95), CARRIES, memory, now)
        size = decision.size
    return memory, size


def test_the_size_is_held_over_a_restart() -> None:
    memory, size = learnt(300, 12)
    now = memory.seen_at
    assert now is not None
    for age in (5.0, 60.0):
        again = Memory.from_json(memory.to_json())
        signals = Signals(Fresh(35.0), Fresh(0.0), NoMetrics(), size, size)
        got, _ = decide(signals, Fleet(size, size), Scaling(1, 12, 1.0, 0.95), CARRIES, again, now + age)
        assert size <= got.size <= 8, "what is kept of the bursts, 8 replicas' worth, is coarse"
    empty = Memory(Rates(-math.inf))
    fresh, _ = decide(signals, Fleet(size, size), Scaling(1, 12, 1.0, 0.95), CARRIES, empty, now + 5.0)
    assert fresh.size < size, "which an empty memory would not do"


def test_the_experts_outlive_the_process() -> None:
    memory, _ = learnt(300, 12)
    again = Memory.from_json(memory.to_json())
    assert [level.chosen for level in again.experts.levels] == [level.chosen for level in memory.experts.levels]
    assert again.seen_at == memory.seen_at
    for got, want in zip(*(m.experts.kept(m.rates.clock) for m in (again, memory)), strict=True):
        assert got[:2] == want[:2]
        assert got.losses == pytest.approx(want.losses, rel=0.01, abs=0.1)


def test_no_level_chooses_anew_because_of_a_restart() -> None:
    memory, _ = learnt(500, 12)
    again = Memory.from_json(memory.to_json())
    chosen = [level.chosen for level in memory.experts.levels]
    for _ in range(24):
        again.experts.choose(again.rates.clock)
    assert [level.chosen for level in again.experts.levels] == chosen


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1, 2, MAX_LEVELS, MAX_LEVELS + 1, 10_000]), st.sampled_from([0.0, 30.0, 30_000.0, 3e7]))
def test_it_is_never_larger_than_its_limit(most: int, rate: float) -> None:
    memory, _ = learnt(40, most, rate)
    assert len(memory.to_json()) <= LIMIT_BYTES


@pytest.mark.parametrize(
    ("most", "kilobytes"),
    [pytest.param(8, 100, id="few replicas"), pytest.param(MAX_LEVELS + 1, 260, id="as many levels as there may be")],
)
def test_it_takes_little_memory_in_the_process(most: int, kilobytes: int) -> None:
    """Of a thousand ModelDeployments, a quarter of a gigabyte at most: lists of floats would be three times that."""
    source = Random(0)
    tracemalloc.start()
    memory, _ = learnt(60, most)
    for _ in range(5760):
        memory.rates.observe(source.uniform(1.0, 100.0), 15.0, 15.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1000 * kilobytes


@pytest.mark.parametrize(("levels", "off"), [(11, 0.02), (23, 0.2), (MAX_LEVELS, 1.6)])
def test_losses_without_any_order_are_rounded_until_there_is_room(levels: int, off: float) -> None:
    source = Random(1)
    lost = [Kept(-1, 7, [10.0 ** source.uniform(2.0, 7.0) for _ in range(COUNT)]) for _ in range(levels)]
    text = Memory(experts=Experts.of(lost, 0.0)).to_json()
    assert len(text) <= LIMIT_BYTES
    memory = Memory.from_json(text)
    for got, want in zip(memory.experts.kept(memory.rates.clock), lost, strict=True):
        assert [math.log1p(x) for x in got.losses] == pytest.approx([math.log1p(x) for x in want.losses], abs=off)


def losses(count: int, value: int = 0) -> str:
    """Return `count` losses as they are kept."""
    return base64.b64encode(zlib.compress(bytes([value & 0xFF] * count + [value >> 8] * count))).decode()


DAY = Memory().rates.to_text()
BARE = {"version": 2, "seenAt": 5.0, "rates": DAY, "levels": [[3, 7]], "step": 0.01, "losses": losses(COUNT, 300)}


def kept(**change: Any) -> str:
    return json.dumps(BARE | change)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="half of it"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param("[" * 100_000, id="lists in lists without end"),
        pytest.param(kept(version=1), id="of another version"),
        pytest.param(kept(seenAt=[]), id="a time that is none"),
        pytest.param(kept(seenAt=10**400), id="a time that no float holds"),
        pytest.param(kept(rates=None), id="no day"),
        pytest.param(kept(rates="AAAA"), id="a short day"),
        pytest.param(kept(levels=None), id="no levels"),
        pytest.param(kept(levels=[7]), id="levels that are numbers"),
        pytest.param(kept(levels=[[3]]), id="a level without an expert"),
        pytest.param(kept(levels=[[3, 7, 7]]), id="a level with more than an expert"),
        pytest.param(kept(levels=[[3, 7], [3, 7]]), id="a level without losses"),
        pytest.param(kept(losses=losses(COUNT + 1)), id="losses of one expert more"),
        pytest.param(kept(losses=losses(10_000_000)), id="losses that no memory holds"),
        pytest.param(kept(losses="AAAA"), id="losses that were not compressed"),
        pytest.param(kept(losses="Ä"), id="losses in letters"),
        pytest.param(kept(losses=7), id="losses that are a number"),
        pytest.param(kept(losses=losses(COUNT, 65535)), id="a loss of more than all time"),
        pytest.param(kept(step=float("nan")), id="a loss that is no number"),
        pytest.param(kept(step=-1), id="a loss below zero"),
        pytest.param(kept(step=10**400), id="a step beyond all floats"),
        pytest.param(kept(step="x"), id="a step in words"),
        pytest.param(kept(levels=[[3, 100_000]]), id="an expert that there is not"),
        pytest.param(kept(levels=[[3, -1]]), id="an expert before the first"),
        pytest.param(kept(levels=[["x", 7]]), id="a time in words"),
        pytest.param(kept(levels=[[3, float("inf")]]), id="an expert at infinity"),
        pytest.param(kept(levels=[[10**400, 7]]), id="a time beyond all floats"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Memory.from_json(text)


def test_what_is_refused_above_is_read_without_its_fault() -> None:
    assert Memory.from_json(kept()).experts.levels[0].chosen == 7


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(BARE)), json_values)
def test_whatever_stands_there_is_read_or_refused(key: str, value: Any) -> None:
    try:
        memory = Memory.from_json(kept(**{key: value}))
    except ValueError:
        return
    signals = Signals(Fresh(35.0), Fresh(0.0), NoMetrics(), 4, 4)
    got, memory = decide(signals, Fleet(4, 4), Scaling(1, 12, 1.0, 0.95), CARRIES, memory, 10.0)
    assert 1 <= got.size <= 12
    memory.to_json()
