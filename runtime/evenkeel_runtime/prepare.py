"""What is at the address, and can it be served? Everything that is found out about a model before it costs a GPU."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

from evenkeel_runtime import config
from evenkeel_runtime.contract import Prepared, Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.address import read, sound_entries
from evenkeel_runtime.fetch.folder import manifest_of, transfer_all
from evenkeel_runtime.fetch.local import LocalFile, LocalFolder
from evenkeel_runtime.fetch.manifest import FILES
from evenkeel_runtime.fetch.source import Entry, Folder, Source
from evenkeel_runtime.fetch.transfer import FileIfRoom, RemoteFile, Room, transfer
from evenkeel_runtime.models.bundle import Bundle, Held
from evenkeel_runtime.models.loaded import Signature
from evenkeel_runtime.models.recognised import Recognised, recognised, recognised_folder


def prepare(told: config.Prepare) -> Prepared:
    """Fetch, verify and inspect the model, in this order; raises ModelError.

    What is larger than `whole_bytes` is hashed as it streams by and not stored: its directory and headers are then read
    by range, of the same version that was hashed.
    """
    scratch = told.places.scratch_dir / f"prepare-{os.getpid()}"
    try:
        prepared, _ = read(
            told.uri,
            told.places.claim_dir,
            lambda place: _file(told, place, scratch),
            lambda place, entries: _folder(told, place, entries, scratch),
        )
        return prepared
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check(told: config.Prepare, path: Path) -> tuple[Prepared, Signature]:
    """Verify and inspect what lies at a path of this machine, without a copy of it; raises ModelError."""
    within = replace(told, whole_bytes=0, inspect=True)
    if path.is_dir():
        folder = LocalFolder(told.uri, path.parent, path.name, FILES)
        found, signature = _folder(within, folder, sound_entries(folder), path)
    else:
        found, signature = _file(within, LocalFile(told.uri, path.parent, path.name), path)
    assert signature is not None
    return found, signature


def _file(told: config.Prepare, place: Source, scratch: Path) -> tuple[Prepared, Signature | None]:
    sink = FileIfRoom(scratch / "model", Room(told.whole_bytes))
    arrived = transfer(place, sink)
    _require_checksum(place.uri, "file", arrived.sha256, told.model.sha256)
    found = Prepared(f"sha256:{arrived.sha256}", told.model.format, place.file, arrived.size_bytes)
    if not told.inspect:
        return found, None
    remote = cast(IO[bytes], RemoteFile(place, arrived))
    with (scratch / "model").open("rb") if sink.is_stored else remote as stream:
        model = recognised(stream, arrived.size_bytes, told.model)
        return _described(found, model)


def _folder(
    told: config.Prepare, place: Folder, entries: list[Entry], scratch: Path
) -> tuple[Prepared, Signature | None]:
    room = Room(told.whole_bytes)
    sinks = {entry.path: FileIfRoom(scratch / str(number), room) for number, entry in enumerate(entries)}
    arrived = transfer_all(place, entries, lambda entry: transfer(entry.source, sinks[entry.path]))
    manifest = manifest_of(arrived)
    _require_checksum(place.uri, "folder", manifest.sha256, told.model.sha256)
    found = Prepared(
        f"sha256:{manifest.sha256}", told.model.format, f"{place.file}/", manifest.size_bytes, marks=manifest.marks
    )
    if not told.inspect:
        return found, None
    with ExitStack() as streams:
        held: dict[str, Held] = {}
        for number, entry in enumerate(entries):
            remote = cast(IO[bytes], RemoteFile(entry.source, arrived[entry.path]))
            stream = (scratch / str(number)).open("rb") if sinks[entry.path].is_stored else remote
            held[entry.path] = Held(arrived[entry.path].size_bytes, streams.enter_context(stream))
        return _described(found, recognised_folder(Bundle(held), told.model))


def _described(found: Prepared, model: Recognised) -> tuple[Prepared, Signature]:
    signature = model.signature()
    return replace(found, format=model.name, inputs=signature.inputs, outputs=signature.outputs), signature


def _require_checksum(uri: str, what: str, found: str, sha256: str) -> None:
    if sha256 and found != sha256:
        whose = " of its manifest, which evenkeel check prints" if what == "folder" else ""
        raise ModelError(
            Reason.CHECKSUM_MISMATCH,
            f"{uri} has the sha256 {found}{whose}, spec.model.sha256 says {sha256}; "
            f"correct the one that is wrong, or upload the {what} again",
        )
