"""Is the excerpt the one of the rule, and do the figures of a run on the cluster say what was measured?"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.readings import Latencies, Reading
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.load import BadTrace, Floats, Trace, peak
from evenkeel_operator.simulate.profile import Profile
from tests.bench.trace import excerpt, expected, figures, generator, page, pods
from tests.bench.trace.figures import Request, Result, Sample

STEADY = [100.0] * 90
HILL = [100.0] * 10 + [300.0] * 10 + [100.0] * 10


def minutes(name: str, counts: list[float]) -> Trace:
    return Trace(name, 60, np.array(counts, np.float32))


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param([1, 2, 1], True, id="up by two and down by two"),
        pytest.param([1, 1.9, 1], False, id="less than two"),
        pytest.param([1, 2, 2], False, id="it stays up"),
        pytest.param([2, 1, 2], False, id="down and up is no hill"),
        pytest.param([4, 8, 2, 3], True, id="from a height"),
        pytest.param([1, 3, 1, 1, 0], False, id="from nothing or to nothing is no factor"),
    ],
)
def test_a_rise_and_a_fall(values: list[float], want: bool) -> None:
    assert excerpt.rises_and_falls(np.array(values)) is want


def test_the_trace_of_the_median_variation_that_has_a_hill_is_chosen() -> None:
    low, middle, high = (minutes(name, [100, *HILL, *[rest] * 29]) for name, rest in (("l", 150), ("m", 90), ("h", 9)))
    assert excerpt.excerpt([high, minutes("steady", STEADY), low, middle]).trace == "m"
    assert excerpt.excerpt([high, low]).trace == "l", "the lower of two"
    assert excerpt.excerpt([high, low, middle], name="h").trace == "h"


def test_the_minutes_are_of_the_median_variation_and_the_earliest_of_equal_ones() -> None:
    found = excerpt.excerpt([minutes("hills", HILL * 3)])
    counts = np.array(HILL * 3)
    begins = excerpt.candidates(counts, 30)
    own = excerpt.variation(counts[found.begin : found.begin + 30])
    ordered = sorted(excerpt.variation(counts[begin : begin + 30]) for begin in begins)
    assert own == ordered[(len(ordered) - 1) // 2]
    assert found.begin == min(b for b in begins if excerpt.variation(counts[b : b + 30]) == own)
    assert len(found.expected) == 1800


def test_a_short_run_is_the_middle_of_the_long_one() -> None:
    traces = [minutes("hills", [*HILL[:14], 900.0, *HILL[15:], *HILL])]
    long, short = excerpt.excerpt(traces), excerpt.excerpt(traces, 4)
    at = 60 * (short.begin - long.begin)
    assert 0 <= at <= 26 * 60
    assert short.expected.tolist() == long.expected[at : at + 240].tolist()
    assert short.expected.max() == long.expected.max()


@pytest.mark.parametrize(
    ("name", "want"),
    [
        pytest.param(None, "no 30 minutes of any trace hold a rise", id="no hill"),
        pytest.param("steady", "no 30 minutes of steady hold a rise", id="no hill in the one that is named"),
        pytest.param("nasa", "--trace nasa: there are steady", id="no such trace"),
    ],
)
def test_no_excerpt(name: str | None, want: str) -> None:
    with pytest.raises(BadTrace, match=want):
        excerpt.excerpt([minutes("steady", STEADY)], name=name)


def test_the_schedule_has_the_peak_that_was_asked_for_and_is_in_order() -> None:
    rates = excerpt.scaled(np.repeat(np.array([1.0, 5.0, 2.0], np.float32), 60), 20.0)
    assert peak(Trace("x", 1, rates)) == pytest.approx(20.0)
    got = excerpt.schedule(rates, 1)
    assert got == sorted(got) == excerpt.schedule(rates, 1)
    assert len(got) == pytest.approx(60 * (4 + 20 + 8), rel=0.1)
    assert 0.0 <= got[0] <= got[-1] < 180.0


def answered(*latencies_s: float, minute: int = 0) -> list[Request]:
    return [Request(60.0 * minute + n, 60.0 * minute + n, 60.0 * minute + n + s, "") for n, s in enumerate(latencies_s)]


def test_the_p95_of_a_minute() -> None:
    requests = [*answered(*[0.1] * 19, 0.9), *answered(*[0.1] * 18, 0.9, 0.9, minute=2)]
    assert figures.by_minute(requests, 3) == pytest.approx([0.1, None, 0.9])


def test_a_request_that_failed_was_never_answered_and_one_that_was_sent_late_was_late() -> None:
    assert Request(1.0, 1.0, 1.1, "cut").latency_s == math.inf
    assert Request(1.0, 3.0, 3.1, "").latency_s == pytest.approx(2.1)


def test_the_figures_of_a_run() -> None:
    requests = [*answered(9.0), *answered(0.1, minute=1), *answered(0.3, minute=2), Request(130.0, 130.0, 131.0, "cut")]
    samples = [Sample(0.0, 4, 1), Sample(60.0, 1, 1), Sample(90.0, 2, 1), Sample(120.0, 4, 2), Sample(185.0, 4, 4)]
    got = figures.result(requests, samples, np.array([1] * 120 + [2] * 60), 0.2, warm_up=1)
    assert got == Result(
        p95_within_target=0.5, replicas_within_one=0.6667, failed_requests=1, replica_s=60 * 4 + 30 + 60 + 240
    )


def test_what_the_generator_wrote_is_read_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text('[2.0, 2.0, 2.5, ""]\n[1.0, 1.0, 9.0, "timeout"]\n')
    assert figures.read(out) == [Request(1.0, 1.0, 9.0, "timeout"), Request(2.0, 2.0, 2.5, "")]
    assert figures.arrived(figures.read(out), 3).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", id="whole"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", "cut", id="a body that was cut"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-", "cut", id="a head that was cut"),
        pytest.param(b"", "nothing", id="closed without a word"),
        pytest.param(b"HTTP/1.1 503 Busy\r\n\r\n", "status 503", id="sent away"),
        pytest.param(b"hello\r\n\r\n", "no HTTP", id="somebody else"),
    ],
)
def test_what_is_an_answer(answer: bytes, want: str) -> None:
    assert generator.failure(answer) == want


def test_how_long_a_replica_took_to_start() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-05T10:00:31Z"}
    pod = {"metadata": {"creationTimestamp": "2026-01-05T10:00:02Z"}, "status": {"conditions": [ready]}}
    assert pods.start_s(pod) == 29.0


def reading(batches: int, seconds: float) -> Reading:
    return Reading(
        boot="b", uptime_s=60.0 + batches, is_ready=True, generation=1, arrivals=batches, arrived_rows=batches,
        failed=0, rejected=0, queued=0, queued_rows=0, in_flight=0, latencies=Latencies(0.5, (0.5,), (batches, 0)),
        batches=((1, batches, batches, seconds),) if batches else (), profile=((1, 0.15),), max_rows=1,
    )  # fmt: skip


def test_the_speed_is_that_under_load_once_it_was_loaded() -> None:
    first = expected.roofline([(0.0, reading(0, 0.0))])
    assert first.seconds(1) == pytest.approx(0.15)
    loaded = expected.roofline([(0.0, reading(10, 9.9)), (20.0, reading(310, 9.9 + 30.0))])
    assert loaded.seconds(1) == pytest.approx(0.10), "300 batches in 30 s; those before do not count"


PROFILE = Profile(Roofline(0.14, 0.0, 0.14, 1), target_s=0.56, quantile=0.95, arrivals=2400)


@pytest.fixture(scope="module")
def hill() -> Floats:
    rate = PROFILE.capacity.rate
    rates = np.repeat(np.array([0.5 * rate, 3.2 * rate, 0.5 * rate], np.float32), 240)
    return np.bincount(np.array(excerpt.schedule(rates, 1), int), minlength=720).astype(np.float32)


def test_both_laws_follow_a_hill_within_their_bounds(hill: Floats) -> None:
    replicas = expected.Replicas(PROFILE, 20.4, Scaling(1, 4, 0.56, 0.95))
    for sizes in (replicas.under_evenkeel(hill), replicas.under_hpa(hill)):
        assert len(sizes) == 720
        assert (sizes[0], sizes.max()) == (1, 4), "3.2 replicas are needed, and found too few at first"


def test_the_page_shows_both(hill: Floats) -> None:
    samples = [Sample(0.0, 1, 1), Sample(300.0, 4, 2)]
    runs = [
        page.Run(name, hill, [0.2, None, 9.0], samples, np.ones(720, np.int64), Result(0.96, 0.9, 0, 1500.0))
        for name in ("Evenkeel", "HPA")
    ]
    got = page.page("A trace", "about <it>", runs, 0.56, 4.4)
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", got.partition("</head>")[2]))
    assert "about &lt;it&gt;" in text
    assert text.count("target 560ms") == 4, "wide and narrow, of both"
    assert f"HPA 96.0% 90.0% 0 1500 {int(hill.sum())}" in text


def test_a_request_closes_its_connection() -> None:
    head, _, body = pods.http_request("traced", b'{"inputs": []}').partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"inputs": []}
