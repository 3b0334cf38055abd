"""Does `evenkeel simulate` tell what would have happened, and where its input is wrong?"""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from evenkeel_operator.simulate.command import simulate

SPEC = """
apiVersion: evenkeel.dev/v1alpha1
kind: ModelDeployment
metadata: {name: digits}
spec:
  model: {uri: "pvc://models/digits.pt2"}
  objectives: {latency: [{quantile: 0.95, target: 200ms}]}
  scaling: {minReplicas: 1, maxReplicas: 8}
"""
TRACE = "minute,requests\n0,600\n1,24000\n2,600\n3,600\n"
BATCHES = ("--batch", "1=20ms", "--batch", "8=60ms")


def sized(rows: int) -> str:
    """Return a spec whose batches have `rows` rows at most."""
    return f"{SPEC}  runtime: {{batching: {{maxSize: {rows}}}}}\n"


def run(folder: Path, trace: str, spec: str, *flags: str) -> int:
    (folder / "day.csv").write_text(trace)
    (folder / "spec.yaml").write_text(spec)
    return simulate([str(folder / "day.csv"), str(folder / "spec.yaml"), *flags])


def test_a_table_of_what_would_have_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = tmp_path / "day.html"
    page = ("--page", str(where), "--beside", "KPA")
    assert run(tmp_path, TRACE, SPEC, *BATCHES, "--cold-start", "10s", *page) == 0
    told, _, assumed = capsys.readouterr().out.partition("assumed:\n")
    head, _, *rows = told.splitlines()
    *_, written = assumed.splitlines()
    assert head.startswith("day: 0.1 h, ")
    assert "p95 within 200ms, 1 to 8 replicas" in head
    found = {row[:22].strip(): row[22:].split() for row in rows}
    want = {"Evenkeel", "HPA rps", "HPA latency", "KPA", "KPA rps", "KEDA queue", "Ray Serve", "static, 4"}
    assert set(found) == want
    late, *window, hours, changes = found["Evenkeel"]
    assert window == ["no", "window"], "four minutes hold no five"
    assert 0.0 < float(late.rstrip("%")) < 60.0
    assert 4 / 60 < float(hours) < 8 * 4 / 60
    assert int(changes) >= 1
    assert found["static, 4"][3:] == ["0.27", "1"], "asked for in the first second"
    assert written == str(where)
    assert "KPA: " in where.read_text()


def test_a_replica_of_two_gpus_carries_what_two_engines_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steady = "minute,requests\n" + "".join(f"{minute},9000\n" for minute in range(4))
    late = []
    for runtime in ("gpu: {count: 1}", "gpu: {count: 2}", "gpu: {count: 2}\n  runtime: {image: example.com/own}"):
        spec = SPEC.replace("maxReplicas: 8", "maxReplicas: 1") + f"  {runtime}\n"
        assert run(tmp_path, steady, spec, *BATCHES) == 0
        found = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("Evenkeel"))
        late.append(float(found.split()[1].rstrip("%")))
    assert late[0] > 50.0, "150 requests a second are more than 133"
    assert late[1] < 5.0
    assert late[2] == late[0], "of another image nobody knows how many batches it runs"


