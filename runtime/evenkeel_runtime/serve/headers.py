"""What do an inference request's headers say: can its body be read, and how long will its client wait?"""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.encoding import is_compressed

TAKEN_AS_THEY_ARE = (None, b"application/json", b"application/octet-stream")
TIMEOUT_HEADERS = (b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms")
"""How long the client will wait: work that it has given up on is dropped before it reaches the model."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an inference request's head says. `json_bytes` is how much of the body is JSON, None where all of it is;
    `is_compressed` says that the body has to be decoded first."""

    is_v1: bool
    is_compressed: bool
    json_bytes: int | None
    waits_s: float | None


def told_by(headers: dict[bytes, bytes], is_v1: bool) -> Told:
    """Return what the headers say; raises BadRequest."""
    check_content(headers)
    return Told(is_v1, is_compressed(headers), _json_bytes(headers), waits_s_of(headers))


def check_content(headers: dict[bytes, bytes]) -> None:
    """Raise BadRequest where the body cannot be an inference request. Clients without a type are let through."""
    content_type = headers.get(b"content-type")
    if content_type not in TAKEN_AS_THEY_ARE and _rejects(content_type):
        message = f"content-type {_shown(content_type)} is not application/json or application/octet-stream"
        raise BadRequest(message, 415)


def waits_s_of(headers: dict[bytes, bytes]) -> float | None:
    """Return how long the client will wait, None where it does not say; raises BadRequest."""
    for name in TIMEOUT_HEADERS:
        if (value := headers.get(name)) is not None:
            if not value.isdigit() or len(value) > 12:
                raise BadRequest(f"{name.decode()} has to be a number of milliseconds")
            return int(value) / 1000
    return None


def _json_bytes(headers: dict[bytes, bytes]) -> int | None:
    """Return how many bytes of JSON stand before the tensors, as the protocol's binary extension says it."""
    value = headers.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise BadRequest(f"Inference-Header-Content-Length has to be a number of bytes, it is {_shown(value)[:42]}")
    return int(value)


def _rejects(content_type: bytes) -> bool:
    essence = content_type.partition(b";")[0].strip().lower()
    return essence not in (b"application/json", b"application/octet-stream", b"")


def _shown(value: bytes) -> str:
    return repr(value.decode("latin-1")[:80])
