"""How does this model run best here? Tried out at load, on made-up rows, before the first request.

Which call path (the graph as it is, traced and frozen, or compiled: only where it answers the same), whether rows are
independent of each other (else batching would mix requests), how large a batch pays, and how long a forward takes.
"""

from __future__ import annotations

import logging
import math
import resource
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.engine.batching import batch_size_to_use
from evenkeel_runtime.engine.precision import difference
from evenkeel_runtime.models.datatypes import ANY, BY_WORD, BYTES
from evenkeel_runtime.models.loaded import Call, Loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

log = logging.getLogger("evenkeel")

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TRIED = (1, 3, 7)
"""Batch sizes at which two call paths must agree."""
_LONG_S, _TOO_LONG_S = 0.02, 0.05
"""From here on what a call path saves per operator is lost in the forward, and trying more would hold up the start;
and from here on larger batches are not tried."""
_MEASURE_S, _CALLS = 0.01, 20
"""How long a size is tried in a round, at most; more calls than these hardly find a better one."""
_WORTH_THREADS = 1.2


@dataclass(frozen=True, slots=True)
class Calibrated:
    """`max_rows` is 0 where requests cannot share a call; `forward_s` is None where the model could not be tried out
    (its file does not say what it takes). `profile` holds the seconds of a call by its rows, as measured;
    `difference` to the model in its file's own precision is None where it is computed in that, and where it could not
    be tried out."""

    call: Call
    path: str
    threads: int
    max_rows: int
    forward_s: float | None
    rows_per_second: float
    profile: tuple[tuple[int, float], ...] = ()
    difference: float | None = None

    def largest_s(self, rows: int) -> float | None:
        """Return how long a call takes at most, where a request has at most `rows`: as measured for the largest batch.
        A model whose requests cannot share a call is given all rows of one, for they cannot be cut either: that was
        not measured, and is taken for so many times a row."""
        if not self.profile:
            return None
        seconds = self.profile[-1][1]
        return seconds if self.max_rows else seconds * rows


def calibrate(loaded: Loaded, cpus: int, most_rows: int) -> Calibrated:
    """Try the model out and return how to run it, with at most `most_rows` rows per call.

    Raises what the model raises on a plausible input.
    """
    import torch

    signature = loaded.signature
    torch.set_num_threads(cpus)
    _keep_kernels()
    if signature.example is None or any(tensor.datatype == ANY for tensor in signature.inputs):
        return Calibrated(loaded.call, "eager", cpus, 0, None, 0.0)
    limit = signature.batch
    with torch.inference_mode():
        first = _seconds(loaded.call, _rows(loaded, 1), loaded.device)
        is_long = first > _LONG_S
        tried = [size for size in _TRIED if limit == 0 or size <= (limit or 1)]
        call, path = _fastest(loaded, tried, min(limit or most_rows, most_rows), is_long)
        together = min(limit or 4, 2 if is_long else 4)
        shares = limit is not None and _rows_are_independent(call, loaded, together)
        sizes = _sizes_up_to(min(limit or most_rows, most_rows)) if shares else [1]
        known = {1: first} if is_long and call is loaded.call else {}
        threads, best, speeds = _fastest_threads(call, loaded, sizes, cpus, known, together)
        torch.set_num_threads(threads)
        rows = _rows(loaded, best)
        apart = None if loaded.exact is None else difference(loaded.exact(*rows), call(*rows))
    profile = tuple((rows, rows / speed) for rows, speed in speeds.items() if rows <= best)
    return Calibrated(call, path, threads, best if shares else 0, 1 / speeds[1], speeds[best], profile, apart)


def _sizes_up_to(most: int) -> list[int]:
    return sorted({size for size in _SIZES if size <= most} | {min(most, _SIZES[-1])})


def _keep_kernels() -> None:
    """Leave kernels as they are: TorchScript would profile and compile anew for shapes it has not seen, while serving.

    Without the profile a small model is also called faster: its guards are gone.
    """
    import torch

    torch._C._jit_set_profiling_mode(False)
    torch._C._jit_set_texpr_fuser_enabled(False)
    torch._C._jit_override_can_fuse_on_cpu(False)
    torch._C._jit_override_can_fuse_on_gpu(False)


def _fastest_threads(
    call: Call, loaded: Loaded, sizes: list[int], cpus: int, known: dict[int, float], warm: int
) -> tuple[int, int, dict[int, float]]:
    """Return threads, batch size, and the rows per second of every size that was tried, the first of which is 1.

    A small model is faster with one thread: with two, every operator waits for the other, which is late whenever
    anything else wants its CPU. `known` are the seconds of sizes that were measured with all CPUs, and with `warm` rows
    the model was called with them before.
    """
    import torch

    found: list[tuple[int, int, dict[int, float]]] = []
    for threads in sorted({1, cpus}):
        torch.set_num_threads(threads)
        told = (known, warm) if threads == cpus else ({}, 0)
        took = _seconds_by_size(call, loaded, sizes, *told)
        speeds = {size: size / seconds for size, seconds in took.items()}
        found.append((threads, batch_size_to_use(speeds), speeds))
    one, more = found[0], found[-1]
    return more if more[2][more[1]] > one[2][one[1]] * _WORTH_THREADS else one


