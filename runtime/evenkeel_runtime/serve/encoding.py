"""How is a body read that its client has compressed? As Triton's clients do where they are told to.

What it may grow to is what a plain body may have, so that a kilobyte does not become a gigabyte.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.protocol import FAILED

if TYPE_CHECKING:
    from evenkeel_runtime.serve.protocol import Exchange

log = logging.getLogger("evenkeel")

HEADER = b"content-encoding"
_IDENTITY = (None, b"identity", b"")
_WINDOWS: Mapping[bytes, int] = {
    b"gzip": 16 + zlib.MAX_WBITS,
    b"x-gzip": 16 + zlib.MAX_WBITS,
    b"deflate": zlib.MAX_WBITS,
}
"""What zlib is told of a form (RFC 9110, 8.4.1): `deflate` is zlib's own."""
_ONE_BY_ONE = ThreadPoolExecutor(1, "decode")
"""What is decoded counts in no queue's bytes yet, and may be as large as a body can be: one at a time is the bound."""


def is_compressed(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the body has to be decoded."""
    return headers.get(HEADER) not in _IDENTITY


def decode(
    exchange: Exchange, most_bytes: int, then: Callable[[bytes], None], fail: Callable[[BadRequest], None]
) -> None:
    """Decode in a thread, which zlib leaves the GIL to: a body of the largest size takes a tenth of a second. Nothing
    is called for a client that has gone meanwhile."""
    loop = asyncio.get_running_loop()
    decoding = loop.run_in_executor(_ONE_BY_ONE, decoded, exchange.body, exchange.headers, most_bytes)

    def done(found: asyncio.Future[bytes]) -> None:
        if found.cancelled():
            return
        exchange.abandoned = None
        try:
            then(found.result())
        except BadRequest as error:
            fail(error)
        except Exception:
            log.exception("failed path=%s", exchange.path[:200])
            exchange.fail(500, FAILED)

    def abandoned() -> None:
        decoding.cancel()

    exchange.abandoned = abandoned
    decoding.add_done_callback(done)


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
