"""Do the signals count what happened, in buckets fine enough, and are directives followed or refused?"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.engine.batching import Policy, Queue, Work
from evenkeel_runtime.engine.threads import stretch
from evenkeel_runtime.serve.directives import BadDirective, Listener, read
from evenkeel_runtime.serve.signals import FINE, Signals, latency_edges

targets = st.floats(0.001, 600)


@given(targets)
def test_one_edge_is_the_target_and_those_around_it_are_close(target_s: float) -> None:
    edges = latency_edges(target_s)
    assert target_s in edges
    assert edges == tuple(sorted(set(edges)))
    near = [(a, b) for a, b in pairwise(edges) if b > target_s / 4 * 1.001 and a < target_s * 2 * 0.999]
    assert all(b / a <= FINE + 1e-4 for a, b in near)
    assert edges[0] < target_s / 200
    assert edges[-1] > target_s * 50
    assert len(edges) < 50


def direct(signals: Signals, body: bytes) -> None:
    signals.follow(read(body, {}, Listener(signals.boot, None)))


def rendered(signals: Signals, queue: Queue | None = None) -> Any:
    return json.loads(signals.render(queue, 0, True))


def test_a_latency_at_the_target_is_within_it() -> None:
    signals = Signals()
    direct(signals, b'{"generation": 1, "latencyTargetSeconds": 0.2}')
    for seconds in (0.199, 0.2, 0.2001):
        signals.latency.observe(seconds)
    latency = rendered(signals)["latency"]
    within = latency["edges"].index(0.2) + 1
    assert (sum(latency["counts"][:within]), sum(latency["counts"])) == (2, 3)
    assert len(latency["counts"]) == len(latency["edges"]) + 1


def test_batches_are_added_up_by_size() -> None:
    signals = Signals()
    for rows, seconds in ((1, 0.01), (1, 0.03), (5, 0.05), (6, 0.07), (5000, 1.0)):
        signals.batch(rows, seconds)
    found = rendered(signals)
    assert found["batches"] == [[1, 2, 2, 0.04], [6, 2, 11, pytest.approx(0.12)], [2**31, 1, 5000, 1.0]]
    assert found["busySeconds"] == pytest.approx(1.16)


def test_what_waits_is_told_and_every_process_has_a_boot_of_its_own() -> None:
    queue = Queue(Policy(8, 100))
    queue.admit(Work(3, "k"), 0.0)
    found = rendered(Signals(), queue)
    assert (found["queuedRequests"], found["queuedRows"]) == (1, 3)
    assert found["bootId"] != rendered(Signals())["bootId"]
    assert found["generation"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b"[]", 400, id="a list"),
        pytest.param(b'{"latencyTargetSeconds": 1}', 400, id="no generation"),
        pytest.param(b'{"generation": true}', 400, id="a generation that is no number"),
        pytest.param(b'{"generation": -1}', 400, id="a negative generation"),
        pytest.param(b'{"generation": 9007199254740992}', 400, id="a generation that not every reader can tell"),
        pytest.param(b'{"generation": %d}' % 10**30, 400, id="a generation beyond what the signals can tell"),
        pytest.param(b'{"generation": 6, "latencyTargetSeconds": "1s"}', 400, id="a target in words"),
        pytest.param(b'{"generation": 6, "latencyTargetSeconds": NaN}', 400, id="a target that is no number"),
        pytest.param(b'{"generation": 6, "latencyTargetSeconds": 0}', 400, id="a target of zero"),
        pytest.param(b'{"generation": 6, "latencyTargetSeconds": 1e9}', 400, id="a target of thirty years"),
        pytest.param(b'{"generation": 4, "latencyTargetSeconds": 1}', 409, id="an older generation"),
    ],
)
def test_a_directive_that_is_refused_changes_nothing(body: bytes, status: int) -> None:
    signals = Signals()
    direct(signals, b'{"generation": 5, "latencyTargetSeconds": 0.5}')
    signals.latency.observe(0.1)
    before = rendered(signals)["latency"]
    with pytest.raises(BadDirective) as refused:
        direct(signals, body)
    assert refused.value.status == status
    assert rendered(signals)["latency"] == before
    assert signals.generation == 5


def test_the_same_target_keeps_the_counts_and_another_one_begins_again() -> None:
    signals = Signals()
    direct(signals, b'{"generation": 5, "latencyTargetSeconds": 0.5}')
    signals.latency.observe(0.1)
    direct(signals, b'{"generation": 6, "latencyTargetSeconds": 0.5}')
    assert sum(rendered(signals)["latency"]["counts"]) == 1
    direct(signals, b'{"generation": 6, "latencyTargetSeconds": 0.25, "somethingLater": 1}')
    got = rendered(signals)
    assert (sum(got["latency"]["counts"]), got["latency"]["targetSeconds"], got["generation"]) == (0, 0.25, 6)


@pytest.mark.parametrize(
    ("quota", "threads", "want"),
    [
        pytest.param(None, 4, 1.0, id="no quota"),
        pytest.param("20000 100000", 1, 5.0, id="a fifth of a CPU"),
        pytest.param("200000 100000", 1, 1.0, id="more CPUs than threads"),
        pytest.param("150000 100000", 2, 4 / 3, id="two threads on one and a half"),
    ],
)
def test_work_that_goes_on_is_slower_than_a_short_measurement(
    tmp_path: Path, quota: str | None, threads: int, want: float
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    assert stretch(threads, tmp_path) == pytest.approx(want)
