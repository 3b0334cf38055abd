"""Which ways are there to call this model, and which of those that answer the same is the fastest?

eager        as its file says, operator by operator
aotinductor  the file's own compiled code
torchscript  traced and frozen: constants are computed once, a batch norm is folded into its convolution
onednn       that graph with weights in the layout of oneDNN's kernels, and what follows them fused

On a GPU each of them is tried as it is, and recorded (`-cudagraph`). What is returned takes rows of the host and
answers there, wherever the model lies.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from typing import TYPE_CHECKING, cast

from evenkeel_runtime.engine.cuda import DEVICE, OnGpu, in_full_precision
from evenkeel_runtime.engine.measure import are_equal, made_up, seconds
from evenkeel_runtime.failure import last_line
from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.models.loaded import Call, Loaded
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

log = logging.getLogger("evenkeel")

_TRACED = ("torchscript", "onednn")
"""The paths that are the model's trace."""
_COMPARED = (1, 3, 7)
"""Batch sizes at which two call paths must agree."""
_COMPARED_OF_LONG = (1, 2)
_MANY, _MANY_OF_LONG = 32, 2
"""The rows at which paths are compared beside a single one: one that is fast alone may be slow in batches."""
_LONG_S, _TOO_LONG_S = 0.02, 0.2
"""From here on every call holds up the start: oneDNN's path alone is traced, on fewer rows, and given up where it is
not faster for a single one. From here on nothing but the model as it is."""
_FASTER = 0.95
_MOST_PACKED_BYTES = 200 << 20
"""Weights in another layout are a copy of them; from here on that is too much memory for what it saves."""


def fastest(loaded: Loaded, plain: Call, most: int, first_s: float) -> tuple[Call, str]:
    """Return the fastest way to call the model, and its name. `plain` is the model as it is, called from the host; at
    most `most` rows share a call, and one takes `first_s`."""
    limit = loaded.signature.batch
    is_long = first_s > _LONG_S
    compared = [size for size in (_COMPARED_OF_LONG if is_long else _COMPARED) if limit == 0 or size <= (limit or 1)]
    found: dict[str, Call] = {"eager": plain}
    with in_full_precision() if loaded.device == DEVICE else contextlib.nullcontext():
        for path, way in _ways(loaded, compared[-1], first_s).items():
            # compiled for some sizes of batch, and it does not say which
            sizes = [*compared, most] if path == "aotinductor" and not is_long else compared
            for name, call in _from_the_host(loaded, path, way, None if limit is None else most).items():
                if path in _TRACED and is_long and not _is_faster(loaded, call, first_s):
                    continue
                if _answers_the_same(loaded, plain, call, sizes):
                    found[name] = call
                elif path == "aotinductor":
                    log.warning("compiled code not used path=%s reason=its answers differ from the program's", name)
    if len(found) == 1:
        return plain, "eager"
    for call in found.values():
        if isinstance(call, OnGpu):
            call.forget()  # what was recorded in full precision
    many = 1 if limit is None else min(most, _MANY_OF_LONG if is_long else _MANY)
    least = 1 if is_long and loaded.device != DEVICE else 2  # the first call of a recording makes it
    batches = [made_up(loaded, size) for size in sorted({1, many})]
    took = dict.fromkeys(found, 0.0)
    for rows in batches:
        try:
            spent = {path: seconds(call, rows, loaded.device, least) for path, call in found.items()}
        except RuntimeError as error:
            if rows is batches[0] or not is_out_of_memory(error):
                raise
            break  # so many rows will be no batch
        for path, once in spent.items():
            # the mean of the logarithms: to be twice as fast counts as much for one row as for many
            took[path] += math.log(once)
    path = min(took, key=lambda path: took[path])
    return found[path], path


def as_it_is(loaded: Loaded, call: Call) -> Call:
    """Return the call, of rows where the model lies, as one of rows of the host."""
    return OnGpu(call, None, records=False) if loaded.device == DEVICE else call


def _ways(loaded: Loaded, size: int, first_s: float) -> dict[str, Call]:
    """Return every way to call the model where it lies."""
    found: dict[str, Call] = {"eager": loaded.call}
    if loaded.compiled is not None:
        found["aotinductor"] = loaded.compiled
    if loaded.traceable and first_s < _TOO_LONG_S:
        found |= _traced(loaded, size, first_s > _LONG_S)
    return found


def _from_the_host(loaded: Loaded, path: str, way: Call, most: int | None) -> dict[str, Call]:
    """Return how this way to call the model may be called with rows of the host, but for the model as it is."""
    there = {} if path == "eager" else {path: as_it_is(loaded, way)}
    if (
        loaded.device != DEVICE
        or loaded.branches
        or any(tensor.datatype == BYTES for tensor in (*loaded.signature.inputs, *loaded.signature.outputs))
    ):
        return there
    return there | {f"{path}-cudagraph": OnGpu(way, most, records=True)}


def _answers_the_same(loaded: Loaded, plain: Call, call: Call, sizes: Sequence[int]) -> bool:
    try:
        return all(are_equal(loaded, plain(*rows), call(*rows)) for rows in (made_up(loaded, n) for n in sizes))
    except RuntimeError as error:
        log.info("not called so error=%s", last_line(error))
        return False


def _is_faster(loaded: Loaded, call: Call, first_s: float) -> bool:
    try:
        return seconds(call, made_up(loaded, 1), loaded.device) < first_s * _FASTER
    except RuntimeError:
        return False


def _traced(loaded: Loaded, size: int, is_long: bool) -> dict[str, Call]:
    """Return the model traced with so many rows; where it is long, only as oneDNN calls it."""
    import torch

    module = cast("torch.nn.Module", loaded.call)
    weights = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    is_packed = loaded.device == "cpu" and torch._C._has_mkldnn and weights <= _MOST_PACKED_BYTES
    if is_long and not is_packed:
        return {}
    example = [rows.to(loaded.device) for rows in made_up(loaded, size)]
    found: dict[str, Call] = {}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of every size it sees; that it answers the same is checked
            traced = torch.jit.trace(loaded.call, example, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
            if not is_long:
                found["torchscript"] = _calling(frozen)
            if is_packed:
                found["onednn"] = _calling(torch.jit.optimize_for_inference(frozen))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        log.info("not traced error=%s", type(error).__name__)
    return found


def _calling(traced: torch.nn.Module) -> Call:
    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answer: Sequence[torch.Tensor] = traced(*inputs)
        return answer

    return call
