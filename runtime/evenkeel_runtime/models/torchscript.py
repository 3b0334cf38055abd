"""How does a TorchScript archive become a callable?

It is a program of its author's, so it is loaded only where the spec says so and pins its bytes. What callers see is
read from the archive's own source text, by which nothing is executed: a class name from the pickle's opcodes, and its
`forward` line. TorchScript states neither element types nor shapes; its author can, in a file of JSON beside the code,
which `torch.jit.save` writes there: a list with name (optional), datatype and shape per input, as the Open Inference
Protocol has them. A model whose inputs all begin with -1 can be tried out with rows, which may then share a call.
"""

from __future__ import annotations

import json
import pickletools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.datatypes import ANY, BY_TORCH, BY_WORD, BYTES, coarsest
from evenkeel_runtime.models.format import Format, no_types
from evenkeel_runtime.models.loaded import Call, Loaded, Signature
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

NAME = "TorchScript"
PLATFORM = "pytorch_torchscript"
_SOURCE_BYTES = 64 << 20
_INPUTS, _INPUTS_BYTES = "extra/inputs.json", 1 << 20
_RANK, _MOST_SIZE = 16, 1 << 31
_EXAMPLE_SIZE = 8
"""How long a free dimension is, other than the batch, when the model is tried out."""
_WAY_OUT = (
    "TorchScript names no shapes, so it was not seen whether its rows are independent; to let requests share a call, "
    "name the model's inputs in the file: torch.jit.save(model, path, _extra_files={'inputs.json': "
    """'[{"datatype": "FP32", "shape": [-1, 30]}]'})"""
)
_WRONG_GUESS = (
    f"the model does not run with {_EXAMPLE_SIZE} for each size that its inputs.json leaves open, so it was not seen "
    "whether its rows are independent; to let requests share a call, name all sizes there but the rows"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z")
_FORWARD = re.compile(r"\n  def forward\(\s*self[^,)]*,?\s*(?P<arguments>[^)]*)\)\s*->\s*(?P<answer>[^\n]+):\n")


def recognises(archive: Archive) -> bool:
    names = archive.members
    return (
        archive.root != ""
        and "data.pkl" in names
        and "constants.pkl" in names
        and any(name.startswith("code/") for name in names)
    )


def signature(archive: Archive) -> Signature:
    module, _, name = _class_name(archive).rpartition(".")
    source = archive.read(f"code/{module.replace('.', '/')}.py", _SOURCE_BYTES).decode("utf-8", "replace")
    _, found, body = source.partition(f"class {name}(Module):\n")
    forward = _FORWARD.search("\n" + body.split("\nclass ", 1)[0]) if found else None
    if forward is None:
        raise refused("the TorchScript module has no forward method; save the whole model")
    types = [argument.partition(":")[2].strip() for argument in forward["arguments"].split(",") if argument.strip()]
    answer = forward["answer"].strip()
    answers = answer.removeprefix("Tuple[").removesuffix("]").split(", ") if answer.startswith("Tuple[") else [answer]
    if not types or any(word != "Tensor" for word in [*types, *answers]):
        raise refused(
            f"the model's forward takes ({', '.join(types)}) and answers {answer}; "
            "it has to be tensors and tuples of them"
        )
    outputs = tuple(Tensor(f"output_{index}", ANY, (-1,)) for index in range(len(answers)))
    if _INPUTS not in archive.members:
        inputs = tuple(Tensor(f"input_{index}", ANY, (-1,)) for index in range(len(types)))
        return Signature(inputs, outputs, batch=None, example=None, way_out=_WAY_OUT)
    inputs = _inputs(archive, len(types))
    has_rows = all(tensor.shape[:1] == (-1,) for tensor in inputs)
    return Signature(
        inputs, outputs, batch=0 if has_rows else None, example=tuple(_example(t, has_rows) for t in inputs)
    )


def _inputs(archive: Archive, count: int) -> tuple[Tensor, ...]:
    """Return the inputs as their author describes them."""
    try:
        rows = json.loads(archive.read(_INPUTS, _INPUTS_BYTES))
        found = tuple(_input(index, row) for index, row in enumerate(rows))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise refused(
            f"the archive's inputs.json is not a list with datatype and shape per input ({type(error).__name__}: "
            f"{str(error)[:200]}); correct it, or save the model without it"
        ) from error
    if len(found) != count or len({tensor.name for tensor in found}) != count:
        raise refused(f"the archive's inputs.json names {len(found)} inputs, forward takes {count} of different names")
    return found


def _input(index: int, row: Any) -> Tensor:
    name, datatype, shape = row.get("name", f"input_{index}"), row["datatype"], tuple(row["shape"])
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"a name that is none: {str(name)[:80]!r}")
    if datatype not in BY_WORD or datatype == BYTES:
        raise ValueError(f"a datatype that tensors do not have: {str(datatype)[:80]!r}")
    if len(shape) > _RANK or any(type(size) is not int or not (size == -1 or 0 < size < _MOST_SIZE) for size in shape):
        raise ValueError(f"a shape that is none: {str(shape)[:80]}")
    return Tensor(name, datatype, shape)


