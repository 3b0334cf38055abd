"""How do several engines come to serve one replica: a process for each GPU, with a copy of the model on it?

The model is read and hashed once, into memory that every engine maps for itself, while they import torch; what an
engine does not change of it, all of them share. Then each loads and tries out its copy as `loading` does for a single
one, at the same time as the others. The process that holds the connections knows the model by what they say of it, and
imports no torch.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evenkeel_runtime import report
from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason, Tensor
from evenkeel_runtime.engine import cuda, memory
from evenkeel_runtime.engine.calibrate import Calibrated
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.process import EngineLost, Remote, answer
from evenkeel_runtime.engine.shared import Room
from evenkeel_runtime.engine.threads import usable_cpus
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.transfer import Memory
from evenkeel_runtime.models.loaded import Dimension, Loaded, Place, Range, Signature
from evenkeel_runtime.serve.loading import Arrived, Reading, Running, load_read

_DEVICES = "CUDA_VISIBLE_DEVICES"

log = logging.getLogger("evenkeel")


def count_of(wanted: int | None) -> int:
    """Return how many engines there are to be: as many as `wanted`, else one for each GPU, and one where there is
    none."""
    return wanted or max(1, cuda.visible())


def load(count: int, path: Path, model: Model, most_rows: int) -> tuple[Running, tuple[Remote, ...]]:
    """Return the engines, ready, and the model as they run it: with the batches of the one that takes the smallest.

    Raises ModelError, of the first engine that could not load it.
    """
    made: list[_Shared] = []

    def shared() -> _Shared:
        made.append(_Shared())
        return made[-1]

    reading = Reading(path, model, shared)
    reading.start()
    engines = [_start(number, count) for number in range(count)]
    try:
        _tell(engines, _order(model, most_rows, max(1, usable_cpus() // count)))
        _tell(engines, _files(reading.arrived(), made))
        found = [_running(engine) for engine in engines]
    except BaseException:
        for engine in engines:
            engine.process.kill()
        raise
    finally:
        for one in made:
            one.close_file()
    return min(found, key=lambda running: running.calibrated.max_rows), tuple(engines)


def watch(engines: Sequence[Remote], lost: Callable[[EngineLost], None]) -> None:
    """Tell of each engine that ends, also while it has nothing to do. Called in threads of their own."""

    def wait(engine: Remote) -> None:
        engine.process.wait()
        lost(EngineLost(f"engine {engine.number} has ended: {engine.end()}"))

    for engine in engines:
        threading.Thread(target=wait, args=(engine,), name="watch", daemon=True).start()


def _start(number: int, count: int) -> Remote:
    """Start the process of one engine, which sees one GPU, if there is any."""
    ours, its = Pipe()
    there, here = Room(), Room()
    fds = its.fileno(), there.fd, here.fd
    gpus = devices(os.environ, cuda.visible())
    own = {_DEVICES: gpus[number % len(gpus)]} if gpus else {}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(number), *map(str, fds)],
        stdin=subprocess.DEVNULL,
        env=os.environ | own,
        pass_fds=fds,
    )
    its.close()
    log.info("engine started number=%d of=%d pid=%d device=%s", number, count, process.pid, own.get(_DEVICES, "cpu"))
    return Remote(number, process, ours, there, here)


def devices(environ: Mapping[str, str], count: int) -> list[str]:
    """Return the names of the `count` GPUs that CUDA sees: those that it is told, which may be UUIDs, else numbers."""
    told = environ.get(_DEVICES)
    return [str(index) for index in range(count)] if told is None else told.split(",")[:count]


class _Shared(Memory):
    """Memory that other processes can map, by its file; without a name, so that nobody else can."""

    fd: int | None = None

    def begin(self, size: int | None) -> None:
        if size and len(self.buffer) != size:
            self.close_file()
            self.fd = os.memfd_create("model")
            os.ftruncate(self.fd, size)
            self.buffer = mmap.mmap(self.fd, size)

    def close_file(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _tell(engines: Sequence[Remote], words: dict[str, Any]) -> None:
    message = json.dumps(words).encode()
    for engine in engines:
        with contextlib.suppress(OSError):  # it has ended, which is seen when it is heard
            engine.pipe.send_bytes(message)


def _order(model: Model, most_rows: int, cpus: int) -> dict[str, Any]:
    told = asdict(model) | {"trusted_types": sorted(model.trusted_types)}
    return {"model": told, "most_rows": most_rows, "cpus": cpus}


def _files(arrived: Arrived, made: Sequence[_Shared]) -> dict[str, Any]:
    names = {id(one.buffer): f"/proc/{os.getpid()}/fd/{one.fd}" for one in made if one.fd is not None}
    return {
        "sha256": arrived.sha256,
        "alone": None if arrived.alone is None else names.get(id(arrived.alone.obj), ""),
        "views": {path: names.get(id(view.obj), "") for path, view in arrived.views.items()},
        "others": dict(arrived.others),
    }


def _running(engine: Remote) -> Running:
    """Return the model as an engine has loaded it, with nothing to call; raises ModelError."""
    try:
        said = json.loads(engine.pipe.recv_bytes())
    except (EOFError, OSError) as error:
        how = engine.end()
        # What the kernel ends for want of memory has no last word; nobody else sends SIGKILL while a model loads.
        is_killed = engine.process.returncode == -signal.SIGKILL
        reason = Reason.OUT_OF_MEMORY if is_killed else Reason.LOAD_FAILED
        raise ModelError(
            reason,
            f"engine {engine.number} has ended while it loaded the model: {how}; each of the engines needs memory for "
            "a model of its own: raise spec.runtime.resources.limits.memory"
            if is_killed
            else f"engine {engine.number} has ended while it loaded the model: {how}; its log says more",
        ) from error
    if "reason" in said:
        raise ModelError(Reason(said["reason"]), said["message"])
    loaded, found = said["loaded"], said["calibrated"]
    profile = tuple((rows, seconds) for rows, seconds in found.pop("profile"))
    return Running(
        Loaded(**(loaded | {"signature": _signature(loaded["signature"])}), call=_elsewhere, traceable=False),
        Calibrated(**found, call=_elsewhere, profile=profile),
        said["sha256"],
        said["torch_version"],
    )


def _elsewhere(*rows: object) -> Any:
    raise AssertionError("the model is called in the engines' processes")


def _signature(said: dict[str, Any]) -> Signature:
    tensors = {
        side: tuple(Tensor(one["name"], one["datatype"], tuple(one["shape"])) for one in said[side])
        for side in ("inputs", "outputs")
    }
    dimensions = tuple(
        Dimension(**(one | {"places": tuple(Place(**place) for place in one["places"])})) for one in said["dimensions"]
    )
    example = said["example"]
    return Signature(
        **tensors,
        batch=said["batch"],
        example=None if example is None else tuple(map(tuple, example)),
        classes=tuple(said["classes"]),
        dimensions=dimensions,
        ranges=tuple(Range(**one) for one in said["ranges"]),
        way_out=said["way_out"],
    )


def main(number: str, pipe: str, there: str, here: str) -> None:
    """Be an engine: load the model that the front has read, say what it is, and run it until the front is gone."""
    for ends in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ends, signal.SIG_IGN)  # meant for the whole replica, which drains first
    words = f"%(asctime)s %(levelname)s engine={number} %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=words)
    connection = Connection(int(pipe))
    try:
        running = _loaded(connection)
    except Exception as error:  # noqa: BLE001 - whatever the file or the model raises is the front's to tell
        failed = report.failed(error)
        said: dict[str, Any] = {"reason": failed.reason, "message": failed.message}
        with contextlib.suppress(OSError):
            connection.send_bytes(json.dumps(said).encode())
        return
    loaded, found = running.loaded, running.calibrated
    forward = Forward(loaded.signature, found.call, loaded.device, found.max_rows)
    gc.collect()
    gc.freeze()
    memory.give_back()
    said = {
        "sha256": running.sha256,
        "torch_version": running.torch_version,
        "loaded": {
            "signature": asdict(loaded.signature),
            **{name: getattr(loaded, name) for name in ("format", "platform", "device", "parameters", "precision")},
        },
        "calibrated": {name: getattr(found, name) for name in Calibrated.__slots__ if name != "call"},
    }
    with contextlib.suppress(OSError):
        connection.send_bytes(json.dumps(said).encode())
        answer(connection, forward, Room(int(there)), Room(int(here)))


def _loaded(pipe: Connection) -> Running:
    said = json.loads(pipe.recv_bytes())
    told = said["model"]
    model = Model(**(told | {"trusted_types": frozenset(told["trusted_types"])}))
    return load_read(lambda: _arrived(json.loads(pipe.recv_bytes())), model, said["most_rows"], said["cpus"])


def _arrived(said: dict[str, Any]) -> Arrived:
    return Arrived(
        said["sha256"],
        None if said["alone"] is None else _mapped(said["alone"]),
        {path: _mapped(file) for path, file in said["views"].items()},
        said["others"],
    )


def _mapped(file: str) -> memoryview:
    """Return a file's bytes, which are this process's to change; an empty one has no memory."""
    if not file:
        return memoryview(bytearray())
    with open(file, "r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))


if __name__ == "__main__":
    main(*sys.argv[1:])
