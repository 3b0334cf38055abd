"""How is a model tried out? Made-up rows for it, the seconds of a call, and whether two answers are the same."""

from __future__ import annotations

import math
import resource
import time
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import INT8
from evenkeel_runtime.engine.cuda import DEVICE
from evenkeel_runtime.models.datatypes import BY_WORD, BYTES
from evenkeel_runtime.models.loaded import Call, Loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_MEASURE_S, _CALLS = 0.01, 20
"""How long a size is tried in a round, at most; more calls than these hardly find a better one."""


def made_up(loaded: Loaded, rows: int) -> list[torch.Tensor]:
    """Return made-up rows on the host, the same every time: integers of 0 and 1 are valid indices nearly anywhere, and
    texts differ in length, so that a model pads them."""
    import numpy as np
    import torch

    chance = np.random.default_rng(0)  # torch has a generator of its own only where it was imported whole
    made: list[torch.Tensor] = []
    example = loaded.signature.example or ()
    for tensor, shape in zip(loaded.signature.inputs, example, strict=True):
        sizes = (rows, *shape[1:]) if loaded.signature.batch is not None else shape
        if tensor.datatype == BYTES:
            made.append(_texts(sizes))
            continue
        dtype: torch.dtype = getattr(torch, BY_WORD[tensor.datatype].torch)
        if dtype.is_floating_point:
            values = torch.from_numpy(chance.random(sizes, np.float32))
        else:
            values = torch.from_numpy(chance.integers(0, 2, sizes))
        values = values.to(dtype)
        made.append(values.pin_memory() if loaded.device == DEVICE else values)
    return made


def _texts(sizes: tuple[int, ...]) -> Any:
    import numpy as np

    made = np.empty(math.prod(sizes), dtype=object)
    made[:] = [b"on an even keel " * (1 + index % 3) for index in range(len(made))]
    return made.reshape(sizes)


def are_equal(loaded: Loaded, want: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> bool:
    """Return whether two answers are equal but for rounding, which is coarse where the model is computed coarsely."""
    import numpy as np
    import torch

    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-9}
    if loaded.exact is not None or loaded.precision == INT8:  # of a file of BF16, bytes have no exact counterpart
        tolerance = dict.fromkeys((torch.float16, torch.float32, torch.float64, torch.bfloat16), 5e-2)
    return len(want) == len(got) and all(
        np.array_equal(a, b)
        if isinstance(a, np.ndarray)
        else a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=tolerance.get(a.dtype, 1e-4), atol=tolerance.get(a.dtype, 1e-5), equal_nan=True)
        for a, b in zip(want, got, strict=True)
    )


def seconds(call: Call, rows: list[torch.Tensor], device: str, least: int = 2) -> float:
    """Return the seconds of one call: the best of several, for what disturbs a measurement only makes it longer. At
    `least` two where a size is new to the model, whose first call pays for its memory.
    """
    best = float("inf")
    calls = 0
    until = time.perf_counter() + _MEASURE_S
    while calls < least or (calls < _CALLS and time.perf_counter() < until):
        best = min(best, timed(call, rows, device)[1])
        calls += 1
    return best


def timed(call: Call, rows: list[torch.Tensor], device: str) -> tuple[Sequence[torch.Tensor], float]:
    """Return the answer to one call, and its seconds.

    Seconds of CPU, where the call never slept: else a model would be given other batches on a node whose neighbours
    take turns with it. One that sleeps waits for something, for a GPU or for other threads, and takes what the clock
    says.
    """
    on_gpu = device == DEVICE
    sleeps, start, busy = _sleeps(), time.perf_counter(), time.thread_time()
    answer = call(*rows)
    worked = time.thread_time() - busy
    took = time.perf_counter() - start
    return answer, worked if worked and not on_gpu and sleeps == _sleeps() else took


def _sleeps() -> int:
    """Return how often this thread has given up its CPU by itself."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
