"""How does a TorchScript archive become a callable?

It is a program of its author's, so it is loaded only where the spec says so and pins its bytes. What callers see is
read from the archive's own source text, by which nothing is executed: a class name from the pickle's opcodes, and its
`forward` line. TorchScript states neither element types nor shapes.
"""

from __future__ import annotations

import pickletools
import re
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.datatypes import ANY, BY_TORCH, coarsest
from evenkeel_runtime.models.format import Format, no_types
from evenkeel_runtime.models.loaded import Loaded, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

NAME = "TorchScript"
PLATFORM = "pytorch_torchscript"
_SOURCE_BYTES = 64 << 20
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
    return Signature(
        inputs=tuple(Tensor(f"input_{index}", ANY, (-1,)) for index in range(len(types))),
        outputs=tuple(Tensor(f"output_{index}", ANY, (-1,)) for index in range(len(answers))),
        batch=None,
        example=None,
    )


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    import torch

    seen = signature(archive)
    module = torch.jit.load(_InMemory(buffer), map_location=device).eval()  # type: ignore[no-untyped-call]
    many = len(seen.outputs) > 1 or _answers_tuple(module)

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answer = module(*inputs)
        return answer if many else (answer,)

    return Loaded(NAME, PLATFORM, seen, call, device, traceable=False, precision=_precision(module))


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
