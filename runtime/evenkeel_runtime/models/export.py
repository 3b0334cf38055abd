"""How does a `.pt2` of torch.export become a callable?

The graph is built from the values that `program.py` has read; torch.export.load is not called at all (see there why).
Weights are views of the verified file in memory; sample inputs, which are a pickle, are never read. Node and weight
names in the generated module are ours, so that no word of the file reaches generated source.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import BF16, INT8, Tensor
from evenkeel_runtime.failure import ModelError, refused
from evenkeel_runtime.models import deferred
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.datatypes import BY_CODE, DATATYPES, coarsest
from evenkeel_runtime.models.format import Format, no_types
from evenkeel_runtime.models.guarded import guard
from evenkeel_runtime.models.loaded import Dimension, Loaded, Place, Signature
from evenkeel_runtime.models.program import (
    PROGRAM_BYTES,
    Code,
    Free,
    Graph,
    Node,
    OnDevice,
    Program,
    Ref,
    Shape,
    Stored,
    parse,
)
from evenkeel_runtime.models.ranges import ranges

if TYPE_CHECKING:
    import torch

NAME = "TorchExport"
PLATFORM = "pytorch_torchexport"
MODEL = "models/model.json"
_STRIDED = 7
_LINEAR = "torch.ops.aten.linear.default"
_ANYWHERE = {"torch.ops.aten.view.default": "torch.ops.aten.reshape.default"}
"""Where a program was exported, a tensor lay so that it needed no copy for another shape; elsewhere, it may: cuDNN
answers a convolution with the channels last where that is faster."""
_EXAMPLE_SIZE = 8
"""How long a free dimension is, other than the batch, when the model is tried out."""
_ASSUMED = 2
"""A least size up to this is no limit: torch assumes it of every dimension while it traces (0 and 1 it would take for
numbers that stay), and its own guards let a program be called with less (2.13)."""
_Limit = tuple[int, int | None]
"""The least and the most that a symbol stands for; None: no most."""
_ANY_SIZE: _Limit = (0, None)
_UNREAD = {9: "complex32", 10: "complex64", 11: "complex128"}


def recognises(archive: Archive) -> bool:
    return (
        archive.root != ""
        and "archive_format" in archive.members
        and any(name.startswith("models/") for name in archive.members)
    )


def signature(archive: Archive) -> Signature:
    return _signature(_program(archive))


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    """Return the model as a module of torch.fx, in inference mode, on `device`."""
    import torch

    program = _program(archive)
    root = torch.nn.Module()
    weights: dict[str, str] = {}
    storages: dict[tuple[str, int], torch.Tensor] = {}
    for index, (name, stored) in enumerate(program.weights.items()):
        weights[name] = f"w{index}"
        root.register_buffer(weights[name], _weight(archive, buffer, storages, stored).to(device))
    graph = _Builder(device).build(program, weights)
    module = torch.fx.GraphModule(root, graph, "Exported")
    return Loaded(
        NAME, PLATFORM, _signature(program), module.eval(), device, traceable=not program.graph.computes_sizes,
        precision=coarsest(_computed(program.graph)),
    )  # fmt: skip


def require_computed(archive: Archive, precision: str) -> None:
    """Raise where INT8 would compute nothing in the graph."""
    if precision == INT8 and not _has_linear(program := _program(archive), program.graph):
        raise without_linear()


def without_linear() -> ModelError:
    return refused(
        "the model has no linear layer of FP32 weights, which is what INT8 would compute; set "
        "spec.runtime.precision: BF16, or leave it at Auto"
    )


FORMAT = Format(NAME, False, recognises, no_types, signature, load, frozenset({BF16, INT8}), require_computed)


def _has_linear(program: Program, graph: Graph) -> bool:
    """Return whether a layer may be one that INT8 computes. Within a block, weights have other names: any may be."""
    for node in graph.nodes:
        if node.subgraph is not None:
            if _has_linear(program, node.subgraph):
                return True
        elif node.target == _LINEAR and len(node.args) > 1 and isinstance(weight := node.args[1], Ref):
            stored = program.weights.get(weight.name)
            datatype = None if stored is None else BY_CODE.get(stored.dtype)
            if graph is not program.graph or (datatype is not None and datatype.word == "FP32"):
                return True
    return False


def _computed(graph: Graph) -> Iterator[str]:
    """Yield the element types of what the nodes answer. A weight's own is none of them: it may be cast at once."""
    for node in graph.nodes:
        if node.subgraph is not None:
            yield from _computed(node.subgraph)
        for name in (node.outputs,) if isinstance(node.outputs, str) else node.outputs or ():
            shape = graph.shapes.get(name or "")
            if shape is not None and shape.dtype in BY_CODE:
                yield BY_CODE[shape.dtype].word


