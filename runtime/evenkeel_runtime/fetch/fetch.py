"""How do the pinned bytes get to `MODEL_DIR`, whole or not at all?"""

from __future__ import annotations

import os
from pathlib import Path

from evenkeel_runtime.config import Fetch
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.address import source
from evenkeel_runtime.fetch.source import Source
from evenkeel_runtime.fetch.transfer import Arrived, File, transfer


def fetch(config: Fetch) -> Path:
    """Write the model to `MODEL_DIR` under its base name and return the path.

    An init container may be restarted at any moment: the file appears by a rename, after its hash was compared.
    """
    place = source(config.uri, config.places.claim_dir, pinned=config.model.sha256)
    config.places.model_dir.mkdir(parents=True, exist_ok=True)
    target = config.places.model_dir / place.file
    partial = config.places.model_dir / f".{place.file}.partial"
    partial.unlink(missing_ok=True)
    try:
        arrived = transfer(place, File(partial))
        require_pinned(place, arrived, config.model.sha256)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def require_pinned(place: Source, arrived: Arrived, sha256: str) -> None:
    """Raise where the bytes are not those that this revision was made for."""
    if sha256 and arrived.sha256 != sha256:
        raise ModelError(
            Reason.MODEL_CHANGED,
            f"{place.uri} is not the file this revision was made for: its sha256 is {arrived.sha256}, "
            f"pinned is {sha256}; "
            "write new versions to a new name, or change spec.model to start a new revision",
        )
