"""Which `.keras` files do the tests load, and which try to run code, to read files or to cost more than they weigh?

Every payload touches a canary file when it is executed.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from evenkeel_runtime.models.keras import imported
from tests.unit.runtime.hostile import Bomb, Hostile

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
Node = dict[str, Any]


def keras() -> Any:
    return imported()


def saved(model: Any) -> bytes:
    """Return the model as Keras saves it."""
    stream = io.BytesIO()
    from keras.src.saving.saving_lib import _save_model_to_fileobj

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _save_model_to_fileobj(model, stream, "h5")
    return stream.getvalue()


def perceptron() -> Any:
    layers = keras().layers
    keras().utils.set_random_seed(7)
    return keras().Sequential(
        [
            keras().Input((6,), name="row"),
            layers.Dense(4, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="answer"),
        ]
    )


def good() -> bytes:
    return saved(perceptron())


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return stream.getvalue()


def edited(change: Callable[[dict[str, bytes], Path], None]) -> Callable[[bytes, Path], bytes]:
    """Return what builds a good file with its members changed."""

    def build(data: bytes, canary: Path) -> bytes:
        content = members(data)
        change(content, canary)
        return zipped(content)

    return build


def described(change: Callable[[Node, Path], None]) -> Callable[[bytes, Path], bytes]:
    """Return what builds a good file with its description changed."""

    def edit(content: dict[str, bytes], canary: Path) -> None:
        root = json.loads(content[CONFIG])
        change(root, canary)
        content[CONFIG] = json.dumps(root).encode()

    return edited(edit)


def layer(module: str | None, name: str, **config: Any) -> Callable[[bytes, Path], bytes]:
    """Return what builds a good file whose hidden layer is this one; CANARY stands for the canary's path."""

    def change(root: Node, canary: Path) -> None:
        text = json.dumps({"module": module, "class_name": name, "config": config, "registered_name": None})
        root["config"]["layers"][1] = json.loads(text.replace("CANARY", str(canary)))

    return described(change)


def within(change: Callable[[Node, Path], None]) -> Callable[[bytes, Path], bytes]:
    """Return what builds a good file with its hidden layer changed."""
    return described(lambda root, canary: change(root["config"]["layers"][1], canary))


