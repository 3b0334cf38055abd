"""Is a compressed body read, and nothing that only looks like one?"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.encoding import _ONE_BY_ONE, decode, decoded, is_compressed

TEXT = b'{"inputs":[]}' * 10
MOST = 1000


@pytest.mark.parametrize(
    ("word", "body"),
    [
        pytest.param(b"gzip", gzip.compress(TEXT), id="gzip"),
        pytest.param(b"GZIP", gzip.compress(TEXT), id="in capitals"),
        pytest.param(b"x-gzip", gzip.compress(TEXT), id="gzip by its older name"),
        pytest.param(b"deflate", zlib.compress(TEXT), id="deflate, which is zlib's form"),
    ],
)
def test_what_clients_send(word: bytes, body: bytes) -> None:
    assert decoded(body, {b"content-encoding": word}, MOST) == TEXT


@pytest.mark.parametrize(
    ("word", "body", "status", "want"),
    [
        pytest.param(b"br", b"x", 415, "'br'; read are gzip and deflate", id="another form"),
        pytest.param(b"gzip, gzip", b"x", 415, "'gzip, gzip'", id="twice"),
        pytest.param(b"gzip", TEXT, 400, "no gzip", id="not compressed at all"),
        pytest.param(b"gzip", gzip.compress(TEXT)[:-9], 400, "cut off", id="cut off"),
        pytest.param(b"gzip", gzip.compress(TEXT) + b"x", 400, "behind its end", id="something behind it"),
        pytest.param(b"gzip", b"", 400, "cut off", id="empty"),
        pytest.param(b"gzip", gzip.compress(b"0" * (MOST + 1)), 413, "more than 1000 bytes", id="one byte too many"),
        pytest.param(b"deflate", zlib.compress(b"0" * (1 << 24)), 413, "more than 1000 bytes", id="a bomb"),
    ],
)
def test_what_is_refused(word: bytes, body: bytes, status: int, want: str) -> None:
    with pytest.raises(BadRequest, match=want) as raised:
        decoded(body, {b"content-encoding": word}, MOST)
    assert raised.value.status == status


class Asking:
    """A client's request, and what it was told."""

    path = b"/v2/models/m/infer"

    def __init__(self, body: bytes) -> None:
        self.body, self.headers = body, {b"content-encoding": b"gzip"}
        self.abandoned: Callable[[], None] | None = None
        self.told: list[object] = []

    def fail(self, status: int, message: str) -> None:
        self.told.append(status)


async def heard(client: Any, then: Callable[[bytes], None]) -> list[object]:
    """Let the client's body be decoded, and return what it was told."""
    decode(client, MOST, then, lambda error: client.told.append(error.status))
    if client.body == LEAVES:
        client.abandoned()
    _ONE_BY_ONE.submit(bytes).result()
    for _ in range(3):
        await asyncio.sleep(0)
    return list(client.told)


LEAVES = gzip.compress(b"leaves")


async def test_whoever_waits_is_told_and_nobody_else() -> None:
    def broken(plain: bytes) -> None:
        raise KeyError("a defect of the reader's")

    good = Asking(gzip.compress(TEXT))
    assert await heard(good, good.told.append) == [TEXT]
    assert good.abandoned is None
    bad, left = Asking(TEXT), Asking(LEAVES)
    assert await heard(bad, bad.told.append) == [400]
    assert await heard(left, left.told.append) == []
    assert await heard(Asking(gzip.compress(TEXT)), broken) == [500]


@pytest.mark.parametrize("headers", [{}, {b"content-encoding": b"identity"}])
def test_a_plain_body_is_left_alone(headers: dict[bytes, bytes]) -> None:
    assert not is_compressed(headers)
