"""What does the graph in a `.pt2` say, and is every word of it data?

The file's JSON describes a graph of torch operators. torch's own reader (2.13: torch/_export/serde/serialize.py)
turns it into Python in ways that run what the author wrote: shape expressions go through `sympy.sympify`, which is
`eval` (`deserialize_sym_int`); operator names are looked up attribute by attribute from `torch`
(`deserialize_operator`), where `torch.os.system` is a name like any other; `guards_code` is compiled; pytree contexts
import modules; and names end up in generated source. No check of the archive's pickles helps against that. So this
module reads the JSON itself, into values, and knows names only in the shapes that exporting gives them. Standard
library only: nothing here can run a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.operators import is_listed

SCHEMA_MAJOR = 8
PROGRAM_BYTES, NODES = 256 << 20, 1_000_000

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FQN = re.compile(r"[A-Za-z0-9_.\-/:]*\Z")
_FREE = re.compile(
    r"(?a)(Add\()?(Mul\(Integer\((?P<factor>[1-9]\d{0,8})\), )?(Symbol\(')?(?P<symbol>[A-Za-z_]\w*)('(, \w+=\w+)*\))?"
    r"(?(2)\))(?(1), Integer\((?P<offset>-?\d{1,9})\)\))\Z"
)
_PYTHON = frozenset(
    f"_operator.{name}"
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "abs", "lshift", "rshift"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "getitem"),
    )
)
_MATH = frozenset(f"math.{name}" for name in ["ceil", "floor", "trunc", "sqrt"])
_SYM = frozenset(f"torch.sym_{name}" for name in ["int", "float", "max", "min", "not", "ite", "sum"]) | {
    "torch._sym_sqrt"
}
_GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_NUMBERS_AND_SCOPES = _PYTHON | _MATH | _SYM | {_GRAD_MODE}


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an input or of an earlier node."""

    name: str


@dataclass(frozen=True, slots=True)
class Code:
    """A number that torch maps to one of its enums; `kind` is "dtype", "layout" or "memory_format"."""

    kind: str
    value: int


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A device argument. A graph exported on a GPU runs where this runtime has put the model."""


@dataclass(frozen=True, slots=True)
class Free:
    """A free dimension: `factor` times what its symbol stands for, and `offset` more."""

    symbol: str
    factor: int = 1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """A tensor's type as exported: `sizes` holds numbers and free dimensions (None: another expression)."""

    dtype: int
    sizes: tuple[int | Free | None, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One call. `outputs` has one name for a single result, a tuple of names where results are taken apart."""

    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: str | tuple[str | None, ...] | None
    subgraph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """`computes_sizes`: some of its values are numbers computed from the sizes of its inputs."""

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Any, ...]
    shapes: Mapping[str, Shape]
    computes_sizes: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a weight's bytes are and how they are read; torch writes the storage whole and views as strides over it."""

    member: str
    dtype: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    layout: int


@dataclass(frozen=True, slots=True)
class Program:
    """`user_inputs` and `user_outputs` name the graph's values that callers see; `weights` fills the other inputs."""

    graph: Graph
    user_inputs: tuple[str, ...]
    user_outputs: tuple[str, ...]
    weights: Mapping[str, Stored]
    constants: Mapping[str, object]
    output_names: tuple[str, ...]
    torch_version: str
    limits: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)


def parse(model_json: bytes, weights_json: bytes, constants_json: bytes) -> Program:
    """Return the program, or refuse it with the first thing that is not plain data of the expected kind."""
    try:
        return _program(_json(model_json), _payloads(_json(weights_json)), _payloads(_json(constants_json)))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise refused(
            f"the exported program cannot be read ({type(error).__name__}: {error}); "
            "export the model again with torch 2.13"
        ) from error


def _json(data: bytes) -> dict[str, Any]:
    body = json.loads(data)
    if not isinstance(body, dict):
        raise TypeError("not an object")
    return body


