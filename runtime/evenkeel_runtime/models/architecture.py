"""What does the `config.json` of a `.keras` file describe, and may Keras build it?

Keras rebuilds a model from names of classes and what their constructors take. Its safe mode refuses lambdas and what
is not of Keras, but among Keras' own classes are some that load torch modules, read files or call what they are given.
So every class in the tree is held against a list, before Keras is imported: what is not on it is refused by name.

What callers see is read from the same tree: inputs from their layers, outputs from the last layers and what they are
connected to. The shape of an output that cannot be told so is left open, until the model is built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeGuard

from evenkeel_runtime.failure import refused

Node = dict[str, Any]
Sizes = tuple[int, ...]
"""A shape; -1 where a dimension is free."""

MEMBER = "config.json"
_DEPTH = 100
_PARTS = 2_000_000
"""Lists and objects that building goes through; a large model of Keras' applications has some ten thousand."""
_WAY_OUT = "save it with model.save('model.keras') and Keras 3"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BY_DIMENSION = _words(
    "AveragePooling MaxPooling GlobalAveragePooling GlobalMaxPooling AdaptiveAveragePooling AdaptiveMaxPooling "
    "Cropping SpatialDropout UpSampling ZeroPadding Conv ConvLSTM"
)
_LAYERS = (
    frozenset(f"{name}{number}D" for name in _BY_DIMENSION for number in (1, 2, 3))
    | frozenset(f"Conv{number}DTranspose" for number in (1, 2, 3))
    | _words(
        "Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average BatchNormalization "
        "Bidirectional CenterCrop Concatenate Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense "
        "Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GroupNormalization GroupQueryAttention Identity "
        "InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking Maximum Minimum MultiHeadAttention Multiply "
        "Normalization PReLU Permute RMSNormalization RNN RandomContrast RandomFlip RandomRotation RandomTranslation "
        "RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN "
        "SimpleRNNCell Softmax SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization"
    )
)
_OPERATIONS = _words(
    "Absolute Add Argmax Average Clip Concatenate Cos Divide DivideNoNan Einsum Equal Exp ExpandDims Expm1 Floor "
    "FloorDivide GetItem Greater GreaterEqual Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Matmul Max "
    "Maximum Mean Min Minimum Mod Moveaxis Multiply Negative NotEqual Power Prod Reciprocal Reshape Round Sign Sin "
    "Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take Tanh Transpose TrueDivide Var Where"
)
_ACTIVATIONS = _words(
    "Celu Elu Gelu Glu HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid LogSoftmax Normalize Relu Relu6 Selu "
    "Sigmoid Silu Softmax Softplus Softsign"
)
_ALLOWED: Mapping[str, frozenset[str]] = {
    "keras": _words("Sequential DTypePolicy"),
    "keras.src.models.functional": _words("Functional"),
    "keras.layers": _LAYERS,
    "keras.src.ops.numpy": _OPERATIONS,
    "keras.src.ops.nn": _ACTIVATIONS,
    "keras.initializers": _words(
        "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform "
        "Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros"
    ),
    "keras.regularizers": _words("L1 L1L2 L2 OrthogonalRegularizer"),
    "keras.constraints": _words("MaxNorm MinMaxNorm NonNeg UnitNorm"),
}
_VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"})
"""Values that JSON has no words for; each is what its name says."""
_RUNS_CODE = _words("Lambda TorchModuleWrapper TFSMLayer JaxLayer FlaxLayer __lambda__")
_MODELS = _words("Sequential Functional")
_RECURRENT = _words("Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D GRU LSTM RNN SimpleRNN TimeDistributed")


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` is None where the configuration does not say it."""

    name: str
    dtype: str
    shape: Sizes | None


@dataclass(frozen=True, slots=True)
class Architecture:
    """`root` is what Keras may build: the checked tree, without what training needs. `layers` are the classes in it."""

    root: Node
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: frozenset[str]

    @property
    def is_recurrent(self) -> bool:
        return bool(self.layers & _RECURRENT)


def parse(text: bytes) -> Architecture:
    """Return what the JSON describes, or refuse it; nothing of it is built."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(f"{MEMBER} is not JSON ({type(error).__name__}); save the model again") from error
    if not isinstance(root, dict) or not isinstance(root.get("class_name"), str):
        raise refused(f"{MEMBER} describes no model; {_WAY_OUT}")
    layers: set[str] = set()
    _check(root, layers, _DEPTH)
    if (parts := _parts(root)) > _PARTS:
        raise refused(
            f"{MEMBER} describes a model of {parts} parts, counted at every call of the layer that they are in, "
            f"more than {_PARTS}; save a model whose layers call each other less often"
        )
    if root["class_name"] not in _MODELS:
        raise refused(f"{MEMBER} describes a {root['class_name']}, not a Sequential or functional model; {_WAY_OUT}")
    try:
        model = _model(root)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise refused(f"{MEMBER} is not what Keras writes ({type(error).__name__}: {str(error)[:120]})") from error
    return Architecture(root, tuple(model.inputs), tuple(model.outputs), frozenset(layers))


def _check(value: Any, layers: set[str], depth: int) -> None:
    """Refuse a tree that holds anything but values and allowed classes, and take out of it what only training needs."""
    if depth == 0:
        raise refused(f"{MEMBER} is nested more than {_DEPTH} levels deep; save a model of fewer parts")
    if isinstance(value, list):
        for item in value:
            _check(item, layers, depth - 1)
    if not isinstance(value, dict):
        return
    if "class_name" in value or "registered_name" in value:
        _check_class(value, layers)
    for item in value.values():
        _check(item, layers, depth - 1)


def _check_class(node: Node, layers: set[str]) -> None:
    name, module, registered = node.get("class_name"), node.get("module"), node.get("registered_name")
    if not isinstance(name, str):
        raise refused(f"{MEMBER} has a class_name that is no text, {str(name)[:80]!r}; {_WAY_OUT}")
    if name in _VALUES:
        return
    if name in _RUNS_CODE:
        raise refused(
            f"{MEMBER} holds a {name}, which runs code of the file's author; write it as layers of Keras that do not"
        )
    if not isinstance(module, str):
        raise refused(f"{MEMBER} names {name[:80]!r} without its module, as Keras 2 did; {_WAY_OUT}")
    if name not in _ALLOWED.get(module, ()):
        raise refused(
            f"{MEMBER} holds {module[:120]}.{name[:80]}, which this runtime does not build: neither classes of one's "
            "own nor those of Keras that read files or call functions; write the model with Keras' plain layers, or "
            "export it with torch.export"
        )
    if registered not in (None, name):
        raise refused(f"{MEMBER} calls {module}.{name} by another name, {str(registered)[:80]!r}; {_WAY_OUT}")
    if not isinstance(node.get("config"), dict):
        raise refused(f"{MEMBER} has a {name} without its configuration; {_WAY_OUT}")
    node.pop("compile_config", None)  # optimizer, loss and metrics: of no use to a server, and never built
    layers.add(name)


def _parts(value: Any) -> int:
    """Return of how many lists and objects a checked tree is, those of a layer counted as often as it is called.

    Counter-example to counting them once: 33 models, each of which calls the next one twice, are a file of a few kB.
    """
    if isinstance(value, list):
        return 1 + sum(map(_parts, value))
    if not isinstance(value, dict):
        return 0
    calls = value.get("inbound_nodes")
    times = max(1, len(calls)) if isinstance(calls, list) else 1
    if value.get("class_name") == "Bidirectional":
        times *= 2  # it has a copy of its layer
    return 1 + sum(_parts(item) * (times if key == "config" else 1) for key, item in value.items())


@dataclass(frozen=True, slots=True)
class _Model:
    inputs: list[Tensor]
    outputs: list[Tensor]


def _model(node: Node, given: Sizes | None = None) -> _Model:
    return _sequential(node, given) if node["class_name"] == "Sequential" else _functional(node)


def _sequential(node: Node, given: Sizes | None) -> _Model:
    layers: list[Node] = node["config"]["layers"]
    if not layers:
        raise refused(f"{MEMBER} describes a model without layers; {_WAY_OUT}")
    first = layers[0]
    if first["class_name"] == "InputLayer":
        inputs = [_input(first)]
    elif given is not None:
        inputs = [Tensor(_name(first), _dtype(first), given)]
    else:
        raise refused("the model does not say what it takes; begin it with keras.Input(shape) before it is saved")
    shape = inputs[0].shape
    for layer in layers:
        built = (layer.get("build_config") or {}).get("input_shape")
        shape = _answer(layer, [_sizes(built) if _is_shape(built) else shape])
    return _Model(inputs, [Tensor(_name(layers[-1]), _dtype(layers[-1]), shape)])


def _functional(node: Node) -> _Model:
    config = node["config"]
    layers = {_name(layer): layer for layer in config["layers"]}
    inputs = [_input(layers[layer], key) for key, layer, _ in _ends(config["input_layers"])]
    answers: dict[tuple[str, int], Tensor] = {}
    outputs = []
    for key, layer, index in _ends(config["output_layers"]):
        if (layer, index) not in answers:
            found = layers[layer]
            calls = found.get("inbound_nodes") or []
            taken = list(_taken(calls[index])) if 0 <= index < len(calls) else []
            shape = _input(found).shape if found["class_name"] == "InputLayer" else _answer(found, taken)
            answers[layer, index] = Tensor(layer, _dtype(found), shape)
        outputs.append(replace(answers[layer, index], name=key or layer))
    return _Model(inputs, outputs)


def _ends(value: Any) -> Iterator[tuple[str | None, str, int]]:
    """Yield the key, the layer's name and the number of the call, of each end of a functional model."""
    if isinstance(value, dict):
        for key in sorted(value):
            for _, layer, index in _ends(value[key]):
                yield key, layer, index
    elif len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        yield None, value[0], value[1]
    else:
        for item in value:
            yield from _ends(item)


def _taken(value: Any) -> Iterator[Sizes | None]:
    """Yield the shapes of the tensors that a layer is called with."""
    if isinstance(value, list):
        for item in value:
            yield from _taken(item)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield _sizes(value["config"]["shape"])
    elif isinstance(value, dict):
        for item in value.values():
            yield from _taken(item)


def _name(layer: Node) -> str:
    found = layer.get("name") or layer["config"]["name"]
    if not isinstance(found, str):
        raise TypeError("a layer's name is no text")
    return found


def _input(layer: Node, key: str | None = None) -> Tensor:
    config = layer["config"]
    if config.get("sparse") or config.get("ragged"):
        raise refused(f"the model's input {_name(layer)!r} is sparse or ragged, which no request can be; save another")
    shape = config.get("batch_shape")
    if not _is_shape(shape):
        raise refused(f"the model's input {_name(layer)!r} has no shape; give keras.Input one before it is saved")
    return Tensor(key or _name(layer), _dtype(layer), _sizes(shape))


def _dtype(layer: Node) -> str:
    """Return what a layer computes in: by its policy, which may keep weights in another type."""
    policy = layer["config"].get("dtype")
    name = policy["config"]["name"] if isinstance(policy, dict) else policy
    if name is None and layer["class_name"] in _MODELS:
        return _dtype(_last(layer))
    return str(name or "float32").removeprefix("mixed_")


def _last(model: Node) -> Node:
    """Return the layer whose answer is the model's first."""
    layers: list[Node] = model["config"]["layers"]
    if model["class_name"] == "Sequential":
        return layers[-1]
    ((_, name, _),) = islice(_ends(model["config"]["output_layers"]), 1)
    return {_name(layer): layer for layer in layers}[name]


def _is_shape(value: Any) -> TypeGuard[list[int | None]]:
    return isinstance(value, list) and all(
        size is None or (isinstance(size, int) and 0 <= size < 1 << 40) for size in value
    )


def _sizes(value: Sequence[int | None]) -> Sizes:
    return tuple(-1 if size is None else size for size in value)


def _answer(layer: Node, taken: Sequence[Sizes | None]) -> Sizes | None:
    """Return the shape of a layer's answer to tensors of these shapes, or None where it is not told by them."""
    rule = _RULES.get(layer["class_name"])
    if layer["class_name"] in _MODELS and taken:
        outputs = _model(layer, taken[0]).outputs
        return outputs[0].shape if len(outputs) == 1 else None
    if rule is None or not taken or taken[0] is None or (rule is _same and len(set(taken)) > 1):
        return None
    return rule(layer["config"], taken[0])


def _same(config: Node, shape: Sizes) -> Sizes | None:
    return shape


def _dense(config: Node, shape: Sizes) -> Sizes | None:
    return (*shape[:-1], int(config["units"]))


def _flattened(config: Node, shape: Sizes) -> Sizes | None:
    return (shape[0], -1 if -1 in shape[1:] else math.prod(shape[1:]))


def _reshaped(config: Node, shape: Sizes) -> Sizes | None:
    return (shape[0], *map(int, config["target_shape"]))


def _recurrent(config: Node, shape: Sizes) -> Sizes | None:
    if config.get("return_state"):
        return None
    return (*shape[:2], int(config["units"])) if config.get("return_sequences") else (shape[0], int(config["units"]))


def _pooled(config: Node, shape: Sizes) -> Sizes | None:
    if config.get("data_format") == "channels_first" or config.get("keepdims"):
        return None
    return (shape[0], shape[-1])


def _convolved(config: Node, shape: Sizes) -> Sizes | None:
    def size(size: int, kernel: int, stride: int, dilation: int) -> int:
        if size < 0:
            return -1
        if config["padding"] in ("same", "causal"):
            return -(-size // stride)
        return (size - dilation * (kernel - 1) - 1) // stride + 1

    return _slid(config, shape, size)


def _spread(config: Node, shape: Sizes) -> Sizes | None:
    def size(size: int, kernel: int, stride: int, dilation: int) -> int:
        if size < 0 or dilation > 1:
            return -1
        return size * stride + (0 if config["padding"] == "same" else max(kernel - stride, 0))

    return None if config.get("output_padding") else _slid(config, shape, size)


def _slid(config: Node, shape: Sizes, size: Callable[[int, int, int, int], int]) -> Sizes | None:
    if config.get("data_format") == "channels_first":
        return None
    windows = zip(shape[1:-1], config["kernel_size"], config["strides"], config["dilation_rate"], strict=True)
    return (shape[0], *(size(*window) for window in windows), int(config["filters"]))


_RULES: Mapping[str, Callable[[Node, Sizes], Sizes | None]] = {
    **dict.fromkeys(
        _words(
            "Activation ActivityRegularization Add AlphaDropout Average BatchNormalization Dropout ELU GaussianDropout "
            "GaussianNoise GroupNormalization Identity InputLayer LayerNormalization LeakyReLU Masking Maximum Minimum "
            "Multiply Normalization PReLU RMSNormalization ReLU Rescaling Softmax Subtract UnitNormalization"
        ),
        _same,
    ),
    **dict.fromkeys(_words("Conv1D Conv2D Conv3D"), _convolved),
    **dict.fromkeys(_words("Conv1DTranspose Conv2DTranspose Conv3DTranspose"), _spread),
    **dict.fromkeys(_words("GRU LSTM SimpleRNN"), _recurrent),
    **{f"Global{kind}Pooling{number}D": _pooled for kind in ("Average", "Max") for number in (1, 2, 3)},
    "Dense": _dense,
    "Flatten": _flattened,
    "Reshape": _reshaped,
}