def _code(canary: Path) -> str:
    code = compile(f"lambda x: __import__('os').system('touch {canary}')", "x", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def _lambda(canary: Path) -> Node:
    function = {"class_name": "__lambda__", "config": {"code": _code(canary), "defaults": None, "closure": None}}
    config = {"name": "hidden", "function": function, "arguments": {}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": config, "registered_name": None}


def _bare_lambda(node: Node, canary: Path) -> None:
    value = {"code": _code(canary), "defaults": None, "closure": None}
    node["config"]["activation"] = {"class_name": "__lambda__", "config": {"value": value}}


def _within_a_wrapper(node: Node, canary: Path) -> None:
    node.update(class_name="TimeDistributed", config={"name": "hidden", "layer": _lambda(canary)})


def _within_a_model(node: Node, canary: Path) -> None:
    node.update(module="keras", class_name="Sequential", config={"name": "hidden", "layers": [_lambda(canary)]})


def _module_wrapper(node: Node, canary: Path) -> None:
    stream = io.BytesIO()
    torch.save(Bomb(canary), stream)
    config = {"name": "hidden", "module": base64.b64encode(stream.getvalue()).decode()}
    node.update(class_name="TorchModuleWrapper", config=config)


def _deep(content: dict[str, bytes], canary: Path) -> None:
    content[CONFIG] = content[CONFIG].replace(
        b'"bias_constraint": null', b'"bias_constraint": ' + b"[" * 500 + b"]" * 500
    )


def _set(member: str, data: bytes) -> Callable[[bytes, Path], bytes]:
    def change(content: dict[str, bytes], canary: Path) -> None:
        content[member] = data

    return edited(change)


def _without(member: str) -> Callable[[bytes, Path], bytes]:
    return edited(lambda content, canary: content.__delitem__(member))


def _pickled_asset(content: dict[str, bytes], canary: Path) -> None:
    content["assets/layers/hidden/vocabulary.pkl"] = pickle.dumps(Bomb(canary))


def _pickled_weights(content: dict[str, bytes], canary: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, __root__=np.array([Bomb(canary)], dtype=object))
    del content[WEIGHTS]
    content["model.weights.npz"] = stream.getvalue()


def weights(change: Callable[[h5py.Group, Path], None], **how: Any) -> Callable[[bytes, Path], bytes]:
    """Return what builds a good file whose hidden layer's arrays were changed by h5py."""

    def edit(content: dict[str, bytes], canary: Path) -> None:
        stream = io.BytesIO(content[WEIGHTS])
        with h5py.File(stream, "r+", **how) as file:
            change(file["layers/dense/vars"], canary)
        content[WEIGHTS] = stream.getvalue()

    return edited(edit)


def _anew(content: dict[str, bytes], canary: Path) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver="latest") as file:
        file["layers/dense/vars/0"] = np.zeros((6, 4), np.float32)
    content[WEIGHTS] = stream.getvalue()


def _external_link(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group["0"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft_link(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group["0"] = h5py.SoftLink("/layers/dense_1/vars/0")


def _hard_link(group: h5py.Group, canary: Path) -> None:
    group["again"] = group.file["layers"]


def _external_data(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group.create_dataset("0", (6, 4), np.float32, external=[("/etc/passwd", 0, 96)])


def _virtual(group: h5py.Group, canary: Path) -> None:
    layout = h5py.VirtualLayout((6, 4), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (6, 4))
    del group["0"]
    group.create_virtual_dataset("0", layout)


def _compressed(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group.create_dataset("0", (1 << 20, 4), np.float32, compression="gzip", fillvalue=1.0)


def _unwritten(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group.create_dataset("0", (1 << 40, 4), np.float32)


def _chunked(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group.create_dataset("0", (1 << 30, 4), np.float32, chunks=(1 << 10, 4))


def _texts(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group.create_dataset("0", data=["touch"], dtype=h5py.string_dtype())


def _other_shape(group: h5py.Group, canary: Path) -> None:
    del group["0"]
    group["0"] = np.zeros((5, 4), np.float32)


def _no_weight(group: h5py.Group, canary: Path) -> None:
    del group["0"]


def _truncated(content: dict[str, bytes], canary: Path) -> None:
    content[WEIGHTS] = content[WEIGHTS][:-400]


def _enormous(root: Node, canary: Path) -> None:
    root["config"]["layers"][-1]["config"]["units"] = 1 << 40


def _unending(node: Node, canary: Path) -> None:
    node["config"]["units"] = 10**30


def _renamed(node: Node, canary: Path) -> None:
    node["registered_name"] = "Custom>Dense"


def _listed(node: Node, canary: Path) -> None:
    node["class_name"] = ["Dense"]


def _nested(node: Node, canary: Path) -> None:
    """Models, one within the other, of which each calls the next one twice."""

    def tensor(layer: str, call: int = 0) -> Node:
        history = {"shape": [None, 16], "dtype": "float32", "keras_history": [layer, call, 0]}
        return {"class_name": "__keras_tensor__", "config": history}

    def called(given: Node) -> Node:
        return {"args": [given], "kwargs": {}}

    found: dict[str, Any] = {"module": "keras.layers", "class_name": "Identity", "config": {"name": "end"}}
    for number in range(28):
        name = f"model_{number}"
        inner = dict(found, name=found["config"]["name"], inbound_nodes=[called(tensor("given"))])
        inner["inbound_nodes"].append(called(tensor(inner["name"])))
        given: dict[str, Any] = {"name": "given", "batch_shape": [None, 16], "dtype": "float32"}
        given = {"module": "keras.layers", "class_name": "InputLayer", "config": given, "name": "given"}
        config = {"name": name, "layers": [dict(given, inbound_nodes=[]), inner], "input_layers": [["given", 0, 0]]}
        config["output_layers"] = [[inner["name"], 1, 0]]
        found = {"module": "keras.src.models.functional", "class_name": "Functional", "config": config}
    node.clear()
    node.update(found)


def _compressed_members(data: bytes, canary: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(data).items():
            archive.writestr(name, content)
    return stream.getvalue()


SYSTEM = {"command": "touch CANARY"}

HOSTILE: dict[str, Hostile] = {
    "a Lambda layer": Hostile(
        described(lambda root, canary: root["config"]["layers"].insert(1, _lambda(canary))), ("Lambda", "author")
    ),
    "a lambda as an activation": Hostile(within(_bare_lambda), ("__lambda__",)),
    "a Lambda within a wrapper": Hostile(within(_within_a_wrapper), ("Lambda",)),
    "a Lambda within a model": Hostile(within(_within_a_model), ("Lambda",)),
    "a torch module, pickled": Hostile(within(_module_wrapper), ("TorchModuleWrapper",)),
    "a TensorFlow program": Hostile(layer("keras.layers", "TFSMLayer", filepath="CANARY"), ("TFSMLayer",)),
    "a layer that reads a file": Hostile(
        layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"), ("keras.layers.StringLookup",)
    ),
    "a function of Python": Hostile(layer("os", "system", **SYSTEM), ("os.system",)),
    "a function that is called for an activation": Hostile(
        layer("builtins", "function", x="eval"), ("builtins.function",)
    ),
    "a function of Keras that fetches files": Hostile(
        layer("keras.utils", "get_file", origin="file:///etc/passwd"), ("keras.utils.get_file",)
    ),
    "Keras' own loader": Hostile(layer("keras.saving", "load_model", filepath="CANARY"), ("keras.saving.load_model",)),
    "an operation that calls a function": Hostile(
        layer("keras.src.ops.core", "Map", f="CANARY"), ("keras.src.ops.core.Map",)
    ),
    "a class of the author's": Hostile(layer("net", "Block", units=4), ("net.Block", "torch.export")),
    "a class of Keras by the author's name": Hostile(within(_renamed), ("Custom>Dense",)),
    "a class without a module, as of Keras 2": Hostile(layer(None, "Dense", units=4), ("Keras 2",)),
    "a model of Keras 2": Hostile(_set(METADATA, b'{"keras_version": "2.15.0"}'), ("2.15.0", "Keras 3")),
    "no version": Hostile(_set(METADATA, b"[]"), ("metadata.json",)),
    "a description that is no JSON": Hostile(_set(CONFIG, b"\x80\x04."), ("config.json", "JSON")),
    "a description of nothing": Hostile(_set(CONFIG, b"[]"), ("describes no model",)),
    "a description that is nested without end": Hostile(_set(CONFIG, b"[" * 100_000), ("JSON",)),
    "a description that is nested deep": Hostile(edited(_deep), ("levels deep",)),
    "a layer instead of a model": Hostile(
        described(lambda root, canary: root.update(root["config"]["layers"][1])), ("Dense", "not a Sequential")
    ),
    "a pickle among the assets": Hostile(edited(_pickled_asset), ("vocabulary.pkl",)),
    "weights as arrays of objects": Hostile(edited(_pickled_weights), ("lacks model.weights.h5",)),
    "no weights": Hostile(_without(WEIGHTS), ("lacks model.weights.h5",)),
    "weights that are none": Hostile(_set(WEIGHTS, pickle.dumps([0] * 99)), ("not an HDF5 file",)),
    "weights of a later HDF5": Hostile(edited(_anew), ("HDF5 file of version",)),
    "truncated weights": Hostile(edited(_truncated), ("truncated",)),
    "a link to another file": Hostile(weights(_external_link), ("later kind",)),
    "a link within the file": Hostile(weights(_soft_link), ("holds a link",)),
    "a group that holds itself": Hostile(weights(_hard_link), ("two ways",)),
    "an array in another file": Hostile(weights(_external_data), ("another file",)),
    "an array made of others": Hostile(weights(_virtual), ("one piece",)),
    "a compressed array": Hostile(weights(_compressed), ("compressed",)),
    "an array in pieces that are not there": Hostile(weights(_chunked), ("one piece",)),
    "an array that was never written": Hostile(weights(_unwritten), ("dense/vars/0", "needs")),
    "an array of texts": Hostile(weights(_texts), ("lists of any length",)),
    "a weight of another shape": Hostile(weights(_other_shape), ("do not fit",)),
    "a weight that is not there": Hostile(weights(_no_weight), ("do not fit",)),
    "more weights than the file has": Hostile(described(_enormous), ("weights, its file holds",)),
    "more weights than there are numbers for": Hostile(within(_unending), ("cannot build",)),
    "a class that is a list": Hostile(within(_listed), ("class_name that is no text", "Dense")),
    "models that call each other without end": Hostile(within(_nested), ("parts", "every call")),
    "compressed weights": Hostile(_compressed_members, ("compressed",)),
}
