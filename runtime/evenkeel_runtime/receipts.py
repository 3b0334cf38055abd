"""What does a prediction's receipt say, and who may have written it?

Standard library only: the runtime writes receipts, the operator's feedback service reads them. A receipt is all that
the service needs to count a label that comes months later: nothing about a prediction is stored before its label is.
The key of a ModelDeployment is derived from the master key and from the object's uid, which the receipt names, so that
the service verifies any receipt without a lookup, and a pod can write only its own.

The text is base64url (RFC 4648, without padding) of, big-endian:

    offset  bytes  what
    0       1      version of the format, 1
    1       1      flags: 1 a number was predicted, not a class; 2 the classes have names
    2       1      assignment (`Assignment`)
    3       2      key id
    5       16     subject: the uid of the ModelDeployment
    21      2      number of classes, 0 where a number was predicted
    23      8      nonce, part 1: one process that serves
    31      1      length of the revision's name, in bytes
    32      n      the revision's name, UTF-8, and zeros until 32+n is a multiple of 3
    32+n    4      nonce, part 2: the process's count of receipts
    36+n    6      time of the answer, Unix milliseconds
    42+n    2      rows
    44+n    4 each class and confidence (1/65535), two bytes each; or 8 each: the number, IEEE 754
    …       32     HMAC-SHA256 (RFC 2104) of everything before it

What never changes within a process stands first, and fills whole characters: it is put together and encoded once.
"""

from __future__ import annotations

import binascii
import enum
import hashlib
import hmac
import os
import string
import struct
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

HEADER = "evenkeel-receipt"
"""The header of an answer that holds the receipt, and its name among the body's parameters."""
ID_HEADER = "evenkeel-id"
"""A request's header with the user's own name for the prediction: 1 to 128 printable characters of ASCII."""
SUBJECT_HEADER, KEY_ID_HEADER = "evenkeel-subject", "evenkeel-key-id"
TIME_HEADER, SIGNATURE_HEADER = "evenkeel-time", "evenkeel-signature"
"""How a replica says who it is: the ModelDeployment's uid, the key, Unix milliseconds, and `signature` over them."""
ONWARD_HEADER = "evenkeel-onward"
"""A request's header that says that a stable replica passes it on to the canary, `split` or `mirror`: a canary answers
it itself, and does not count what it predicts for a copy, whose receipt nobody is given."""
PASSED_ON, COUNTS = b"feedback", b"counts"
"""What a replica's signature is for."""
DIRECTIVE = b"directive"
QUALITY = b"quality"
"""What the operator's signature is for, over the time and the body of what it tells a replica."""
MAX_ROWS = 65535
MAX_CLASSES = 65535
MAX_ID = 128
PROCESS_BYTES, NONCE_BYTES = 8, 12
"""The nonce's first part, which names a process, and all of it."""

SCALE = 65535
"""What a confidence of 1 is in a receipt."""

_VERSION = 1
_NUMERIC, _NAMED = 1, 2
_FIXED = struct.Struct(">BBBH16sH8sB")
_VARYING = struct.Struct(">IQ")  # the time and the rows are one number
_ONE = struct.Struct(">IQHH")
_MAC_BYTES = 32
_sha256, _base64 = hashlib.sha256, binascii.b2a_base64
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_ALPHABET = string.ascii_letters.encode() + string.digits.encode() + b"-_"
_LONGEST = (_FIXED.size + 257 + _VARYING.size + 8 * MAX_ROWS + _MAC_BYTES) * 4 // 3 + 4


class Assignment(enum.IntEnum):
    """What the request has drawn, where a canary's share of the requests is drawn by lot (a split).

    STABLE and CANARY were in one draw and differ by chance alone, so their labels may be compared; UNASSIGNED was in
    none: a request that could not have been the canary's, or at a time without a canary, or with one that is mirrored.
    It is the draw that counts, not who answered: see `serve.canary`.

    Runtimes from before there was an assignment say STABLE of every answer. The image is a part of the revision, so all
    receipts of one revision are of one kind: a canary beside a stable revision of such a runtime is compared with all
    of its traffic, drawn or not, until that revision is replaced. Receipts of a canary of such a runtime say STABLE
    too; whatever its replicas answer in a trial was passed on to them, so that is CANARY (`decide.quality.cohorts`).
    """

    STABLE = 0
    CANARY = 1
    UNASSIGNED = 2


class Reason(enum.StrEnum):
    """Why a text is no receipt that may be counted."""

    TRUNCATED = "Truncated"
    MALFORMED = "Malformed"
    UNKNOWN_VERSION = "UnknownVersion"
    UNKNOWN_KEY = "UnknownKey"
    BAD_SIGNATURE = "BadSignature"


