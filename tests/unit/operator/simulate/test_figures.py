"""Do the benchmark's figures compare like with like?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evenkeel_operator.simulate.load import BadTrace, Trace
from tests.bench.control import demand, figures
from tests.bench.control.figures import Result


def result(*points: tuple[float, float], trace: str = "x", clairvoyant_s: float = 10.0) -> Result:
    """Return the outcome of (share late, GPU seconds) for each configuration, ours first."""
    late, gpu_s = (np.array(column) for column in zip(*points, strict=True))
    return Result(trace, late, gpu_s, np.zeros(len(points)), clairvoyant_s)


@pytest.mark.parametrize(
    ("ours", "want"),
    [
        pytest.param((0.10, 20.0), 1.0, id="on a setting of the others"),
        pytest.param((0.10, 10.0), 0.5, id="half of it"),
        pytest.param((0.05, 20.0), 20.0 / np.sqrt(20.0 * 80.0), id="between two of them"),
        pytest.param((0.00, 40.0), 0.5, id="as seldom late as the best of them"),
        pytest.param((0.90, 20.0), 2.0, id="later than any"),
    ],
)
def test_the_frontier(ours: tuple[float, float], want: float) -> None:
    others = [(0.10, 20.0), (0.0, 80.0), (0.05, 70.0), (0.20, 10.0), (0.30, 90.0)]
    assert figures.against_frontier([result(ours, *others)]) == pytest.approx(want)


def test_a_frontier_is_of_single_settings_for_all_traces() -> None:
    """Each trace has its own best setting; the frontier may take one only, the oracle both."""
    first = result((0.0, 20.0), (0.0, 20.0), (0.0, 80.0))
    second = result((0.0, 20.0), (0.0, 80.0), (0.0, 20.0), trace="y")
    assert figures.against_frontier([first, second]) == pytest.approx(0.5)
    assert figures.against_oracle([first, second]) == pytest.approx(1.0)


def test_the_oracle_is_late_no_more_often_than_we_are() -> None:
    found = result((0.02, 30.0), (0.03, 10.0), (0.02, 40.0), (0.01, 50.0))
    assert figures.oracle(found) == 2
    assert figures.oracle(replace(found, late=np.array([0.0, 0.03, 0.02, 0.01]))) == 3, "none is as good: the next best"


def test_a_trace_is_dominated_where_a_default_is_better_in_both() -> None:
    found = [result((0.02, 30.0), (0.01, 20.0)), result((0.02, 30.0), (0.01, 40.0), trace="y")]
    assert figures.dominated(found, [1]) == ["x"]


def test_one_who_knows_the_future_has_replicas_ready_before_they_are_needed() -> None:
    arrived = np.full(600, 10.0, np.float32)
    arrived[300:400] = 100.0
    got = figures.clairvoyant_s(arrived, 20.0, 60)
    # Five for the 100 seconds, the 60 before, and the tail of a mean of 15 s; the mean itself rises in steps.
    assert 5 * 155 + 600 - 175 <= got <= 5 * 175 + 600 - 155
    assert figures.clairvoyant_s(arrived * 0, 20.0, 60) == 600


def test_demand_is_scaled_to_its_peak_and_cut_into_days() -> None:
    minutes = Trace("m", 60, np.arange(3 * 1440 + 5, dtype=np.float32))
    found = demand.demands([minutes], 50.0, is_quick=False)
    assert [(d.ways, len(d.expected)) for d in found] == [(("steps",), 86400)] * 3 + [(("linear",), 86400)] * 3
    assert max(float(d.expected.max()) for d in found) == pytest.approx(12 * 50.0, rel=0.01)
    (quick, _) = demand.demands([minutes], 50.0, is_quick=True)
    assert len(quick.expected) == demand.DAY_S


@pytest.mark.parametrize("folder", [None, Path("/nowhere"), Path(__file__).parent])
def test_a_folder_without_traces_is_said_so(folder: Path | None) -> None:
    with pytest.raises(BadTrace, match=r"no traces: name a folder|no CSV file of counts here"):
        demand.traces(folder)