def torch_version(archive: Archive) -> str:
    """Return the version of torch that exported the program, as far as the file says it."""
    return _program(archive).torch_version


def _program(archive: Archive) -> Program:
    if archive.read("archive_format", 16) != b"pt2" or archive.read("archive_version", 16) != b"0":
        raise refused("the .pt2 is of another archive version; export the model again with torch 2.13")
    models = [name for name in archive.members if name.startswith("models/")]
    if models != [MODEL]:
        raise refused(f"the .pt2 holds {len(models)} programs ({', '.join(models)[:120]}); save one, called 'model'")
    for name in archive.members:
        _check_member(name)
    return parse(
        archive.read(MODEL, PROGRAM_BYTES),
        archive.read("data/weights/model_weights_config.json", PROGRAM_BYTES),
        archive.read("data/constants/model_constants_config.json", PROGRAM_BYTES),
    )


def _check_member(name: str) -> None:
    base = name.rpartition("/")[2]
    if base.startswith(("opaque_obj_", "custom_obj_")):
        raise refused(
            f"the .pt2 holds {base}, an object that runs its author's code when it is read; export without it"
        )
    if name.startswith(("data/weights/", "data/constants/")) and base.endswith(".pt"):
        raise refused(
            f"the .pt2 keeps its weights as a pickle ({base}, the legacy format); save it again with torch 2.13"
        )


def _signature(program: Program) -> Signature:
    shapes = program.graph.shapes
    inputs = tuple(_tensor(name, shapes[name]) for name in program.user_inputs)
    outputs = tuple(
        _tensor(shown, shapes[name]) for shown, name in zip(program.output_names, program.user_outputs, strict=True)
    )
    ins = [shapes[name] for name in program.user_inputs]
    limits = {symbol: _held(least, most) for symbol, (least, most) in program.limits.items()}
    first = {shape.sizes[0] if shape.sizes else None for shape in [*ins, *(shapes[n] for n in program.user_outputs)]}
    rows = first.pop() if len(first) == 1 else None
    batch = _batch(rows, ins, limits)
    symbol = rows.symbol if isinstance(rows, Free) and batch is not None else None
    return Signature(
        inputs,
        outputs,
        batch,
        _example(ins, symbol, limits),
        dimensions=_dimensions(ins, symbol, limits),
        ranges=ranges(program),
        way_out=_way_out(rows, len(ins)) if isinstance(rows, int) else "",
    )


def _held(least: int, most: int | None) -> _Limit:
    """Return the sizes that a symbol is held to."""
    return 0 if least <= _ASSUMED else least, most


def _batch(rows: int | Free | None, ins: list[Shape], limits: Mapping[str, _Limit]) -> int | None:
    """Return `Signature.batch` for the first dimension of every input and output. Where one row alone would be too
    few it is a dimension as any other: a request's last piece may be that."""
    if not isinstance(rows, Free) or rows != Free(rows.symbol):
        return None
    inner = {size.symbol for shape in ins for size in shape.sizes[1:] if isinstance(size, Free)}
    least, most = limits.get(rows.symbol, _ANY_SIZE)
    return None if rows.symbol in inner or least > 1 else most or 0