class BadReceipt(Exception):
    """The text is no receipt, or none of ours; `reason` is the word for it, `message` the sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Origin:
    """Who predicts: what all receipts of one process have in common.

    `classes` is the number of classes, 0 where the model predicts a number; `is_named` says that the classes have
    names, which the feedback service is told apart from the receipts.
    """

    key_id: int
    subject: bytes
    revision: str
    classes: int
    is_named: bool = False
    assignment: int = Assignment.UNASSIGNED


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that was verified."""

    origin: Origin
    nonce: bytes
    time_ms: int
    rows: int
    values: bytes

    def predicted(self, row: int) -> tuple[int, float]:
        """Return the class of a row and the confidence in it, between 0 and 1."""
        class_, confidence = struct.unpack_from(">HH", self.values, 4 * row)
        return class_, confidence / SCALE

    def number(self, row: int) -> float:
        """Return the number that was predicted for a row."""
        found: float = struct.unpack_from(">d", self.values, 8 * row)[0]
        return found


def is_id(name: str) -> bool:
    """Return whether a text may be a user's own name for a prediction."""
    return 0 < len(name) <= MAX_ID and name.isascii() and name.isprintable()


def subject_of(uid: str) -> bytes:
    """Return the 16 bytes that stand for an object's uid; raises ValueError where it is no UUID.

    Kubernetes' uids are UUIDs (kubernetes.io, "Object Names and IDs").
    """
    return uuid.UUID(uid).bytes


def uid_of(subject: bytes) -> str:
    """Return the uid as Kubernetes writes it."""
    return str(uuid.UUID(bytes=subject))


@lru_cache(maxsize=4096)
def derived_key(master: bytes, key_id: int, subject: bytes) -> bytes:
    """Return the key of one ModelDeployment: HKDF-SHA256 (RFC 5869), 32 bytes, without a salt."""
    extracted = hmac.digest(bytes(32), master, "sha256")
    return hmac.digest(extracted, b"evenkeel receipts" + key_id.to_bytes(2) + subject + b"\x01", "sha256")


def signature(key: bytes, purpose: bytes, *parts: bytes) -> str:
    """Return the signature of a message that is no receipt, in hex.

    Receipts are signed with the same key; they begin with another byte than `purpose` does, which is a word.
    """
    return hmac.digest(key, b"\0".join((purpose, *parts)), "sha256").hex()


class Issuer:
    """Writes the receipts of one process."""

    def __init__(self, key: bytes, origin: Origin) -> None:
        self._key = key
        padded = key.ljust(64, b"\0")
        self._inner = _sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = _sha256(bytes(byte ^ 0x5C for byte in padded))
        self.origin = origin
        self._count = 0
        self._process = self._text = b""
        self._begun = self._inner
        self._renew()

    def assigned(self, assignment: Assignment) -> Issuer:
        """Return another issuer, for answers to requests of this assignment."""
        return Issuer(self._key, replace(self.origin, assignment=assignment))

    def one(self, time_ms: int, class_: int, confidence: int) -> bytes:
        """Return the receipt of a single row; `confidence` counts 1/65535."""
        count = self._count
        if count > 0xFFFFFFFF:
            self._renew()
            count = 0
        self._count = count + 1
        varying = _ONE.pack(count, time_ms << 16 | 1, class_, confidence)
        mac = self._mac(varying)
        # 48 bytes are 64 characters: there is no padding to cut.
        return self._text + _base64(varying + mac, newline=False).translate(_TO_URL)

    def many(self, time_ms: int, classes: Sequence[int], confidences: Sequence[int]) -> bytes:
        """Return the receipt of some rows."""
        pairs = [value for pair in zip(classes, confidences, strict=True) for value in pair]
        return self._signed(time_ms, len(classes), struct.pack(f">{len(pairs)}H", *pairs))

    def numbers(self, time_ms: int, numbers: Sequence[float]) -> bytes:
        """Return the receipt of some rows, each of which predicts a number."""
        return self._signed(time_ms, len(numbers), struct.pack(f">{len(numbers)}d", *numbers))

    @property
    def process(self) -> str:
        """The part of the nonce that names this process, in hex."""
        return self._process.hex()

    def _signed(self, time_ms: int, rows: int, values: bytes) -> bytes:
        if self._count > 0xFFFFFFFF:
            self._renew()
        varying = _VARYING.pack(self._count, time_ms << 16 | rows) + values
        self._count += 1
        mac = self._mac(varying)
        return self._text + _base64(varying + mac, newline=False).translate(_TO_URL, b"=")

    def _mac(self, varying: bytes) -> bytes:
        """Return the HMAC of a receipt that ends so. hmac.digest computes the same in almost three times as long:
        it looks the algorithm up each time, and hashes again what all receipts of this process begin with."""
        inner, outer = self._begun.copy(), self._outer.copy()
        inner.update(varying)
        outer.update(inner.digest())
        return outer.digest()

    def _renew(self) -> None:
        origin = self.origin
        name = origin.revision.encode()
        flags = (0 if origin.classes else _NUMERIC) | (_NAMED if origin.is_named else 0)
        self._count = 0
        self._process = os.urandom(PROCESS_BYTES)
        fixed = _FIXED.pack(
            _VERSION,
            flags,
            origin.assignment,
            origin.key_id,
            origin.subject,
            origin.classes,
            self._process,
            len(name),
        )
        fixed += name + bytes(_padding(len(name)))
        self._begun = self._inner.copy()
        self._begun.update(fixed)
        self._text = _base64(fixed, newline=False).translate(_TO_URL)


