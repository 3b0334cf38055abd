"""How is a batch computed on a GPU? In one go: its rows up, the kernels, the answers down, and a single wait for all.

A small model's kernels take less time than Python takes to launch them, one by one. So they are recorded once for each
of a few batch sizes, as a CUDA graph, and a batch of other size is computed as the next larger one; the rows beyond it
hold what an earlier batch left, and their answers are not read. What cannot be recorded (a model that looks at its own
numbers on the way, or that takes texts) is launched kernel by kernel.

Rows and answers lie in pinned memory, which the GPU copies by itself. The thread that waits leaves the GIL to the event
loop meanwhile, and its CPU too, unless the wait is so short that being woken would take as long.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.models.loaded import Call

if TYPE_CHECKING:
    import torch

DEVICE = "cuda"
_SLEEPS_FROM_S = 0.0005
"""To be woken takes a good part of a shorter wait; up to here the thread keeps its CPU."""
_WARM_UPS = 3
"""Calls before a recording: libraries choose their algorithms and take their memory in the first ones."""


class DeviceLost(Exception):
    """The GPU answers this process no more: an assertion in a kernel, or a fault of the machine, ends its context for
    good, and only a new process has another one. `reason` is what the container says when it ends."""

    reason = Reason.DEVICE_LOST


@dataclass(frozen=True, slots=True)
class _Recording:
    """A graph, with the memory that it reads and writes: on the GPU, and the answers' on the host. `done` is how its
    end is waited for."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    answers: tuple[torch.Tensor, ...]
    done: torch.cuda.Event


class OnGpu:
    """A model on the GPU as one that takes rows of the host and answers there; answers are valid until the next call.

    `records` says that calls are recorded, at the first of each size; raises RuntimeError where that is not possible.
    Sizes are powers of two up to `most_rows`; None: what the tensors have in their first dimension are no rows, and
    each shape is a size. Not thread-safe, but not bound to a thread either.
    """

    def __init__(self, call: Call, most_rows: int | None, *, records: bool) -> None:
        import torch

        self._torch = torch
        self._call = call
        self._most_rows = most_rows
        self._records = records
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._done = _event(sleeps=True)
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[tuple[int, ...], ...], _Recording] = {}
        self._is_open = True

    def forget(self) -> None:
        """Drop what was recorded, to be recorded anew."""
        self._recordings.clear()

    def keep(self, most: int) -> None:
        """End recording: what is larger than `most` rows is dropped, and what comes new is launched kernel by kernel,
        for no request may wait for a recording, nor memory be taken for each shape that clients think of."""
        self._is_open = False
        if self._most_rows is not None:
            largest = self._size(most)
            self._recordings = {key: one for key, one in self._recordings.items() if len(one.inputs[0]) <= largest}

    def __call__(self, *rows: Any) -> Sequence[Any]:
        torch = self._torch
        try:
            with torch.cuda.stream(self._stream):
                recording = self._recording(rows) if self._records else None
                if recording is None:
                    answers, done = self._launched(rows), self._done
                else:
                    answers, done = self._replayed(recording, rows), recording.done
                done.record(self._stream)
                done.synchronize()
            return answers
        except RuntimeError as error:
            raise _lost(error) or error from None

    def _launched(self, rows: Sequence[Any]) -> list[Any]:
        tensor, empty = self._torch.Tensor, self._torch.empty
        here = [one.to(DEVICE, non_blocking=True) if isinstance(one, tensor) else one for one in rows]
        return [
            empty(one.shape, dtype=one.dtype, pin_memory=True).copy_(one, non_blocking=True)
            if isinstance(one, tensor) and one.is_cuda
            else one
            for one in self._call(*here)
        ]

    def _replayed(self, recording: _Recording, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for place, given in zip(self._first(rows, recording.inputs), rows, strict=True):
            place.copy_(given, non_blocking=True)
        recording.graph.replay()
        answers = self._first(rows, recording.answers)
        for place, found in zip(answers, self._first(rows, recording.outputs), strict=True):
            place.copy_(found, non_blocking=True)
        return answers

    def _first(self, rows: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the part of a recording's tensors that is these rows'."""
        return list(tensors) if self._most_rows is None else [one[: len(rows[0])] for one in tensors]

    def _recording(self, rows: Sequence[torch.Tensor]) -> _Recording | None:
        shapes = tuple(self._recorded(one.shape) for one in rows)
        found = self._recordings.get(shapes)
        if found is None and self._is_open:
            found = self._recordings[shapes] = self._record(rows, shapes)
        return found

    def _recorded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape that is recorded for tensors of this one."""
        return tuple(shape) if self._most_rows is None else (self._size(shape[0]), *shape[1:])

    def _size(self, rows: int) -> int:
        """Return the batch size whose recording computes so many rows."""
        return max(rows, min(1 << (rows - 1).bit_length(), self._most_rows or rows))

    def _record(self, rows: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]]) -> _Recording:
        torch = self._torch
        inputs = tuple(
            torch.zeros(shape, dtype=one.dtype, device=DEVICE) for shape, one in zip(shapes, rows, strict=True)
        )
        for place, given in zip(self._first(rows, inputs), rows, strict=True):
            place.copy_(given)
        for _ in range(_WARM_UPS):
            self._call(*inputs)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            outputs = tuple(self._call(*inputs))
        if not all(one.is_cuda for one in outputs):
            raise RuntimeError("the model answers from the host, where a recording does not come by")
        if self._most_rows is not None and any(one.shape[:1] != shapes[0][:1] for one in outputs):
            raise RuntimeError("the model's answers are not as many rows as it is given")
        answers = tuple(torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in outputs)
        graph.replay()
        self._stream.synchronize()
        begun = time.perf_counter()
        graph.replay()
        self._stream.synchronize()
        sleeps = time.perf_counter() - begun > _SLEEPS_FROM_S
        return _Recording(graph, inputs, outputs, answers, _event(sleeps=sleeps))


def visible() -> int:
    """Return how many GPUs a process may use here, 0 where there is no driver. It is the driver that is asked, and not
    torch, which the process that shares them out does not need (CUDA Driver API, "Device Management")."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return 0 if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """Let convolutions multiply in FP32 and not in TF32, which torch prefers on a GPU: rounded to 10 bits, a row's
    answer differs in the third digit by the batch that it is in, and what differs by more would not be seen."""
    from torch.backends import cudnn

    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _event(*, sleeps: bool) -> torch.cuda.Event:
    import torch

    return torch.cuda.Event(blocking=sleeps)  # type: ignore[no-untyped-call]


def _lost(error: RuntimeError) -> DeviceLost | None:
    """Return what to raise instead of an error after which nothing runs on the GPU any more; None after any other."""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return DeviceLost(f"the GPU answers this process no more: {str(error).partition(chr(10))[0]}")
    return None
