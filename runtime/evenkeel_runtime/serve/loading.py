"""How does the pinned file or folder become a model that answers? In a thread, while the loop already answers `live`.

The bytes are hashed while they are read into memory, in parallel with the import of torch, and what is parsed is that
memory: nobody can change it between the two. What `fetch` wrote for this container alone is not copied (`mapped`).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from evenkeel_runtime.fetch.mapped import Mapped, has_room
from evenkeel_runtime.fetch.source import Entry
from evenkeel_runtime.fetch.transfer import Arrived as Transferred
from evenkeel_runtime.fetch.transfer import Memory, Nowhere, transfer
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


def load(path: Path, model: Model, most_rows: int, *, is_fetched: bool = False) -> Running:
    """Return the model, to be called with at most `most_rows` rows; raises ModelError, MemoryError. `is_fetched` as in
    `config.Serve`."""
    reading = Reading(path, model, holder(path, is_fetched=is_fetched))
    reading.start()
    return load_read(reading.arrived, model, most_rows, usable_cpus())


def load_read(arrived: Callable[[], Arrived], model: Model, most_rows: int, cpus: int) -> Running:
    """Return the model that was read, as `load` does, and let it keep up to `cpus` busy."""
    spin_briefly()
    deferred.import_torch()
    import torch

    found = arrived()

    from evenkeel_runtime.models import unpickling

    unpickling.forbid()
    torch.set_num_interop_threads(1)
    torch.set_num_threads(cpus)
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, calibrated = _tried_out(lambda: _recognised(found, model), model, device, most_rows, cpus)
    return Running(loaded, calibrated, found.sha256, str(torch.__version__))


def tried_out(view: memoryview, model: Model, device: str, most_rows: int) -> tuple[Loaded, Calibrated]:
    """Return the model in these bytes and how to call it; raises ModelError, or what `is_out_of_memory` knows."""
    return _tried_out(lambda: _recognised_file(view, model), model, device, most_rows, usable_cpus())


def _tried_out(
    recognise: Callable[[], Recognised], model: Model, device: str, most_rows: int, cpus: int
) -> tuple[Loaded, Calibrated]:
    import torch

    found = recognise()
    if found.name not in _COMPUTED_ON_MEMORY or device != "cpu":
        deferred.complete()
    try:
        loaded = precision.at(found.load(device), model.precision)
        calibrated = calibrate(loaded, cpus, most_rows)
        if calibrated.forward_s is None:
            deferred.complete()  # what could not be tried out may need any of it
        return loaded, calibrated
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if deferred.complete():
            return _tried_out(recognise, model, device, most_rows, cpus)
        raise ModelError(
            Reason.LOAD_FAILED,
            f"the model was read, but does not run: {last_line(error)}; try it with this torch ({torch.__version__})",
        ) from error


def _recognised(arrived: Arrived, model: Model) -> Recognised:
    if arrived.alone is not None:
        return _recognised_file(arrived.alone, model)
    views = arrived.views
    held = {path: Held(len(view), _stream(view), view) for path, view in views.items()}
    held |= {path: Held(size, io.BytesIO()) for path, size in arrived.others.items()}
    return recognised_folder(Bundle(held), model)


def _recognised_file(view: memoryview, model: Model) -> Recognised:
    return recognised(_stream(view), len(view), model, view)


def _stream(view: memoryview) -> IO[bytes]:
    return cast(IO[bytes], _Window(view))


@dataclass(frozen=True, slots=True)
class Arrived:
    """The model's digest and its bytes: of a file `alone`, or of a folder's files by their paths, where `others` were
    hashed and not kept, and have a size only."""

    sha256: str
    alone: memoryview | None = None
    views: Mapping[str, memoryview] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


class Reading(threading.Thread):
    """Reads and hashes the model beside the import of torch: hashing and reading leave the GIL to it. `memory` is where
    the bytes go."""

    def __init__(self, path: Path, model: Model, memory: Callable[[], Memory | Mapped]) -> None:
        super().__init__(name="read", daemon=True)
        self._path, self._model, self._memory = path.absolute(), model, memory
        self._outcome: Arrived | Exception | None = None

    def run(self) -> None:
        try:
            self._outcome = self._folder() if self._path.is_dir() else self._file()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._outcome = error

    def arrived(self) -> Arrived:
        """Wait for the end and return what was read; raises what went wrong."""
        self.join()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _file(self) -> Arrived:
        memory = self._memory()
        place = _into(memory, LocalFile(f"file://{self._path}", self._path.parent, self._path.name))
        arrived = transfer(place, memory)
        require_pinned(place, arrived, self._model.sha256)
        return Arrived(arrived.sha256, memoryview(memory.buffer))

    def _folder(self) -> Arrived:
        """Read a folder; what no format reads is hashed, and not kept."""
        place = LocalFolder(f"file://{self._path}", self._path.parent, self._path.name, FILES)
        entries = sound_entries(place)
        kept = {entry.path: self._memory() for entry in entries if is_read(entry.path)}

        def receive(entry: Entry) -> Transferred:
            return transfer(entry.source, kept.get(entry.path) or Nowhere())

        landing = [_landing(entry, kept.get(entry.path)) for entry in entries]
        manifest = folder.manifest_of(folder.transfer_all(place, landing, receive))
        folder.require_pinned(place.uri, manifest, self._model.sha256, self._model.marks)
        views = {path: memoryview(memory.buffer) for path, memory in kept.items()}
        others = {row.path: row.size for row in manifest.rows if row.path not in kept}
        return Arrived(manifest.sha256, views=views, others=others)


def holder(path: Path, *, is_fetched: bool) -> type[Memory | Mapped]:
    """Return what the bytes of a model at `path` are held in."""
    return Mapped if is_fetched and has_room(_size(path)) else Memory


def _size(path: Path) -> int:
    """Return the bytes of a file or a folder; none where there is neither, which reading it will tell."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _landing(entry: Entry, memory: Memory | Mapped | None) -> Entry:
    if memory is None or not isinstance(entry.source, LocalFile):
        return entry
    return Entry(entry.path, _into(memory, entry.source))


def _into(memory: Memory | Mapped, place: LocalFile) -> LocalFile:
    """Return the file as one whose chunks lie in that memory."""
    return replace(place, mapping=memory.of) if isinstance(memory, Mapped) else replace(place, room=memory.room)


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
