"""Is the canary's share exact, does every user stay on one side, and is the budget one that the user can bear?"""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.contract import MIRROR, SPLIT, Canary
from evenkeel_runtime.receipts import Assignment
from evenkeel_runtime.serve import canary
from evenkeel_runtime.serve.canary import Budget, Choice, budget_of
from evenkeel_runtime.serve.metrics import Histogram
from evenkeel_runtime.serve.signals import Signals, latency_edges
from evenkeel_runtime.serve.tally import Beside, Drop, Failure, Tally, is_refused_alike

SHARES = (0.01, 0.1, 0.5)
DRAWS = 50_000
FAR = 5.0
"""Standard deviations: one in two million."""


def told(share: float, header: str | None = None, revision: str = "digits-91cc") -> Canary:
    return Canary(revision, SPLIT, share, ("127.0.0.1:1",), 300.0, header)


def users(count: int) -> list[dict[bytes, bytes]]:
    return [{b"x-user": b"user-%d" % number} for number in range(count)]


def bound(share: float, draws: int) -> float:
    return FAR * math.sqrt(share * (1 - share) * draws)


@pytest.mark.parametrize("share", SHARES)
def test_the_share_is_exact_by_chance(share: float) -> None:
    choice = Choice(told(share), Random(11))
    got = sum(choice.chooses({}) for _ in range(DRAWS))
    assert abs(got - share * DRAWS) <= bound(share, DRAWS)


@pytest.mark.parametrize("share", SHARES)
def test_the_share_is_exact_among_users(share: float) -> None:
    choice = Choice(told(share, "x-user"))
    got = sum(choice.chooses(user) for user in users(DRAWS))
    assert abs(got - share * DRAWS) <= bound(share, DRAWS)


@pytest.mark.parametrize(("share", "want"), [(0.0, False), (1.0, True)])
def test_nobody_and_everybody(share: float, want: bool) -> None:
    by_chance, by_user = Choice(told(share)), Choice(told(share, "x-user"))
    assert {by_chance.chooses({}) for _ in range(1000)} == {want}
    assert {by_user.chooses(user) for user in users(1000)} == {want}