def _dimensions(ins: list[Shape], batch: str | None, limits: Mapping[str, _Limit]) -> tuple[Dimension, ...]:
    """Return the free dimensions of which not every size will do, but for the batch's, whose rows are counted."""
    places: dict[str, list[Place]] = {}
    for index, shape in enumerate(ins):
        for axis, size in enumerate(shape.sizes):
            if isinstance(size, Free) and size.symbol != batch:
                places.setdefault(size.symbol, []).append(Place(index, axis, size.factor, size.offset))
    found = [Dimension(symbol, tuple(at), *limits.get(symbol, _ANY_SIZE)) for symbol, at in places.items()]
    return tuple(dimension for dimension in found if not dimension.takes_any)


def _way_out(rows: int, inputs: int) -> str:
    of_each = '({0: torch.export.Dim("batch")},)' + (f" * {inputs}" if inputs > 1 else "")
    return (
        f"the model was exported for exactly {rows} {'row' if rows == 1 else 'rows'} a request; to let it take any "
        f"number, export it with dynamic_shapes={of_each}"
    )


def _tensor(name: str, shape: Shape) -> Tensor:
    datatype = BY_CODE.get(shape.dtype)
    if datatype is None:
        raise refused(
            f"the model's tensor {name!r} has an element type that no request and no answer can carry "
            f"({_UNREAD.get(shape.dtype, f'code {shape.dtype}')}); export a model that takes and answers real numbers"
        )
    return Tensor(name, datatype.word, tuple(size if isinstance(size, int) else -1 for size in shape.sizes))


def _example(
    shapes: list[Shape], batch: str | None, limits: Mapping[str, _Limit]
) -> tuple[tuple[int, ...], ...] | None:
    """Return a shape per input for one row, giving every other free dimension a size inside its limits."""
    found: list[tuple[int, ...]] = []
    for shape in shapes:
        sizes: list[int] = []
        for size in shape.sizes:
            if size is None:
                return None
            if isinstance(size, int):
                sizes.append(size)
            elif size.symbol == batch:
                sizes.append(1)
            else:
                least, most = limits.get(size.symbol, _ANY_SIZE)
                sizes.append(size.factor * min(max(_EXAMPLE_SIZE, least), most or _EXAMPLE_SIZE) + size.offset)
        found.append(tuple(sizes))
    return tuple(found)


