"""Which operators does torch call without looking whether their arguments fit, and what has to hold for them?

With weights of another size than the input asks for, these read or write beyond their tensors' memory (torch 2.13,
CPU: an LSTM given the state of a smaller batch ends the process; a batch norm given one weight for many channels
answers with what lies behind it). Models that torch has exported never do that; a file may be made by hand. A trace
calls the bare operators: it is taken only where it answers as this does for several sizes of batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Arguments = Mapping[str, Any]
"""An operator's arguments by the names of its schema; what was left out is absent or None."""


class Misfit(ValueError):
    """The arguments of an operator do not fit each other; the message names them."""


def guard(name: str, operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator of that name (`aten.lstm`), or, where torch checks too little, one that checks before."""
    if name == "aten.empty":
        return _zeros
    if name in _BAGS:
        return _bag(operator)
    check = _CHECKS.get(name.removesuffix("_"))
    if check is None:
        return operator
    names = [argument.name for argument in operator._schema.arguments]  # type: ignore[attr-defined]

    def guarded(*args: Any, **kwargs: Any) -> Any:
        check(dict(zip(names, args, strict=False)) | kwargs)
        return operator(*args, **kwargs)

    guarded.__name__ = guarded.__qualname__ = "guarded_" + name.replace(".", "_")
    return guarded


def _bag(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator with offsets of at least 0: a client may send them, and a negative one ends the process. A
    trace keeps the operator that sees to it, where it would lose a question."""

    def guarded_bag(weight: Any, indices: Any, offsets: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return operator(weight, indices, offsets.clamp(min=0), *args, **kwargs)

    return guarded_bag


def _zeros(size: Any, *, memory_format: Any = None, **kwargs: Any) -> torch.Tensor:
    """Return zeros: memory as it is found may hold what another request was about."""
    import torch

    made = torch.zeros(size, **kwargs)
    return made if memory_format is None else made.to(memory_format=memory_format)


def _need(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise Misfit(f"{name} has the shape {list(tensor.shape)}, its input needs {list(shape)}")


def _batch_norm(given: Arguments) -> None:
    channels = given["input"].shape[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        _need(f"a batch norm's {name}", given.get(name), (channels,))


def _attention(given: Arguments) -> None:
    query, key, value = given["query"], given["key"], given["value"]
    *batch, _, width = query.shape
    if given.get("enable_gqa") and len(batch) and key.shape[-3] and batch[-1] % key.shape[-3] == 0:
        batch[-1] = key.shape[-3]
    _need("an attention's key", key, (*batch, key.shape[-2], width))
    _need("an attention's value", value, (*batch, key.shape[-2], value.shape[-1]))
    mask = given.get("attn_mask")
    if mask is not None:
        whole = (*query.shape[:-1], key.shape[-2])
        fits = zip(reversed(mask.shape), reversed(whole), strict=False)
        if mask.dim() > len(whole) or any(have not in (1, want) for have, want in fits):
            raise Misfit(f"an attention's mask has the shape {list(mask.shape)}, which does not fit {list(whole)}")


def _weight_norm(given: Arguments) -> None:
    weight, dimension = given["v"], given.get("dim", 0)
    shape = [1] * weight.dim()
    if dimension >= 0:
        shape[dimension] = weight.shape[dimension]
    gain = given["g"]
    if gain.numel() != (weight.shape[dimension] if dimension >= 0 else 1):
        _need("a weight norm's g", gain, tuple(shape))


def _spectrum(given: Arguments) -> None:
    dimensions = given["self"].dim()
    if any(not -dimensions <= one < dimensions for one in given["dim"]):
        raise Misfit(f"a Fourier transform is over the dimensions {list(given['dim'])} of {dimensions}")


def _grid(given: Arguments) -> None:
    if given["interpolation_mode"] not in (0, 1, 2) or given["padding_mode"] not in (0, 1, 2):
        raise Misfit("a grid sampler's interpolation_mode and padding_mode have to be 0, 1 or 2")


def _repeated(given: Arguments) -> None:
    repeats: Any = given.get("repeats")
    if hasattr(repeats, "numel") and repeats.numel() and float(repeats.max()) * repeats.numel() > _MOST_REPEATED:
        raise Misfit(f"a row is to be repeated {int(repeats.max())} times")


def _recurrent(gates: int) -> Callable[[Arguments], None]:
    def check(given: Arguments) -> None:
        rows, states, weights = given["input"], given["hx"], list(given["params"])
        states = states if isinstance(states, list | tuple) else [states]
        layers, ways = given["num_layers"], 2 if given["bidirectional"] else 1
        has_biases = given["has_biases"]
        hidden, out = states[-1].shape[-1], states[0].shape[-1]
        per_cell = 2 + 2 * has_biases + (out != hidden)
        if rows.dim() != 3 or len(weights) != layers * ways * per_cell:
            raise Misfit(f"a recurrent layer has {len(weights)} weights and an input of {rows.dim()} dimensions")
        batch = rows.shape[0 if given["batch_first"] else 1]
        for number, state in enumerate(states):
            _need(f"a recurrent layer's state {number}", state, (layers * ways, batch, state.shape[-1]))
        width = rows.shape[2]
        for layer in range(layers):
            for _ in range(ways):
                shapes: list[tuple[int, ...]] = [(gates * hidden, width), (gates * hidden, out)]
                shapes += [(gates * hidden,)] * (2 * has_biases) + [(out, hidden)] * (out != hidden)
                for number, shape in enumerate(shapes):
                    _need(f"a recurrent layer's weight {number} of layer {layer}", weights.pop(0), shape)
            width = ways * out

    return check


_BAGS = frozenset(f"aten.{name}" for name in ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"))
_MOST_REPEATED = 1 << 40
"""Beyond any memory, and far from where the sum of the repeats would overflow."""

_CHECKS: Mapping[str, Callable[[Arguments], None]] = {
    "aten.native_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
    "aten.scaled_dot_product_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten.repeat_interleave": _repeated,
    "aten.grid_sampler": _grid,
    "aten.grid_sampler_2d": _grid,
    "aten.grid_sampler_3d": _grid,
    "aten._fft_c2c": _spectrum,
    "aten._fft_c2r": _spectrum,
    "aten._fft_r2c": _spectrum,
    "aten._weight_norm": _weight_norm,
    "aten._weight_norm_interface": _weight_norm,
    "aten.lstm": _recurrent(4),
    "aten.gru": _recurrent(3),
    "aten.rnn_tanh": _recurrent(1),
    "aten.rnn_relu": _recurrent(1),
}
