"""What does the `schema.json` of a `.skops` file describe, and may skops read it?

skops (0.16) rebuilds objects from a tree of nodes, and its audit names every type in it. What the audit takes for
granted is judged here, on the JSON, before skops sees it:

    `__id__`     lets one node stand for another. The audit walks what is shared once per way to it, so forty pairs of
                 pairs keep it busy for a day, and a node may hold itself. What skops.io.dump writes holds every object
                 in full wherever it occurs, so the ids are dropped, and with them all sharing.
    `protocol`   chooses among several readers, by the file's own word. One is let through: that of this version.
    arrays       are allocated as large as their header claims; arrays of objects are pickles.
    members      are read by as many nodes as name them, and inflated each time.

skops never opens the file: it is given archives that are written here, from members that `archive.py` has read.
numpy and the standard library only: nothing here can build an object.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.archive import Archive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Node = dict[str, Any]
"""An object as skops describes it: its type, the reader that rebuilds it, and what it holds."""

MEMBER = "schema.json"
PROTOCOL = 2
_WRITTEN_BY = "skops.io.dump of skops 0.16"
_SCHEMA_BYTES = 64 << 20
_INFLATED_BYTES = 1 << 30
_DEPTH = 200
_TIMES, _SLACK_BYTES = 4, 64 << 20
_HEADER_BYTES = 12_000
_READS_BYTES = frozenset({"BytesNode", "BytearrayNode"})
_HEADERS = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}


@dataclass(frozen=True, slots=True)
class Array:
    """What an array's header says; its bytes are as many as that needs."""

    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Schema:
    """A tree that skops may judge. `arrays` are the headers of its arrays, by member; `members` are all it uses."""

    root: Node
    arrays: Mapping[str, Array]
    members: frozenset[str]
    archive: Archive

    def without_values(self) -> bytes:
        """Return the file with empty members: all that the types in it can be judged by."""
        return self._written(dict.fromkeys(self.members, b""))

    def whole(self) -> bytes:
        """Return the file as it may be loaded."""
        sizes = self.archive.members
        return self._written({name: self.archive.read(name, sizes[name].size) for name in sorted(self.members)})

    def array(self, file: str, at_most: int) -> NDArray[np.generic]:
        import numpy as np

        found: NDArray[np.generic] = np.load(io.BytesIO(self.archive.read(file, at_most)), allow_pickle=False)
        return found

    def _written(self, members: Mapping[str, bytes]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as written:
            for name, content in members.items():
                written.writestr(name, content)
            written.writestr(MEMBER, json.dumps({**self.root, "protocol": PROTOCOL}))
        return stream.getvalue()


def parse(archive: Archive) -> Schema:
    """Return the tree in the archive, or refuse it; nothing it describes is built."""
    compressed = sum(member.size for member in archive.members.values() if not member.is_plain)
    if compressed > _INFLATED_BYTES:
        raise refused(
            f"the archive's compressed members claim to be {compressed} bytes, more than {_INFLATED_BYTES}; "
            "save the model again without compression"
        )
    try:
        document = json.loads(archive.read(MEMBER, _SCHEMA_BYTES))
    except (ValueError, RecursionError) as error:
        raise refused(f"{MEMBER} is not JSON ({type(error).__name__}); save the model again") from error
    if not isinstance(document, dict) or "__loader__" not in document:
        raise refused(f"{MEMBER} describes no object; save the model again with {_WRITTEN_BY}")
    protocol = document.pop("protocol", None)
    if type(protocol) is not int or protocol != PROTOCOL:
        raise refused(f"{MEMBER} is of protocol {str(protocol)[:40]}, not {PROTOCOL}; write it with {_WRITTEN_BY}")
    return _Reader(archive).schema(document)


def nodes(root: Node) -> Iterator[Node]:
    """Yield every node of a tree that `parse` has let through."""
    rest: list[Any] = [root]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if isinstance(value.get("__loader__"), str):
                yield value
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)


class _Reader:
    """Copies the tree without its ids, and looks at every member it names."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._arrays: dict[str, Array] = {}
        self._members: set[str] = set()
        # Every node reads its member anew: a megabyte that a million nodes name would become a terabyte. What an
        # ensemble holds under two names is named twice.
        self._left = _TIMES * sum(member.size for member in archive.members.values()) + _SLACK_BYTES

    def schema(self, document: Node) -> Schema:
        root: Node = self._copy(document, _DEPTH)
        return Schema(root, self._arrays, frozenset(self._members), self._archive)

    def _copy(self, value: Any, depth: int) -> Any:
        if depth == 0:
            raise refused(f"{MEMBER} is nested more than {_DEPTH} levels deep; save a model of fewer parts")
        if isinstance(value, list):
            return [self._copy(item, depth - 1) for item in value]
        if not isinstance(value, dict):
            return value
        if type(value.get("__id__", 0)) is not int:
            raise refused(f"{MEMBER} has an __id__ that is no number; save the model again with {_WRITTEN_BY}")
        copied = {key: self._copy(item, depth - 1) for key, item in value.items() if key != "__id__"}
        loader = copied.get("__loader__")
        if isinstance(loader, str):
            self._check(copied, loader)
        return copied

    def _check(self, node: Node, loader: str) -> None:
        if not isinstance(node.get("__module__"), str) or not isinstance(node.get("__class__"), str):
            raise refused(f"{MEMBER} has a {loader[:80]} without a type; save the model again with {_WRITTEN_BY}")
        if loader == "SparseMatrixNode":
            raise refused(
                f"the file holds a sparse matrix ({type_name(node)}), an archive within the archive, which this "
                "runtime does not read; fit on dense arrays, or call the estimator's densify() before saving it"
            )
        if loader in _READS_BYTES:
            self._use(node)
        elif loader == "NdArrayNode" and node.get("type") == "numpy":
            file = self._use(node)
            self._arrays[file] = self._header(file)

    def _use(self, node: Node) -> str:
        file = node.get("file")
        if not isinstance(file, str) or file not in self._archive.members or file == MEMBER:
            raise refused(f"the file lacks the member {str(file)[:80]!r} of a {type_name(node)}; save the model again")
        self._members.add(file)
        self._left -= self._archive.members[file].size
        if self._left < 0:
            raise refused(f"{MEMBER} names the member {file!r} and others again and again; save the model again")
        return file

    def _header(self, file: str) -> Array:
        import numpy as np

        if file in self._arrays:
            return self._arrays[file]
        head = io.BytesIO(self._archive.head(file, _HEADER_BYTES))
        try:
            version = np.lib.format.read_magic(head)
            shape, _, dtype = getattr(np.lib.format, _HEADERS[version])(head)
        except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise refused(f"the member {file!r} is no array as numpy writes it; save the model again") from error
        if dtype.hasobject:
            raise refused(
                f"the member {file!r} is an array of objects, a pickle, which would run its author's code; "
                f"save the model with {_WRITTEN_BY}, which writes none"
            )
        count = 1
        for size in shape:
            if size < 0:
                raise refused(f"the member {file!r} is an array with a negative size; save the model again")
            count *= size
        claimed, size = head.tell() + count * dtype.itemsize, self._archive.members[file].size
        if claimed != size or (count and not dtype.itemsize):
            raise refused(f"the member {file!r} has {size} bytes, its shape {list(shape)} needs {claimed}")
        return Array(shape, dtype.kind)


def type_name(node: Node) -> str:
    return f"{node['__module__']}.{node['__class__']}"
