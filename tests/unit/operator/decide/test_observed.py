"""Do the replicas' counters become rates that neither restarts nor silence can falsify?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.derating import Sample
from evenkeel_operator.decide.observed import Observed
from evenkeel_operator.decide.readings import BadReading, Flaw, Latencies, Reading
from evenkeel_operator.decide.replicas import Fresh, NoMetrics, NoTraffic, Stale
from evenkeel_operator.decide.snapshot import NO_SIGNAL
from evenkeel_runtime.serve.signals import latency_edges

TARGET_S = 0.1
EDGES = latency_edges(TARGET_S)
SILENT = BadReading(Flaw.UNREACHABLE, "no route to host")


def reading(arrivals: int, uptime_s: float, boot: str = "a", **change: object) -> Reading:
    """Return what a replica says that has answered all its requests in 20 ms, one row each, in calls of their own."""
    counts = [0] * (len(EDGES) + 1)
    counts[next(i for i, edge in enumerate(EDGES) if edge >= 0.02)] = arrivals
    found = Reading(
        boot=boot,
        uptime_s=uptime_s,
        is_ready=True,
        generation=1,
        arrivals=arrivals,
        arrived_rows=arrivals,
        failed=0,
        rejected=0,
        queued=0,
        queued_rows=0,
        in_flight=2,
        latencies=Latencies(TARGET_S, EDGES, tuple(counts)),
        batches=((1, arrivals, arrivals, 0.01 * arrivals),),
        profile=(),
        max_rows=8,
    )
    return replace(found, **change)  # type: ignore[arg-type]


def demand(observed: Observed, now: float, *ready: str) -> object:
    return observed.signals(ready, TARGET_S, 0.95, now).demand


STORIES = [
    pytest.param(
        [(-5, reading(0, 95)), (0, reading(50, 100)), (5, reading(49, 105))],
        Stale(10.0, 5.0),
        id="one that ran backwards is not believed what it said before",
    ),
    pytest.param([(0, reading(0, 100)), (5, reading(50, 105))], Fresh(10.0), id="a difference over its time"),
    pytest.param([(0, reading(0, 100)), (9, reading(50, 105))], Fresh(10.0), id="by the replica's own clock"),
    pytest.param([(0, reading(40, 4))], Fresh(10.0), id="one that is new, from its start"),
    pytest.param([(0, reading(4000, 4000))], NoMetrics(), id="one that has counted for hours says nothing yet"),
    pytest.param(
        [(0, reading(500, 100)), (5, reading(20, 2, "b"))], Fresh(10.0), id="one that was restarted counts anew"
    ),
    pytest.param(
        [(0, reading(500, 100)), (5, reading(499, 105))], NoMetrics(), id="one that ran backwards is not heard"
    ),
    pytest.param(
        [(0, reading(500, 100)), (5, reading(499, 105)), (6, reading(510, 106))],
        Fresh(11.0),
        id="one that ran backwards is heard again once two answers agree",
    ),
    pytest.param([(0, reading(7, 100)), (5, reading(7, 105))], NoTraffic(), id="no request is no traffic"),
    pytest.param([(0, SILENT)], NoMetrics(), id="no answer is no metrics"),
    pytest.param(
        [(-5, reading(0, 100)), (0, reading(50, 105)), (15, SILENT)], Fresh(10.0, 15.0), id="silent for three ticks"
    ),
    pytest.param(
        [(-5, reading(0, 100)), (0, reading(50, 105)), (16, SILENT)], Stale(10.0, 16.0), id="silent for longer"
    ),
]


@pytest.mark.parametrize(("story", "want"), STORIES)
def test_demand(story: list[tuple[float, Reading | BadReading]], want: object) -> None:
    observed, got = Observed(), None
    for now, answer in story:
        observed.note("r", answer, now)
        got = demand(observed, now, "r")
    assert got == want


EIGHTS = {"arrived_rows": 400, "arrived_square_rows": 3200}


@pytest.mark.parametrize(
    ("before", "change", "want"),
    [
        pytest.param({}, {}, (10.0, 1.0, 1.0), id="one row each"),
        pytest.param({"arrived_square_rows": 0}, EIGHTS, (80.0, 8.0, 8.0), id="eight rows each"),
        pytest.param(
            {"arrived_square_rows": 0}, EIGHTS | {"arrived_square_rows": 9600}, (80.0, 8.0, 24.0), id="eight on average"
        ),
        pytest.param({}, EIGHTS | {"arrived_square_rows": None}, (80.0, 8.0, 8.0), id="one that tells no squares"),
        pytest.param({"max_rows": 0}, EIGHTS | {"max_rows": 0}, (10.0, 1.0, 1.0), id="requests that share no call"),
    ],
)
def test_demand_and_its_scatter_are_in_rows(before: dict[str, Any], change: dict[str, Any], want: object) -> None:
    observed = Observed()
    observed.note("r", reading(0, 100, **before), -5)
    observed.note("r", reading(50, 105, **change), 0)
    got = observed.signals(["r"], TARGET_S, 0.95, 0)
    assert isinstance(got.demand, Fresh)
    assert (got.demand.value, observed.request_rows().mean, got.dispersion) == want


def test_requests_that_have_become_larger_are_known_in_minutes() -> None:
    observed = Observed()
    observed.note("r", reading(0, 100), 0)
    observed.note("r", reading(500, 3700), 3600)
    assert observed.request_rows().mean == 1.0
    observed.note("r", reading(1000, 4000, arrived_rows=500 + 8 * 500), 3900)
    assert observed.request_rows().mean == pytest.approx(8 - 7 / 3)


def test_half_the_replicas_silent_is_said_not_summed() -> None:
    observed = Observed()
    for name in ("r", "s"):
        observed.note(name, reading(0, 100), 0)
        observed.note(name, reading(50, 105), 5)
    observed.note("r", reading(450, 145), 45)
    observed.note("s", SILENT, 45)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 45)
    assert (got.demand, got.ready, got.heard) == (Fresh(10.0), 2, 1)
    assert observed.flaws(("r", "s"), 45) == {"s": SILENT}


def test_one_that_comes_back_from_silence_does_not_speak_for_the_present() -> None:
    observed = Observed()
    for name in ("r", "s"):
        observed.note(name, reading(0, 100), 0)
    for now in range(5, 605, 5):
        observed.note("r", reading(10 * now, 100 + now), now)
    observed.note("r", reading(6300, 705), 605)
    observed.note("s", reading(6300, 705), 605)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 605)
    assert (got.demand, got.ready, got.heard, got.span_s) == (Fresh(60.0), 2, 1, 5.0)
    observed.note("r", reading(6650, 710), 610)
    observed.note("s", reading(6650, 710), 610)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 610)
    assert (got.demand, got.ready, got.heard) == (Fresh(140.0), 2, 2)


def test_one_that_has_just_come_into_service_had_nothing_of_what_the_others_tell() -> None:
    observed = Observed()
    observed.note("r", reading(0, 100), 0)
    observed.note("r", reading(500, 105), 5)
    observed.note("s", reading(3, 60), 5)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 5)
    assert (got.demand, got.ready, got.heard) == (Fresh(100.0), 1, 1)
    observed.note("s", reading(203, 65), 10)
    observed.note("r", reading(700, 110), 10)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 10)
    assert (got.demand, got.ready, got.heard) == (Fresh(80.0), 2, 2)


def test_a_replica_that_went_counts_no_more() -> None:
    observed = Observed()
    for name in ("r", "s"):
        observed.note(name, reading(0, 100), 0)
        observed.note(name, reading(50, 105), 5)
    assert demand(observed, 5, "r", "s") == Fresh(20.0)
    observed.keep({"r"})
    assert demand(observed, 5, "r") == Fresh(10.0)
    assert set(observed.in_flight()) == {"r"}


def test_latency_is_that_of_the_last_minute() -> None:
    observed = Observed()
    observed.note("r", reading(0, 100), 0)
    observed.note("r", reading(50, 105), 5)
    got = observed.signals(("r",), TARGET_S, 0.95, 5).latency_s
    assert isinstance(got, Fresh)
    assert abs(got.value / 0.02 - 1.0) < 0.25  # far below the target, where buckets are wide
    for now in range(10, 75, 5):
        observed.note("r", reading(50, 100 + now), now)
    assert observed.signals(("r",), TARGET_S, 0.95, 70).latency_s == NoTraffic()
    assert observed.signals(("r",), TARGET_S, 0.95, 100).latency_s == Stale(got.value, 95.0)


def test_requests_that_were_sent_away_were_not_in_time() -> None:
    observed = Observed()
    observed.note("r", reading(0, 100), 0)
    observed.note("r", reading(100, 105, rejected=50), 5)
    for share, is_met in ((0.66, True), (0.67, False)):
        got = observed.signals(("r",), TARGET_S, share, 5).latency_s
        assert isinstance(got, Fresh)
        assert (got.value <= TARGET_S) is is_met, "100 of 150 were in time"


def test_the_sample_of_a_minute_counts_what_took_longer_than_the_target() -> None:
    observed = Observed()
    assert observed.sample(TARGET_S, 0.95) is NO_SIGNAL
    observed.note("x", reading(0, 95), 0.0)
    at_target = EDGES.index(TARGET_S)
    late = replace(reading(90, 100), rejected=4)
    counts = list(late.latencies.counts)
    counts[at_target], counts[at_target + 1] = 3, 5
    observed.note("x", replace(late, latencies=Latencies(TARGET_S, EDGES, tuple(counts))), 5.0)
    got = observed.sample(TARGET_S, 0.95)
    assert isinstance(got, Sample)
    assert (got.requests, got.slow) == (102, 9), "those sent away are late"
    assert got.quantile_s > TARGET_S


def test_another_target_is_not_read_between_the_old_ones_edges() -> None:
    observed = Observed()
    observed.note("r", reading(0, 100), 0)
    observed.note("r", reading(50, 105), 5)
    assert observed.signals(("r",), 0.3, 0.95, 5).latency_s == NoMetrics()


def test_batches_are_those_since_the_last_answer() -> None:
    observed = Observed()
    observed.note("r", reading(10, 100, batches=((1, 10, 10, 0.5), (4, 2, 7, 0.4))), 0)
    (got,) = observed.note("r", reading(12, 105, batches=((1, 10, 10, 0.5), (4, 5, 18, 1.0))), 5)
    assert (got.most, got.count, got.rows, round(got.seconds, 6)) == (4, 3, 11, 0.6)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.booleans(), st.booleans()), min_size=2, max_size=40),
)
def test_no_request_counts_twice_whatever_is_lost_or_restarted(ticks: list[tuple[int, bool, bool]]) -> None:
    """The rates times their spans, all together, are at most what came."""
    observed = Observed()
    observed.note("r", reading(0, 0.0, "0"), 0)
    came = total = counted = 0
    boot, started, now = 0, 0, 0
    for more, is_lost, is_restarted in ticks:
        if is_restarted:
            boot, started, total = boot + 1, now, 0
        now += 5
        came, total = came + more, total + more
        if is_lost:
            observed.note("r", SILENT, now)
            continue
        observed.note("r", reading(total, float(now - started), str(boot)), now)
        got = observed.signals(("r",), TARGET_S, 0.95, now)
        assert got.heard == 1
        rate = got.demand.value if isinstance(got.demand, Fresh) else 0.0
        counted += round(rate * got.span_s)
    assert counted <= came


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        pytest.param([], False, id="one that was never asked"),
        pytest.param([reading(0, 5)], False, id="one that answered"),
        pytest.param(
            [reading(0, 5), BadReading(Flaw.TOO_SLOW, "no whole answer within 2 s")], True, id="one that hangs"
        ),
        pytest.param([BadReading(Flaw.TOO_SLOW, "no whole answer within 2 s"), reading(0, 5)], False, id="no longer"),
        pytest.param([SILENT], False, id="one that cannot be reached is known at once"),
    ],
)
def test_who_was_silent(answers: list[Reading | BadReading], want: bool) -> None:
    found = Observed()
    for now, answer in enumerate(answers):
        found.note("a", answer, float(now))
    assert found.was_silent("a") is want


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30), st.sampled_from([0.1, 0.2])), min_size=1))
def test_the_latency_is_that_of_all_that_the_minute_holds(ticks: list[tuple[int, int, float]]) -> None:
    """However many come and go, and though the target moves and moves back."""
    observed, kept, now = Observed(), list[tuple[float, float, int]](), 0.0
    for index, (elapsed_s, requests, target_s) in enumerate(ticks):
        now += elapsed_s
        edges = latency_edges(target_s)
        counts = [0] * (len(edges) + 1)
        counts[index % len(counts)] = requests
        latencies = Latencies(target_s, edges, tuple(counts))
        observed.note("x", reading(requests, 1.0, f"boot {index}", latencies=latencies), now)
        kept.append((now, target_s, requests))
        for asked_s in (0.1, 0.2):
            observed.latency(asked_s, 0.95, True, now)
            want = sum(n for at, by_s, n in kept if at > now - 60.0 and by_s == asked_s)
            got = observed.sample(asked_s, 0.95)
            assert (got.requests if isinstance(got, Sample) else 0) == want


def test_the_edges_that_every_answer_repeats_are_remembered_once() -> None:
    """There are 42 of them: of a minute of three replicas, they would take twice as much memory as all the rest."""
    found = Observed()
    for tick in range(1, 13):
        for name in ("a", "b", "c"):
            edges = tuple(float(repr(edge)) for edge in EDGES)
            counts = (50 * tick,) + (0,) * len(EDGES)
            answer = reading(50 * tick, 5.0 * tick, latencies=Latencies(TARGET_S, edges, counts))
            found.note(name, answer, 5.0 * tick)
    assert len(found._latencies) == 36
    assert len({id(row.buckets) for row in found._latencies}) == 1


def test_the_engines_are_those_of_the_replica_with_the_fewest() -> None:
    """While one revision replaces another, of another number of GPUs, the model is the lesser's."""
    observed = Observed()
    assert observed.engines() == 1, "nobody has said"
    observed.note("a", reading(0, 100, engines=4), 0.0)
    assert observed.engines() == 4
    observed.note("b", reading(0, 100, "b", engines=2), 0.0)
    assert observed.engines() == 2


def test_who_did_not_answer_the_last_time_has_as_much_as_the_others() -> None:
    observed = Observed()
    for name in ("r", "s"):
        observed.note(name, reading(0, 100), 0)
        observed.note(name, reading(50, 105), 5)
    observed.note("r", reading(100, 110), 10)
    observed.note("s", SILENT, 10)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 10)
    assert (got.demand, got.ready, got.heard, got.missed) == (Fresh(10.0), 2, 1, 1)
    observed.note("r", SILENT, 12)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 12)
    assert (got.demand, got.heard, got.missed) == (Fresh(20.0, 4.5), 2, 2), "nobody: what they said before stands"
    for name in ("r", "s"):
        observed.note(name, reading(150, 115), 15)
    assert observed.signals(("r", "s"), TARGET_S, 0.95, 15).missed == 0
    observed.note("s", SILENT, 31)
    got = observed.signals(("r", "s"), TARGET_S, 0.95, 31)
    assert (got.heard, got.missed) == (0, 0), "silent for longer is not heard at all"