def _weight(
    archive: Archive, buffer: memoryview, storages: dict[tuple[str, int], torch.Tensor], stored: Stored
) -> torch.Tensor:
    """Return the weight as a view of the file; weights that shared storage when they were saved share it again."""
    import torch

    datatype = BY_CODE.get(stored.dtype)
    member = archive.members.get(stored.member)
    if datatype is None or stored.layout != _STRIDED:
        raise refused(f"the weight {stored.member} has an element type or layout that this runtime does not read")
    if member is not None and not member.is_plain:
        raise refused(f"the weight {stored.member} is compressed; torch stores tensors plainly: save the model again")
    if member is None or len(stored.sizes) != len(stored.strides):
        raise refused(f"the archive lacks {stored.member}; it was saved incompletely: export and save it again")
    reach = 0 if 0 in stored.sizes else 1 + stored.offset + sum(
        (size - 1) * stride for size, stride in zip(stored.sizes, stored.strides, strict=True)
    )  # fmt: skip
    if reach * datatype.size > member.size:
        raise refused(f"the weight {stored.member} has {member.size} bytes, its shape {stored.sizes} needs more")
    dtype: torch.dtype = getattr(torch, datatype.torch)
    if reach == 0:
        return torch.empty(stored.sizes, dtype=dtype)
    key = (stored.member, stored.dtype)
    if key not in storages:
        data = buffer[member.offset : member.offset + member.size // datatype.size * datatype.size]
        aligned = member.offset % datatype.size == 0
        storages[key] = torch.frombuffer(data if aligned else bytearray(data), dtype=dtype)
    return torch.as_strided(storages[key], stored.sizes, stored.strides, stored.offset)


class _Builder:
    """Builds graphs of torch.fx out of values."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._enums: dict[str, Mapping[int, object]] = {
            "dtype": {row.code: getattr(torch, row.torch) for row in DATATYPES}
            | {9: torch.complex32, 10: torch.complex64, 11: torch.complex128},
            "layout": {_STRIDED: torch.strided},
            "memory_format": {
                1: torch.contiguous_format,
                2: torch.channels_last,
                3: torch.channels_last_3d,
                4: torch.preserve_format,
            },
        }

    def build(self, program: Program, weights: Mapping[str, str]) -> torch.fx.Graph:
        graph = self._torch.fx.Graph()
        values: dict[str, Any] = dict(program.constants)
        for index, name in enumerate(program.user_inputs):
            values[name] = graph.placeholder(f"input_{index}")
        for name, attribute in weights.items():
            values[name] = graph.get_attr(attribute)
        missing = [name for name in program.graph.inputs if name not in values]
        if missing:
            raise refused(f"the exported program's signature does not fill its inputs {missing[:3]}; export it again")
        self._nodes(graph, program.graph, values)
        graph.output(tuple(values[name] for name in program.user_outputs))
        return graph

    def _nodes(self, graph: torch.fx.Graph, body: Graph, values: dict[str, Any]) -> None:
        for node in body.nodes:
            if node.subgraph is not None:
                self._inline(graph, node, values)
                continue
            if node.outputs is None:
                continue  # an assertion; those about the inputs' sizes are in Signature.dimensions
            args = tuple(self._value(argument, values) for argument in node.args)
            kwargs = {name: self._value(argument, values) for name, argument in node.kwargs.items()}
            self._bind(graph, node, graph.call_function(self._function(node.target), args, kwargs), values)

    def _inline(self, graph: torch.fx.Graph, node: Node, values: dict[str, Any]) -> None:
        """Put a `with torch.no_grad()` block's body in its place: there are no gradients here anyway."""
        inner = node.subgraph
        assert inner is not None
        given = [self._value(argument, values) for argument in node.args[1:]]
        scope = dict(zip(inner.inputs, given, strict=True))
        self._nodes(graph, inner, scope)
        results = [self._value(output, scope) for output in inner.outputs]
        names = (node.outputs,) if isinstance(node.outputs, str) else (node.outputs or ())
        for name, result in zip(names, results, strict=True):
            if name is not None:
                values[name] = result

    def _bind(self, graph: torch.fx.Graph, node: Node, made: torch.fx.Node, values: dict[str, Any]) -> None:
        if isinstance(node.outputs, str):
            values[node.outputs] = made
            return
        for index, name in enumerate(node.outputs or ()):
            if name is not None:
                values[name] = graph.call_function(operator.getitem, (made, index))

    def _value(self, argument: Any, values: Mapping[str, Any]) -> Any:
        match argument:
            case Ref(name):
                if name not in values:
                    raise refused(f"the exported program uses {name!r} before it exists; export the model again")
                return values[name]
            case list():
                return [self._value(item, values) for item in argument]
            case OnDevice():
                return self._device
            case Code(kind, value):
                if value not in self._enums[kind]:
                    raise refused(f"the exported program names a {kind} {value} that torch does not have")
                return self._enums[kind][value]
            case _:
                return argument

    def _function(self, target: str) -> Any:
        """Return the operator. `program.py` has let only these three shapes of name through."""
        if target.startswith("_operator."):
            return getattr(operator, target.removeprefix("_operator."))
        if target.startswith("math."):
            return getattr(math, target.removeprefix("math."))
        *path, last = _ANYWHERE.get(target, target).split(".")[1:]
        if path[:2] == ["ops", "prims"]:
            deferred.complete()  # it is what registers them
        found: Any = self._torch
        for name in [*path, last]:
            found = getattr(found, name, None)
            if found is None:
                raise refused(f"the model uses the operator {target}, which this runtime does not have")
        if path[:1] == ["ops"] and not isinstance(found, self._torch._ops.OpOverload):
            raise refused(f"{target} is not an operator")
        return guard(".".join(path[1:]), found) if path[:1] == ["ops"] else found
