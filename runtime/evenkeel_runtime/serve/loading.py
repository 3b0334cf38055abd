"""How does the pinned file become a model that answers? In a thread, while the event loop already answers `live`.

The bytes are hashed while they are read into memory, in parallel with the import of torch, and what is parsed is that
memory: nobody can change it between the two.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.engine import precision
from evenkeel_runtime.engine.calibrate import Calibrated, calibrate
from evenkeel_runtime.engine.threads import usable_cpus
from evenkeel_runtime.failure import ModelError, last_line
from evenkeel_runtime.fetch.fetch import require_pinned
from evenkeel_runtime.fetch.local import LocalFile
from evenkeel_runtime.fetch.transfer import Arrived, Memory, transfer
from evenkeel_runtime.models.inspect import recognise, require_wanted
from evenkeel_runtime.models.loaded import Loaded
from evenkeel_runtime.report import is_out_of_memory


@dataclass(frozen=True, slots=True)
class Running:
    """A model that was loaded, tried out and warmed up."""

    loaded: Loaded
    calibrated: Calibrated
    sha256: str
    torch_version: str


def load(path: Path, model: Model, most_rows: int) -> Running:
    """Return the model, to be called with at most `most_rows` rows; raises ModelError, MemoryError."""
    reading = _Reading(path)
    reading.start()
    import torch

    reading.join()
    arrived = reading.arrived()
    require_pinned(reading.place, arrived, model.sha256)

    from evenkeel_runtime.models import unpickling

    unpickling.forbid()
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, calibrated = tried_out(memoryview(reading.memory.buffer), model, device, most_rows)
    return Running(loaded, calibrated, arrived.sha256, str(torch.__version__))


def tried_out(view: memoryview, model: Model, device: str, most_rows: int) -> tuple[Loaded, Calibrated]:
    """Return the model in these bytes and how to call it; raises ModelError, or what `is_out_of_memory` knows."""
    import torch

    format_, archive = recognise(cast(IO[bytes], _Window(view)), len(view))
    require_wanted(format_, archive, model)
    try:
        loaded = precision.at(format_.load(archive, view, device, model.trusted_types), model.precision)
        return loaded, calibrate(loaded, usable_cpus(), most_rows)
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            Reason.LOAD_FAILED,
            f"the model was read, but does not run: {last_line(error)}; try it with this torch ({torch.__version__})",
        ) from error


class _Reading(threading.Thread):
    """Reads and hashes the file beside the import of torch: hashing and reading leave the GIL to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="read", daemon=True)
        self.memory = Memory()
        absolute = path.absolute()
        self.place = LocalFile(f"file://{absolute}", absolute.parent, absolute.name)
        self._outcome: Arrived | Exception | None = None

    def run(self) -> None:
        try:
            self._outcome = transfer(self.place, self.memory)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._outcome = error

    def arrived(self) -> Arrived:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


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
