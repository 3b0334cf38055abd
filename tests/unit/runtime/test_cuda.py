"""Which recording computes which rows, and which are kept? What a GPU does itself is seen by `make gpu` alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evenkeel_runtime.engine import cuda


class Graph:
    """Calls again what was called while it was captured."""

    current: Graph | None = None

    def __init__(self) -> None:
        self.again: Any = None

    def replay(self) -> None:
        self.again()


class Capturing:
    def __init__(self, graph: Graph, *told: object, **more: object) -> None:
        self.graph = graph

    def __enter__(self) -> None:
        Graph.current = self.graph

    def __exit__(self, *error: object) -> None:
        Graph.current = None


class Moment:
    """A stream or an event of a machine that has none: all is done when it is asked for."""

    def __init__(self, *told: object, **more: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def record(self, stream: object) -> None: ...

    def synchronize(self) -> None: ...


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Moment)
    monkeypatch.setattr(torch.cuda, "stream", Moment)
    monkeypatch.setattr(torch.cuda, "graph", Capturing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))


class Doubling:
    """Doubles its rows, notes how many it was called with, and can be recorded."""

    def __init__(self) -> None:
        self.called: list[int] = []

    def __call__(self, rows: torch.Tensor) -> list[torch.Tensor]:
        self.called.append(rows.shape[0])
        answer = rows * 2
        if Graph.current is not None:
            Graph.current.again = lambda: answer.copy_(rows * 2)
        return [answer]


@pytest.mark.parametrize(
    ("most", "rows", "want"),
    [
        pytest.param(100, (1, 2, 3, 5, 8), {1, 2, 4, 8}, id="the next power of two"),
        pytest.param(6, (4, 5, 6), {4, 6}, id="no more rows than the model takes"),
        pytest.param(None, (3, 5), {3, 5}, id="a dimension that is no rows, as it is"),
    ],
)
def test_sizes_that_are_recorded(most: int | None, rows: tuple[int, ...], want: set[int]) -> None:
    model = Doubling()
    call = cuda.OnGpu(model, most, records=True)
    for count in rows:
        for _ in range(2):
            given = torch.rand(count, 3)
            (answer,) = call(given)
            assert torch.equal(answer, given * 2)
    assert set(model.called) == want


def test_what_is_kept_is_replayed_and_the_rest_is_launched() -> None:
    model = Doubling()
    call = cuda.OnGpu(model, 64, records=True)
    for count in (2, 4, 8):
        call(torch.rand(count, 3))
    call.keep(3)
    model.called.clear()
    for shape in ((2, 3), (3, 3), (8, 3), (2, 5)):
        given = torch.rand(*shape)
        (answer,) = call(given)
        assert torch.equal(answer, given * 2)
    assert model.called == [8, 2]


def test_an_error_is_the_models_own_while_the_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(rows: torch.Tensor) -> Any:
        raise RuntimeError("of the model")

    call = cuda.OnGpu(failing, 64, records=False)
    with pytest.raises(RuntimeError, match="of the model"):
        call(torch.rand(1, 3))

    def gone() -> None:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", gone)
    with pytest.raises(cuda.DeviceLost, match="of the model"):
        call(torch.rand(1, 3))