@pytest.mark.parametrize(
    ("trace", "spec", "flags", "want"),
    [
        pytest.param(TRACE + "4,x\n", SPEC, BATCHES, "day.csv, line 6: `x` is no number", id="a bad line"),
        pytest.param(TRACE, "a: [", BATCHES, "spec.yaml cannot be read", id="no YAML"),
        pytest.param(TRACE, "a: 2026-13-45", BATCHES, "spec.yaml cannot be read: month", id="no day"),
        pytest.param(TRACE, "a: !!timestamp soon", BATCHES, "spec.yaml cannot be read", id="no time stamp"),
        pytest.param(TRACE, "[" * 999, BATCHES, "spec.yaml cannot be read", id="lists in lists without end"),
        pytest.param(TRACE, "[]", BATCHES, "spec.yaml is no ModelDeployment", id="a list"),
        pytest.param(
            TRACE,
            SPEC.replace("200ms", "soon"),
            BATCHES,
            "spec.objectives.latency.0.target: 'soon' is not",
            id="no duration",
        ),
        pytest.param(
            TRACE, SPEC.replace("200ms", "0s"), BATCHES, "latency.0.target: must be from 1ms to 10m", id="no target"
        ),
        pytest.param(
            TRACE,
            SPEC.replace("200ms", "11m"),
            BATCHES,
            "latency.0.target: must be from 1ms to 10m",
            id="a long target",
        ),
        pytest.param(
            TRACE, SPEC.replace("0.95", "1.5"), BATCHES, "latency.0.quantile: must be from 0.5 to", id="more than all"
        ),
        pytest.param(
            TRACE, SPEC.replace("0.95", "0"), BATCHES, "latency.0.quantile: must be from 0.5 to", id="the quickest"
        ),
        pytest.param(
            TRACE, SPEC.replace("0.95", ".nan"), BATCHES, "latency.0.quantile: must be from 0.5", id="no quantile"
        ),
        pytest.param(
            TRACE, SPEC.replace("Replicas: 1", "Replicas: 9"), BATCHES, "maxReplicas: must be at least", id="no size"
        ),
        pytest.param(TRACE, SPEC.partition("  scaling")[0], BATCHES, "spec.scaling have to be there", id="no bounds"),
        pytest.param(TRACE, SPEC.replace("8}", "900}"), BATCHES, "at most 255 replicas", id="too many replicas"),
        pytest.param(TRACE, SPEC, ("--batch", "20ms"), "--batch 20ms: give the rows", id="a batch without rows"),
        pytest.param(TRACE, SPEC, ("--batch", "0=20ms"), "--batch 0=20ms: give the rows", id="no rows"),
        pytest.param(
            TRACE,
            sized(32),
            ("--batch", "1=20ms"),
            "--batch 1=20ms alone does not tell how long a batch of 32 rows takes, which the spec's runtime.batching",
            id="one size alone",
        ),
        pytest.param(
            TRACE, SPEC, (*BATCHES, "--batch", "8=70ms"), "8=70ms: there is another time for 8 rows", id="two times"
        ),
        pytest.param(TRACE, SPEC, ("--batch", "1=20"), "--batch 1=20: '20' is not a duration", id="no unit"),
        pytest.param(TRACE, SPEC, ("--batch", "1=0s"), "--batch 1=0s: must be from 0.001ms to 10m", id="no time"),
        pytest.param(TRACE, SPEC, ("--batch", f"1={'9' * 400}s"), "9s: must be from 0.001ms to 10m", id="no end"),
        pytest.param(TRACE, SPEC, ("--batch", f"{'9' * 5000}=1s"), "give the rows, 1 to 1024", id="too many rows"),
        pytest.param(
            TRACE, SPEC, (*BATCHES, "--cold-start", "61m"), "--cold-start: must be from 0ms to 60m", id="a long start"
        ),
        pytest.param(TRACE, SPEC, (*BATCHES, "--seed", "-1"), "--seed -1: must be 0 or more", id="a seed below none"),
        pytest.param(TRACE, SPEC, (*BATCHES, "--cold-start", "x"), "--cold-start: 'x' is not", id="a bad start"),
        pytest.param(TRACE, SPEC, (*BATCHES, "--page", "no/x.html"), "--page no/x.html: cannot be", id="no folder"),
        pytest.param(TRACE, SPEC, ("--batch", "1=500ms"), "misses the target of 200ms", id="a model that is too slow"),
    ],
)
def test_bad_input(
    trace: str, spec: str, flags: tuple[str, ...], want: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, trace, spec, *flags) == 2
    told = capsys.readouterr()
    assert want in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1, "one line"
    assert told.out == ""


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert simulate([str(tmp_path / "day.csv"), str(tmp_path / "spec.yaml"), *BATCHES]) == 2
    assert "day.csv cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trace", "spec", "flags", "want"),
    [
        pytest.param(
            TRACE, SPEC, BATCHES, "batches have 8 rows at most, the largest --batch: the spec has no", id="no most rows"
        ),
        pytest.param(
            TRACE, sized(32), BATCHES, "more than 8 rows follow the line through those measured: 197ms", id="a line"
        ),
        pytest.param(
            TRACE, sized(8), ("--batch", "8=20ms"), "fewer than 8 rows take as long as one of 8", id="one large size"
        ),
        pytest.param(
            TRACE,
            SPEC,
            (*BATCHES, "--batch", "4=60ms"),
            "a batch of 4 takes 41ms, not 60ms: a curve that is flat and then a line does not meet",
            id="times that bend the other way",
        ),
        pytest.param(TRACE, SPEC, BATCHES, "ready 60 s after it was asked for (--cold-start)", id="a start"),
        pytest.param(TRACE, SPEC, BATCHES, "begins with 1 replica ready and nothing learnt; each", id="a first size"),
        pytest.param(TRACE, SPEC, BATCHES, "60 s come evenly over its seconds (--expand steps)", id="minutes"),
        pytest.param(TRACE + "9,5\n", SPEC, BATCHES, "5 of 10 minutes are not in the file and count as", id="a gap"),
        pytest.param(
            "minute,a,b_tokens\n0,5,7\n", SPEC, BATCHES, "left out, as they count no requests: b_tokens", id="tokens"
        ),
        pytest.param(
            TRACE,
            SPEC.replace("target: 200ms}", "target: 200ms}, {target: 1s}"),
            BATCHES,
            "of 2 latencies in the spec the first is held",
            id="two targets",
        ),
    ],
)
def test_what_the_figures_rest_on_is_told(
    trace: str, spec: str, flags: tuple[str, ...], want: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "day.html"
    assert run(tmp_path, trace, spec, *flags, "--page", str(page)) == 0
    (told,) = (row for row in capsys.readouterr().out.splitlines() if want in row)
    assert told.removeprefix("  - ") in html.unescape(page.read_text())


def test_flags_may_stand_between_the_files(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text(TRACE)
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert simulate([str(tmp_path / "day.csv"), *BATCHES, str(tmp_path / "spec.yaml"), "--seed", "2"]) == 0
