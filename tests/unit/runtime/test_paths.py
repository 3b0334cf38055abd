"""Is a model called in another way only where that answers the same, and is every way tried that may be faster?"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evenkeel_runtime.engine import measure, paths
from evenkeel_runtime.models.loaded import Loaded
from tests.unit.runtime.models import CASES, exported
from tests.unit.runtime.test_export import loaded

SHORT_S, LONG_S, TOO_LONG_S = 0.001, 0.1, 1.0
PATHS = ("eager", "torchscript", "onednn")


def convolution() -> Loaded:
    return loaded(exported(CASES["convolution with batch norm and dropout"]))


def seem_fastest(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this path seem faster than the others."""
    names: dict[Any, str] = {}
    traced = paths._traced

    def spying(model: Loaded, size: int, is_long: bool) -> dict[str, Any]:
        found = traced(model, size, is_long)
        names.update({call: name for name, call in found.items()})
        return found

    def seconds(call: Any, rows: Any, device: str, least: int = 2) -> float:
        return 0.01 if names.get(call, "eager") == path else 1.0

    monkeypatch.setattr(paths, "_traced", spying)
    monkeypatch.setattr(paths, "seconds", seconds)


@pytest.mark.parametrize(
    ("path", "first_s"),
    [
        *(pytest.param(path, SHORT_S, id=f"a short one, {path}") for path in PATHS),
        *(pytest.param(path, LONG_S, id=f"a long one, {path}") for path in ("eager", "onednn")),
    ],
)
def test_every_path_answers_the_same(path: str, first_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolution()
    seem_fastest(path, monkeypatch)
    with torch.inference_mode():
        call, got = paths.fastest(model, model.call, 32, first_s)
        assert got == path
        for rows in (1, 2, 5, 32):
            inputs = measure.made_up(model, rows)
            for a, b in zip(model.call(*inputs), call(*inputs), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_path_that_answers_otherwise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(frozen: Any) -> Any:
        return lambda rows: [torch.zeros_like(output) for output in frozen(rows)]

    monkeypatch.setattr(torch.jit, "optimize_for_inference", wrong)
    tried: list[Any] = []

    def seconds(call: Any, rows: Any, device: str, least: int = 2) -> float:
        tried.append(call)
        return 1.0 / len(tried)  # the last that is tried seems the fastest

    monkeypatch.setattr(paths, "seconds", seconds)
    model = convolution()
    with torch.inference_mode():
        _, got = paths.fastest(model, model.call, 32, SHORT_S)
    assert got != "onednn"
    assert len(set(tried)) == 2


@pytest.mark.parametrize(
    ("first_s", "most_bytes", "want"),
    [
        pytest.param(SHORT_S, 1 << 20, {"eager", "torchscript", "onednn"}, id="a short one is tried in every way"),
        pytest.param(SHORT_S, 1, {"eager", "torchscript"}, id="heavy weights are not copied"),
        pytest.param(LONG_S, 1 << 20, {"eager", "onednn"}, id="a long one by oneDNN alone"),
        pytest.param(LONG_S, 1, {"eager"}, id="a long one with heavy weights as it is"),
        pytest.param(TOO_LONG_S, 1 << 20, {"eager"}, id="one that takes a second does not hold up the start"),
    ],
)
def test_what_is_tried(first_s: float, most_bytes: int, want: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_MOST_PACKED_BYTES", most_bytes)
    monkeypatch.setattr(paths, "seconds", lambda call, rows, device, least=2: 1.0)
    seen = {"eager"}
    traced = paths._traced

    def spying(model: Loaded, size: int, is_long: bool) -> dict[str, Any]:
        found = traced(model, size, is_long)
        seen.update(found)
        return found

    monkeypatch.setattr(paths, "_traced", spying)
    model = convolution()
    with torch.inference_mode():
        paths.fastest(model, model.call, 32, first_s)
    assert seen == want


def test_a_long_one_that_is_not_faster_for_one_row_is_called_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = convolution(), []

    def call(images: torch.Tensor) -> Any:
        rows.append(len(images))
        return model.call(images)

    monkeypatch.setattr(paths, "seconds", lambda call, rows, device, least=2: LONG_S)
    monkeypatch.setattr(paths, "_traced", lambda model, size, is_long: {"onednn": call})
    with torch.inference_mode():
        _, got = paths.fastest(model, model.call, 32, LONG_S)
    assert got == "eager"
    assert rows == []
