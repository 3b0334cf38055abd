"""Does a receipt say what was predicted, to whoever has the key and to nobody else?"""

from __future__ import annotations

import base64
import hmac
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime import receipts
from evenkeel_runtime.receipts import Assignment, BadReceipt, Issuer, Origin, Reason

MASTER, UID = b"m" * 32, "b3c1f8b2-6a54-4a40-9d0f-0f7c5b1d2e3f"
SUBJECT = receipts.subject_of(UID)
KEY = receipts.derived_key(MASTER, 1, SUBJECT)
LONGEST_NAME = "m" * 40 + "-0123abcd"
TIME_MS = 1_764_100_000_123


def origin(revision: str = "digits-0123abcd", classes: int = 10, **more: object) -> Origin:
    return Origin(1, SUBJECT, revision, classes, **more)  # type: ignore[arg-type]


def key_of(key_id: int, subject: bytes) -> bytes | None:
    return receipts.derived_key(MASTER, key_id, subject) if key_id == 1 else None


def reason(text: str) -> Reason:
    with pytest.raises(BadReceipt) as got:
        receipts.opened(text, key_of)
    return got.value.reason


def test_derived_key_is_that_of_the_rfc() -> None:
    """RFC 5869, by its own words: PRK = HMAC(salt of zeros, IKM); T(1) = HMAC(PRK, info | 0x01)."""
    prk = hmac.new(bytes(32), MASTER, "sha256").digest()
    want = hmac.new(prk, b"evenkeel receipts" + b"\x00\x07" + SUBJECT + b"\x01", "sha256").digest()
    assert receipts.derived_key(MASTER, 7, SUBJECT) == want


@given(
    st.lists(st.tuples(st.integers(0, 65534), st.integers(0, 65535)), min_size=1, max_size=300),
    st.integers(0, 2**48 - 1),
    st.sampled_from(Assignment),
    st.booleans(),
)
def test_classes_come_back(rows: list[tuple[int, int]], time_ms: int, assignment: Assignment, is_named: bool) -> None:
    issuer = Issuer(KEY, origin(classes=65535, assignment=assignment, is_named=is_named))
    text = issuer.many(time_ms, [row[0] for row in rows], [row[1] for row in rows])
    got = receipts.opened(text.decode(), key_of)
    assert (got.origin, got.time_ms, got.rows) == (issuer.origin, time_ms, len(rows))
    assert [got.predicted(row) for row in range(got.rows)] == [(c, s / 65535) for c, s in rows]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_numbers_come_back(numbers: list[float]) -> None:
    got = receipts.opened(Issuer(KEY, origin(classes=0)).numbers(TIME_MS, numbers).decode(), key_of)
    assert got.origin.classes == 0
    assert [got.number(row) for row in range(got.rows)] == numbers


def test_a_single_row_is_written_like_many() -> None:
    one, many = Issuer(KEY, origin()), Issuer(KEY, origin())
    got, want = (receipts.opened(t.decode(), key_of) for t in (one.one(5, 3, 9), many.many(5, [3], [9])))
    assert (got.values, got.time_ms, got.rows) == (want.values, want.time_ms, want.rows)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(Issuer(KEY, origin(LONGEST_NAME)).one(TIME_MS, 9, 65535), id="a class"),
        pytest.param(Issuer(KEY, origin(LONGEST_NAME, 0)).numbers(TIME_MS, [math.pi]), id="a number"),
    ],
)
def test_one_row_takes_at_most_200_bytes(text: bytes) -> None:
    assert len(text) <= 200
    assert not set(text) & set(b"+/= \r\n")


def test_every_receipt_has_a_nonce_of_its_own() -> None:
    issuer = Issuer(KEY, origin())
    issuer._count = 0xFFFFFFFE  # the count's end, which takes days of traffic to reach
    got = [receipts.opened(issuer.one(TIME_MS, 1, 1).decode(), key_of).nonce for _ in range(5)]
    assert len(set(got)) == 5


@given(st.data())
def test_no_changed_bit_is_overlooked(data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(Issuer(KEY, origin()).one(TIME_MS, 3, 40000) + b"=="))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    assert reason(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) in set(Reason)