def _example(tensor: Tensor, has_rows: bool) -> tuple[int, ...]:
    """Return the shape to try the model with: of one row."""
    sizes = tuple(_EXAMPLE_SIZE if size < 0 else size for size in tensor.shape)
    return (1, *sizes[1:]) if has_rows else sizes


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    import torch

    seen = signature(archive)
    module = torch.jit.load(_InMemory(buffer), map_location=device).eval()  # type: ignore[no-untyped-call]
    many = len(seen.outputs) > 1 or _answers_tuple(module)

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answer = module(*inputs)
        return answer if many else (answer,)

    if seen.batch is not None and not _answers_rows(call, seen, device):
        seen = replace(seen, batch=None)
    if seen.batch is None and seen.example is not None and not _takes_guesses(call, seen, device):
        seen = replace(seen, example=None, way_out=_WRONG_GUESS)
    return Loaded(NAME, PLATFORM, seen, call, device, traceable=False, precision=_precision(module), branches=True)


FORMAT = Format(NAME, True, recognises, no_types, signature, load)


def _class_name(archive: Archive) -> str:
    """Return the name of the module's class: the first global that the pickle mentions. Its opcodes are only listed."""
    try:
        for opcode, argument, _ in pickletools.genops(archive.read("data.pkl", _SOURCE_BYTES)):
            if opcode.name == "GLOBAL" and isinstance(argument, str):
                return argument.replace(" ", ".")
    except ValueError as error:
        raise refused(f"the TorchScript archive is damaged: {error}") from error
    raise refused("the TorchScript archive names no module; save the whole model")


def _answers_rows(call: Call, seen: Signature, device: str) -> bool:
    """Return whether every answer has as many rows as the inputs."""
    answers = _answers(call, seen, [(2, *shape[1:]) for shape in seen.example or ()], device)
    return answers is not None and all(answer.shape[:1] == (2,) for answer in answers)


def _takes_guesses(call: Call, seen: Signature, device: str) -> bool:
    """Return whether the model takes the sizes that are tried where its author left them open.

    Counter-example: one that convolves with 11 by 11 fails with an image of 8 by 8, and takes every one it is made for.
    """
    shapes = seen.example or ()
    sizes = [
        pair
        for tensor, shape in zip(seen.inputs, shapes, strict=True)
        for pair in zip(tensor.shape, shape, strict=True)
    ]
    return (-1, _EXAMPLE_SIZE) not in sizes or _answers(call, seen, shapes, device) is not None


def _answers(
    call: Call, seen: Signature, shapes: Sequence[tuple[int, ...]], device: str
) -> Sequence[torch.Tensor] | None:
    """Return what the model answers to zeros of these shapes, None where it does not take them."""
    import torch

    words = [getattr(torch, BY_WORD[tensor.datatype].torch) for tensor in seen.inputs]
    try:
        with torch.inference_mode():
            rows = [torch.zeros(shape, dtype=word, device=device) for shape, word in zip(shapes, words, strict=True)]
            return call(*rows)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return None


def _precision(module: torch.jit.ScriptModule) -> str | None:
    """Return what its weights are of: what it casts them to is not known."""
    names = (str(tensor.dtype).removeprefix("torch.") for tensor in (*module.parameters(), *module.buffers()))
    return coarsest(BY_TORCH[name].word for name in names if name in BY_TORCH)


def _answers_tuple(module: torch.jit.ScriptModule) -> bool:
    schema: Any = module.forward.schema  # type: ignore[attr-defined]
    return str(schema.returns[0].type).startswith("Tuple")


class _InMemory:
    """The verified bytes as the file that torch.jit.load asks for."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer

    def read(self) -> bytes:
        return bytes(self._buffer)
