"""Is an answer to /v2/signals believed only where it can be, and are merged quantiles near the true ones?"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.api.modeldeployment import MOST_ROWS
from evenkeel_operator.decide.readings import UNBOUNDED_ROWS, BadReading, Beside, Flaw, quantile, read, require_onward
from evenkeel_runtime.contract import MIRROR, SPLIT
from evenkeel_runtime.serve.signals import BATCH_ROWS, Signals, latency_edges
from evenkeel_runtime.serve.tally import Drop, Failure, Tally

TARGET_S = 0.2


def body(**change: Any) -> bytes:
    """Return what a replica answers that has served one request, with some of its parts changed."""
    signals = Signals()
    signals.arrivals, signals.arrived_rows = 3, 5
    signals.latency.observe(0.02)
    signals.batch(2, 0.01)
    return json.dumps(json.loads(signals.render(None, 0, True)) | change).encode()


def test_what_the_runtime_answers_is_read() -> None:
    got = read(body())
    assert (got.arrivals, got.arrived_rows, got.is_ready, got.generation) == (3, 5, True, None)
    assert got.batches == ((2, 1, 2, 0.01),)
    assert sum(got.latencies.counts) == 1
    assert got.latencies.target_s in got.latencies.edges


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(body(), 1, id="one that runs the model itself"),
        pytest.param(body(engines=4), 4, id="one with four engines"),
        pytest.param(body().replace(b'"engines"', b'"others"'), 1, id="one from before there were several"),
    ],
)
def test_how_many_engines_a_replica_has(answer: bytes, want: int) -> None:
    assert read(answer).engines == want


def test_the_largest_batches_of_the_runtime_are_read() -> None:
    signals = Signals()
    signals.max_rows, signals.profile = BATCH_ROWS[-1], ((BATCH_ROWS[-1], 0.1),)
    signals.batch(BATCH_ROWS[-1], 0.1)
    signals.batch(50_000, 4.0)  # one request, whose rows no other may join
    got = read(signals.render(None, 0, True))
    assert got.max_rows == MOST_ROWS
    assert got.batches == ((MOST_ROWS, 1, MOST_ROWS, 0.1), (UNBOUNDED_ROWS, 1, 50_000, 4.0))


def latency(edges: list[float], counts: list[Any], target_s: float = TARGET_S) -> dict[str, Any]:
    return {"latency": {"targetSeconds": target_s, "edges": edges, "counts": counts}}


FINE = list(latency_edges(TARGET_S))
NONE = [0] * (len(FINE) + 1)
BAD = [
    pytest.param(b"", Flaw.MALFORMED, id="nothing"),
    pytest.param(b"<html>", Flaw.MALFORMED, id="a page"),
    pytest.param(b"\xff\xfe\x00", Flaw.MALFORMED, id="bytes that are no text"),
    pytest.param(b"[" * 60000, Flaw.MALFORMED, id="lists in lists without end"),
    pytest.param(b"[]", Flaw.MALFORMED, id="a list"),
    pytest.param(b"{}", Flaw.MALFORMED, id="nothing of what is asked for"),
    pytest.param(body(arrivals=float("nan")), Flaw.MALFORMED, id="NaN"),
    pytest.param(body(uptimeSeconds=float("inf")), Flaw.MALFORMED, id="infinity"),
    pytest.param(body(uptimeSeconds="12"), Flaw.MALFORMED, id="a number in quotes"),
    pytest.param(body(arrivals=-1), Flaw.MALFORMED, id="a negative counter"),
    pytest.param(body(arrivals=1.5), Flaw.MALFORMED, id="half a request"),
    pytest.param(body(arrivals=True), Flaw.MALFORMED, id="a truth for a count"),
    pytest.param(body(arrivals=10**30), Flaw.MALFORMED, id="a count beyond 64 bits"),
    pytest.param(body(bootId=""), Flaw.MALFORMED, id="a process without a name"),
    pytest.param(body(bootId="x" * 65), Flaw.MALFORMED, id="a name without end"),
    pytest.param(body(batches=[[1, 2]]), Flaw.MALFORMED, id="batches of another shape"),
    pytest.param(body(batches=[[1, 1, 1, 0.1]] * 65), Flaw.MALFORMED, id="more sizes than there are"),
    pytest.param(body(batches=[[1025, 1, 1, 0.1]]), Flaw.MALFORMED, id="batches of more rows than a call may have"),
    pytest.param(body(engines=0), Flaw.MALFORMED, id="no engine"),
    pytest.param(body(engines=65), Flaw.MALFORMED, id="more engines than GPUs in a pod"),
    pytest.param(body(engines=2.0), Flaw.MALFORMED, id="engines that are no whole number"),
    pytest.param(body(maxBatchRows=1025), Flaw.MALFORMED, id="larger batches than a call may be"),
    pytest.param(body(maxBatchRows=2**62), Flaw.MALFORMED, id="batches that no memory holds"),
    pytest.param(body(profile=[[2**40, 0.1]]), Flaw.MALFORMED, id="a profile of batches that no memory holds"),
    pytest.param(body(latency=None), Flaw.MALFORMED, id="no histogram"),
    pytest.param(body(**latency(FINE, [*NONE[1:], -1])), Flaw.MALFORMED, id="a negative bucket"),
    pytest.param(body(**latency(FINE, NONE[1:])), Flaw.OTHER_BUCKETS, id="a bucket too few"),
    pytest.param(body(**latency([], [0])), Flaw.OTHER_BUCKETS, id="no edge"),
    pytest.param(body(**latency(FINE[::-1], NONE)), Flaw.OTHER_BUCKETS, id="edges that descend"),
    pytest.param(body(**latency(FINE, NONE, 0.21)), Flaw.OTHER_BUCKETS, id="no edge at the target"),
    pytest.param(body(**latency([0.01, 0.2, 1.0], [0] * 4)), Flaw.OTHER_BUCKETS, id="edges far apart"),
    pytest.param(body(**latency([0.19, 0.2, 0.21], [0] * 4)), Flaw.OTHER_BUCKETS, id="edges near the target only"),
]


@pytest.mark.parametrize(("answer", "want"), BAD)
def test_other_answers_are_refused_with_a_reason(answer: bytes, want: Flaw) -> None:
    with pytest.raises(BadReading) as caught:
        read(answer)
    assert caught.value.flaw == want
    assert caught.value.message


def tally(*, split: int = 2, mirror: int = 0, target_s: float = TARGET_S) -> Tally:
    """Return what a replica has counted of a canary: requests in each mode, one answer slow and one error each."""
    found = Tally("digits-new", target_s)
    for mode, count in ((SPLIT, split), (MIRROR, mirror)):
        arm = found.arms[mode]
        arm.sent = count
        for seconds in [2 * target_s, *[target_s / 2] * (count - 2)][: max(0, count - 1)]:
            arm.answered += 1
            arm.latency.observe(seconds)
        if count:
            arm.fail(Failure.ERROR, 0.01)
    for took_s, has_failed in ((0.5, False), (2.0, False), (2.0, True), (0.5, True), (0.5, True)):
        found.beside.end(took_s * target_s, target_s, has_failed=has_failed)
    return found


def with_canary(told: Tally, **change: Any) -> bytes:
    """Return what a replica answers that knows of a canary for another 200 s."""
    return body(canary=told.told() | {"expiresSeconds": 200.0, "momentMillis": 17} | change)


def test_what_the_runtime_tells_of_a_canary_is_read() -> None:
    told = tally(split=5, mirror=3)
    told.arms[SPLIT].fail(Failure.LATE, 0.1)
    told.dropped[Drop.LOAD] = 9
    got = read(with_canary(told)).canary
    assert got is not None
    assert (got.revision, got.expires_s, got.moment_ms) == ("digits-new", 200.0, 17)
    assert got.split is not None
    assert got.mirror is not None
    assert (got.split.sent, got.split.answered, got.split.failed) == (5, 4, {"late": 1, "error": 1})
    assert (got.mirror.sent, got.mirror.answered, got.mirror.failed) == (3, 2, {"error": 1})
    assert got.beside == Beside(ended=5, late=2, failed=2), "what is late is late, whatever it ends with"
    for one in (got.split, got.mirror):
        edges, counts = one.latencies.edges, one.latencies.counts
        assert sum(counts) == one.answered
        assert sum(counts[edges.index(one.latencies.target_s) + 1 :]) == 1, "above the target"


def test_a_replica_that_does_not_tell_what_was_beside_the_canary_is_read_all_the_same() -> None:
    answer = json.loads(with_canary(tally()))
    del answer["canary"]["beside"], answer["canary"]["split"]["abandoned"]
    got = read(json.dumps(answer).encode()).canary
    assert got is not None
    assert got.split is not None
    assert (got.beside, got.split.abandoned) == (None, 0)


def test_a_mode_of_which_there_is_nothing_to_tell_and_no_canary_are_none() -> None:
    assert read(body()).canary is None
    got = read(with_canary(tally(split=0))).canary
    assert got is not None
    assert (got.split, got.mirror) == (None, None)


@pytest.mark.parametrize("why", list(Failure))
def test_every_way_to_fail_that_the_runtime_knows_is_read(why: Failure) -> None:
    told = tally()
    told.arms[SPLIT].fail(why, 0.1)
    got = read(with_canary(told)).canary
    assert got is not None
    assert got.split is not None
    assert got.split.failed[why.value] == (2 if why is Failure.ERROR else 1)


def arm(**change: Any) -> dict[str, Any]:
    """Return a change of the split mode."""
    return {"split": json.loads(json.dumps(tally().arms[SPLIT].told())) | change}


BAD_CANARIES = [
    pytest.param({"revision": ""}, Flaw.MALFORMED, id="a revision without a name"),
    pytest.param({"revision": "x" * 254}, Flaw.MALFORMED, id="a name without end"),
    pytest.param({"revision": 7}, Flaw.MALFORMED, id="a number for a name"),
    pytest.param({"expiresSeconds": -1.0}, Flaw.MALFORMED, id="expired before now"),
    pytest.param({"expiresSeconds": "200"}, Flaw.MALFORMED, id="a time in quotes"),
    pytest.param({"momentMillis": 1.5}, Flaw.MALFORMED, id="half a millisecond"),
    pytest.param({"momentMillis": -1}, Flaw.MALFORMED, id="a moment before all times"),
    pytest.param({"momentMillis": 2**63}, Flaw.MALFORMED, id="a moment that no header holds"),
    pytest.param({"split": []}, Flaw.MALFORMED, id="a list for a mode"),
    pytest.param(arm(sent=-1), Flaw.MALFORMED, id="fewer sent than none"),
    pytest.param(arm(answered=True), Flaw.MALFORMED, id="a truth for answers"),
    pytest.param(arm(failed=None), Flaw.MALFORMED, id="no counts of failures"),
    pytest.param(arm(failed=[]), Flaw.MALFORMED, id="a list of failures"),
    pytest.param(arm(failed={"late": -1}), Flaw.MALFORMED, id="fewer failures than none"),
    pytest.param(arm(failed={"late": 10**30}), Flaw.MALFORMED, id="failures beyond 64 bits"),
    pytest.param(arm(failed={f"why-{n}": 1 for n in range(65)}), Flaw.MALFORMED, id="more reasons than there are"),
    pytest.param(arm(latency=None), Flaw.MALFORMED, id="no histogram"),
    pytest.param(arm(**latency(FINE, [*NONE[1:], -1])), Flaw.MALFORMED, id="a negative bucket"),
    pytest.param(arm(**latency(FINE, NONE[1:])), Flaw.OTHER_BUCKETS, id="a bucket too few"),
    pytest.param(arm(**latency(FINE, NONE, 0.21)), Flaw.OTHER_BUCKETS, id="no edge at the target"),
    pytest.param(arm(**latency([0.01, 0.2, 1.0], [0] * 4)), Flaw.OTHER_BUCKETS, id="edges far apart"),
]


@pytest.mark.parametrize(("change", "want"), BAD_CANARIES)
def test_one_bad_value_of_a_canary_refuses_the_whole_answer(change: dict[str, Any], want: Flaw) -> None:
    with pytest.raises(BadReading) as caught:
        read(with_canary(tally(), **change))
    assert caught.value.flaw == want
    assert caught.value.message


@pytest.mark.parametrize("name", ["revision", "expiresSeconds", "momentMillis", "split", "mirror"])
def test_a_canary_that_lacks_something_refuses_the_whole_answer(name: str) -> None:
    answer = json.loads(with_canary(tally()))
    del answer["canary"][name]
    with pytest.raises(BadReading) as caught:
        read(json.dumps(answer).encode())
    assert caught.value.flaw == Flaw.MALFORMED


@pytest.mark.parametrize("value", [7, "Split", True, [1], {}], ids=str)
def test_what_is_no_canary_at_all_refuses_the_whole_answer(value: Any) -> None:
    with pytest.raises(BadReading):
        read(body(canary=value))


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(answer: bytes) -> None:
    with pytest.raises(BadReading):
        read(answer)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"arrivals": 2}, id="requests"),
        pytest.param({"uptimeSeconds": 0.0}, id="time"),
        pytest.param({"batches": []}, id="batches"),
        pytest.param({"batches": [[2, 1, 2, 0.001]]}, id="the seconds of batches"),
    ],
)
def test_counters_of_one_process_do_not_run_backwards(change: dict[str, Any]) -> None:
    fixed = {"bootId": "a", "uptimeSeconds": 10.0}
    before, after = read(body(**fixed)), read(body(**(fixed | change)))
    with pytest.raises(BadReading) as caught:
        require_onward(before, after)
    assert caught.value.flaw == Flaw.REWOUND
    require_onward(before, read(body(**(fixed | change | {"bootId": "b"}))))
    require_onward(before, before)


@given(
    st.lists(
        st.lists(st.floats(0.27 * TARGET_S, 1.95 * TARGET_S), min_size=1, max_size=60),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from((0.5, 0.9, 0.95, 0.99)),
    st.booleans(),
)
def test_merged_quantiles_are_within_five_per_cent(parts: list[list[float]], share: float, is_moved: bool) -> None:
    """Also where half the replicas still count by another target's edges."""
    counted = []
    for number, values in enumerate(parts):
        edges = latency_edges(TARGET_S * (1.07 if is_moved and number % 2 else 1.0))
        counts = [0] * (len(edges) + 1)
        for value in values:
            counts[sum(edge < value for edge in edges)] += 1
        counted.append((tuple(edges), counts))
    everything = sorted(value for values in parts for value in values)
    want = everything[max(1, math.ceil(share * len(everything) - 1e-9)) - 1]
    got = quantile(counted, share)
    assert got is not None
    assert abs(got / want - 1.0) <= 0.05


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile([], 0.95) is None
    assert quantile([(tuple(FINE), NONE)], 0.95) is None
