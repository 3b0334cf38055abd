"""How does this model run best here? Tried out at load, on made-up rows, before the first request.

Which call path (`paths`), whether rows are independent of each other (else batching would mix requests), how large a
batch pays, and how long a forward takes.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from evenkeel_runtime.engine.batching import batch_size_to_use
from evenkeel_runtime.engine.cuda import DEVICE, OnGpu, in_full_precision
from evenkeel_runtime.engine.measure import are_equal, made_up, seconds
from evenkeel_runtime.engine.paths import as_it_is, fastest
from evenkeel_runtime.engine.precision import difference
from evenkeel_runtime.failure import last_line
from evenkeel_runtime.models.datatypes import ANY
from evenkeel_runtime.models.loaded import Call, Loaded
from evenkeel_runtime.report import is_out_of_memory

log = logging.getLogger("evenkeel")

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LONG_S, _TOO_LONG_S = 0.02, 0.05
"""From here on trying more would hold up the start; and from here on larger batches are not tried."""
_WORTH_THREADS = 1.2


@dataclass(frozen=True, slots=True)
class Calibrated:
    """`call` takes rows of the host and answers there. `max_rows` is 0 where requests cannot share a call; `forward_s`
    is None where the model could not be tried out (its file does not say what it takes). `profile` holds the seconds of
    a call by its rows, as measured; `difference` to the model in its file's own precision is None where it is computed
    in that, and where it could not be tried out."""

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
        return Calibrated(as_it_is(loaded, loaded.call), "eager", cpus, 0, None, 0.0)
    limit = signature.batch
    on_gpu = loaded.device == DEVICE
    plain = as_it_is(loaded, loaded.call)
    with torch.inference_mode():
        first = seconds(plain, made_up(loaded, 1), loaded.device)
        is_long = first > _LONG_S
        call, path = fastest(loaded, plain, min(limit or most_rows, most_rows), first)
        together = min(limit or 4, 2 if is_long else 4)
        with in_full_precision() if on_gpu else contextlib.nullcontext():
            shares = limit is not None and _rows_are_independent(plain if on_gpu else call, loaded, together)
        sizes = _sizes_up_to(min(limit or most_rows, most_rows)) if shares else [1]
        known = {1: first} if is_long and call is plain else {}
        threads, best, speeds = _fastest_threads(call, loaded, sizes, cpus, known, together)
        torch.set_num_threads(threads)
        rows = made_up(loaded, best)
        apart = None if loaded.exact is None else difference(as_it_is(loaded, loaded.exact)(*rows), call(*rows))
    if isinstance(call, OnGpu):
        call.keep(best)
        torch.cuda.empty_cache()  # what was tried and is not used, for others on the same GPU
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
    for threads in [cpus] if loaded.device == DEVICE else sorted({1, cpus}):
        torch.set_num_threads(threads)
        told = (known, warm) if threads == cpus else ({}, 0)
        took = _seconds_by_size(call, loaded, sizes, *told)
        speeds = {size: size / took_s for size, took_s in took.items()}
        found.append((threads, batch_size_to_use(speeds), speeds))
    one, more = found[0], found[-1]
    return more if more[2][more[1]] > one[2][one[1]] * _WORTH_THREADS else one


def _seconds_by_size(
    call: Call, loaded: Loaded, sizes: list[int], known: dict[int, float], warm: int
) -> dict[int, float]:
    """Return the seconds of a call by its rows, up to the first that is long, or too large for the memory. In two
    rounds, where that is not long either: a moment in which the machine was slower is then not one size's alone."""
    took: dict[int, float] = {}
    for size in sizes:
        least = 1 if size == warm else 2
        try:
            took[size] = known.get(size) or seconds(call, made_up(loaded, size), loaded.device, least)
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            log.info("larger batches not tried rows=%d error=%s", size, last_line(error))
            break
        if took[size] > _TOO_LONG_S and size > 1:
            return took
    for size in took:
        took[size] = min(took[size], seconds(call, made_up(loaded, size), loaded.device))
    return took


def _rows_are_independent(call: Call, loaded: Loaded, rows: int) -> bool:
    """Return whether a row's answer is the same whoever shares its batch.

    Counter-example: a model that subtracts the mean over dimension 0 has a free batch dimension too, and in a batch
    each client's answer would depend on the others' rows.
    """

    if rows == 1:
        return False
    together = made_up(loaded, rows)
    try:
        whole = call(*together)
        alone = [call(*[tensor[row : row + 1] for tensor in together]) for row in range(rows)]
        return all(
            output.shape[:1] == (rows,) and are_equal(loaded, [output], [_joined([answer[index] for answer in alone])])
            for index, output in enumerate(whole)
        )
    except RuntimeError:
        return False


def _joined(pieces: list[Any]) -> Any:
    import numpy as np
    import torch

    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else torch.cat(pieces)
