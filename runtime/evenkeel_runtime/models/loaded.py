"""What is a model once it is loaded, whatever its format was?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import Tensor

if TYPE_CHECKING:
    import torch

Call = Callable[..., "Sequence[torch.Tensor]"]
"""Inputs and outputs of the datatype BYTES are numpy arrays of `bytes` instead, whatever protocol they came by; the
type names what nearly every model takes."""


class BadInput(Exception):
    """The client gave the model what it cannot take, beyond types and shapes; the message names it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dimension lies: an input's `axis` is `factor` times as long, and `offset` more."""

    input: int
    axis: int
    factor: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Dimension:
    """A free dimension of which not every size will do: it is one size in all its `places`, from `least` to `most`
    (None: without a bound). `symbol` is what the file calls it."""

    symbol: str
    places: tuple[Place, ...]
    least: int = 0
    most: int | None = None

    @property
    def takes_any(self) -> bool:
        """Whether every size will do after all."""
        first, *others = self.places
        return not others and first.factor == 1 and self.least + first.offset <= 0 and self.most is None


@dataclass(frozen=True, slots=True)
class Range:
    """What the numbers of an input have to be, both ends included, for a model that looks them up in a table."""

    input: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Signature:
    """What callers see, and what the file says about batches.

    `batch` is the largest number of rows where dimension 0 of every input and output is one and the same free
    dimension (0: it is free without a bound); None where requests cannot share a call. `example` has, per input, the
    shape of one row to try the model with; None where the file does not say enough. `classes` has the class names in
    the order of the scores, empty where the file names none.

    `dimensions` are those of the inputs that a request has to be checked for, the batch not among them, and `ranges`
    are what its numbers have to be held against, as far as the file lets that be known. `way_out` says how to save the
    model so that it takes more than the one number of rows that its file allows.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None
    example: tuple[tuple[int, ...], ...] | None
    classes: tuple[str, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    ranges: tuple[Range, ...] = ()
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """`call` takes the inputs in order and returns the outputs in order; `device` is where it wants them.

    `traceable` says that `call` is a module whose trace holds for every batch size. A trace of a graph that computes
    with sizes freezes them, and trying whether it answers the same is too late: an LSTM given a state of another batch
    size writes beyond its memory (torch 2.13, CPU).

    `branches` says that `call` is a program which may take another way for other rows: that rows are independent is
    then seen of as many as share a call, and nothing that it did for some is recorded.

    `compiled` is code of the file's that is to answer the same, faster: called only where it was seen to.

    `precision` is the coarsest element type that `call` computes in, or INT8; None where that is not known. `exact` is
    the model in FP32 or FP64, where `call` computes it less exactly and its file does not.

    `warm_rows` is with how many rows the model was called already while it was loaded, 0 where it was not: the first
    call with so many pays for its memory.

    `platform` and `parameters` are what the model's metadata say beside the signature.
    """

    format: str
    platform: str
    signature: Signature
    call: Call
    device: str
    traceable: bool
    parameters: Mapping[str, object] = field(default_factory=dict)
    compiled: Call | None = None
    exact: Call | None = None
    precision: str | None = None
    branches: bool = False
    warm_rows: int = 0
