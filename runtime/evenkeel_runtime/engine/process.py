"""How does a batch reach a process that runs the model, and how do the answers come back?

    the front                          an engine: one process, with a model and a GPU of its own
    Remote.run: arrays into `there` →  answer: Forward.run
    views of `here`                 ←  arrays into `here`, or an error in words

One batch at a time is under way to an engine, so neither side writes while the other reads. An engine ends where the
front closes its pipe, or is gone.
"""

from __future__ import annotations

import subprocess
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import orjson

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.engine.forward import Answers, BadAnswer, Forward
from evenkeel_runtime.engine.shared import Room
from evenkeel_runtime.models.loaded import BadInput

_MOURNING_S = 5.0
"""How long a process may take to be gone that has closed its pipe."""
_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (BadInput, BadAnswer, DeviceLost)}


class EngineLost(DeviceLost):
    """The process that was given the batch has ended; what it had is not answered, and not run again."""

    reason = Reason.ENGINE_LOST


class Remote:
    """An engine as the front sees it: runs batches as a `Forward` does. One thread at a time runs it.

    `cpu_s` is the CPU time that it had taken when it last answered.
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes], pipe: Connection, there: Room, here: Room):
        self.number, self.process, self.pipe = number, process, pipe
        self.cpu_s = 0.0
        self._there, self._here = there, here

    def run(self, batch: Batch) -> Answers:
        """Return each request's outputs, valid until the next run. Raises EngineLost, and what `Forward.run` raises:
        an error of the model's by its name, with its message."""
        try:
            told = self._there.write(work.payload.arrays for work in batch.works)
            asked = batch.works[0].kind, [work.rows for work in batch.works], told
            self.pipe.send_bytes(orjson.dumps(asked))
            self.cpu_s, answers = orjson.loads(self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise EngineLost(f"engine {self.number} has ended: {self.end()}") from error
        if isinstance(answers, dict):
            raise _error(answers)
        return {
            index: _error(one) if isinstance(one, dict) else self._here.read(one) for index, one in enumerate(answers)
        }

    def end(self) -> str:
        """Return how the process ended that has closed its pipe."""
        try:
            status = self.process.wait(_MOURNING_S)
        except subprocess.TimeoutExpired:
            return "it answers no more"
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def answer(pipe: Connection, forward: Forward, there: Room, here: Room) -> None:
    """Run the batches that come through the pipe until it is closed."""
    while True:
        try:
            kind, rows, told = orjson.loads(pipe.recv_bytes())
            pipe.send_bytes(orjson.dumps((time.process_time(), _answered(forward, kind, rows, told, there, here))))
        except (EOFError, OSError):
            return


def _answered(forward: Forward, kind: Any, rows: list[int], told: list[Any], there: Room, here: Room) -> Any:
    same = tuple((word, tuple(shape)) for word, shape in kind)
    works = [
        Work(count, same, SimpleNamespace(arrays=there.read(lies))) for count, lies in zip(rows, told, strict=True)
    ]
    try:
        found = forward.run(Batch(tuple(works), sum(rows)))
        outputs = [found[index] for index in range(len(works))]
        lies = iter(here.write(one for one in outputs if not isinstance(one, Exception)))
    except Exception as error:  # noqa: BLE001 - the model is the user's program and may raise anything
        return _words(error)
    return [_words(one) if isinstance(one, Exception) else next(lies) for one in outputs]


def _words(error: Exception) -> dict[str, str]:
    message = str(error).encode(errors="replace").decode()  # a lone surrogate cannot pass
    return {"error": type(error).__name__, "message": message}


def _error(words: dict[str, str]) -> Exception:
    name = words["error"]
    kind: type[Exception] = _ERRORS.get(name) or type(name, (Exception,), {})
    return kind(words["message"])
