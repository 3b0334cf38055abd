"""Is a demand read from a real Prometheus as it was recorded, and refused with the way out by anything else?

Prometheus has three hours of two counters, written before it starts; in the middle both were not scraped for a while.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.simulate import demand
from evenkeel_operator.simulate.command import simulate
from evenkeel_operator.world.prometheus import MOST_POINTS, Access, Range, Unanswered, recorded
from tests.cluster import packages
from tests.system.monitoring.prometheus import Prometheus
from tests.system.monitoring.test_rules import RULES
from tests.system.runtime.replica import free_ports
from tests.system.runtime.webserver import Reply, Site, make_certificates, web_server

SPEC = """
spec:
  model: {uri: "pvc://models/digits.pt2"}
  objectives: {latency: [{quantile: 0.95, target: 200ms}]}
  scaling: {minReplicas: 1, maxReplicas: 8}
"""
BATCHES = ("--batch", "1=20ms", "--batch", "8=60ms")
SCRAPE_S = 15
START, SECONDS = 1_763_596_800, 3 * 3600 + 900
GAP = range(START + 6000, START + 6600)
RATES = {"a": 10.0, "b": 30.0}
QUERY = "sum(rate(requests_total[1m]))"
ASKED = ("--prometheus", "http://x", "--query", "x")
OVER = Range(START + 60, START + 60 + MOST_POINTS + 99, 1)


def history() -> str:
    """Return the counters in OpenMetrics, which Prometheus takes in as blocks."""
    lines = ["# TYPE requests counter"]
    for pod, rate in RATES.items():
        for at in range(START, START + SECONDS, SCRAPE_S):
            if at not in GAP:
                lines.append(f'requests_total{{pod="{pod}"}} {rate * (at - START):g} {at}')
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[Prometheus]:
    (tmp_path / "history").write_text(history())
    made = [packages.program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "history", "data"]
    await asyncio.to_thread(subprocess.run, made, cwd=tmp_path, check=True, capture_output=True)
    async with Prometheus(tmp_path, [], RULES, "--storage.tsdb.retention.time=100y") as found:
        yield found


async def test_a_long_range_is_read_whole_and_its_gap_stays_one(prometheus: Prometheus) -> None:
    access = Access(prometheus.url)
    found = await recorded(access, QUERY, OVER)
    missing = sorted(set(range(OVER.start, OVER.end + 1)) - set(found.values))
    assert missing == list(range(missing[0], missing[-1] + 1)), "one gap"
    assert GAP.start + 60 - 2 * SCRAPE_S <= missing[0] < GAP.start + 60, "a rate over a minute reaches into it"
    assert GAP.stop <= missing[-1] < GAP.stop + 2 * SCRAPE_S
    assert found.values[GAP.start - 1] == pytest.approx(40.0)
    assert OVER.points > MOST_POINTS, "more than one answer has"

    with pytest.raises(Unanswered, match=r"the query has 2 series, and a trace is one: .* sum\(requests_total\)"):
        await recorded(access, "requests_total", OVER)
    with pytest.raises(Unanswered, match=r"400, bad_data: .*parse error"):
        await recorded(access, "sum(", OVER)
    with pytest.raises(Unanswered, match="expected type range vector"):
        await recorded(access, "rate(sum(requests_total))", OVER)
    assert (await recorded(access, "sum(nothing_total)", OVER)).values == {}
    nan = await recorded(access, f"{QUERY} / 0 * 0", OVER)
    assert nan.values == {}, "NaN is no value"


async def test_the_command_simulates_what_was_recorded(
    prometheus: Prometheus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    times = ("--start", "2025-11-20T00:01:00Z", "--end", str(START + SECONDS - 60), "--step", "30s")
    asked = (str(tmp_path / "spec.yaml"), *BATCHES, "--prometheus", prometheus.url, "--query", QUERY, *times)
    assert await asyncio.to_thread(simulate, asked) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{QUERY}: 3.2 h, ")
    requests = float(told.split(" requests")[0].split(", ")[-1])
    assert 40.0 * (SECONDS - 120 - len(GAP) / 2) < requests < 40.0 * SECONDS, "the gap is bridged, not taken for none"
    assert "values are missing, and bridged by a line between their neighbours: 2025-11-20T01:4" in told


class Fake:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def tell(self, body: Any, status: int = 200, **headers: str) -> Access:
        """Answer everything with this; return how it is asked."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.site.answer = lambda path, sent: Reply(status, headers, data)
        return Access(self.site.url("/prefix/", "127.0.0.1"))


def matrix(*series: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series)}, **more}


ONE = {"metric": {}, "values": [[START, "1.5"], [START + 60, "NaN"], [START + 120, "2"]]}
GAVE_UP = {"status": "error", "errorType": "timeout", "error": "too long"}
SHORT = Range(START, START + 120, 60)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with web_server(None) as site:
        yield Fake(site)


async def test_what_is_asked_and_what_is_told(fake: Fake) -> None:
    found = await recorded(fake.tell(matrix(ONE, warnings=["partial"], infos=["odd"])), "sum(x)", SHORT)
    assert found.values == {START: 1.5, START + 120: 2.0}
    assert found.warnings == ("partial", "odd")
    ((path, _, authorization),) = fake.site.heard
    assert path == f"/prefix/api/v1/query_range?query=sum(x)&start={START}&end={START + 120}&step=60"
    assert authorization is None


