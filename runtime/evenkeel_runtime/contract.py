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
GRPC_PORT = 8081
"""Where gRPC listens, where it was asked for."""
ADMIN_PORT = 8082
"""Where the operator asks a replica for its signals and tells it directives. No Service leads here."""
SIGNALS_PATH = "/v2/signals"
DIRECTIVES_PATH = "/v2/directives"

MOST_ENGINES = 64
"""Processes of one replica that run its model: as many as spec.gpu.count at most."""

SPLIT, MIRROR = "Split", "Mirror"
"""What becomes of a canary's share of the requests: the canary answers it, or is sent a copy and answers nobody."""
MOST_CANARY_ADDRESSES = 64
MOST_CANARY_S = 900.0
"""How long a directive may let a replica go on without another one."""

MODEL_DIR = "/model"
"""Where `fetch` writes and the server reads: an emptyDir, read-only for the server."""
CLAIM_DIR = "/mnt/model"
"""Where the PersistentVolumeClaim of a `pvc://` address is mounted, read-only."""
SCRATCH_DIR = "/tmp"
"""An emptyDir of its own: the root file system is read-only."""

RECEIPT_KEY_DIR = "/etc/evenkeel/receipts"
"""Where the Secret with the ModelDeployment's key is mounted, read-only."""
RECEIPT_KEY_FILE = "key"
"""The Secret's only entry: the key in hex, 64 digits."""

PREPARE_COMMAND = "prepare"
FETCH_COMMAND = "fetch"


class Env:
    """Names of the environment variables that the operator sets on runtime containers."""

    MODEL_NAME = "EVENKEEL_MODEL_NAME"  # the ModelDeployment's name; served as /v2/models/<name>
    MODEL_VERSION = "EVENKEEL_MODEL_VERSION"  # the revision's name
    MODEL_URI = "EVENKEEL_MODEL_URI"  # spec.model.uri (prepare, fetch)
    MODEL_PATH = "EVENKEEL_MODEL_PATH"  # the file or folder to load (serve)
    MODEL_FORMAT = "EVENKEEL_MODEL_FORMAT"  # prepare: spec.model.format; fetch, serve: the format found
    MODEL_SHA256 = "EVENKEEL_MODEL_SHA256"  # prepare: spec.model.sha256 or empty; fetch, serve: the pinned digest
    MODEL_MARKS = "EVENKEEL_MODEL_MARKS"  # fetch, serve: Prepared.marks of a folder
    ALLOW_NATIVE_CODE = "EVENKEEL_ALLOW_NATIVE_CODE"  # "true" | "false"
    TRUSTED_TYPES = "EVENKEEL_TRUSTED_TYPES"  # spec.model.trustedTypes, sorted, with commas between them
    PRECISION = "EVENKEEL_PRECISION"  # spec.runtime.precision; absent: Auto
    MAX_BATCH_SIZE = "EVENKEEL_MAX_BATCH_SIZE"  # most rows per call of the model; absent: as measured at load
    GRPC_PORT = "EVENKEEL_GRPC_PORT"  # where gRPC listens; absent: nowhere, and nothing of it is imported
    INSPECT = "EVENKEEL_INSPECT"  # "false" when a foreign image will load the file: pin it, judge nothing
    UID = "EVENKEEL_UID"  # the ModelDeployment's uid; its receipts name it
    RECEIPT_KEY_ID = "EVENKEEL_RECEIPT_KEY_ID"  # which master key the key in RECEIPT_KEY_DIR comes from
    FEEDBACK_URL = "EVENKEEL_FEEDBACK_URL"  # the feedback service; absent: no receipts, no POST /v1/feedback
    GRACE_PERIOD_S = "EVENKEEL_GRACE_PERIOD_S"  # terminationGracePeriodSeconds
    DRAIN_DELAY_S = "EVENKEEL_DRAIN_DELAY_S"  # seconds between SIGTERM and the closed listener


@dataclass(frozen=True, slots=True)
class Canary:
    """What a replica of the stable revision is told of the canary: who it is, and which share of the requests is its.

    `addresses` are `IP:port`, IPv6 in brackets. Requests with the same value in `affinity_header` go the same way, as
    long as `share` (0 to 1) only grows. The replica serves all by itself again `expires_s` after it was told last.
    """

    revision: str
    mode: str
    share: float
    addresses: tuple[str, ...]
    expires_s: float
    affinity_header: str | None = None


def directive(
    generation: int, target_s: float | None = None, process: str | None = None, canary: Canary | None = None
) -> bytes:
    """Return the body of a directive. With `process`, the `bootId` of the replica that it is for, it says that this is
    the canary, or that there is none, and has to be signed (`receipts.DIRECTIVE`)."""
    body: dict[str, object] = {"generation": generation}
    if target_s is not None:
        body["latencyTargetSeconds"] = target_s
    if process is not None:
        body["process"] = process
        body["canary"] = None if canary is None else _canary(canary)
    return _dump(body).encode()


def _canary(canary: Canary) -> dict[str, object]:
    found: dict[str, object] = {
        "revision": canary.revision,
        "mode": canary.mode,
        "share": canary.share,
        "addresses": canary.addresses,
        "expiresSeconds": canary.expires_s,
    }
    return found if canary.affinity_header is None else {**found, "affinityHeader": canary.affinity_header}


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
    DEVICE_LOST = "DeviceLost"
    ENGINE_LOST = "EngineLost"
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

    `digest` is `sha256:<64 hex>` of the file's bytes, `file` its base name, `size_bytes` its length. Of a folder,
    `digest` is that of its manifest (`fetch/manifest.py`), `file` ends with /, `size_bytes` is the sum of its files',
    and `marks` has a few bits of each file, to name the one that changes.
    """

    digest: str
    format: str
    file: str
    size_bytes: int
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    marks: str = ""


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
    body = {name: value for name, value in asdict(report).items() if name != "marks" or value}
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
            marks=str(body.get("marks", "")),
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