@given(st.integers(0, 1_000))
def test_no_part_is_a_receipt(length: int) -> None:
    text = Issuer(KEY, origin()).many(TIME_MS, [3, 4], [1, 2]).decode()
    assert reason(text[: length % len(text)]) == Reason.TRUNCATED


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("", Reason.TRUNCATED, id="nothing"),
        pytest.param("not a receipt", Reason.MALFORMED, id="not base64url"),
        pytest.param("é" * 40, Reason.MALFORMED, id="not ASCII"),
        pytest.param("A" * 1_000_000, Reason.MALFORMED, id="longer than any"),
        pytest.param("Ag" * 60, Reason.UNKNOWN_VERSION, id="another format"),
        pytest.param(
            Issuer(receipts.derived_key(b"x" * 32, 1, SUBJECT), origin()).one(TIME_MS, 3, 1).decode(),
            Reason.BAD_SIGNATURE,
            id="another master key",
        ),
        pytest.param(
            Issuer(KEY, Origin(1, bytes(16), "digits-0123abcd", 10)).one(TIME_MS, 3, 1).decode(),
            Reason.BAD_SIGNATURE,
            id="the key of one ModelDeployment, the uid of another",
        ),
        pytest.param(
            Issuer(KEY, Origin(9, SUBJECT, "digits-0123abcd", 10)).one(TIME_MS, 3, 1).decode(),
            Reason.UNKNOWN_KEY,
            id="a key that nobody has",
        ),
    ],
)
def test_what_is_no_receipt_is_told_by_name(text: str, want: Reason) -> None:
    assert reason(text) == want


def test_a_nonce_is_read_from_any_receipt_and_from_nothing_else() -> None:
    texts = [
        Issuer(KEY, origin()).many(TIME_MS, [3, 4], [1, 2]).decode(),
        Issuer(KEY, origin(classes=0)).numbers(TIME_MS, [0.5]).decode(),
    ]
    for text in texts:
        assert receipts.nonce_or_none(text) == receipts.opened(text, key_of).nonce
    assert [receipts.nonce_or_none(text) for text in ("", "not a receipt", texts[0][:60], "Ag" * 60)] == [None] * 4


def test_a_longer_text_is_no_receipt() -> None:
    raw = base64.urlsafe_b64decode(Issuer(KEY, origin()).one(TIME_MS, 3, 1) + b"==")
    assert reason(base64.urlsafe_b64encode(raw + b"\0\0").rstrip(b"=").decode()) == Reason.MALFORMED


def test_a_signature_is_for_one_purpose() -> None:
    assert receipts.signature(KEY, b"counts", b"x") != receipts.signature(KEY, b"passed", b"x")


ASSIGNMENT_AT, CLASSES_AT, REVISION_AT = 2, 21, 32


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({ASSIGNMENT_AT: b"\x03"}, "assignment is 3", id="an assignment that is none"),
        pytest.param({REVISION_AT: b"\xff"}, "not UTF-8", id="a name that is no text"),
        pytest.param({REVISION_AT: b"\0"}, "NUL", id="a name that PostgreSQL does not store"),
        pytest.param({CLASSES_AT: b"\0\0"}, "contradicts", id="no classes, and no number either"),
        pytest.param({1: b"\x01"}, "contradicts", id="a number of some classes"),
    ],
)
def test_what_no_issuer_writes_is_no_receipt(changes: dict[int, bytes], want: str) -> None:
    """A ModelDeployment's key signs whatever who has it wants it to."""
    raw = bytearray(base64.urlsafe_b64decode(Issuer(KEY, origin()).many(TIME_MS, [3, 4], [1, 2]) + b"=="))
    for at, value in changes.items():
        raw[at : at + len(value)] = value
    signed = raw[:-32] if changes.keys() != {1} else raw[:-32] + bytes(8)  # the rows of numbers take twice as much
    text = base64.urlsafe_b64encode(signed + hmac.digest(KEY, signed, "sha256")).rstrip(b"=").decode()
    with pytest.raises(BadReceipt, match=want) as got:
        receipts.opened(text, key_of)
    assert got.value.reason == Reason.MALFORMED


def test_names_of_no_classes_contradict() -> None:
    assert reason(Issuer(KEY, origin(classes=0, is_named=True)).numbers(TIME_MS, [1.0]).decode()) == Reason.MALFORMED