async def test_series_that_follow_each_other_are_two(fake: Fake) -> None:
    access = fake.tell({})
    first, second = ({"metric": {"pod": pod}, "values": [[START, "1"]]} for pod in "ab")
    answers = [matrix(first), matrix(second)]
    fake.site.answer = lambda path, sent: Reply(200, {}, json.dumps(answers.pop(0)).encode())
    with pytest.raises(Unanswered, match=r'has 2 series.*\{pod="a"\}, \{pod="b"\}'):
        await recorded(access, "x", OVER)


@pytest.mark.parametrize(
    ("body", "status", "want"),
    [
        pytest.param(GAVE_UP, 503, "answers 503, timeout: too long", id="Prometheus gives up"),
        pytest.param(b"<html>", 200, "answers something else than Prometheus' API", id="a page"),
        pytest.param([], 200, "answers something else than Prometheus' API", id="a list"),
        pytest.param(b"", 401, "answers 401: it wants another token, from --token-file", id="no token"),
        pytest.param(b"<html>", 404, "answers 404 to /api/v1/query_range: is that Prometheus", id="another path"),
        pytest.param(b"", 302, "answers 302 and points to /login", id="a page to log in"),
        pytest.param({"status": "success", "data": {"resultType": "scalar"}}, 200, "the type scalar", id="a scalar"),
        pytest.param(matrix({"metric": {}, "histograms": [[1, {}]]}), 200, "has histograms: ask", id="histograms"),
        pytest.param(matrix({"metric": {}}), 200, "is none of Prometheus' API: KeyError", id="no values"),
        pytest.param(matrix({"metric": {}, "values": [[START, "x"]]}), 200, "cannot be asked: ValueError", id="a word"),
    ],
)
async def test_what_is_no_answer_says_why(fake: Fake, body: Any, status: int, want: str) -> None:
    with pytest.raises(Unanswered) as found:
        await recorded(fake.tell(body, status, Location="/login"), "sum(x)", SHORT)
    assert want in str(found.value)
    assert str(found.value).startswith(("http://127.0.0.1:", "sum(x)", "an answer"))


async def test_whoever_does_not_answer_is_not_waited_for() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unanswered, match=r"gave no whole answer within 0\.2 s"):
            await recorded(Access(f"http://127.0.0.1:{port}"), "x", SHORT, timeout_s=0.2)
    (nobody,) = free_ports(1)
    with pytest.raises(
        Unanswered, match=rf"http://127\.0\.0\.1:{nobody} cannot be asked: ClientConnectorError"
    ) as found:
        await recorded(Access(f"http://someone:secret@127.0.0.1:{nobody}"), "x", SHORT)
    assert "secret" not in str(found.value)


async def test_a_certificate_and_a_token(tmp_path: Path) -> None:
    authority, certificate = make_certificates(tmp_path)
    with web_server(certificate) as site:
        site.authorization = "Bearer open sesame"
        site.files["/api/v1/query_range"] = json.dumps(matrix(ONE)).encode()
        url = site.url("")
        with pytest.raises(Unanswered, match=r"certificate is not trusted.* --ca-file"):
            await recorded(Access(url, "open sesame"), "x", SHORT)
        with pytest.raises(Unanswered, match="answers 401: it wants another token"):
            await recorded(Access(url, "open barley", authority), "x", SHORT)
        found = await recorded(Access(url, "open sesame", authority), "x", SHORT)
        assert len(found.values) == 2
        with pytest.raises(Unanswered, match="holds no certificates in PEM"):
            await recorded(Access(url, None, tmp_path / "nothing.pem"), "x", SHORT)


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        pytest.param((), "there is no demand: name a CSV file before the spec", id="no demand"),
        pytest.param(("--query", "x"), "--query: name the Prometheus to ask", id="nobody to ask"),
        pytest.param(("--prometheus", "http://x"), "--prometheus: say what to ask, such as", id="nothing to ask"),
        pytest.param(("--prometheus", "localhost:9090", "--query", "x"), "give a URL such as", id="no scheme"),
        pytest.param(("--prometheus", "http://x:y", "--query", "x"), "give a URL such as", id="no port"),
        pytest.param((*ASKED, "--step", "90"), "--step: '90' is not", id="no unit"),
        pytest.param((*ASKED, "--step", "1.5s"), "--step 1.5s: must be", id="parts"),
        pytest.param((*ASKED, "--start", "1h", "--end", "2h"), "--start 1h is not before --end 2h", id="back in time"),
        pytest.param((*ASKED, "--start", "0"), "--start 0 to --end now is more than 40,000,000", id="decades"),
        pytest.param((*ASKED, "--start", "noon"), "--start noon: give a time such as", id="no time"),
        pytest.param((*ASKED, "--start", "2025-11-20T00:00:00"), "whose time? Add Z", id="no zone"),
        pytest.param((*ASKED, "--token-file", "no/file"), "--token-file no/file cannot be read", id="no token"),
    ],
)
def test_what_cannot_be_asked(
    flags: tuple[str, ...], want: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert simulate([str(tmp_path / "spec.yaml"), *BATCHES, *flags]) == 2
    told = capsys.readouterr()
    assert want in told.err
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of-file\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.setenv(demand.TOKEN, "of-environment")
    with web_server(None) as site:
        asked = (str(tmp_path / "spec.yaml"), *BATCHES, "--prometheus", site.url("", "127.0.0.1"), "--query", "x")
        for flags, want in (((), "of-environment"), (("--token-file", str(tmp_path / "token")), "of-file")):
            assert simulate([*asked, *flags]) == 2
            assert site.heard[-1][2] == f"Bearer {want}"
    assert "is that Prometheus" in capsys.readouterr().err
