"""What was this container told? The environment, parsed once into frozen values."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import Env, Reason
from evenkeel_runtime.failure import ModelError

AUTO = "Auto"
PRECISIONS = (AUTO, "FP32", contract.BF16, contract.INT8)
PORT_ENV = "EVENKEEL_HTTP_PORT"
ADMIN_PORT_ENV = "EVENKEEL_ADMIN_PORT"
HOST_ENV = "EVENKEEL_HTTP_HOST"
MAX_BODY_ENV = "EVENKEEL_MAX_BODY_BYTES"
MODEL_DIR_ENV = "EVENKEEL_MODEL_DIR"
CLAIM_DIR_ENV = "EVENKEEL_CLAIM_DIR"
SCRATCH_DIR_ENV = "EVENKEEL_SCRATCH_DIR"
PROFILE_ENV = "EVENKEEL_PROFILE"
TRITON_METRICS_ENV = "EVENKEEL_TRITON_METRICS"
RECEIPT_KEY_DIR_ENV = "EVENKEEL_RECEIPT_KEY_DIR"
ENGINES_ENV = "EVENKEEL_ENGINES"
WHOLE_BYTES_ENV = "EVENKEEL_PREPARE_WHOLE_BYTES"

_KEY_IDS = 1 << 16
"""Ids of keys are below this: a receipt has two bytes for one."""

log = logging.getLogger("evenkeel")


@dataclass(frozen=True, slots=True)
class Model:
    """Which file or folder, in which format, which bytes it must have (`sha256`: 64 hex digits, or empty when not
    pinned; `marks`: a few bits of each file of a folder), which types it may hold beside those that its format trusts
    by itself, and how exactly it is computed."""

    format: str
    sha256: str
    allow_native_code: bool
    _: KW_ONLY
    trusted_types: frozenset[str] = frozenset()
    marks: str = ""
    precision: str = AUTO


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in this container. The defaults are the contract's; a laptop and the tests have others."""

    model_dir: Path
    claim_dir: Path
    scratch_dir: Path


@dataclass(frozen=True, slots=True)
class Prepare:
    """`inspect` is False when a foreign image will load the file; up to `whole_bytes` a model is fetched whole."""

    uri: str
    model: Model
    places: Places
    inspect: bool
    whole_bytes: int


@dataclass(frozen=True, slots=True)
class Fetch:
    uri: str
    model: Model
    places: Places


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of a replica, and all of them together: `queued_bytes` are the bodies of requests that
    wait for the model, `receiving_bytes` those that are not complete yet. `body_setting` is what a client is told of
    how `body_bytes` is raised."""

    body_bytes: int = 64 << 20
    header_bytes: int = 64 << 10
    connections: int = 4096
    rows: int = 4096
    batch_rows: int = 256
    queued_rows: int = 16384
    queued_bytes: int = 256 << 20
    receiving_bytes: int = 256 << 20
    client_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    body_setting: str = f"{MAX_BODY_ENV} raises it"


@dataclass(frozen=True, slots=True)
class Feedback:
    """The key that receipts are signed with, and the service that takes the labels."""

    key: bytes = field(repr=False)
    key_id: int
    uid: str
    url: str


@dataclass(frozen=True, slots=True)
class Serve:
    """`is_fetched`: the model lies where `fetch` wrote it for this container alone, and nobody writes it any more.
    `engines` is how many processes run the model; None: one for each GPU, and this one alone where there is at most
    one."""

    name: str
    version: str
    path: Path
    model: Model
    host: str
    port: int
    admin_port: int
    drain_delay_s: float
    grace_period_s: float
    limits: Limits
    is_fetched: bool = False
    grpc_port: int | None = None
    takes_profiles: bool = False
    has_triton_metrics: bool = False
    feedback: Feedback | None = None
    engines: int | None = None


def prepare(environ: Mapping[str, str] = os.environ) -> Prepare:
    """Return what `prepare` was told."""
    return Prepare(
        uri=_required(environ, Env.MODEL_URI),
        model=_model(environ),
        places=_places(environ),
        inspect=environ.get(Env.INSPECT, "true") != "false",
        whole_bytes=int(_number(environ, WHOLE_BYTES_ENV, 1 << 30)),
    )


def fetch(environ: Mapping[str, str] = os.environ) -> Fetch:
    """Return what `fetch` was told."""
    return Fetch(uri=_required(environ, Env.MODEL_URI), model=_model(environ), places=_places(environ))


def serve(environ: Mapping[str, str] = os.environ) -> Serve:
    """Return what the server was told."""
    path = Path(_required(environ, Env.MODEL_PATH).removeprefix("file://"))
    port = int(_number(environ, PORT_ENV, contract.HTTP_PORT))
    return Serve(
        name=environ.get(Env.MODEL_NAME) or "model",
        version=environ.get(Env.MODEL_VERSION) or "1",
        path=path,
        is_fetched=path.is_relative_to(_places(environ).model_dir) and ".." not in path.parts,
        model=_model(environ),
        host=environ.get(HOST_ENV, "0.0.0.0"),
        port=port,
        # Beside the other, so that several servers on one machine need one number each; 0: any free one, as there.
        admin_port=int(_number(environ, ADMIN_PORT_ENV, port and port + contract.ADMIN_PORT - contract.HTTP_PORT)),
        drain_delay_s=_number(environ, Env.DRAIN_DELAY_S, 5.0),
        grace_period_s=_number(environ, Env.GRACE_PERIOD_S, 30.0),
        limits=limits(environ),
        grpc_port=int(_number(environ, Env.GRPC_PORT, 0)) if environ.get(Env.GRPC_PORT) else None,
        takes_profiles=takes_profiles(environ),
        has_triton_metrics=environ.get(TRITON_METRICS_ENV, "false") == "true",
        feedback=_feedback(environ),
        engines=engines(environ),
    )


def limits(environ: Mapping[str, str] = os.environ) -> Limits:
    """Return what clients may ask of this replica."""
    usual = Limits()
    return Limits(
        body_bytes=int(_number(environ, MAX_BODY_ENV, usual.body_bytes)),
        connections=int(_number(environ, "EVENKEEL_MAX_CONNECTIONS", usual.connections)),
        rows=int(_number(environ, "EVENKEEL_MAX_ROWS", usual.rows)),
        batch_rows=max(1, int(_number(environ, Env.MAX_BATCH_SIZE, usual.batch_rows))),
        queued_rows=int(_number(environ, "EVENKEEL_MAX_QUEUED_ROWS", usual.queued_rows)),
        queued_bytes=int(_number(environ, "EVENKEEL_MAX_QUEUED_BYTES", usual.queued_bytes)),
        receiving_bytes=int(_number(environ, "EVENKEEL_MAX_RECEIVING_BYTES", usual.receiving_bytes)),
        client_timeout_s=_number(environ, "EVENKEEL_CLIENT_TIMEOUT_S", usual.client_timeout_s),
    )


def engines(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return how many engines there shall be, None where that is not said."""
    if not environ.get(ENGINES_ENV):
        return None
    count = _number(environ, ENGINES_ENV, 1)
    if count not in range(1, contract.MOST_ENGINES + 1):
        message = f"{ENGINES_ENV} is not a whole number from 1 to {contract.MOST_ENGINES}: {count:g}"
        raise ModelError(Reason.INVALID, message)
    return int(count)


