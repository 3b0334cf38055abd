"""How do the pinned bytes get to `MODEL_DIR`, whole or not at all?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from evenkeel_runtime.config import Fetch
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import folder
from evenkeel_runtime.fetch.address import read
from evenkeel_runtime.fetch.source import Entry, Folder, Source
from evenkeel_runtime.fetch.transfer import Arrived, File, transfer


def fetch(config: Fetch) -> Path:
    """Write the model to `MODEL_DIR` under its base name, a file or a folder, and return the path.

    An init container may be restarted at any moment: the model appears by a rename, after its hash was compared.
    """
    config.places.model_dir.mkdir(parents=True, exist_ok=True)
    return read(
        config.uri,
        config.places.claim_dir,
        lambda place: _file(config, place),
        lambda place, entries: _folder(config, place, entries),
        pinned=config.model.sha256,
    )


def _file(config: Fetch, place: Source) -> Path:
    target, partial = _targets(config, place)
    try:
        arrived = transfer(place, File(partial))
        require_pinned(place, arrived, config.model.sha256)
        os.replace(partial, target)
    finally:
        _remove(partial)
    return target


def _folder(config: Fetch, place: Folder, entries: list[Entry]) -> Path:
    target, partial = _targets(config, place)

    def sink(entry: Entry) -> File:
        path = partial / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        return File(path)

    try:
        found = folder.manifest_of(folder.transfer_all(place, entries, sink))
        folder.require_pinned(place.uri, found, config.model.sha256, config.model.marks)
        _remove(target)
        os.replace(partial, target)
    finally:
        _remove(partial)
    return target


def _targets(config: Fetch, place: Source | Folder) -> tuple[Path, Path]:
    """Return where the model goes, and where it is written first, which is empty."""
    partial = config.places.model_dir / f".{place.file}.partial"
    _remove(partial)
    return config.places.model_dir / place.file, partial


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_pinned(place: Source, arrived: Arrived, sha256: str) -> None:
    """Raise where the bytes are not those that this revision was made for."""
    if sha256 and arrived.sha256 != sha256:
        raise ModelError(
            Reason.MODEL_CHANGED,
            f"{place.uri} is not the file this revision was made for: its sha256 is {arrived.sha256}, "
            f"pinned is {sha256}; "
            "write new versions to a new name, or change spec.model to start a new revision",
        )
