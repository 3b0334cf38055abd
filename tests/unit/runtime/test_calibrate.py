"""Is a long model tried out with few calls, and are requests told apart that cannot share one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine import measure
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.models.loaded import Loaded, Signature

ROW_S = 0.03
ROWS = (Tensor("row", "FP32", (-1, 2)),)
Answer = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Long:
    """A clock, and a model that takes `ROW_S` of it for a row, with one thread twice that where it is `threaded`.

    `rows` has those of each call.
    """

    answer: Answer = lambda row: row * 2
    threaded: bool = False
    rows: list[int] = field(default_factory=list)
    now: float = 0.0

    def __call__(self, row: torch.Tensor) -> Sequence[torch.Tensor]:
        self.rows.append(len(row))
        self.now += ROW_S * len(row) * (2 if self.threaded and torch.get_num_threads() == 1 else 1)
        return (self.answer(row),)

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Long]]:
    threads = torch.get_num_threads()

    def made(answer: Answer = lambda row: row * 2, threaded: bool = False) -> Long:
        found = Long(answer, threaded)
        monkeypatch.setattr(measure, "time", found)
        return found

    yield made
    torch.set_num_threads(threads)


def loaded(call: Long, batch: int | None = 0, warm_rows: int = 0) -> Loaded:
    signature = Signature(ROWS, ROWS, batch, ((1, 2),))
    return Loaded("TorchExport", "pytorch_exported", signature, call, "cpu", traceable=False, warm_rows=warm_rows)


@pytest.mark.parametrize(
    ("batch", "warm_rows", "want"),
    [
        pytest.param(0, 0, [1, 1, 2, 2], id="two rows are timed when they have been called once"),
        pytest.param(0, 2, [1, 1, 2], id="two rows that were called while it was loaded are timed at once"),
        pytest.param(1, 0, [1, 1], id="a file of one row"),
        pytest.param(None, 0, [1, 1], id="requests that share no call"),
    ],
)
def test_calls_of_a_long_model(long: Callable[..., Long], batch: int | None, warm_rows: int, want: list[int]) -> None:
    call = long()
    found = calibrate(loaded(call, batch, warm_rows), 1, 8)
    assert call.rows == want
    assert found.forward_s == pytest.approx(ROW_S)


def test_threads_of_a_long_model_are_compared_on_a_single_row(long: Callable[..., Long]) -> None:
    call = long(threaded=True)
    assert calibrate(loaded(call, warm_rows=2), 2, 8).threads == 2
    assert call.rows == [1, 1, 2, 1, 1]
    assert calibrate(loaded(long()), 2, 8).threads == 1


@pytest.mark.parametrize(
    ("batch", "most_rows", "answer", "want"),
    [
        pytest.param(None, 8, lambda row: row, "first dimensions", id="no dimension of rows"),
        pytest.param(1, 8, lambda row: row, "no more than one row", id="a file of one row"),
        pytest.param(0, 1, lambda row: row, "no more than one row", id="one row, as the spec says"),
        pytest.param(0, 8, lambda row: row, "no more rows a second", id="batches that are no faster"),
        pytest.param(
            0, 8, lambda row: row - row.mean(0), "another one than alone", id="rows that influence each other"
        ),
        pytest.param(0, 8, lambda row: row.view(1, 2), "2 rows fails: RuntimeError: shape", id="a call that fails"),
    ],
)
def test_why_requests_share_no_call(
    long: Callable[..., Long], batch: int | None, most_rows: int, answer: Answer, want: str
) -> None:
    found = calibrate(loaded(long(answer), batch, warm_rows=2), 1, most_rows)
    assert found.max_rows < 2
    assert want in found.apart


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        pytest.param(lambda row: row * 2, True, id="rows of their own"),
        pytest.param(lambda row: row - row.mean(0), False, id="all rows change each other"),
        pytest.param(lambda row: row.cumsum(0), False, id="the first changes the second"),
        pytest.param(lambda row: row.flip(0).cumsum(0).flip(0), False, id="the second changes the first"),
    ],
)
def test_requests_share_a_call_of_a_long_model_where_rows_are_independent(
    long: Callable[..., Long], answer: Answer, want: bool
) -> None:
    assert (calibrate(loaded(long(answer), warm_rows=2), 1, 8).max_rows > 0) is want