def takes_profiles(environ: Mapping[str, str] = os.environ) -> bool:
    return environ.get(PROFILE_ENV, "false") == "true"


def _feedback(environ: Mapping[str, str]) -> Feedback | None:
    """Return what receipts need. A key that is not there, or is none, is no reason not to serve: answers then carry no
    receipts. A key that anybody can guess would let anybody sign directives."""
    if not (url := environ.get(Env.FEEDBACK_URL, "")):
        return None
    path = Path(environ.get(RECEIPT_KEY_DIR_ENV, contract.RECEIPT_KEY_DIR)) / contract.RECEIPT_KEY_FILE
    try:
        key = _key(path.read_text().strip())
        receipts.subject_of(environ.get(Env.UID, ""))
    except (OSError, ValueError) as error:
        log.warning("answers carry no receipts: no key path=%s error=%s", path, error)
        return None
    key_id = _number(environ, Env.RECEIPT_KEY_ID, 1)
    if key_id not in range(_KEY_IDS):
        message = f"{Env.RECEIPT_KEY_ID} is not a whole number from 0 to {_KEY_IDS - 1}: {key_id:g}"
        raise ModelError(Reason.INVALID, message)
    return Feedback(key, int(key_id), environ[Env.UID], url.rstrip("/"))


def _key(text: str) -> bytes:
    """Return the key in hex; raises ValueError where it is none, and does not repeat it."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"a key is 64 hex digits, the file holds {len(text)} characters")
    return bytes.fromhex(text)


def _model(environ: Mapping[str, str]) -> Model:
    sha256 = environ.get(Env.MODEL_SHA256, "").strip().lower().removeprefix("sha256:")
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelError(Reason.INVALID, f"{Env.MODEL_SHA256} is not a sha256 (64 hex digits): {sha256[:80]!r}")
    precision = environ.get(Env.PRECISION) or AUTO
    if precision not in PRECISIONS:
        raise ModelError(Reason.INVALID, f"{Env.PRECISION} is not one of {', '.join(PRECISIONS)}: {precision[:80]!r}")
    return Model(
        format=environ.get(Env.MODEL_FORMAT) or AUTO,
        sha256=sha256,
        allow_native_code=environ.get(Env.ALLOW_NATIVE_CODE, "false") == "true",
        trusted_types=frozenset(name for name in environ.get(Env.TRUSTED_TYPES, "").split(",") if name),
        marks=environ.get(Env.MODEL_MARKS, ""),
        precision=precision,
    )


def _places(environ: Mapping[str, str]) -> Places:
    return Places(
        model_dir=Path(environ.get(MODEL_DIR_ENV, contract.MODEL_DIR)),
        claim_dir=Path(environ.get(CLAIM_DIR_ENV, contract.CLAIM_DIR)),
        scratch_dir=Path(environ.get(SCRATCH_DIR_ENV, contract.SCRATCH_DIR)),
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise ModelError(Reason.INVALID, f"the environment variable {name} is not set")
    return value


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else float(default)
    except ValueError:
        raise ModelError(Reason.INVALID, f"{name} is not a number: {text!r}") from None
    if not 0 <= value < float("inf"):
        raise ModelError(Reason.INVALID, f"{name} is not a number of zero or more: {text!r}")
    return value