def _program(body: dict[str, Any], weights: dict[str, Any], constants: dict[str, Any]) -> Program:
    major = body["schema_version"]["major"]
    if major != SCHEMA_MAJOR:
        raise refused(
            f"the program was exported in schema {major}, this runtime reads {SCHEMA_MAJOR} (torch "
            f"{body.get('torch_version', '?')}); export the model again with torch 2.13"
        )
    module = body["graph_module"]
    graph = _graph(module["graph"])
    user_inputs: list[str] = []
    filled: dict[str, Stored] = {}
    values: dict[str, object] = {}
    for spec in module["signature"]["input_specs"]:
        ((kind, value),) = spec.items()
        match kind:
            case "user_input":
                user_inputs.append(_tensor_name(value["arg"]))
            case "parameter":
                filled[_identifier(value["arg"]["name"])] = _stored(weights, "data/weights/", value["parameter_name"])
            case "buffer":
                table, folder = (weights, "data/weights/") if value["persistent"] else (constants, "data/constants/")
                filled[_identifier(value["arg"]["name"])] = _stored(table, folder, value["buffer_name"])
            case "tensor_constant":
                name = value["tensor_constant_name"]
                filled[_identifier(value["arg"]["name"])] = _stored(constants, "data/constants/", name)
            case "constant_input":
                ((_, constant),) = value["value"].items()
                values[_identifier(value["name"])] = _scalar(constant)
            case _:
                raise refused(f"the exported program has a {kind} input, whose loading runs code; export without it")
    user_outputs = []
    for spec in module["signature"]["output_specs"]:
        ((kind, value),) = spec.items()
        if kind != "user_output":
            raise refused(f"the exported program has a {kind}: it changes its weights; export model.eval()")
        user_outputs.append(_tensor_name(value["arg"]))
    if not user_inputs or not user_outputs:
        raise refused("the exported program has no tensor inputs or no tensor outputs")
    return Program(
        graph=graph,
        user_inputs=tuple(user_inputs),
        user_outputs=tuple(user_outputs),
        weights=filled,
        constants=values,
        output_names=_output_names(module, user_outputs),
        torch_version=str(body.get("torch_version", ""))[:64],
        limits={k: (_limit(v["min_val"]) or 0, _limit(v["max_val"])) for k, v in body["range_constraints"].items()},
    )


def _output_names(module: dict[str, Any], values: list[str]) -> tuple[str, ...]:
    """Return the keys of a model that answers with a dict, otherwise the graph's names; each name once."""
    names = list(values)
    signature = next((entry["signature"] for entry in module["module_call_graph"] if entry["fqn"] == ""), None)
    if signature:
        _, spec = json.loads(signature["out_spec"])
        children = spec["children_spec"]
        if spec["type"] == "builtins.dict" and len(children) == len(values) and not any(c["type"] for c in children):
            keys = json.loads(spec["context"])
            if all(isinstance(key, str) and len(key) <= 256 for key in keys):
                names = keys
    return tuple(name if name not in names[:i] else f"{name}_{i}" for i, name in enumerate(names))


def _graph(body: dict[str, Any]) -> Graph:
    if body.get("custom_obj_values"):
        raise refused(
            "the exported program has a custom object (torchbind), whose loading runs code; remove it and export again"
        )
    if len(body["nodes"]) > NODES:
        raise refused(f"the exported program has {len(body['nodes'])} nodes, more than {NODES}")
    nodes = tuple(_node(node) for node in body["nodes"])
    return Graph(
        inputs=tuple(_argument_name(argument) for argument in body["inputs"]),
        nodes=nodes,
        outputs=tuple(_argument(argument) for argument in body["outputs"]),
        shapes={
            _identifier(name): Shape(int(meta["dtype"]), tuple(_size(size) for size in meta["sizes"]))
            for name, meta in body["tensor_values"].items()
        },
        computes_sizes=any(body[f"sym_{kind}_values"] for kind in ("int", "bool"))
        or bool(body.get("sym_float_values"))
        or any(node.subgraph is not None and node.subgraph.computes_sizes for node in nodes),
    )


def _node(body: dict[str, Any]) -> Node:
    target = body["target"]
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    subgraph: Graph | None = None
    for given in body["inputs"]:
        if "as_graph" in given["arg"]:
            subgraph = _graph(given["arg"]["as_graph"]["graph"])
        elif given.get("kind") == 2:
            kwargs[_identifier(given["name"])] = _argument(given["arg"])
        else:
            args.append(_argument(given["arg"]))
    _check_target(target)
    if (subgraph is not None) != (target == _GRAD_MODE):
        raise refused(f"the exported program uses {target} with a graph inside, which this runtime does not run")
    return Node(
        target, tuple(args), kwargs, _outputs(body["outputs"], body.get("is_hop_single_tensor_return")), subgraph
    )


def _check_target(target: object) -> None:
    if isinstance(target, str) and (target in _NUMBERS_AND_SCOPES or is_listed(target)):
        return
    raise refused(
        f"the exported program calls {str(target)[:120]!r}, which is not among the operators that this runtime calls: "
        "of others it is not known that they stay within their tensors; write that part of the model with other "
        "operators, or export it with run_decompositions(), which puts plainer ones in the place of many"
    )


