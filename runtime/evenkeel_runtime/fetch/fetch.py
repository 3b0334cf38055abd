"""How do the pinned bytes get to `MODEL_DIR`, whole or not at all?

They are written to a folder beside their place, whose name begins with a dot, and which outlives the process where the
source may come back: the next one goes on from there (`journal.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evenkeel_runtime.config import Fetch
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import folder, parts
from evenkeel_runtime.fetch.address import read
from evenkeel_runtime.fetch.journal import Journals
from evenkeel_runtime.fetch.source import Entry, Folder, Source
from evenkeel_runtime.fetch.transfer import Arrived

_MAY_COME_BACK = frozenset({Reason.SOURCE_UNAVAILABLE, Reason.ACCESS_DENIED})
"""Failures that say nothing against the bytes that arrived before."""
_IN_DOUBT = frozenset({Reason.MODEL_CHANGED, Reason.CHECKSUM_MISMATCH})

log = logging.getLogger("evenkeel")


def fetch(config: Fetch) -> Path:
    """Write the model to `MODEL_DIR` under its base name, a file or a folder, and return the path.

    An init container may be restarted at any moment: the model appears by a rename, after its hash was compared. Where
    it is not the pinned one and parts of it are older than this process, all of it is read once more before that is
    said: a disk may have lost what it had promised to keep.
    """
    with _alone(config.places.model_dir):
        try:
            return _fetched(config)
        except _OlderParts as error:
            log.warning("fetching anew message=%s", error)
            return _fetched(config)


def _fetched(config: Fetch) -> Path:
    return read(
        config.uri,
        config.places.claim_dir,
        lambda place: _file(config, place),
        lambda place, entries: _folder(config, place, entries),
        pinned=config.model.sha256,
    )


def _file(config: Fetch, place: Source) -> Path:
    target = config.places.model_dir / place.file
    began = time.monotonic()
    with _partial(target, "file") as partial, Journals() as journals:
        data = partial / "data"
        arrived = parts.read(place, data, journals)
        require_pinned(place, arrived, config.model.sha256)
        os.replace(data, target)
    _log(target, [arrived], began)
    return target


def _folder(config: Fetch, place: Folder, entries: list[Entry]) -> Path:
    target = config.places.model_dir / place.file
    began = time.monotonic()
    with _partial(target, "folder") as partial, Journals() as journals:
        data = {entry.path: partial / hashlib.sha256(entry.path.encode()).hexdigest() for entry in entries}
        _remove_others(partial, {path.name for path in data.values()})
        slots = threading.Semaphore(parts.CONNECTIONS)
        arrived = folder.transfer_all(
            place, entries, lambda entry: parts.read(entry.source, data[entry.path], journals, slots)
        )
        folder.require_pinned(place.uri, folder.manifest_of(arrived), config.model.sha256, config.model.marks)
        whole = partial / "whole"
        for path, file in data.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, whole / path)
        _remove(target)
        os.replace(whole, target)
    _log(target, list(arrived.values()), began)
    return target


class _OlderParts(Exception):
    """What arrived is not what is pinned, and was not all read by this process."""


@contextmanager
def _alone(model_dir: Path) -> Iterator[None]:
    """Be the only process that writes to `model_dir`: two would go on from the same parts, and mix them up."""
    model_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(model_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE,
                f"another process is fetching into {model_dir}; wait until it has ended, or fetch into another folder",
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _partial(target: Path, kind: str) -> Iterator[Path]:
    """Make the folder that the model is first written to, which stays where another process may go on from it.

    A file and a folder of the same name have two: an address may first be asked for the one, then for the other.
    """
    partial = target.with_name(f".{target.name}.{kind}.partial")
    partial.mkdir(exist_ok=True)
    is_older = any(partial.glob("*.journal"))
    try:
        yield partial
    except ModelError as error:
        if error.reason not in _MAY_COME_BACK or not any(partial.glob("*.journal")):
            _remove(partial)
        if is_older and error.reason in _IN_DOUBT:
            raise _OlderParts(str(error)) from error
        raise
    except Exception:
        _remove(partial)
        raise
    _remove(partial)


def _remove_others(partial: Path, names: set[str]) -> None:
    """Remove what belongs to no file that the folder has by now, and would only take its room."""
    for path in partial.iterdir():
        if path.name.removesuffix(".journal") not in names:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _log(target: Path, arrived: list[Arrived], began: float) -> None:
    log.info(
        "fetched path=%s size_bytes=%d kept_bytes=%d retries=%d seconds=%.1f",
        target,
        sum(one.size_bytes for one in arrived),
        sum(one.kept_bytes for one in arrived),
        sum(one.retries for one in arrived),
        time.monotonic() - began,
    )


def require_pinned(place: Source, arrived: Arrived, sha256: str) -> None:
    """Raise where the bytes are not those that this revision was made for."""
    if sha256 and arrived.sha256 != sha256:
        raise ModelError(
            Reason.MODEL_CHANGED,
            f"{place.uri} is not the file this revision was made for: its sha256 is {arrived.sha256}, "
            f"pinned is {sha256}; "
            "write new versions to a new name, or change spec.model to start a new revision",
        )
