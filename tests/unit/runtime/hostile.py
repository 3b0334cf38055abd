"""Which files try to run code, to be something else, or to cost more than they weigh?

Every payload touches a canary file when it is executed, in whichever way: by unpickling, by `eval`, by name lookup.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.unit.runtime.models import CASES, exported, member, rewritten


@dataclass(frozen=True)
class Bomb:
    """A pickle of this object touches the canary when it is read."""

    canary: Path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, (f"touch {self.canary}",)


@dataclass(frozen=True)
class Hostile:
    """`words` appear in the refusal, so that a person learns what it was."""

    build: Callable[[bytes, Path], bytes]
    words: tuple[str, ...]


def _program(change: Callable[[dict[str, Any], Path], None]) -> Callable[[bytes, Path], bytes]:
    def build(data: bytes, canary: Path) -> bytes:
        def edit(members: dict[str, bytes]) -> None:
            name = member(members, "models/model.json")
            body = json.loads(members[name])
            change(body, canary)
            members[name] = json.dumps(body).encode()

        return rewritten(data, edit)

    return build


def _config(
    kind: str, change: Callable[[dict[str, Any], dict[str, bytes], Path], None]
) -> Callable[[bytes, Path], bytes]:
    def build(data: bytes, canary: Path) -> bytes:
        def edit(members: dict[str, bytes]) -> None:
            name = member(members, f"model_{kind}_config.json")
            body = json.loads(members[name])
            change(body["config"], members, canary)
            members[name] = json.dumps(body).encode()

        return rewritten(data, edit)

    return build


def _graph(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["graph_module"]["graph"]
    return found


def _pickled_weight(config: dict[str, Any], members: dict[str, bytes], canary: Path) -> None:
    entry = next(iter(config.values()))
    entry["use_pickle"] = True
    stream = io.BytesIO()
    torch.save(Bomb(canary), stream)
    members[member(members, entry["path_name"])] = stream.getvalue()


def _object(prefix: str) -> Callable[[dict[str, Any], dict[str, bytes], Path], None]:
    def change(config: dict[str, Any], members: dict[str, bytes], canary: Path) -> None:
        config["thing"] = {"path_name": f"{prefix}0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        root = next(iter(members)).partition("/")[0]
        members[f"{root}/data/constants/{prefix}0"] = pickle.dumps(Bomb(canary))

    return change


def _expression(body: dict[str, Any], canary: Path) -> None:
    for meta in _graph(body)["tensor_values"].values():
        for size in meta["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = f"__import__('os').system('touch {canary}')"
    node = {"name": "x", "arg": {"as_custom_obj": {"name": "x", "class_fqn": "y"}}, "kind": 1}
    _graph(body)["nodes"][0]["inputs"].append(node)


def _target(target: str, *arguments: dict[str, Any]) -> Callable[[dict[str, Any], Path], None]:
    def change(body: dict[str, Any], canary: Path) -> None:
        given = [
            {"name": "x", "arg": json.loads(json.dumps(value).replace("CANARY", str(canary))), "kind": 1}
            for value in arguments
        ]
        _graph(body)["nodes"][0].update(target=target, inputs=given)

    return change


def _input_name(body: dict[str, Any], canary: Path) -> None:
    evil = f"x=__import__('os').system('touch {canary}')"
    text = json.dumps(body).replace('"image"', json.dumps(evil))
    body.clear()
    body.update(json.loads(text))


def _legacy(data: bytes, canary: Path) -> bytes:
    def edit(members: dict[str, bytes]) -> None:
        root = next(iter(members)).partition("/")[0]
        stream = io.BytesIO()
        torch.save({"hidden.weight": Bomb(canary)}, stream)
        members[f"{root}/data/weights/model.pt"] = stream.getvalue()

    return rewritten(data, edit)


def _zip(*members: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> Callable[[bytes, Path], bytes]:
    def build(data: bytes, canary: Path) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", how) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return stream.getvalue()

    return build


def _extra(name: str, mode: int = 0) -> Callable[[bytes, Path], bytes]:
    """Return a good archive with one member more."""

    def build(data: bytes, canary: Path) -> bytes:
        stream = io.BytesIO(data)
        with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
            root = archive.namelist()[0].partition("/")[0]
            info = zipfile.ZipInfo(name.replace("ROOT", root))
            info.external_attr = mode << 16
            archive.writestr(info, b"/etc/passwd")
        return stream.getvalue()

    return build


def _twice(data: bytes, canary: Path) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = archive.namelist()[0]
        return _extra(name)(data, canary)


def _compressed(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, b"\0" * (64 << 20) if name.endswith("weight_0") else old.read(name))
    return stream.getvalue()


def _compressed_weight(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            how = zipfile.ZIP_DEFLATED if name.endswith("weight_0") else zipfile.ZIP_STORED
            new.writestr(name, old.read(name), how)
    return stream.getvalue()


def _larger_than_it_says(data: bytes, canary: Path) -> bytes:
    """Compress the program and let both headers claim half its size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            how = zipfile.ZIP_DEFLATED if name.endswith("models/model.json") else zipfile.ZIP_STORED
            new.writestr(name, old.read(name), how)
            if name.endswith("models/model.json"):
                size = len(old.read(name)).to_bytes(4, "little")
    return stream.getvalue().replace(size, (int.from_bytes(size, "little") // 2).to_bytes(4, "little"))


def _overlapping(data: bytes, canary: Path) -> bytes:
    """Point one member's directory entry at another one's bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        one, two = archive.infolist()[:2]
    changed = bytearray(data)
    at = changed.rindex(two.filename.encode()) - 46
    changed[at + 42 : at + 46] = one.header_offset.to_bytes(4, "little")
    return bytes(changed)


def _claims_more(data: bytes, canary: Path) -> bytes:
    """Let the directory claim a member of 4 GB that the file does not have."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        one = archive.infolist()[-1]
    changed = bytearray(data)
    at = changed.rindex(one.filename.encode()) - 46
    changed[at + 20 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little") * 2
    return bytes(changed)


def _torch_save(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Bomb(canary), stream)
    return stream.getvalue()


def _torch_save_legacy(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(Bomb(canary), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def _tar(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("model.pkl")
        content = pickle.dumps(Bomb(canary))
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _pickled(protocol: int, wrap: Callable[[bytes], bytes] = bytes) -> Callable[[bytes, Path], bytes]:
    return lambda data, canary: wrap(pickle.dumps(Bomb(canary), protocol=protocol))


def _more_bytes_than_stored(config: dict[str, Any], members: dict[str, bytes], canary: Path) -> None:
    next(iter(config.values()))["tensor_meta"]["sizes"][0]["as_int"] = 1 << 40


def _lost_weight(config: dict[str, Any], members: dict[str, bytes], canary: Path) -> None:
    config.pop(next(iter(config)))


SIZES = {"as_ints": [1 << 20]}
STRING = {"as_string": "touch CANARY"}
TENSOR = {"as_tensor": {"name": "image"}}

HOSTILE: dict[str, Hostile] = {
    "a raw pickle": Hostile(_pickled(4), ("pickle", "torch.export.save")),
    "a raw pickle in text form": Hostile(_pickled(0), ("pickle",)),
    "a pickle compressed with gzip": Hostile(_pickled(4, gzip.compress), ("gzip", "pickle")),
    "a pickle compressed with bzip2": Hostile(_pickled(4, bz2.compress), ("bzip2", "pickle")),
    "joblib's zlib": Hostile(_pickled(4, zlib.compress), ("joblib",)),
    "torch.save of a whole object": Hostile(_torch_save, ("torch.save", "torch.export.save")),
    "torch.save before 1.6": Hostile(_torch_save_legacy, ("torch.save", "1.6")),
    "a tar archive with a pickle": Hostile(_tar, ("tar archive",)),
    "a TorchServe archive": Hostile(
        _zip(("MAR-INF/MANIFEST.json", b"{}"), ("MAR-INF/handler.py", b"import os")), (".mar", "Python code")
    ),
    "a .pt2 of torch 2.7": Hostile(
        _zip(("m/serialized_exported_program.json", b"{}"), ("m/serialized_state_dict.pt", b"")), ("2.7",)
    ),
    "an AOTInductor package": Hostile(
        _zip(("m/archive_format", b"pt2"), ("m/data/aotinductor/model/a.so", b"\x7fELF")), ("AOTInductor",)
    ),
    "a native library": Hostile(lambda data, canary: b"\x7fELF" + b"\0" * 600, ("native library",)),
    "an empty file": Hostile(lambda data, canary: b"", ("empty",)),
    "a log-in page": Hostile(lambda data, canary: b"<!doctype html><title>Log in</title>", ("web page",)),
    "a Git LFS pointer": Hostile(
        lambda data, canary: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("Git LFS",)
    ),
    "a truncated archive": Hostile(lambda data, canary: data[: len(data) // 2], ("truncated",)),
    "an archive without its last bytes": Hostile(lambda data, canary: data[:-4], ("truncated",)),
    "a member with an absolute name": Hostile(_extra("/etc/cron.d/x"), ("absolute",)),
    "a member that leads out": Hostile(_extra("ROOT/../../x"), ("leads out",)),
    "a symbolic link": Hostile(_extra("ROOT/data/link", stat.S_IFLNK | 0o777), ("symbolic link",)),
    "a device": Hostile(_extra("ROOT/data/null", stat.S_IFCHR | 0o666), ("special file",)),
    "one name twice": Hostile(_twice, ("two members",)),
    "two root folders": Hostile(_extra("other/data/x"), ("one folder",)),
    "a compressed bomb": Hostile(_compressed, ("compressed",)),
    "a compressed weight": Hostile(_compressed_weight, ("weight_0", "compressed")),
    "a member that inflates to more than it says": Hostile(_larger_than_it_says, ("larger than", "claims")),
    "members that overlap": Hostile(_overlapping, ("two names",)),
    "a member larger than the file": Hostile(_claims_more, ("beyond its end",)),
    "a weight as a pickle": Hostile(_config("weights", _pickled_weight), ("pickle",)),
    "a weight larger than its bytes": Hostile(_config("weights", _more_bytes_than_stored), ("needs more",)),
    "a weight that is not there": Hostile(_config("weights", _lost_weight), ("lacks the weight",)),
    "legacy weights": Hostile(_legacy, ("model.pt", "pickle")),
    "an opaque object": Hostile(_config("constants", _object("opaque_obj_")), ("opaque_obj_0",)),
    "a custom object": Hostile(_config("constants", _object("custom_obj_")), ("custom_obj_0",)),
    "a shape that is evaluated": Hostile(_program(_expression), ("as_custom_obj",)),
    "os.system as an operator": Hostile(_program(_target("torch.os.system", STRING)), ("torch.os.system",)),
    "torch.load as an operator": Hostile(_program(_target("torch.load", STRING)), ("torch.load",)),
    "an operator that writes files": Hostile(
        _program(_target("torch.ops.aten.save.default", TENSOR, {"as_string": "CANARY"})), ("aten.save",)
    ),
    "an operator that maps files": Hostile(
        _program(
            _target("torch.ops.aten.from_file.default", {"as_string": "CANARY"}, {"as_bool": True}, {"as_int": 4})
        ),
        ("from_file",),
    ),
    **{
        f"an operator {why}": Hostile(_program(_target(f"torch.ops.aten.{name}", *given)), (name,))
        for why, name, given in (
            ("that believes any index", "_sparse_csr_tensor_unsafe.default", (TENSOR, TENSOR, TENSOR, SIZES)),
            ("that believes any length", "segment_reduce.default", (TENSOR, {"as_string": "sum"})),
            ("that believes any label", "ctc_loss.Tensor", (TENSOR, TENSOR, TENSOR, TENSOR)),
            ("that hands out memory as it is", "new_empty.default", (TENSOR, SIZES)),
            ("that makes a tensor longer than its memory", "resize_.default", (TENSOR, SIZES)),
            ("that writes into what it is given", "add.out", (TENSOR, TENSOR)),
            ("that nobody lists", "_nested_view_from_buffer.default", (TENSOR, TENSOR, TENSOR, TENSOR)),
        )
    },
    "an attribute instead of an operator": Hostile(
        _program(_target("torch.ops.aten.__class__.__init__", STRING)), ("__class__",)
    ),
    "an operator as an argument": Hostile(
        _program(_target("torch.ops.aten.relu.default", {"as_operator": "torch.os.system"})), ("as_operator",)
    ),
    "an input whose name is a program": Hostile(_program(_input_name), ("name",)),
}


def good() -> bytes:
    return exported(CASES["perceptron"])
