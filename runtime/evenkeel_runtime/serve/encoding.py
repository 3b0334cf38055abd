"""How is a body read that its client has compressed? As Triton's clients do where they are told to.

What it may grow to is what a plain body may have, so that a kilobyte does not become a gigabyte.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from evenkeel_runtime.serve.body import BadRequest

HEADER = b"content-encoding"
_IDENTITY = (None, b"identity", b"")
_WINDOWS: Mapping[bytes, int] = {
    b"gzip": 16 + zlib.MAX_WBITS,
    b"x-gzip": 16 + zlib.MAX_WBITS,
    b"deflate": zlib.MAX_WBITS,
}
"""What zlib is told of a form (RFC 9110, 8.4.1): `deflate` is zlib's own."""


def is_plain(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the body is as it was sent."""
    return headers.get(HEADER) in _IDENTITY


def decoded(body: bytes, headers: Mapping[bytes, bytes], most_bytes: int) -> bytes:
    """Return the body that was compressed; raises BadRequest where it cannot be read, or is beyond `most_bytes`."""
    word = headers[HEADER].strip().lower()
    window = _WINDOWS.get(word)
    if window is None:
        raise BadRequest(f"content-encoding is {word.decode('latin-1')[:40]!r}; read are gzip and deflate", 415)
    reader = zlib.decompressobj(window)
    try:
        found = reader.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is no {word.decode()}: {error}") from error
    if len(found) > most_bytes:
        raise BadRequest(f"the body has more than {most_bytes} bytes once it is decompressed", 413)
    if not reader.eof or reader.unused_data:
        raise BadRequest(
            f"the body is no {word.decode()}: it {'goes on behind its end' if reader.eof else 'is cut off'}"
        )
    return found
