"""Which files of skops do the tests load, and which of them try to be more than a description of an estimator?"""

from __future__ import annotations

import io
import json
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.unit.runtime import hostile
from tests.unit.runtime.hostile import Bomb, Hostile

FEATURES = 6
ROWS = np.random.default_rng(0).normal(size=(90, FEATURES))
LABELS = (ROWS[:, 0] > 0.3).astype(int) + (ROWS[:, 1] > 0)
TARGET = ROWS @ np.arange(1.0, FEATURES + 1)

Members = dict[str, bytes]
Build = Callable[[bytes, Path], bytes]


def dumped(estimator: Any) -> bytes:
    content: bytes = skops.io.dumps(estimator)
    return content


@cache
def pipeline() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)


@cache
def good() -> bytes:
    return dumped(pipeline())


def zipped(members: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unzipped(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def edited(change: Callable[[Members, Path], object]) -> Build:
    def build(data: bytes, canary: Path) -> bytes:
        members = unzipped(data)
        change(members, canary)
        return zipped(members)

    return build


def schema(change: Callable[[dict[str, Any], Path], Any]) -> Build:
    """Return the file with another schema: what `change` returns, or what it made of the one it was given."""

    def edit(members: Members, canary: Path) -> None:
        document = json.loads(members["schema.json"])
        members["schema.json"] = json.dumps(change(document, canary) or document).encode()

    return edited(edit)


def node(loader: str, name: str, **parts: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    return {"__module__": module, "__class__": kind, "__loader__": loader, **parts}


def text(value: object) -> dict[str, Any]:
    return node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def many(loader: str, *items: Any) -> dict[str, Any]:
    return node(loader, {"ListNode": "builtins.list", "TupleNode": "builtins.tuple"}[loader], content=list(items))


def attribute(made: Callable[[Path], dict[str, Any]]) -> Build:
    """Return the file with one attribute more on its pipeline."""

    def change(document: dict[str, Any], canary: Path) -> None:
        document["content"]["content"]["verbose"] = made(canary)

    return schema(change)


def command(canary: Path) -> dict[str, Any]:
    return many("TupleNode", text(f"touch {canary}"))


def array(content: Callable[[Path], bytes], **parts: Any) -> Build:
    """Return the file with one array more, of these bytes."""

    def edit(members: Members, canary: Path) -> None:
        members["more.npy"] = content(canary)
        document = json.loads(members["schema.json"])
        more = node("NdArrayNode", "numpy.ndarray", type="numpy", file="more.npy")
        document["content"]["content"]["verbose"] = {**more, **parts}
        members["schema.json"] = json.dumps(document).encode()

    return edited(edit)


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


def _objects(canary: Path) -> bytes:
    return saved(np.array([Bomb(canary)], dtype=object))


def _huge(canary: Path) -> bytes:
    return saved(np.zeros(8)).replace(b"(8,), ", b"(8" + b"0" * 9 + b",), ").replace(b" " * 9 + b"\n", b"\n")


def _archive(canary: Path) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.zeros(1 << 20))
    return stream.getvalue()


def _shared(canary: Path) -> dict[str, Any]:
    """Lists of two, each item of which is one and the same list of two: 2^60 ways to the innermost."""
    found = many("ListNode", text(1))
    for number in range(1, 60):
        same = {"__id__": number, **found}
        found = many("ListNode", same, {"__id__": number})
    return found


def _itself(document: dict[str, Any], canary: Path) -> None:
    document["__id__"] = 7
    document["content"]["content"]["verbose"] = {"__id__": 7}


def _deep(canary: Path) -> dict[str, Any]:
    found = many("ListNode")
    for _ in range(300):
        found = many("ListNode", found)
    return found


def _often(members: Members, canary: Path) -> None:
    members["large.npy"] = saved(np.zeros(1 << 17))
    large = node("NdArrayNode", "numpy.ndarray", type="numpy", file="large.npy")
    document = json.loads(members["schema.json"])
    document["content"]["content"]["verbose"] = many("ListNode", *[large] * 100)
    members["schema.json"] = json.dumps(document).encode()


def _linked(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        info = zipfile.ZipInfo("link.npy")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    return stream.getvalue()


def _named(name: str) -> Build:
    return edited(lambda members, canary: members.update({name: b"x"}))


def _twice(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("schema.json", json.dumps(command(canary)))
    return stream.getvalue()


def _compressed_zeros(data: bytes, canary: Path) -> bytes:
    return zipped({**unzipped(data), "zeros.npy": bytes(32 << 20)}, zipfile.ZIP_DEFLATED)


def _protocol(value: object) -> Build:
    return schema(lambda document, canary: document.update(protocol=value))


def _without(name: str) -> Build:
    return edited(lambda members, canary: members.pop(name if name in members else next(iter(members))))


def _replaced(content: bytes) -> Build:
    return edited(lambda members, canary: members.update({"schema.json": content}))


OS_SYSTEM = node("FunctionNode", "os.system")
LIST = many("ListNode")

HOSTILE: dict[str, Hostile] = {
    "a function": Hostile(attribute(lambda canary: OS_SYSTEM), ("os.system", "spec.model.trustedTypes", "retrain")),
    "a function under its other name": Hostile(attribute(lambda canary: node("TypeNode", "posix.system")), ("posix.",)),
    "a partial": Hostile(
        attribute(
            lambda canary: node(
                "PartialNode",
                "functools.partial",
                content={
                    "func": OS_SYSTEM,
                    "args": command(canary),
                    "kwds": node("DictNode", "builtins.dict", content={}, key_types=LIST),
                    "namespace": text(None),
                },
            )
        ),
        ("functools.partial", "os.system"),
    ),
    "a call": Hostile(
        attribute(lambda canary: node("ConstructorFromReduceNode", "os.system", content=command(canary))),
        ("os.system",),
    ),
    "a call in the place of a list": Hostile(
        attribute(lambda canary: node("ListNode", "os.system", content=[text(f"touch {canary}")])), ("os.system",)
    ),
    "a method by name": Hostile(
        attribute(
            lambda canary: node(
                "MethodNode",
                "sklearn.preprocessing._data.StandardScaler",
                content={
                    "func": "fit",
                    "obj": node("ObjectNode", "sklearn.preprocessing._data.StandardScaler"),
                },
            )
        ),
        ("StandardScaler.fit",),
    ),
    "an operator": Hostile(
        attribute(lambda canary: node("OperatorFuncNode", "operator.methodcaller", attrs=command(canary))),
        ("operator.methodcaller",),
    ),
    "an object of any type": Hostile(
        attribute(lambda canary: node("ObjectNode", "subprocess.Popen")), ("subprocess.Popen",)
    ),
    "a random generator whose name is a function": Hostile(
        attribute(
            lambda canary: node(
                "RandomGeneratorNode",
                "numpy.random._generator.Generator",
                content={
                    "bit_generator": node(
                        "DictNode", "builtins.dict", content={"bit_generator": text("seed")}, key_types=LIST
                    ),
                    "seed_seq": LIST,
                },
            )
        ),
        ("numpy.random.seed",),
    ),
    "an array of objects": Hostile(array(_objects), ("array of objects", "pickle", "skops.io.dump")),
    "a pickle in the place of an array": Hostile(array(lambda canary: pickle.dumps(Bomb(canary))), ("no array",)),
    "an archive in the place of an array": Hostile(array(_archive), ("no array",)),
    "an array larger than its bytes": Hostile(array(_huge), ("needs",)),
    "an array without its last bytes": Hostile(array(lambda canary: saved(np.zeros(8))[:-1]), ("needs",)),
    "a sparse matrix": Hostile(
        array(_archive, __loader__="SparseMatrixNode", __class__="csr_matrix", __module__="scipy.sparse", type="scipy"),
        ("sparse matrix", "densify"),
    ),
    "a member that is not there": Hostile(
        array(lambda canary: saved(np.zeros(1)), file="other.npy"), ("lacks the member",)
    ),
    "a member with no name": Hostile(array(lambda canary: b"", file=7), ("lacks the member",)),
    "itself as bytes": Hostile(
        array(lambda canary: b"", __loader__="BytesNode", file="schema.json"), ("lacks the member",)
    ),
    "a member named again and again": Hostile(edited(_often), ("again and again",)),
    "nodes shared in every way": Hostile(attribute(_shared), ("not what skops writes",)),
    "a node that holds itself": Hostile(schema(_itself), ("not what skops writes",)),
    "a node that stands for one never seen": Hostile(
        attribute(lambda canary: node("CachedNode", "builtins.list", __id__=3)), ("not what skops writes",)
    ),
    "an id that is no number": Hostile(attribute(lambda canary: {**LIST, "__id__": [1]}), ("no number",)),
    "a description without end": Hostile(attribute(_deep), ("levels deep",)),
    "a reader that nobody knows": Hostile(
        attribute(lambda canary: node("EvalNode", "builtins.str", content="1")), ("Can't find loader EvalNode",)
    ),
    "a node without a type": Hostile(attribute(lambda canary: {"__loader__": "ListNode"}), ("without a type",)),
    "no schema.json": Hostile(_without("schema.json"), ("no model", "skops")),
    "a schema that is no JSON": Hostile(_replaced(b"\x80\x04N."), ("not JSON",)),
    "a schema of nested lists": Hostile(_replaced(b"[" * 200_000), ("not JSON",)),
    "a schema that is a list": Hostile(_replaced(b"[]"), ("describes no object",)),
    "a schema of an older protocol": Hostile(_protocol(1), ("protocol 1, not 2",)),
    "a schema of a later protocol": Hostile(_protocol(3), ("protocol 3",)),
    "a schema of no protocol": Hostile(_protocol(None), ("protocol None",)),
    "a protocol that is true": Hostile(_protocol(True), ("protocol True",)),
    "a member that leads out": Hostile(_named("../x.npy"), ("leads out",)),
    "a member with an absolute name": Hostile(_named("/etc/cron.d/x"), ("absolute",)),
    "a symbolic link": Hostile(_linked, ("symbolic link",)),
    "a second schema": Hostile(_twice, ("two members",)),
    "members that overlap": Hostile(hostile._overlapping, ("two names",)),
    "a member larger than the file": Hostile(hostile._claims_more, ("beyond its end",)),
    "a compressed bomb": Hostile(_compressed_zeros, ("zeros.npy", "without compression")),
    "a truncated archive": Hostile(lambda data, canary: data[: len(data) // 2], ("truncated",)),
}
