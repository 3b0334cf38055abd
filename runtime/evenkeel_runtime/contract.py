"""What have operator and runtime agreed on: commands, paths, environment, ports, the report of a container that ends?

Standard library only: the operator imports this file and nothing else of the runtime that needs a dependency.

The operator starts the runtime's image in three ways. `prepare` (a Job without a GPU) resolves the address to a
digest, fetches, verifies and inspects. `fetch` (an init container with the credentials) writes the pinned bytes to
`MODEL_DIR`. No arguments at all start the server, so that a foreign image given as `spec.runtime.image` starts in its
own way and finds the same environment.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass

HTTP_PORT = 8080

MODEL_DIR = "/model"
"""Where `fetch` writes and the server reads: an emptyDir, read-only for the server."""
CLAIM_DIR = "/mnt/model"
"""Where the PersistentVolumeClaim of a `pvc://` address is mounted, read-only."""
SCRATCH_DIR = "/tmp"
"""An emptyDir of its own: the root file system is read-only."""

PREPARE_COMMAND = "prepare"
FETCH_COMMAND = "fetch"


class Env:
    """Names of the environment variables that the operator sets on runtime containers."""

    MODEL_NAME = "EVENKEEL_MODEL_NAME"  # the ModelDeployment's name; served as /v2/models/<name>
    MODEL_VERSION = "EVENKEEL_MODEL_VERSION"  # the revision's name
    MODEL_URI = "EVENKEEL_MODEL_URI"  # spec.model.uri (prepare, fetch)
    MODEL_PATH = "EVENKEEL_MODEL_PATH"  # the file to load (serve)
    MODEL_FORMAT = "EVENKEEL_MODEL_FORMAT"  # prepare: spec.model.format; fetch, serve: the format found
    MODEL_SHA256 = "EVENKEEL_MODEL_SHA256"  # prepare: spec.model.sha256 or empty; fetch, serve: the pinned digest
    ALLOW_NATIVE_CODE = "EVENKEEL_ALLOW_NATIVE_CODE"  # "true" | "false"
    TRUSTED_TYPES = "EVENKEEL_TRUSTED_TYPES"  # spec.model.trustedTypes, sorted, with commas between them
    PRECISION = "EVENKEEL_PRECISION"  # spec.runtime.precision; absent: Auto
    MAX_BATCH_SIZE = "EVENKEEL_MAX_BATCH_SIZE"  # most rows per call of the model; absent: as measured at load
    INSPECT = "EVENKEEL_INSPECT"  # "false" when a foreign image will load the file: pin it, judge nothing
    GRACE_PERIOD_S = "EVENKEEL_GRACE_PERIOD_S"  # terminationGracePeriodSeconds
    DRAIN_DELAY_S = "EVENKEEL_DRAIN_DELAY_S"  # seconds between SIGTERM and the closed listener


BF16, INT8 = "BF16", "INT8"
"""Words of spec.runtime.precision that change a model's answers; Auto and FP32 do not."""


class Reason(enum.StrEnum):
    """Why a container of the runtime gave up: a word for `kubectl get mdep`, written to the termination message."""

    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_CHANGED = "ModelChanged"
    ACCESS_DENIED = "AccessDenied"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    FORMAT_REFUSED = "FormatRefused"
    LOAD_FAILED = "LoadFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    DISK_FULL = "DiskFull"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model: -1 in `shape` is a free dimension, `datatype` an Open Inference word."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` found out about a model; pinned in the ControllerRevision.

    `digest` is `sha256:<64 hex>` of the file's bytes, `file` its base name, `size_bytes` its length.
    """

    digest: str
    format: str
    file: str
    size_bytes: int
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a container ended: one of `Reason`, and a sentence that says what to do."""

    reason: str
    message: str


TERMINATION_MESSAGE_BYTES = 4096
"""The kubelet cuts a termination message here (kubernetes.io, "Determine the Reason for Pod Failure")."""


def encode(report: Prepared | Failed) -> str:
    """Return the report as one line of JSON of at most `TERMINATION_MESSAGE_BYTES` bytes.

    A long message is cut; tensors that do not fit are left out, last first.
    """
    if isinstance(report, Failed):
        message = report.message
        while len(text := _dump({"reason": report.reason, "message": message})) > TERMINATION_MESSAGE_BYTES:
            message = message[: len(message) * 9 // 10 - 1] + "…"
        return text
    body = asdict(report)
    while len(text := _dump(body)) > TERMINATION_MESSAGE_BYTES:
        longer = "outputs" if len(body["outputs"]) > len(body["inputs"]) else "inputs"
        body[longer] = body[longer][:-1]
    return text


def decode(text: str) -> Prepared | Failed | None:
    """Return the report in a termination message, or None where there is none (an empty or foreign message)."""
    try:
        body = json.loads(text)
        if "reason" in body:
            return Failed(reason=str(body["reason"]), message=str(body["message"]))
        return Prepared(
            digest=str(body["digest"]),
            format=str(body["format"]),
            file=str(body["file"]),
            size_bytes=int(body["size_bytes"]),
            inputs=_tensors(body["inputs"]),
            outputs=_tensors(body["outputs"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _dump(body: dict[str, object]) -> str:
    return json.dumps(body, separators=(",", ":"))  # ASCII: one character is one byte


def _tensors(rows: list[dict[str, object]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name=str(row["name"]), datatype=str(row["datatype"]), shape=tuple(int(n) for n in row["shape"]))  # type: ignore[attr-defined]
        for row in rows
    )