def _padding(length: int) -> int:
    return -(_FIXED.size + length) % 3


def opened(text: str, key_of: Callable[[int, bytes], bytes | None]) -> Receipt:
    """Return what a receipt says; raises BadReceipt. `key_of` finds a key by its id and the subject, or None."""
    raw = _decoded(text)
    start = _varying_at(raw)
    _, flags, assignment, key_id, subject, classes, process, length = _FIXED.unpack_from(raw)
    count, moment = _VARYING.unpack_from(raw, start)
    time_ms, rows = moment >> 16, moment & 0xFFFF
    start += _VARYING.size
    end = start + rows * (8 if flags & _NUMERIC else 4)
    if len(raw) < end + _MAC_BYTES:
        raise _truncated(len(raw), end + _MAC_BYTES)
    if len(raw) > end + _MAC_BYTES:
        raise BadReceipt(Reason.MALFORMED, f"the receipt has {len(raw) - end - _MAC_BYTES} bytes behind its end")
    key = key_of(key_id, subject)
    if key is None:
        raise BadReceipt(Reason.UNKNOWN_KEY, f"the receipt was signed with the key {key_id}, which is not known here")
    if not hmac.compare_digest(hmac.digest(key, raw[:end], "sha256"), raw[end:]):
        raise BadReceipt(Reason.BAD_SIGNATURE, "the receipt's signature is not that of its ModelDeployment")
    origin = Origin(
        key_id,
        subject,
        _revision(raw[_FIXED.size : _FIXED.size + length]),
        classes,
        bool(flags & _NAMED),
        _assignment(assignment),
    )
    # The key is a ModelDeployment's own, so whoever reads its Secret can sign what no Issuer writes.
    if bool(flags & _NUMERIC) == bool(classes) or (flags & _NAMED and not classes):
        raise BadReceipt(Reason.MALFORMED, f"the receipt's flags are {flags}, which contradicts its {classes} classes")
    return Receipt(origin, process + count.to_bytes(4), time_ms, rows, raw[start:end])


def nonce_or_none(text: str) -> bytes | None:
    """Return the nonce that a receipt names, whoever has written it; None where it is no receipt."""
    try:
        raw = _decoded(text)
        start = _varying_at(raw)
    except BadReceipt:
        return None
    process, (count, _) = _FIXED.unpack_from(raw)[6], _VARYING.unpack_from(raw, start)
    return bytes(process + count.to_bytes(4))


def _varying_at(raw: bytes) -> int:
    """Return where the part of a receipt begins that is its own; raises BadReceipt where there is none."""
    if not raw:
        raise BadReceipt(Reason.TRUNCATED, "the receipt is empty")
    if raw[0] != _VERSION:
        raise BadReceipt(Reason.UNKNOWN_VERSION, f"the receipt's format is {raw[0]}, this service reads {_VERSION}")
    if len(raw) < _FIXED.size:
        raise _truncated(len(raw), _FIXED.size)
    length = raw[_FIXED.size - 1]
    start = _FIXED.size + length + _padding(length)
    if len(raw) < start + _VARYING.size:
        raise _truncated(len(raw), start + _VARYING.size)
    return start


def _revision(name: bytes) -> str:
    if b"\0" in name:
        raise BadReceipt(Reason.MALFORMED, "the receipt's revision has a NUL in its name")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadReceipt(Reason.MALFORMED, "the receipt's revision is not UTF-8") from None


def _assignment(number: int) -> Assignment:
    try:
        return Assignment(number)
    except ValueError:
        raise BadReceipt(
            Reason.MALFORMED, f"the receipt's assignment is {number}, which this service does not know"
        ) from None


def _truncated(got: int, want: int) -> BadReceipt:
    return BadReceipt(Reason.TRUNCATED, f"the receipt ends after {got} bytes, before its {want}th; send it whole")


def _decoded(text: str) -> bytes:
    if len(text) > _LONGEST:
        raise BadReceipt(Reason.MALFORMED, f"the receipt has {len(text)} characters, none has more than {_LONGEST}")
    plain = text.encode(errors="replace").rstrip(b"=")
    if plain.translate(None, _ALPHABET):
        raise BadReceipt(Reason.MALFORMED, "the receipt is not base64url")
    if len(plain) % 4 == 1:
        raise BadReceipt(Reason.TRUNCATED, "the receipt ends inside a byte; send it whole")
    return binascii.a2b_base64(plain.translate(_FROM_URL) + b"=" * (-len(plain) % 4))
