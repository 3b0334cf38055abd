"""Are .keras files served as Keras answers, described without being built, and refused by name where hostile?"""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason, Tensor
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models import architecture
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Loaded, Signature
from tests.unit.runtime.inspected import inspect
from tests.unit.runtime.keras_files import CONFIG, HOSTILE, WEIGHTS, edited, good, keras, members, perceptron, saved


def opened(data: bytes) -> tuple[Signature, Loaded]:
    """Inspect as `prepare` does, then load as the server does."""
    found, signature = inspect(io.BytesIO(data), len(data), Model("Auto", "", False))
    assert found.name == "Keras"
    _, archive = recognise(io.BytesIO(data), len(data))
    return signature, found.load(archive, memoryview(data), "cpu", frozenset())


def cnn() -> Any:
    """The reference network: 28×28, three convolutions, two dense layers."""
    layers = keras().layers
    model = keras().Sequential(
        [
            keras().Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.train_on_batch(np.ones((4, 28, 28, 1), np.float32), np.arange(4))
    return model


def several() -> Any:
    """Two named inputs, two named outputs, normalisation and operators between layers."""
    layers = keras().layers
    left, right = keras().Input((6,), name="left"), keras().Input((6,), name="right")
    both = layers.BatchNormalization()(layers.Concatenate()([left, right]))
    first = layers.Dense(3)(both) * 2.0 + 1.0
    second = layers.Dense(2, activation="sigmoid")(layers.Add()([left, right]))
    return keras().Model({"right": right, "left": left}, {"z": first, "a": second})


def listed() -> Any:
    layers = keras().layers
    ids, row = keras().Input((5,), dtype="int32", name="ids"), keras().Input((4,), name="row")
    found = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4)(ids))
    return keras().Model([ids, row], layers.LayerNormalization(name="normal")(layers.Add()([found, row])))


def recurrent() -> Any:
    layers = keras().layers
    return keras().Sequential(
        [
            keras().Input((None, 5)),
            layers.Bidirectional(layers.LSTM(7, return_sequences=True)),
            layers.GRU(4),
            layers.Dense(2),
        ]
    )


