"""Are the predictions of stable and canary paired by row, under the nonce that the user has?"""

from __future__ import annotations

import pytest

from evenkeel_runtime.receipts import Issuer, Origin, opened
from evenkeel_runtime.serve.pairs import KEPT, Pairs

KEY, SUBJECT = b"k" * 32, b"s" * 16
TIME_MS = 1_800_000_123_456
COHORT = 1_800_000_000


def issuer(revision: str, classes: int = 3, key: bytes = KEY) -> Issuer:
    return Issuer(key, Origin(1, SUBJECT, revision, classes))


def head(receipt: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nevenkeel-receipt: %s\r\ncontent-length: 2\r\n" % receipt


STABLE, CANARY = issuer("stable"), issuer("canary")
ONE = head(STABLE.many(TIME_MS, [2], [60000]))


def test_every_row_is_a_pair() -> None:
    receipt = STABLE.many(TIME_MS, [0, 2], [1, 2])
    nonce = opened(receipt.decode(), lambda key_id, subject: KEY).nonce.hex()
    pairs = Pairs(KEY)
    assert pairs.add(head(receipt) + b"\r\n{}", head(CANARY.many(TIME_MS, [1, 2], [3, 4]))) == 2
    assert pairs.first(9) == [(nonce, 0, COHORT, 0, "canary", 1), (nonce, 1, COHORT, 2, "canary", 2)]


@pytest.mark.parametrize(
    ("stable", "canary"),
    [
        pytest.param(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", ONE, id="stable has failed"),
        pytest.param(ONE, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", id="the canary gives no receipt"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n\r\n\r\nevenkeel-receipt: " + ONE, ONE, id="what stands in a body is no receipt"
        ),
        pytest.param(ONE, head(CANARY.many(TIME_MS, [1, 1], [0, 0])), id="another number of rows"),
        pytest.param(ONE, head(issuer("canary", 4).many(TIME_MS, [1], [0])), id="another number of classes"),
        pytest.param(ONE, head(issuer("canary", 0).numbers(TIME_MS, [1.0])), id="a number, not a class"),
        pytest.param(ONE, head(issuer("canary", 3, b"x" * 32).many(TIME_MS, [1], [0])), id="another key"),
        pytest.param(ONE, head(b"!"), id="no receipt at all"),
    ],
)
def test_what_cannot_be_compared_is_no_pair(stable: bytes, canary: bytes) -> None:
    pairs = Pairs(KEY)
    assert pairs.add(stable, canary) == 0
    assert pairs.first(9) == []


def test_what_was_told_is_forgotten_and_nothing_else() -> None:
    pairs = Pairs(KEY)
    for _ in range(3):
        pairs.add(head(STABLE.many(TIME_MS, [0], [0])), head(CANARY.many(TIME_MS, [1], [0])))
    first, last = pairs.first(2), pairs.first(3)[2:]
    pairs.told(first)
    assert pairs.first(9) == last
    pairs.told(first)
    assert pairs.first(9) == last


def test_there_is_room_for_so_many() -> None:
    pairs = Pairs(KEY)
    rows = 1000
    for _ in range(KEPT // rows + 1):
        pairs.add(
            head(STABLE.many(TIME_MS, [0] * rows, [0] * rows)), head(CANARY.many(TIME_MS, [1] * rows, [0] * rows))
        )
    assert (pairs.dropped, len(pairs.first(2 * KEPT))) == (rows, KEPT)
