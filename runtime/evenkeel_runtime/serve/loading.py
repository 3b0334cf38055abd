"""How does the pinned file or folder become a model that answers? In a thread, while the loop already answers `live`.

The bytes are hashed while they are read into memory, in parallel with the import of torch, and what is parsed is that
memory: nobody can change it between the two.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.engine import precision
from evenkeel_runtime.engine.calibrate import Calibrated, calibrate
from evenkeel_runtime.engine.threads import spin_briefly, usable_cpus
from evenkeel_runtime.failure import ModelError, last_line
from evenkeel_runtime.fetch import folder
from evenkeel_runtime.fetch.address import sound_entries
from evenkeel_runtime.fetch.fetch import require_pinned
from evenkeel_runtime.fetch.local import LocalFile, LocalFolder
from evenkeel_runtime.fetch.manifest import FILES
from evenkeel_runtime.fetch.source import Entry
from evenkeel_runtime.fetch.transfer import Arrived, Memory, Nowhere, transfer
from evenkeel_runtime.models import deferred, export, statedict
from evenkeel_runtime.models.bundle import Bundle, Held
from evenkeel_runtime.models.loaded import Loaded
from evenkeel_runtime.models.recognised import Recognised, is_read, recognised, recognised_folder
from evenkeel_runtime.report import is_out_of_memory

_COMPUTED_ON_MEMORY = (export.NAME, statedict.NAME)
"""Formats whose models never compute with tensors without memory, but for filling them."""


@dataclass(frozen=True, slots=True)
class Running:
    """A model that was loaded, tried out and warmed up."""

    loaded: Loaded
    calibrated: Calibrated
    sha256: str
    torch_version: str


def load(path: Path, model: Model, most_rows: int) -> Running:
    """Return the model, to be called with at most `most_rows` rows; raises ModelError, MemoryError."""
    spin_briefly()
    reading = _Reading(path, model)
    reading.start()
    deferred.import_torch()
    import torch

    reading.join()
    arrived = reading.arrived()

    from evenkeel_runtime.models import unpickling

    unpickling.forbid()
    torch.set_num_interop_threads(1)
    torch.set_num_threads(usable_cpus())
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, calibrated = _tried_out(arrived.recognise, model, device, most_rows)
    return Running(loaded, calibrated, arrived.sha256, str(torch.__version__))


def tried_out(view: memoryview, model: Model, device: str, most_rows: int) -> tuple[Loaded, Calibrated]:
    """Return the model in these bytes and how to call it; raises ModelError, or what `is_out_of_memory` knows."""
    return _tried_out(lambda: _recognised(view, model), model, device, most_rows)


def _tried_out(
    recognise: Callable[[], Recognised], model: Model, device: str, most_rows: int
) -> tuple[Loaded, Calibrated]:
    import torch

    found = recognise()
    if found.name not in _COMPUTED_ON_MEMORY or device != "cpu":
        deferred.complete()
    try:
        loaded = precision.at(found.load(device), model.precision)
        calibrated = calibrate(loaded, usable_cpus(), most_rows)
        if calibrated.forward_s is None:
            deferred.complete()  # what could not be tried out may need any of it
        return loaded, calibrated
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if deferred.complete():
            return _tried_out(recognise, model, device, most_rows)
        raise ModelError(
            Reason.LOAD_FAILED,
            f"the model was read, but does not run: {last_line(error)}; try it with this torch ({torch.__version__})",
        ) from error


def _recognised(view: memoryview, model: Model) -> Recognised:
    return recognised(_stream(view), len(view), model, view)


def _stream(view: memoryview) -> IO[bytes]:
    return cast(IO[bytes], _Window(view))


@dataclass(frozen=True, slots=True)
class _Arrived:
    """The model's digest, and how its bytes are recognised."""

    sha256: str
    recognise: Callable[[], Recognised]


class _Reading(threading.Thread):
    """Reads and hashes the model beside the import of torch: hashing and reading leave the GIL to it."""

    def __init__(self, path: Path, model: Model) -> None:
        super().__init__(name="read", daemon=True)
        self._path, self._model = path.absolute(), model
        self._outcome: _Arrived | Exception | None = None

    def run(self) -> None:
        try:
            self._outcome = self._folder() if self._path.is_dir() else self._file()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._outcome = error

    def arrived(self) -> _Arrived:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _file(self) -> _Arrived:
        memory = Memory()
        place = LocalFile(f"file://{self._path}", self._path.parent, self._path.name, memory.room)
        arrived = transfer(place, memory)
        require_pinned(place, arrived, self._model.sha256)
        view = memoryview(memory.buffer)
        return _Arrived(arrived.sha256, lambda: _recognised(view, self._model))

    def _folder(self) -> _Arrived:
        """Read a folder; what no format reads is hashed, and not kept."""
        place = LocalFolder(f"file://{self._path}", self._path.parent, self._path.name, FILES)
        entries = sound_entries(place)
        kept = {entry.path: Memory() for entry in entries if is_read(entry.path)}

        def receive(entry: Entry) -> Arrived:
            return transfer(entry.source, kept.get(entry.path) or Nowhere())

        landing = [_landing(entry, kept.get(entry.path)) for entry in entries]
        manifest = folder.manifest_of(folder.transfer_all(place, landing, receive))
        folder.require_pinned(place.uri, manifest, self._model.sha256, self._model.marks)
        views = {path: memoryview(memory.buffer) for path, memory in kept.items()}
        held = {path: Held(len(view), _stream(view), view) for path, view in views.items()}
        held |= {row.path: Held(row.size, io.BytesIO()) for row in manifest.rows if row.path not in held}
        return _Arrived(manifest.sha256, lambda: recognised_folder(Bundle(held), self._model))


def _landing(entry: Entry, memory: Memory | None) -> Entry:
    """Return the file as one that is read into that memory."""
    if memory is None or not isinstance(entry.source, LocalFile):
        return entry
    return Entry(entry.path, replace(entry.source, room=memory.room))


class _Window(io.RawIOBase):
    """The memory as a file, without a copy of the whole."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, count: int = -1) -> bytes:
        stop = len(self._view) if count < 0 else self._at + count
        data = bytes(self._view[self._at : stop])
        self._at += len(data)
        return data