def autoencoder() -> Any:
    layers = keras().layers
    code = keras().Sequential(
        [keras().Input((8, 8, 1)), layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")], name="code"
    )
    image = layers.Conv2DTranspose(1, 3, strides=2, padding="same", name="image")
    return keras().Sequential([keras().Input((8, 8, 1)), code, layers.Dropout(0.5), image])


def half() -> Any:
    layers = keras().layers
    return keras().Sequential([keras().Input((6,)), layers.Dense(4, dtype="bfloat16", name="half")])


def attending() -> Any:
    layers = keras().layers
    steps = keras().Input((5, 8), name="steps")
    found = layers.MultiHeadAttention(2, 4)(steps, steps)
    return keras().Model(steps, layers.Dense(3)(layers.Flatten()(found)))


FP32 = "FP32"
CASES: dict[str, tuple[Callable[[], Any], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "a perceptron": (perceptron, (Tensor("row", FP32, (-1, 6)),), (Tensor("answer", FP32, (-1, 3)),)),
    "the reference network, trained": (
        cnn, (Tensor("input_layer", FP32, (-1, 28, 28, 1)),), (Tensor("dense_1", FP32, (-1, 10)),),
    ),
    "dicts of inputs and outputs": (
        several,
        (Tensor("left", FP32, (-1, 6)), Tensor("right", FP32, (-1, 6))),
        (Tensor("a", FP32, (-1, 2)), Tensor("z", FP32, (-1, 3))),
    ),
    "a list of inputs, one of indices": (
        listed,
        (Tensor("ids", "INT32", (-1, 5)), Tensor("row", FP32, (-1, 4))),
        (Tensor("normal", FP32, (-1, 4)),),
    ),
    "recurrent, of any length": (
        recurrent, (Tensor("input_layer", FP32, (-1, -1, 5)),), (Tensor("dense", FP32, (-1, 2)),),
    ),
    "a model within a model": (
        autoencoder, (Tensor("input_layer_1", FP32, (-1, 8, 8, 1)),), (Tensor("image", FP32, (-1, 8, 8, 1)),),
    ),
    "half precision": (half, (Tensor("input_layer", FP32, (-1, 6)),), (Tensor("half", "BF16", (-1, 4)),)),
    "attention": (attending, (Tensor("steps", FP32, (-1, 5, 8)),), (Tensor("dense", FP32, (-1, 3)),)),
}  # fmt: skip


def rows(signature: Signature, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(0, 9, (count, *shape[1:]), generator=generator, dtype=torch.int32)
        if tensor.datatype == "INT32"
        else torch.rand((count, *shape[1:]), generator=generator)
        for tensor, shape in zip(signature.inputs, signature.example or (), strict=True)
    ]


def answers(model: Any, given: list[torch.Tensor], names: list[str]) -> list[Any]:
    """Return what Keras itself answers."""
    asked: Any = [tensor.numpy() for tensor in given]
    if isinstance(getattr(model, "_inputs_struct", None), dict):
        asked = dict(zip(names, asked, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras' own ways with numpy
        found = model.predict(asked[0] if len(asked) == 1 else asked, verbose=0)
    return [found[name] for name in sorted(found)] if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_keras_however_the_model_is_called(name: str) -> None:
    make, inputs, outputs = CASES[name]
    keras().utils.clear_session(free_memory=False)
    model = make()
    signature, loaded = opened(saved(model))
    assert signature.inputs == loaded.signature.inputs == inputs
    assert signature.outputs == loaded.signature.outputs == outputs
    given = rows(signature, 5)
    want = answers(model, given, [tensor.name for tensor in inputs])
    calibrated = calibrate(loaded, 1, 8)
    assert calibrated.max_rows >= 1
    for call in (loaded.call, calibrated.call):
        with torch.inference_mode():
            found = call(*given)
        for tensor, right in zip(found, want, strict=True):
            np.testing.assert_allclose(tensor.float().numpy(), np.asarray(right, np.float32), atol=1e-5)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = HOSTILE[name].build(good(), canary)
    with pytest.raises(ModelError) as refused:
        opened(data)
    assert refused.value.reason == Reason.FORMAT_REFUSED
    for word in HOSTILE[name].words:
        assert word in refused.value.message
    assert not canary.exists()


def test_what_only_training_needs_is_never_built(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    def change(content: dict[str, bytes], canary: Path) -> None:
        root = json.loads(content[CONFIG])
        loss = {"module": "os", "class_name": "system", "config": {"command": f"touch {canary}"}}
        root["compile_config"] = {"optimizer": "adam", "loss": loss}
        content[CONFIG] = json.dumps(root).encode()

    _, loaded = opened(edited(change)(good(), canary))
    assert loaded.parameters["keras_version"] == keras().__version__
    assert not canary.exists()


def test_a_model_that_was_never_told_its_input_says_how() -> None:
    def change(content: dict[str, bytes], canary: Path) -> None:
        root = json.loads(content[CONFIG])
        del root["config"]["layers"][0]
        content[CONFIG] = json.dumps(root).encode()

    with pytest.raises(ModelError, match=r"keras\.Input"):
        opened(edited(change)(good(), Path()))


def test_every_class_that_may_be_built_is_one_of_keras() -> None:
    from keras.src.api_export import get_symbol_from_name

    for module, names in architecture._ALLOWED.items():
        for name in names:
            found = get_symbol_from_name(f"{module}.{name}") or vars(importlib.import_module(module)).get(name)
            assert isinstance(found, type), f"{module}.{name}"


def test_the_description_is_kept_as_it_was() -> None:
    """Building the model without memory must leave no trace in what is built in earnest."""
    data = good()
    text = members(data)[CONFIG]
    before = architecture.parse(text).root
    found = architecture.parse(text)
    opened(data)
    assert found.root == before


def test_nobody_pays_for_keras_who_serves_or_inspects() -> None:
    words = (
        "import io, sys, evenkeel_runtime.serve.server, evenkeel_runtime.prepare\n"
        "from evenkeel_runtime.config import Model\n"
        "from evenkeel_runtime.models.recognised import recognised\n"
        "data = sys.stdin.buffer.read()\n"
        "print(recognised(io.BytesIO(data), len(data), Model('Keras', '', False)).name)\n"
        "print([name for name in ('keras', 'h5py', 'torch', 'numpy.random') if name in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", words], input=good(), capture_output=True, check=True)
    assert got.stdout.decode() == "Keras\n[]\n"


@pytest.mark.parametrize(("kind", "want"), [("Sequential", (-1, 3)), ("Functional", None)])
def test_models_within_models_are_read_once(kind: str, want: tuple[int, ...] | None) -> None:
    """Two ways lead into each: the shape of its answer, and its type. Each taken at every level, they are 2 ** 30."""
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4]}}
    given: dict[str, Any] = {"module": "keras.layers", "class_name": "InputLayer"}
    given |= {"config": {"name": "given", "batch_shape": [None, 4]}, "inbound_nodes": []}
    found: dict[str, Any] = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "end", "units": 3}}
    for number in range(30):
        last = found | {"inbound_nodes": [{"args": [tensor]}]}
        config: dict[str, Any] = {"name": f"model_{number}", "layers": [given, last]}
        found = {"module": "keras", "class_name": "Sequential", "config": config}
        if kind == "Functional":
            end = last["config"]["name"]
            config |= {"input_layers": ["given", 0, 0], "output_layers": [[end, 0, 0], [end, -1, 0], [end, 0, 0]]}
            found |= {"module": "keras.src.models.functional", "class_name": kind}
    got = architecture.parse(json.dumps(found).encode())
    assert {(tensor.dtype, tensor.shape) for tensor in got.outputs} == {("float32", want)}


def test_weights_are_copied_from_where_they_were_read() -> None:
    """The model's own memory is torch's, which is not counted here: what is counted would be one copy more. Of one
    array there may be a copy, where it is not aligned."""
    model = keras().Sequential([keras().Input((512,), name="row"), *(keras().layers.Dense(512) for _ in range(12))])
    data = saved(model)
    opened(data)
    found, archive = recognise(io.BytesIO(data), len(data))
    tracemalloc.start()
    try:
        found.load(archive, memoryview(data), "cpu", frozenset())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12 * (512 * 512 * 4) / 2


def test_damaged_weights_are_refused() -> None:
    data = good()
    _, archive = recognise(io.BytesIO(data), len(data))
    member = archive.members[WEIGHTS]
    damaged = bytearray(data)
    damaged[member.offset + member.size - 1] ^= 1
    with pytest.raises(ModelError, match=r"model\.weights\.h5.*damaged"):
        opened(bytes(damaged))
