"""Is a compressed body read, and nothing that only looks like one?"""

from __future__ import annotations

import gzip
import zlib

import pytest

from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.encoding import decoded, is_compressed

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


@pytest.mark.parametrize("headers", [{}, {b"content-encoding": b"identity"}])
def test_a_plain_body_is_left_alone(headers: dict[bytes, bytes]) -> None:
    assert not is_compressed(headers)