@given(st.binary(max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_user_of_the_canary_stays_while_the_share_grows(value: bytes, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    headers = {b"x-user": value}
    assert Choice(told(smaller, "x-user")).chooses(headers) <= Choice(told(larger, "x-user")).chooses(headers)


@given(st.binary(max_size=40), st.floats(0, 1))
def test_every_replica_sends_a_user_the_same_way(value: bytes, share: float) -> None:
    headers = {b"x-user": value}
    assert len({Choice(told(share, "x-user"), Random(seed)).chooses(headers) for seed in range(5)}) == 1


def test_the_next_canary_has_other_users() -> None:
    one, other = Choice(told(0.5, "x-user")), Choice(told(0.5, "x-user", "digits-0001"))
    both = sum(one.chooses(user) and other.chooses(user) for user in users(4000))
    assert abs(both - 1000) <= bound(0.25, 4000)


def test_a_request_without_the_header_goes_by_chance() -> None:
    choice = Choice(told(0.5, "x-user"), Random(3))
    assert {choice.chooses({}) for _ in range(100)} == {True, False}


OWN, PINNED, OTHER = b"/v2/models/m/infer", b"/v2/models/m/versions/1/infer", b"/v2/models/m/infer?x"
V1 = b"/v1/models/m:predict"
PASSED = {b"evenkeel-onward": b"split"}
EITHER, NEITHER = (Assignment.STABLE, Assignment.CANARY), (Assignment.UNASSIGNED, Assignment.UNASSIGNED)


def asked(path: bytes, headers: dict[bytes, bytes], share: float, mode: str = SPLIT, why: Drop | None = None) -> Any:
    """Return a request after a stable replica has looked at it whose canary can take none at the moment."""
    service: Any = SimpleNamespace(name="m", signals=Signals(), timings=Mock())
    onward: Any = Mock(**{"send.return_value": Failure.BUSY})
    told_of = Canary("digits-91cc", mode, share, ("127.0.0.1:1",), 300.0)
    exchange: Any = SimpleNamespace(path=path, headers=headers, body=b"{}", assignment=None, within_s=0.0)
    mirror: Any = Mock(**{"reason_to_drop.return_value": why})
    tried = canary.Canary(service, told_of, Tally("digits-91cc", 0.1), onward, mirror)
    assert not tried.takes(exchange, 5.0)
    return exchange


def drew(path: bytes, headers: dict[bytes, bytes], share: float, mode: str = SPLIT) -> int | None:
    """Return what a request has drawn."""
    drawn: int | None = asked(path, headers, share, mode).assignment
    return drawn


@pytest.mark.parametrize(
    ("path", "headers", "mode", "want"),
    [
        pytest.param(OWN, {}, SPLIT, EITHER, id="any request"),
        pytest.param(V1, {}, SPLIT, EITHER, id="one by the first protocol"),
        pytest.param(OWN, {b"x-request-timeout-ms": b"99"}, SPLIT, EITHER, id="one that has time for two answers"),
        pytest.param(OWN, {b"x-request-timeout-ms": b"40"}, SPLIT, NEITHER, id="one in a hurry"),
        pytest.param(OWN, {b"x-request-timeout-ms": b"x"}, SPLIT, NEITHER, id="one whose time is no number"),
        pytest.param(PINNED, {}, SPLIT, NEITHER, id="one that names a version"),
        pytest.param(OTHER, {}, SPLIT, NEITHER, id="one with a query"),
        pytest.param(OWN, PASSED, SPLIT, NEITHER, id="one that says it was passed on"),
        pytest.param(OWN, {}, MIRROR, NEITHER, id="one that may be mirrored"),
    ],
)
def test_of_a_request_stable_says_that_it_drew(
    path: bytes, headers: dict[bytes, bytes], mode: str, want: tuple[Assignment, Assignment]
) -> None:
    """Where nobody is the canary's, and where everybody is."""
    assert (drew(path, headers, 0.0, mode), drew(path, headers, 1.0, mode)) == want


@pytest.mark.parametrize(
    ("path", "headers", "mode", "why", "want"),
    [
        pytest.param(
            OWN, {}, SPLIT, None, (0.05, 0.0), id="of a split, what drew stable, and as long as the canary has"
        ),
        pytest.param(OWN, {b"x-request-timeout-ms": b"90"}, SPLIT, None, (0.04, 0.0), id="which a client may shorten"),
        pytest.param(PINNED, {}, SPLIT, None, (0.0, 0.0), id="nothing that names a version"),
        pytest.param(OWN, PASSED, SPLIT, None, (0.0, 0.0), id="nothing that was passed on"),
        pytest.param(OWN, {}, MIRROR, None, (0.1, 0.1), id="of a mirror, what may be copied, whether it is or not"),
        pytest.param(OWN, {}, MIRROR, Drop.LOAD, (0.0, 0.0), id="nothing that may not be copied at the moment"),
        pytest.param(PINNED, {}, MIRROR, None, (0.0, 0.0), id="nor what names a version"),
    ],
)
def test_held_beside_what_becomes_of_the_canary_s_is(
    path: bytes, headers: dict[bytes, bytes], mode: str, why: Drop | None, want: tuple[float, float]
) -> None:
    """Where nobody is the canary's, and where everybody is. The latency target is 0.1 s."""
    got = tuple(asked(path, headers, share, mode, why).within_s for share in (0.0, 1.0))
    assert got == pytest.approx(want)


def test_stable_is_late_as_often_as_a_canary_that_is_as_fast() -> None:
    """Where stable needs most of the target, the canary has no longer than stable's own p95, and is late where stable,
    with all of the target, would not be."""
    seconds = [0.06] * 96 + [0.095] * 4
    within_s, beside = budget_of(0.1, latencies(*seconds)).within_s, Beside()
    beside.end_all(np.array(seconds), np.full(len(seconds), within_s))
    assert within_s < 0.07
    assert beside.told() == {"ended": 100, "late": 4, "failed": 0}


@given(
    st.sampled_from([OWN, V1, PINNED, OTHER]),
    st.dictionaries(
        st.sampled_from([b"x-request-timeout-ms", b"evenkeel-onward", b"content-type"]),
        st.sampled_from([b"1", b"49", b"51", b"split", b"mirror", b"application/json"]),
    ),
)
def test_who_is_in_the_draw_does_not_hang_on_what_it_draws(path: bytes, headers: dict[bytes, bytes]) -> None:
    one, other = drew(path, headers, 0.0), drew(path, headers, 1.0)
    assert (one, other) in {EITHER, NEITHER}


def latencies(*seconds: float, target_s: float = 0.1) -> Histogram:
    found = Histogram(latency_edges(target_s))
    for one in seconds:
        found.observe(one)
    return found


@pytest.mark.parametrize(
    ("latency", "want"),
    [
        pytest.param(latencies(), Budget(0.05, 0.05), id="nothing is known: half of the target"),
        pytest.param(latencies(*[0.001] * 19), Budget(0.05, 0.05), id="too little is known"),
        pytest.param(
            latencies(*[0.099] * 100), Budget(0.1, 0.1), id="stable needs all of the target: so may the canary"
        ),
        pytest.param(
            latencies(*[0.2] * 100), Budget(0.1, 0.2), id="stable is beyond the target: nobody waits for that"
        ),
        pytest.param(latencies(*[99.0] * 100), Budget(0.1, math.inf), id="stable is beyond all buckets"),
    ],
)
def test_the_budget_is(latency: Histogram, want: Budget) -> None:
    assert budget_of(0.1, latency) == want


@given(st.lists(st.floats(1e-6, 100), max_size=200), st.floats(0.001, 600))
def test_a_budget_is_a_part_of_the_target(seconds: list[float], target_s: float) -> None:
    found = budget_of(target_s, latencies(*seconds, target_s=target_s))
    assert target_s / 2 <= found.within_s <= target_s
    assert found.own_s > 0


@given(st.lists(st.floats(1e-6, 100), min_size=20, max_size=200), st.floats(0.001, 600), st.floats(0, 1000))
def test_a_client_in_a_hurry_leaves_stable_the_time_it_needs(
    seconds: list[float], target_s: float, left_s: float
) -> None:
    """Where it does not, the canary is not asked at all."""
    budget = budget_of(target_s, latencies(*seconds, target_s=target_s))
    within_s, own_s = budget.of(left_s), sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]
    assert within_s <= budget.of(None) == budget.within_s
    assert within_s <= 0 or within_s + own_s <= left_s + 1e-9


def test_a_quick_stable_leaves_the_canary_nearly_all() -> None:
    found = budget_of(0.1, latencies(*[0.002] * 95, *[0.09] * 5))
    assert 0.097 < found.within_s < 0.099
    assert found.within_s + found.own_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("status", "answer", "want"),
    [
        pytest.param(400, b"HTTP/1.1 400 Bad Request\r\n", True, id="both refuse it"),
        pytest.param(404, b"HTTP/1.1 400 Bad Request\r\n", False, id="for other reasons"),
        pytest.param(400, b"HTTP/1.1 429 Too Many Requests\r\n", False, id="stable is full"),
        pytest.param(429, b"HTTP/1.1 429 Too Many Requests\r\n", False, id="both are full"),
        pytest.param(500, b"HTTP/1.1 500 Internal Server Error\r\n", False, id="both fail"),
        pytest.param(400, None, False, id="stable takes it"),
    ],
)
def test_a_request_is_at_fault_where_both_refuse_it(status: int, answer: bytes | None, want: bool) -> None:
    assert is_refused_alike(status, answer) is want


def test_what_was_sent_is_accounted_for() -> None:
    tally = Tally("digits-91cc", 0.1)
    arm = tally.arms[SPLIT]
    arm.sent, arm.answered, arm.invalid, arm.abandoned = 10, 3, 1, 1
    arm.fail(Failure.LATE, 0.05)
    arm.fail(Failure.LATE, 0.05)
    got = tally.told()
    assert isinstance(got["split"], dict)
    assert (got["split"]["underWay"], got["split"]["failed"], got["mirror"]) == (3, {"late": 2}, None)
    tally.beside.end(0.2, 0.1, has_failed=False)
    lines = tally.lines('model_name="m"')
    assert 'inference_canary_beside_total{model_name="m",canary="digits-91cc",outcome="late"} 1' in lines
    assert 'inference_canary_requests_total{model_name="m",canary="digits-91cc",mode="split",outcome="late"} 2' in lines