def _seconds_by_size(
    call: Call, loaded: Loaded, sizes: list[int], known: dict[int, float], warm: int
) -> dict[int, float]:
    """Return the seconds of a call by its rows, up to the first that is long. In two rounds, where that is not long
    either: a moment in which the machine was slower is then not one size's alone."""
    took: dict[int, float] = {}
    for size in sizes:
        least = 1 if size == warm else 2
        took[size] = known.get(size) or _seconds(call, _rows(loaded, size), loaded.device, least)
        if took[size] > _TOO_LONG_S and size > 1:
            return took
    for size in sizes:
        took[size] = min(took[size], _seconds(call, _rows(loaded, size), loaded.device))
    return took


def _rows(loaded: Loaded, rows: int) -> list[torch.Tensor]:
    """Return made-up rows, the same every time: integers of 0 and 1 are valid indices nearly anywhere, and texts differ
    in length, so that a model pads them."""
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
        made.append(values.to(dtype).to(loaded.device))
    return made


def _texts(sizes: tuple[int, ...]) -> Any:
    import numpy as np

    made = np.empty(math.prod(sizes), dtype=object)
    made[:] = [b"on an even keel " * (1 + index % 3) for index in range(len(made))]
    return made.reshape(sizes)


def _fastest(loaded: Loaded, sizes: list[int], most: int, is_long: bool) -> tuple[Call, str]:
    """Return the fastest of the ways to call the model that answer the same, and its name."""
    found: dict[str, Call] = {"eager": loaded.call}
    if loaded.compiled is not None:
        # compiled for some sizes of batch, and it does not say which
        if _answers_the_same(loaded, loaded.compiled, sizes if is_long else [*sizes, most]):
            found["aotinductor"] = loaded.compiled
        else:
            log.warning("compiled code not used reason=its answers differ from the exported program's")
    traced = None if is_long or not loaded.traceable else _traced(loaded, sizes[-1])
    if traced is not None and _answers_the_same(loaded, traced, sizes):
        found["torchscript"] = traced
    if len(found) == 1:
        return loaded.call, "eager"
    rows = _rows(loaded, 1)
    took = {path: _seconds(call, rows, loaded.device) for path, call in found.items()}
    path = min(took, key=lambda path: took[path])
    return found[path], path


def _answers_the_same(loaded: Loaded, call: Call, sizes: list[int]) -> bool:
    try:
        return all(_equal(loaded, loaded.call(*rows), call(*rows)) for rows in (_rows(loaded, size) for size in sizes))
    except RuntimeError:
        return False


def _traced(loaded: Loaded, size: int) -> Call | None:
    import torch

    example = _rows(loaded, size)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of every size it sees; that it answers the same is checked
            traced = torch.jit.freeze(torch.jit.trace(loaded.call, example, check_trace=False))  # type: ignore[no-untyped-call]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        log.info("not traced error=%s", type(error).__name__)
        return None

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answer: Sequence[torch.Tensor] = traced(*inputs)
        return answer

    return call


def _rows_are_independent(call: Call, loaded: Loaded, rows: int) -> bool:
    """Return whether a row's answer is the same whoever shares its batch.

    Counter-example: a model that subtracts the mean over dimension 0 has a free batch dimension too, and in a batch
    each client's answer would depend on the others' rows.
    """

    if rows == 1:
        return False
    together = _rows(loaded, rows)
    try:
        whole = call(*together)
        alone = [call(*[tensor[row : row + 1] for tensor in together]) for row in range(rows)]
        return all(
            output.shape[:1] == (rows,) and _equal(loaded, [output], [_joined([answer[index] for answer in alone])])
            for index, output in enumerate(whole)
        )
    except RuntimeError:
        return False


def _joined(pieces: list[Any]) -> Any:
    import numpy as np
    import torch

    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else torch.cat(pieces)


def _equal(loaded: Loaded, want: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> bool:
    """Return whether two answers are equal but for rounding, which is coarse where the model is computed coarsely."""
    import numpy as np
    import torch

    tolerance = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-9}
    if loaded.exact is not None:
        tolerance = dict.fromkeys((torch.float16, torch.float32, torch.float64, torch.bfloat16), 5e-2)
    return len(want) == len(got) and all(
        np.array_equal(a, b)
        if isinstance(a, np.ndarray)
        else a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=tolerance.get(a.dtype, 1e-4), atol=tolerance.get(a.dtype, 1e-5), equal_nan=True)
        for a, b in zip(want, got, strict=True)
    )


def _seconds(call: Call, rows: list[torch.Tensor], device: str, least: int = 2) -> float:
    """Return the seconds of one call: the best of several, for what disturbs a measurement only makes it longer. At
    `least` two where a size is new to the model, whose first call pays for its memory.

    Seconds of CPU, where the call never slept: else a model would be given other batches on a node whose neighbours
    take turns with it. One that sleeps waits for something, for a GPU or for other threads, and takes what the clock
    says.
    """
    import torch

    on_gpu = device == "cuda"
    best = float("inf")
    calls = 0
    until = time.perf_counter() + _MEASURE_S
    while calls < least or (calls < _CALLS and time.perf_counter() < until):
        if on_gpu:
            torch.cuda.synchronize()
        sleeps, start, busy = _sleeps(), time.perf_counter(), time.thread_time()
        call(*rows)
        if on_gpu:
            torch.cuda.synchronize()
        worked = time.thread_time() - busy
        took = time.perf_counter() - start
        best = min(best, worked if worked and not on_gpu and sleeps == _sleeps() else took)
        calls += 1
    return best


def _sleeps() -> int:
    """Return how often this thread has given up its CPU by itself."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
