"""Are the arguments of operators checked that torch calls as they come, and is nothing refused that fits?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from evenkeel_runtime.models.guarded import Misfit, guard
from evenkeel_runtime.models.operators import is_listed

A = torch.ops.aten
ROWS, STEPS, WIDTH, HIDDEN = 3, 5, 4, 2


def ones(*sizes: int) -> torch.Tensor:
    return torch.ones(sizes)


def weights(gates: int, *, layers: int = 1, ways: int = 1, projected: int = 0) -> list[torch.Tensor]:
    found, width, out = [], WIDTH, projected or HIDDEN
    for _ in range(layers):
        for _ in range(ways):
            found += [ones(gates * HIDDEN, width), ones(gates * HIDDEN, out), *[ones(gates * HIDDEN)] * 2]
            found += [ones(projected, HIDDEN)] * (projected > 0)
        width = ways * out
    return found


def lstm(
    batch: int = ROWS, params: list[torch.Tensor] | None = None, *, layers: int = 1, ways: int = 1, out: int = 0
) -> Any:
    states = [ones(layers * ways, batch, out or HIDDEN), ones(layers * ways, batch, HIDDEN)]
    given = weights(4, layers=layers, ways=ways, projected=out) if params is None else params
    return A.lstm.input, (ones(ROWS, STEPS, WIDTH), states, given, True, layers, 0.0, False, ways == 2, True)


def gru(batch: int = ROWS, gates: int = 3) -> Any:
    states = ones(1, batch, HIDDEN)
    return A.gru.input, (ones(ROWS, STEPS, WIDTH), states, weights(gates), True, 1, 0.0, False, False, True)


def norm(*sizes: int) -> Any:
    weight, bias, mean, var = map(ones, sizes)
    rows = ones(ROWS, WIDTH, STEPS)
    return A._native_batch_norm_legit_no_training.default, (rows, weight, bias, mean, var, 0.1, 1e-5)


def attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], mask: Any = None, **more: Any
) -> Any:
    return A.scaled_dot_product_attention.default, (ones(*query), ones(*key), ones(*value), mask), more


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: lstm(), id="an LSTM"),
        pytest.param(lambda: lstm(layers=2, ways=2), id="of two layers, both ways"),
        pytest.param(lambda: lstm(out=1), id="with a projection"),
        pytest.param(lambda: gru(), id="a GRU"),
        pytest.param(lambda: norm(4, 4, 4, 4), id="a batch norm"),
        pytest.param(lambda: attention((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)), id="an attention"),
        pytest.param(
            lambda: attention((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), ones(5, 6)), id="with a mask for all heads"
        ),
        pytest.param(
            lambda: attention((2, 6, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), enable_gqa=True), id="with heads in groups"
        ),
        pytest.param(lambda: (A._weight_norm.default, (ones(4, 3), ones(4, 1), 0)), id="a weight norm"),
    ],
)
def test_what_fits_is_called(call: Callable[[], Any]) -> None:
    operator, args, *more = call()
    kwargs = more[0] if more else {}
    want = operator(*args, **kwargs)
    got = guard(str(operator).rpartition(".")[0], operator)(*args, **kwargs)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        pytest.param(lambda: lstm(1), "state 0", id="the state of a smaller batch"),
        pytest.param(lambda: lstm(params=[ones(1, 1)] * 4), "weight 0", id="weights of a smaller layer"),
        pytest.param(lambda: lstm(params=weights(4)[:2]), "2 weights", id="weights that are missing"),
        pytest.param(lambda: gru(gates=1), "weight 0", id="gates that are missing"),
        pytest.param(lambda: norm(1, 4, 4, 4), "weight", id="a batch norm's weight for one channel"),
        pytest.param(lambda: norm(4, 4, 4, 1), "running_var", id="a batch norm's variance of one channel"),
        pytest.param(lambda: attention((1, 1, 5, 4), (1, 1, 9, 4), (1, 1, 6, 4)), "value", id="fewer values than keys"),
        pytest.param(lambda: attention((1, 9, 5, 4), (1, 1, 6, 4), (1, 1, 6, 4)), "key", id="fewer heads of keys"),
        pytest.param(
            lambda: attention((1, 1, 5, 4), (1, 1, 6, 4), (1, 1, 6, 4), ones(2, 6)), "mask", id="a mask of fewer rows"
        ),
        pytest.param(lambda: (A._weight_norm.default, (ones(4, 3), ones(1, 1), 0)), "weight norm", id="one weight's g"),
        pytest.param(
            lambda: (A._fft_c2r.default, (torch.ones(3, dtype=torch.complex64), [7], 0, 4)),
            "Fourier",
            id="no dimension",
        ),
        pytest.param(
            lambda: (A.grid_sampler.default, (ones(1, 1, 4, 4), ones(1, 2, 2, 2), 7, 0, False)), "grid", id="no mode"
        ),
        pytest.param(
            lambda: (A.repeat_interleave.Tensor, (torch.full((4,), 1 << 62),)), "repeated", id="repeats that overflow"
        ),
    ],
)
def test_what_does_not_fit_is_not_called(call: Callable[[], Any], word: str) -> None:
    operator, args, *_ = call()
    with pytest.raises(Misfit, match=word):
        guard(str(operator).rpartition(".")[0], operator)(*args)


@pytest.mark.parametrize("name", ["embedding_bag.padding_idx", "_embedding_bag_forward_only.default"])
def test_negative_offsets_count_as_none_in_a_trace_too(name: str) -> None:
    base, overload = name.split(".")
    bag = guard(f"aten.{base}", getattr(getattr(A, base), overload))

    def call(indices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = bag(ones(4, 2), indices, offsets, False, 0, False, None, False, -1)[0]
        return found

    ids, offsets = torch.tensor([0, 1, 2]), torch.tensor([0, -100000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(call, (ids, torch.tensor([0, 1])), check_trace=False)  # type: ignore[no-untyped-call]
    want = call(ids, torch.tensor([0, 0]))
    torch.testing.assert_close(call(ids, offsets), want)
    torch.testing.assert_close(traced(ids, offsets), want)


def test_memory_is_never_handed_out_as_it_is() -> None:
    empty = guard("aten.empty", A.empty.memory_format)
    for _ in range(20):
        torch.full((4096,), 7.0)  # what an earlier request has left
        assert not empty([4096], dtype=torch.float32, layout=torch.strided, device="cpu", pin_memory=False).any()
    made = empty([1, 2, 3, 3], memory_format=torch.channels_last)
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("torch.ops.aten.__and__.Scalar", True),
        ("torch.ops.aten.__class__.__init__", False),
        ("torch.ops.aten.add.Tensor", True),
        ("torch.ops.aten.add_.Tensor", True),
        ("torch.ops.aten.add.out", False),
        ("torch.ops.aten.set_.source_Storage", False),
        ("torch.ops.aten.resize_.default", False),
        ("torch.ops.aten.new_empty.default", False),
        ("torch.ops.aten.lstm.data", False),
        ("torch.ops.aten._upsample_bilinear2d_aa.vec", True),
        ("torch.ops.aten._upsample_bilinear2d_aa.default", False),
        ("torch.ops.prims.convert_element_type.default", True),
        ("torch.ops.prims.empty_strided.default", False),
        ("torch.ops.quantized.linear.default", False),
        ("torch.ops.aten.relu.default.x", False),
    ],
)
def test_listed(name: str, want: bool) -> None:
    assert is_listed(name) is want


def test_every_listed_operator_is_torch_s() -> None:
    from evenkeel_runtime.models import operators

    assert [name for name in operators._ATEN if not hasattr(A, name)] == []
