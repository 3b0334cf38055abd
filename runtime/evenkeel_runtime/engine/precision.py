"""How is a model computed less exactly than its file says, and by how much do its answers change?

Only by the user's word: both ways change answers. BF16: matrix products and convolutions in bfloat16, sums and
normalisations as before (torch's autocast). INT8: the linear layers of an exported graph multiply bytes.

Bytes have to be scaled, and torch's own dynamic quantisation scales by the largest value in a call: in a batch, one
client's large number would blur another one's answer. So every row is divided by its own largest value before and
multiplied after, and the step between bytes is the same for all. Activations take 7 bits: where a processor has no
VNNI, two products of 8 bits overflow the 16 that they are added up in.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from evenkeel_runtime.contract import BF16, INT8
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.datatypes import BY_WORD
from evenkeel_runtime.models.export import without_linear
from evenkeel_runtime.models.loaded import Loaded

if TYPE_CHECKING:
    import torch

_ACTIVATION_STEPS, _ACTIVATION_ZERO = 63, 64
_WEIGHT_STEPS = 127
_HALVES = (BF16, "FP16")
_LEAST = 1e-30
"""Divides a row of nothing but zeros."""


def at(loaded: Loaded, precision: str) -> Loaded:
    """Return the model computed in `precision`, a word of `spec.runtime.precision`; raises ModelError where it cannot.

    `exact` of the result is the model as it was, unless that is as coarse by itself: nothing then says how far the
    answers are from those of FP32. Such a model stays as it is where BF16 is asked for.
    """
    is_coarse = loaded.precision in _HALVES
    exact = None if is_coarse else loaded.call
    if precision == BF16 and not is_coarse:
        return replace(loaded, call=_half(loaded), exact=exact, precision=BF16, warm_rows=0)
    if precision == INT8:
        return replace(loaded, call=_bytes(loaded), exact=exact, precision=INT8, traceable=False, warm_rows=0)
    return loaded


def difference(want: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute difference between two answers' numbers; infinite where only one of two is finite."""
    import torch

    largest = 0.0
    for a, b in zip(want, got, strict=True):
        if a.is_floating_point() and a.numel():
            apart = (a.double() - b.double()).abs()
            same = (a == b) | (a.isnan() & b.isnan())  # of two infinities, nan
            found = float(torch.where(same, 0.0, apart).max())
            largest = max(largest, math.inf if math.isnan(found) else found)
    return largest


def _half(loaded: Loaded) -> Any:
    import torch

    device = loaded.device
    dtypes = tuple(getattr(torch, BY_WORD[tensor.datatype].torch) for tensor in loaded.signature.outputs)

    class Half(torch.nn.Module):
        """Answers in the element types that were promised."""

        def __init__(self) -> None:
            super().__init__()
            self.model = cast(torch.nn.Module, loaded.call)

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with torch.autocast(device, torch.bfloat16, cache_enabled=False):
                answers = self.model(*inputs)
            return tuple(answer.to(dtype) for answer, dtype in zip(answers, dtypes, strict=True))

    return Half().eval()


def _bytes(loaded: Loaded) -> Any:
    import torch

    if loaded.device != "cpu":
        raise refused("INT8 is computed on CPUs; for a GPU set spec.runtime.precision: BF16")
    if not isinstance(loaded.call, torch.fx.GraphModule):
        raise refused(
            f"{loaded.format} models are no graph, whose linear layers INT8 would compute; set spec.runtime.precision: "
            "BF16, leave it at Auto, or export the model with torch.export.save"
        )
    module = torch.fx.GraphModule(loaded.call, copy.deepcopy(loaded.call.graph))
    linear = torch.ops.aten.linear.default
    count = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not linear or len(node.args) < 2:
            continue
        value, weight, *bias = node.args
        constants = [None if given is None else _constant(module, given) for given in (weight, *bias)]
        if constants[0] is None or constants[0].dtype != torch.float32 or (bias and bias[0] and constants[1] is None):
            continue
        name = f"linear_{count}"
        module.add_module(name, _linear(constants[0], constants[1] if bias else None))
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.call_module(name, (value,)))
        module.graph.erase_node(node)
        count += 1
    if not count:
        raise without_linear()
    module.graph.eliminate_dead_code()
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in list(module.named_buffers(recurse=False)):
        if name not in used:
            delattr(module, name)  # else the weights stay in memory twice
    module.recompile()
    return module.eval()


def _constant(module: torch.fx.GraphModule, node: Any) -> torch.Tensor | None:
    """Return the weight that a node of the graph is, or None where it is computed."""
    return getattr(module, node.target) if getattr(node, "op", "") == "get_attr" else None


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Module:
    import torch

    quantized = torch.ops.quantized
    scales = weight.abs().amax(1).clamp(min=_LEAST).double() / _WEIGHT_STEPS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will drop these types in a later line than the one it is held to
        codes = torch.quantize_per_channel(weight, scales, torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8)
        packed = quantized.linear_prepack(codes, None)
    multiply = quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    class Linear(torch.nn.Module):
        """x·Wᵀ + b with W in bytes, one scale per output, and x in bytes, one scale per row."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            largest = rows.abs().amax(-1, keepdim=True).clamp(min=_LEAST)
            found: torch.Tensor = multiply(rows / largest, 1 / _ACTIVATION_STEPS, _ACTIVATION_ZERO, packed) * largest
            return found if bias is None else found + bias

    return Linear()