def _outputs(body: list[dict[str, Any]], single: object) -> str | tuple[str | None, ...] | None:
    """Return the names; a list of tensors (`split`) and several results (`max`) are both taken apart by index."""
    if not body:
        return None
    if len(body) == 1:
        ((kind, value),) = body[0].items()
        if kind == "as_none":
            return None
        if kind == "as_tensors":
            return tuple(_identifier(tensor["name"]) for tensor in value)
        name = _argument_name(body[0])
        return (name,) if single is False else name
    return tuple(None if "as_none" in output else _argument_name(output) for output in body)


def _argument(body: dict[str, Any]) -> Any:
    """Return an argument as data. Kinds that are not listed are refused; torch has some whose reading runs code."""
    ((kind, value),) = body.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Ref(_identifier(value["name"]))
        case "as_tensors":
            return [Ref(_identifier(tensor["name"])) for tensor in value]
        case "as_optional_tensor":
            return _argument(value)
        case "as_optional_tensors":
            return [_argument(item) for item in value]
        case "as_nested_tensors":
            return [[Ref(_identifier(tensor["name"])) for tensor in row] for row in value]
        case "as_sym_int" | "as_sym_bool" | "as_sym_float":
            return _symbolic(value)
        case "as_sym_ints" | "as_sym_bools" | "as_sym_floats":
            return [_symbolic(item) for item in value]
        case "as_int" | "as_float" | "as_bool" | "as_string":
            return _scalar(value)
        case "as_ints" | "as_floats" | "as_bools" | "as_strings":
            return [_scalar(item) for item in value]
        case "as_int_lists" | "as_float_lists":
            return [[_scalar(item) for item in row] for row in value]
        case "as_scalar_type":
            return Code("dtype", int(value))
        case "as_memory_format":
            return Code("memory_format", int(value))
        case "as_layout":
            return Code("layout", int(value))
        case "as_device":
            return OnDevice()
        case "as_complex":
            return complex(float(value["real"]), float(value["imag"]))
        case _:
            raise refused(f"the exported program has an argument of kind {kind!r}, which this runtime does not read")


def _argument_name(body: dict[str, Any]) -> str:
    found = _argument(body)
    if not isinstance(found, Ref):
        raise refused(f"the exported program has a value that is no tensor where a tensor belongs: {str(body)[:120]}")
    return found.name


_tensor_name = _argument_name


def _symbolic(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return Ref(_identifier(content)) if kind == "as_name" else _scalar(content)


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return float(value) if value in ("Infinity", "-Infinity", "NaN") else value
    raise TypeError(f"a scalar was expected, not {type(value).__name__}")


def _size(size: dict[str, Any]) -> int | Free | None:
    """Return a dimension: where it is free, exported as `Symbol('s40', positive=True, integer=True)` or in `_FREE`."""
    if "as_int" in size:
        return int(size["as_int"])
    found = _FREE.match(str(size["as_expr"]["expr_str"]))
    return Free(found["symbol"], int(found["factor"] or 1), int(found["offset"] or 0)) if found else None


def _limit(value: object) -> int | None:
    if value is None or (type(value) is int and abs(value) < 1 << 63):
        return value
    raise ValueError(f"not a limit of a size: {str(value)[:120]}")


def _identifier(name: object) -> str:
    if not isinstance(name, str) or not _IDENTIFIER.match(name) or "__class__" in name:
        raise refused(f"the exported program has a name that is none: {str(name)[:120]!r}")
    return name


def _payloads(body: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = body["config"]
    for name, entry in table.items():
        path = str(entry["path_name"])
        if entry["use_pickle"] is not False or not re.match(r"(weight|tensor)_\d+\Z", path):
            raise refused(
                f"the archive keeps {name[:120]!r} as a pickle ({path[:60]}), and unpickling runs its author's code; "
                "save plain tensors: no tensor subclasses, no custom or opaque objects"
            )
    return table


def _stored(table: dict[str, Any], folder: str, name: str) -> Stored:
    if not _FQN.match(name):
        raise refused(f"the exported program has a weight with an impossible name: {name[:120]!r}")
    if name not in table:
        raise refused(f"the archive lacks the weight {name!r}; it was saved incompletely: export and save it again")
    entry = table[name]
    meta = entry["tensor_meta"]
    return Stored(
        member=folder + entry["path_name"],
        dtype=int(meta["dtype"]),
        sizes=tuple(_natural(size) for size in meta["sizes"]),
        strides=tuple(_natural(stride) for stride in meta["strides"]),
        offset=_natural(meta["storage_offset"]),
        layout=int(meta["layout"]),
    )


def _natural(size: dict[str, Any]) -> int:
    value = size["as_int"]
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"not a size: {value!r}")
    return value
