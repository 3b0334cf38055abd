"""Is a request refused that torch's own guards refuse, whatever protocol it comes by, and no other?"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import torch
from torch.export import Dim

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Dimension, Place, Signature
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.v1 import Predictions
from tests.unit.runtime.models import Case, exported

Sizes = tuple[int, ...]
BATCH, LENGTH = Dim("batch"), Dim("length", min=3, max=16)


class Masked(torch.nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (x * mask[:, : x.shape[1]]).sum(1)


class Summed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)


@functools.cache
def both(second: Any) -> bytes:
    """Return a model of two inputs, the second as long as that dimension says."""
    length = 5 if second is LENGTH else 11
    shapes = {"x": {0: BATCH, 1: LENGTH}, "mask": {0: BATCH, 1: second}}
    return exported(Case(Masked, lambda rows: (torch.ones(rows, 5), torch.ones(rows, length)), shapes))


def summed(batch: Any, columns: Any = None) -> bytes:
    shapes = {"x": {0: batch} if columns is None else {0: batch, 1: columns}}
    return exported(Case(Summed, lambda rows: (torch.ones(rows, 8),), shapes))


def signature(data: bytes) -> Signature:
    found, archive = recognise(io.BytesIO(data), len(data))
    return found.signature(archive)


def asked_in_json(seen: Signature, shapes: list[Sizes]) -> None:
    entries = [
        {"name": tensor.name, "datatype": "FP32", "shape": shape, "data": torch.ones(shape).flatten().tolist()}
        for tensor, shape in zip(seen.inputs, shapes, strict=True)
    ]
    reader(seen).read(orjson.dumps({"inputs": entries}), None)


def asked_in_binary(seen: Signature, shapes: list[Sizes]) -> None:
    """Also how gRPC's requests are read."""
    sizes = [4 * torch.ones(shape).numel() for shape in shapes]
    entries = [
        {"name": tensor.name, "datatype": "FP32", "shape": list(shape), "parameters": {"binary_data_size": size}}
        for tensor, shape, size in zip(seen.inputs, shapes, sizes, strict=True)
    ]
    reader(seen).read_document({"inputs": entries}, bytes(sum(sizes)))


def asked_in_v1(seen: Signature, shapes: list[Sizes]) -> None:
    values = [torch.ones(shape).tolist() for shape in shapes]
    names = [tensor.name for tensor in seen.inputs]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    has_batch = seen.batch is not None
    model = Predictions(seen.inputs, seen.outputs, has_batch, 100, seen.dimensions, seen.way_out)
    model.read(orjson.dumps({"instances": rows if has_batch else [dict(zip(names, values, strict=True))]}))


def reader(seen: Signature) -> Reader:
    return Reader(seen.inputs, seen.outputs, seen.batch is not None, 100, seen.dimensions, seen.way_out)


@pytest.mark.parametrize("ask", [asked_in_json, asked_in_binary, asked_in_v1])
@pytest.mark.parametrize(
    ("second", "shapes", "want"),
    [
        pytest.param(LENGTH, [(2, 4), (2, 4)], None, id="as exported"),
        pytest.param(LENGTH, [(2, 16), (2, 16)], None, id="the most"),
        pytest.param(
            LENGTH, [(1, 20), (1, 20)], r"x.*: dimension 1 of \[1, 20\] is 20, the model takes 3 to 16$", id="too long"
        ),
        pytest.param(
            LENGTH, [(1, 4), (1, 1)], r"mask.*: dimension 1 of \[1, 1\] is 1, the model takes 3", id="too short"
        ),
        pytest.param(
            LENGTH,
            [(1, 4), (1, 5)],
            r"mask.*: dimension 1 of \[1, 5\] is 5, it has to be 4, for .*x.*: dimension 1 of \[1, 4\] is 4",
            id="of different lengths",
        ),
        pytest.param(2 * LENGTH + 1, [(1, 4), (1, 9)], None, id="twice as long and one more"),
        pytest.param(
            2 * LENGTH + 1, [(1, 4), (1, 10)], r"mask.*is 10, the model takes 7 to 33 in steps of 2", id="between steps"
        ),
        pytest.param(2 * LENGTH + 1, [(1, 4), (1, 11)], r"mask.*is 11, it has to be 9, for .*x", id="a step too far"),
    ],
)
def test_sizes_are_held_to_each_other_and_to_their_limits(
    ask: Callable[[Signature, list[Sizes]], None], second: Any, shapes: list[Sizes], want: str | None
) -> None:
    seen = signature(both(second))
    assert seen.batch == 0
    if want is None:
        ask(seen, shapes)
    else:
        with pytest.raises(BadRequest, match=want):
            ask(seen, shapes)


@pytest.mark.parametrize(
    ("export", "batch", "want"),
    [
        pytest.param(lambda: summed(BATCH), 0, (), id="the batch alone is free"),
        pytest.param(lambda: summed(Dim("batch", min=2, max=64)), 64, (), id="two rows at least is what torch assumes"),
        pytest.param(lambda: summed(Dim.DYNAMIC, Dim.DYNAMIC), 0, (), id="whatever torch finds"),
        pytest.param(lambda: summed(BATCH, Dim("length", max=16)), 0, [((Place(0, 1),), 0, 16)], id="a longest"),
        pytest.param(
            lambda: summed(Dim("batch", min=3)), None, [((Place(0, 0),), 3, None)], id="one row alone is too few"
        ),
    ],
)
def test_only_what_is_held_is_kept(export: Callable[[], bytes], batch: int | None, want: list[Any]) -> None:
    seen = signature(export())
    assert seen.batch == batch
    assert [(d.places, d.least, d.most) for d in seen.dimensions] == list(want)
    assert seen.way_out == ""


def test_a_dimension_within_one_input_names_it_twice() -> None:
    square = Dimension("s", (Place(0, 1), Place(0, 2)))
    seen = Signature((Tensor("x", "FP32", (-1, -1, -1)),), (), 0, None, dimensions=(square,))
    asked_in_binary(seen, [(1, 3, 3)])
    with pytest.raises(BadRequest, match=r"dimension 2 of \[1, 3, 4\] is 4, it has to be 3, for .*dimension 1 of"):
        asked_in_binary(seen, [(1, 3, 4)])


def test_a_size_without_a_least_is_told_its_most() -> None:
    longest = Dimension("s", (Place(0, 1),), most=16)
    seen = Signature((Tensor("x", "FP32", (-1, -1)),), (), 0, None, dimensions=(longest,))
    with pytest.raises(BadRequest, match=r"is 17, the model takes at most 16$"):
        asked_in_binary(seen, [(1, 17)])
