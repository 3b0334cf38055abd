"""Which exported models do the tests load? Small ones, each with something that a graph's reader can get wrong."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim

BATCH = Dim("batch", max=1024)


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.answer = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, image: torch.Tensor) -> Any:
        return self.answer(torch.relu(self.hidden(image)))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.answer = nn.Linear(4 * 13 * 13, 10)

    def forward(self, image: torch.Tensor) -> Any:
        found = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(image))), 2)
        return torch.log_softmax(self.answer(self.drop(found).flatten(1)), 1)


class Attention(nn.Module):
    """Integer inputs, an embedding, sizes computed from the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        found = self.layer(self.embed(ids), src_key_padding_mask=mask)
        batch, length, width = found.shape
        return found.reshape(batch, length * width).sum(1, keepdim=True)


class Several(nn.Module):
    """Two inputs, a dict of outputs, an operator with two results, one with a list of them, and a no_grad block."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> Any:
        values, indices = (left + right).max(1)
        first, second = torch.split(left, 3, dim=1)
        with torch.no_grad():
            product = first * second
        return {"best": values, "where": indices, "product": product}


class Tied(nn.Module):
    """Two weights that share a storage, one of them a strided view of it."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.randn(6, 4)
        self.weight = nn.Parameter(base)
        self.turned: torch.Tensor
        self.register_buffer("turned", base.t()[1:3].t())

    def forward(self, row: torch.Tensor) -> Any:
        return row @ self.weight, row @ self.turned


class Half(nn.Module):
    def forward(self, row: torch.Tensor) -> Any:
        return (row.to(torch.bfloat16) * 2, row.to(torch.float16), row > 0)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(5, 7, batch_first=True)

    def forward(self, steps: torch.Tensor) -> Any:
        return self.cell(steps)[0][:, -1]


class MeanOverBatch(nn.Module):
    """Rows depend on each other: batching would mix requests."""

    def forward(self, row: torch.Tensor) -> Any:
        return row - row.mean(0, keepdim=True)


class Long(nn.Module):
    """A forward of hundreds of milliseconds per row, nearly all of it in a few operators that leave the GIL."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(512))

    def forward(self, row: torch.Tensor) -> Any:
        found = row.sum(1)[:, None, None] * self.weight
        for _ in range(24):
            found = found @ self.weight
        return found[:, 0, :4]


class Words(nn.Module):
    """Knows so many words, and fails at any other."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.known = nn.Embedding(count, 3)

    def forward(self, word: torch.Tensor) -> Any:
        return self.known(word)


class Found(Words):
    """Computes which word is meant, so that a number which is none is found out by looking it up."""

    def forward(self, word: torch.Tensor) -> Any:
        return self.known(word * 1)


@dataclass(frozen=True)
class Case:
    """`inputs` makes inputs for so many rows."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    shapes: Any
    rows: tuple[int, ...] = (1, 3, 8)


def floats(*sizes: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    return lambda rows: (torch.randn(rows, *sizes),)


CASES: Mapping[str, Case] = {
    "perceptron": Case(Perceptron, floats(12), {"image": {0: BATCH}}),
    "convolution with batch norm and dropout": Case(Convolution, floats(1, 28, 28), {"image": {0: BATCH}}),
    "attention over integer ids with two free dimensions": Case(
        Attention,
        lambda rows: (torch.randint(0, 50, (rows, 6)), torch.zeros(rows, 6, dtype=torch.bool)),
        {"ids": {0: BATCH, 1: Dim("length", max=64)}, "mask": {0: BATCH, 1: Dim("length", max=64)}},
    ),
    "several inputs and a dict of outputs": Case(
        Several,
        lambda rows: (torch.randn(rows, 6), torch.randn(rows, 6)),
        {"left": {0: BATCH}, "right": {0: BATCH}},
    ),
    "tied and strided weights": Case(Tied, floats(6), {"row": {0: BATCH}}),
    "half precision and booleans": Case(Half, floats(4), {"row": {0: BATCH}}),
    "recurrent": Case(Recurrent, floats(4, 5), {"steps": {0: BATCH}}),
    "rows that depend on each other": Case(MeanOverBatch, floats(4), {"row": {0: BATCH}}),
    "fixed shape": Case(Perceptron, lambda rows: (torch.randn(2, 12),), None, (1,)),
}


def exported(case: Case) -> bytes:
    """Return the case as torch saves it."""
    torch.manual_seed(7)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(case.make().eval(), case.inputs(4), dynamic_shapes=case.shapes)
        torch.export.save(program, stream)
    return stream.getvalue()


def words(count: int, make: Callable[[int], nn.Module] = Words) -> bytes:
    return exported(
        Case(lambda: make(count), lambda rows: (torch.zeros(rows, dtype=torch.int64),), {"word": {0: BATCH}})
    )


def perceptron() -> bytes:
    return exported(CASES["perceptron"])


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return the archive with its members changed, stored as torch stores them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def member(members: Mapping[str, bytes], ending: str) -> str:
    """Return the name of the member that ends so."""
    return next(name for name in members if name.endswith(ending))


def unrunnable() -> bytes:
    """Return a well-formed program whose forward fails: a matrix product of sizes that do not fit."""

    def edit(members: dict[str, bytes]) -> None:
        name = member(members, "models/model.json")
        members[name] = members[name].replace(
            b'"as_tensor": {"name": "p_answer_weight"}}, "kind"', b'"as_tensor": {"name": "p_hidden_weight"}}, "kind"'
        )

    return rewritten(perceptron(), edit)
