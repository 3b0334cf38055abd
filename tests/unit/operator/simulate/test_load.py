"""Is a trace read as it was written, and refused with the line and the way out where it is none?"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from evenkeel_operator.simulate.load import BadTrace, Trace, arrivals, expand, moving_mean, peak, read


def written(folder: Path, text: str, name: str = "day.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_a_column_is_a_trace_and_a_gap_is_no_request(tmp_path: Path) -> None:
    path = written(tmp_path, "minute,office,batch,all_tokens\n3,60,0,9\n4,120,6,9\n6,60,0,9\n", "two.csv.gz")
    office, batch = read(path)
    assert (office.name, office.interval_s, office.counts.tolist()) == ("office", 60, [60, 120, 0, 60])
    assert (batch.name, batch.counts.tolist()) == ("batch", [0, 6, 0, 0])
    (alone,) = read(written(tmp_path, "second,requests\n0,5\n1,7\n"))
    assert (alone.name, alone.interval_s) == ("day", 1)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("", "line 1: the first column must be called `second` or `minute`", id="nothing"),
        pytest.param("hour,requests\n0,5\n", "line 1: the first column must be called", id="another unit"),
        pytest.param("minute\n0\n", "line 1: there is no column of counts beside `minute`", id="no counts"),
        pytest.param("minute,requests\n", "there are no counts below the header", id="a header alone"),
        pytest.param("minute,requests\n0,5\n1,x\n", "line 3: `x` is no number", id="a word"),
        pytest.param("minute,requests\n0,5\n1\n", "line 3: 1 value, where the header names 2", id="half a row"),
        pytest.param("minute,requests\n0,5\n1,-2\n", "line 3: `-2` is negative", id="fewer than none"),
        pytest.param("minute,requests\n0,5\n1,nan\n", "line 3: `nan` is no number", id="NaN"),
        pytest.param("minute,requests\n0,5\n2,1\n1,1\n", "line 4: minute 1 does not come after 2", id="back in time"),
        pytest.param("minute,requests\n0,5\n0.5,1\n", "line 3: `0.5` is no whole minute", id="half a minute"),
        pytest.param("minute,requests\n0,5\n9999999999,1\n", "line 3: minute 9999999999 is", id="without end"),
        pytest.param("minute,requests\n0,5\n700000,1\n", "line 3: minute 700000 is more than 666,666", id="years"),
        pytest.param("second,a,b\n0,5,5\n39999990,1,1\n", "2 columns of 39,999,991 seconds are", id="years, twice"),
        pytest.param("minute,requests\n0,1e300\n", "line 2: `1e300` is more than 1,000,000,000", id="too many"),
        pytest.param("minute,requests\n0,inf\n", "line 2: `inf` is more than 1,000,000,000", id="infinitely many"),
        pytest.param(f"minute,requests\n0,{'x' * 99}\n", f"line 2: `{'x' * 40}…` is no number", id="a long word"),
        pytest.param(f"minute,requests\n0,{'9' * 200_000}\n", "line 2: no line of a CSV file: field", id="no field"),
    ],
)
def test_anything_else_is_refused_with_its_line(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(BadTrace) as found:
        read(written(tmp_path, text))
    assert want in str(found.value)
    assert "day.csv" in str(found.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadTrace, match="UTF-8"):
        read(path)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"plain", id="plain text"),
        pytest.param(gzip.compress(b"minute,requests\n0,5\n")[:-9], id="cut off"),
        pytest.param(gzip.compress(b"")[:10] + b"\xff" * 20, id="another compression within"),
    ],
)
def test_what_is_no_whole_gzip_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(data)
    with pytest.raises(BadTrace, match=r"x\.csv\.gz is no whole gzip file"):
        read(path)


def test_a_trace_may_start_at_any_time(tmp_path: Path) -> None:
    start = 10**30
    (trace,) = read(written(tmp_path, f"second,requests\n{start},5\n{start + 2},7\n"))
    assert trace.counts.tolist() == [5, 0, 7]


def test_minutes_become_seconds_as_steps_or_as_a_line() -> None:
    trace = Trace("x", 60, np.array([60.0, 120.0, 60.0], np.float32))
    steps, linear = expand(trace, "steps"), expand(trace, "linear")
    assert len(steps) == len(linear) == 180
    assert set(steps.tolist()) == {1.0, 2.0}
    assert linear.sum() == pytest.approx(steps.sum(), rel=0.05)
    assert linear[89] == pytest.approx(2.0, abs=0.01)
    assert np.abs(np.diff(linear)).max() < 0.02


def test_the_peak_is_that_of_half_a_minute() -> None:
    counts = np.zeros(120, np.float32)
    counts[50:65] = 30.0
    assert peak(Trace("x", 1, counts)) == pytest.approx(15.0)
    assert peak(Trace("x", 60, np.array([60.0, 600.0], np.float32))) == pytest.approx(10.0)


def test_a_mean_of_the_last_values_is_of_fewer_at_the_beginning() -> None:
    whole = np.arange(10, dtype=np.float32)
    assert moving_mean(whole, 2).tolist() == [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]


def test_arrivals_scatter_around_what_is_expected() -> None:
    assert arrivals(np.full(5000, 3.0, np.float32), 1).mean() == pytest.approx(3.0, rel=0.05)
