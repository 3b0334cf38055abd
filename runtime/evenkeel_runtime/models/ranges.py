"""Which numbers may a program's inputs hold? Those for which the tables that they are looked up in have a row.

Of a number beyond, a CPU says no more than that some index is out of range, in the middle of a batch. A GPU finds out
in a kernel, whose assertion ends the process' context for good: one client's number would take the replica from all.

Followed are inputs as they come, through what hands numbers on unchanged; a number that is computed is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evenkeel_runtime.contract import BF16
from evenkeel_runtime.models.datatypes import BY_CODE
from evenkeel_runtime.models.loaded import Range
from evenkeel_runtime.models.program import Graph, Node, Program, Ref

_UNCHANGED = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_to_copy", "alias", "clone", "contiguous", "detach", "expand", "flatten", "lift_fresh_copy", "permute",
        "reshape", "select", "slice", "squeeze", "t", "to", "transpose", "unsqueeze", "view",
    )
)  # fmt: skip
_LOOKED_UP = {
    "torch.ops.aten.embedding": (0, 1),
    "torch.ops.aten.embedding_bag": (0, 1),
    "torch.ops.aten._embedding_bag": (0, 1),
    "torch.ops.aten._embedding_bag_forward_only": (0, 1),
}
"""Where among an operator's arguments the table is, a row of which is one of its first dimension, and the indices."""
_SELECTED = "torch.ops.aten.index_select"


def ranges(program: Program) -> tuple[Range, ...]:
    """Return what the inputs may hold that are looked up in weights; an input of several tables, in all of them."""
    inputs = {
        name: index
        for index, name in enumerate(program.user_inputs)
        if BY_CODE[program.graph.shapes[name].dtype].word != BF16
    }
    tables = {name: stored.sizes for name, stored in program.weights.items()}
    rows: dict[int, int] = {}
    for index, count in _looked_up(program.graph, inputs, tables):
        rows[index] = min(count, rows.get(index, count))
    return tuple(Range(index, 0, count - 1) for index, count in sorted(rows.items()))


def _looked_up(
    graph: Graph, inputs: Mapping[str, int], tables: Mapping[str, tuple[int, ...]]
) -> Iterable[tuple[int, int]]:
    """Yield an input's position and how many rows a table has that it is looked up in."""
    held = dict(inputs)
    for node in graph.nodes:
        if (inner := node.subgraph) is not None:
            given = dict(zip(inner.inputs, map(_name, node.args[1:]), strict=True))
            yield from _looked_up(
                inner,
                {name: held[outer] for name, outer in given.items() if outer in held},
                {name: tables[outer] for name, outer in given.items() if outer in tables},
            )
            continue
        operator = node.target.rpartition(".")[0]
        if operator in _UNCHANGED and isinstance(node.outputs, str) and _argument(node, 0) in held:
            held[node.outputs] = held[_argument(node, 0)]
        elif operator == _SELECTED:
            table, along, indices = _argument(node, 0), node.args[1:2], _argument(node, 2)
            if table in tables and indices in held and along and isinstance(along[0], int):
                yield held[indices], tables[table][along[0]]
        elif operator in _LOOKED_UP:
            table, indices = (_argument(node, place) for place in _LOOKED_UP[operator])
            if table in tables and indices in held:
                yield held[indices], tables[table][0]


def _argument(node: Node, place: int) -> str:
    return _name(node.args[place]) if place < len(node.args) else ""


def _name(argument: Any) -> str:
    return argument.name if isinstance(argument, Ref) else ""
