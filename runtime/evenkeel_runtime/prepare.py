"""What is at the address, and can it be served? Everything that is found out about a model before it costs a GPU."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import IO, cast

from evenkeel_runtime import config
from evenkeel_runtime.contract import Prepared, Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.address import source
from evenkeel_runtime.fetch.source import Source
from evenkeel_runtime.fetch.transfer import Arrived, FileUpTo, RemoteFile, transfer
from evenkeel_runtime.models.inspect import inspect


def prepare(told: config.Prepare) -> Prepared:
    """Fetch, verify and inspect the model, in this order; raises ModelError.

    A model above `whole_bytes` is hashed as it streams by and not stored: its directory and headers are then read by
    range, of the same version that was hashed.
    """
    place = source(told.uri, told.places.claim_dir)
    scratch = told.places.scratch_dir / f"prepare-{os.getpid()}"
    try:
        sink = FileUpTo(scratch, told.whole_bytes)
        arrived = transfer(place, sink)
        _require_checksum(place, arrived, told.model.sha256)
        if not told.inspect:
            return _prepared(place, arrived, told.model.format)
        with scratch.open("rb") if sink.is_stored else cast(IO[bytes], RemoteFile(place, arrived)) as stream:
            found, signature = inspect(stream, arrived.size_bytes, told.model)
    finally:
        scratch.unlink(missing_ok=True)
    return replace(_prepared(place, arrived, found.name), inputs=signature.inputs, outputs=signature.outputs)


def _prepared(place: Source, arrived: Arrived, format_: str) -> Prepared:
    return Prepared(f"sha256:{arrived.sha256}", format_, place.file, arrived.size_bytes)


def _require_checksum(place: Source, arrived: Arrived, sha256: str) -> None:
    if sha256 and arrived.sha256 != sha256:
        raise ModelError(
            Reason.CHECKSUM_MISMATCH,
            f"{place.uri} has the sha256 {arrived.sha256}, spec.model.sha256 says {sha256}; "
            "correct the one that is wrong, or upload the file again",
        )
