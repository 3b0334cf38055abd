"""How does this model run best here? Tried out at load, on made-up rows, before the first request.

Which call path (`paths`), whether rows are independent of each other (else batching would mix requests), how large a
batch pays, and how long a forward takes.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.engine.batching import batch_size_to_use
from evenkeel_runtime.engine.cuda import DEVICE, OnGpu, in_full_precision
from evenkeel_runtime.engine.measure import are_equal, made_up, seconds, timed
from evenkeel_runtime.engine.paths import as_it_is, fastest
from evenkeel_runtime.engine.precision import difference
from evenkeel_runtime.failure import last_line
from evenkeel_runtime.models.datatypes import ANY
from evenkeel_runtime.models.loaded import Call, Loaded
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

log = logging.getLogger("evenkeel")

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LONG_S, _TOO_LONG_S = 0.02, 0.05
"""From here on trying more would hold up the start; and from here on larger batches are not tried."""
_WORTH_THREADS = 1.2

_UNTRIED = "the file does not say what the model takes, so it was not seen whether its rows are independent"
_NO_ROWS = "the first dimensions of its inputs and answers are not one and the same free dimension, which rows would be"
_ONE_ROW = "a call may have no more than one row"
_NO_FASTER = "calls of more rows answer no more rows a second"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """`call` takes rows of the host and answers there. `max_rows` is 0 where requests cannot share a call; `forward_s`
    is None where the model could not be tried out (its file does not say what it takes). `profile` holds the seconds of
    a call by its rows, as measured; `difference` to the model in its file's own precision is None where it is computed
    in that, and where it could not be tried out. `apart` says why requests do not share a call; empty where they do."""

    call: Call
    path: str
    threads: int
    max_rows: int
    forward_s: float | None
    rows_per_second: float
    profile: tuple[tuple[int, float], ...] = ()
    difference: float | None = None
    apart: str = ""

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
        plain = as_it_is(loaded, loaded.call)
        return Calibrated(plain, "eager", cpus, 0, None, 0.0, apart=signature.way_out or _UNTRIED)
    limit = signature.batch
    on_gpu = loaded.device == DEVICE
    plain = as_it_is(loaded, loaded.call)
    with torch.inference_mode():
        alone = [timed(plain, row, loaded.device) for row in _single_rows(loaded)]
        first = min(took for _, took in alone)
        is_long = first > _LONG_S
        if not is_long:
            first = min(first, seconds(plain, made_up(loaded, 1), loaded.device))
        call, path = fastest(loaded, plain, min(limit or most_rows, most_rows), first)
        is_known = is_long and call is plain
        together = min(limit or 4, 2 if is_long else 4)
        answers = [answer for answer, _ in alone] if is_known and not on_gpu else []
        judged = plain if on_gpu else call
        took, apart = _seconds_or_why_apart(judged, loaded, together, answers)
        sizes = _sizes_up_to(min(limit or most_rows, most_rows)) if not apart else [1]
        known = {1: first} if is_known else {}
        if is_known and took is not None and loaded.warm_rows == together:
            known[together] = took
        threads, best, speeds = _fastest_threads(call, loaded, sizes, cpus, known, together)
        if loaded.branches and best > together:
            _, apart = _seconds_or_why_apart(judged, loaded, best, [])
            best = 1 if apart else best
        torch.set_num_threads(threads)
        rows = made_up(loaded, best)
        changed = None if loaded.exact is None else difference(as_it_is(loaded, loaded.exact)(*rows), call(*rows))
    if isinstance(call, OnGpu):
        call.keep(best)
        torch.cuda.empty_cache()  # what was tried and is not used, for others on the same GPU
    profile = tuple((rows, rows / speed) for rows, speed in speeds.items() if rows <= best)
    most = 0 if apart else best
    if most == 1:
        apart = _NO_FASTER if len(sizes) > 1 else _ONE_ROW
    return Calibrated(call, path, threads, most, 1 / speeds[1], speeds[best], profile, changed, apart)


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
    anything else wants its CPU. `known` are the seconds of a long model's sizes that were measured with all CPUs, and
    with `warm` rows the model was called with them before. Where a single row of a long one shows what threads are
    worth, no more rows are tried.
    """
    import torch

    torch.set_num_threads(cpus)
    more = _speeds(call, loaded, sizes, known, warm)
    if cpus == 1 or loaded.device == DEVICE:
        return cpus, *more
    torch.set_num_threads(1)
    one_s = {}
    if known:
        one_s[1] = seconds(call, made_up(loaded, 1), loaded.device)
        if one_s[1] > known[1] * _WORTH_THREADS:
            return cpus, *more
    one = _speeds(call, loaded, sizes, one_s, 0)
    return (cpus, *more) if more[1][more[0]] > one[1][one[0]] * _WORTH_THREADS else (1, *one)


def _speeds(
    call: Call, loaded: Loaded, sizes: list[int], known: dict[int, float], warm: int
) -> tuple[int, dict[int, float]]:
    speeds = {size: size / took for size, took in _seconds_by_size(call, loaded, sizes, known, warm).items()}
    return batch_size_to_use(speeds), speeds


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
    if took == known:
        return took
    for size in took:
        took[size] = min(took[size], seconds(call, made_up(loaded, size), loaded.device))
    return took


def _single_rows(loaded: Loaded) -> list[list[Any]]:
    """Return the two rows of a made-up batch; the same one twice where requests cannot share a call."""
    limit = loaded.signature.batch
    if limit is None or limit == 1:
        return [made_up(loaded, 1)] * 2
    together = made_up(loaded, 2)
    return [[tensor[row : row + 1] for tensor in together] for row in range(2)]


def _seconds_or_why_apart(
    call: Call, loaded: Loaded, rows: int, alone: list[Sequence[torch.Tensor]]
) -> tuple[float | None, str]:
    """Return the seconds of a call of so many rows where a row's answer is the same whoever shares its batch, else why
    requests cannot. `alone` are the answers to the single rows, where they are known.

    Counter-example: a model that subtracts the mean over dimension 0 has a free batch dimension too, and in a batch
    each client's answer would depend on the others' rows.
    """
    if loaded.signature.batch is None:
        return None, loaded.signature.way_out or _NO_ROWS
    if rows == 1:
        return None, _ONE_ROW
    together = made_up(loaded, rows)
    try:
        with in_full_precision() if loaded.device == DEVICE else contextlib.nullcontext():
            whole, took = timed(call, together, loaded.device)
            alone = alone or [call(*[tensor[row : row + 1] for tensor in together]) for row in range(rows)]
        same = all(
            output.shape[:1] == (rows,) and are_equal(loaded, [output], [_joined([answer[index] for answer in alone])])
            for index, output in enumerate(whole)
        )
    except RuntimeError as error:
        return None, f"a call of {rows} rows fails: {last_line(error)}"
    return (took, "") if same else (None, f"of {rows} rows in a call, a row's answer is another one than alone")


def _joined(pieces: list[Any]) -> Any:
    import numpy as np
    import torch

    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else torch.cat(pieces)
