"""What does a post say, and is each of its items a label of a prediction of ours?

Pure: the keys, the names of classes and the time are arguments. Every item that is not counted is answered with one of
the outcomes, a word for the reason and a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenkeel_operator.feedback.records import COHORT_S, MOST, Answer, Label, Outcome, Pair, Source, Told
from evenkeel_runtime import receipts
from evenkeel_runtime.receipts import MAX_CLASSES, BadReceipt, Origin, Receipt

MOST_ITEMS = 10_000
SKEW_S = 300
"""How far a replica's clock may be off ours, either way."""
NDJSON = "application/x-ndjson"

KeyOf = Callable[[int, bytes], bytes | None]

_OUTCOMES = {
    receipts.Reason.TRUNCATED: Outcome.MALFORMED,
    receipts.Reason.MALFORMED: Outcome.MALFORMED,
    receipts.Reason.UNKNOWN_VERSION: Outcome.MALFORMED,
    receipts.Reason.UNKNOWN_KEY: Outcome.FORGED,
    receipts.Reason.BAD_SIGNATURE: Outcome.FORGED,
}

RECEIPT_NEEDED = Answer(
    Outcome.FORGED,
    "ReceiptNeeded",
    "through a replica an id alone replaces no label, for whoever reaches one may guess it: send the prediction's "
    "receipt, or post to the feedback service with a token that may create modeldeployments/feedback",
)
"""A replica asks nobody for a right. A receipt is proof enough: who has it was given the answer. An id is none."""


class BadPost(Exception):
    """The post as a whole cannot be read; `status` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """One truth as it was sent: about a receipt, or about a user's own `id` of a prediction of `model`."""

    receipt: str
    row: int
    label: str | float
    corrects: bool
    id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """An item whose receipt was verified."""

    item: Item
    receipt: Receipt


def items_of(body: bytes, content_type: str) -> tuple[list[Item | Answer], bool]:
    """Return the items of a post, those that cannot be read as their answers, and whether it is a single one.

    JSON: an item, or a list of items. NDJSON: an item per line. Raises BadPost.
    """
    if content_type == NDJSON:
        lines = [line for line in body.split(b"\n") if line.strip()]
        _require_few(len(lines))
        return [_read_line(line) for line in lines], False
    if content_type not in ("application/json", ""):
        raise BadPost(f"content-type {content_type[:80]!r} is neither application/json nor {NDJSON}", 415)
    document = _loaded(body)
    if isinstance(document, list):
        _require_few(len(document))
        return [_item(entry) for entry in document], False
    return [_item(document)], True


def claimed(item: Item, key_of: KeyOf) -> Claim | Answer:
    """Return the item with its receipt verified, or why it is none."""
    try:
        return Claim(item, receipts.opened(item.receipt, key_of))
    except BadReceipt as e:
        return Answer(_OUTCOMES[e.reason], e.reason, e.message)


def judged(claim: Claim, names: Sequence[str], now_ms: int, horizon_s: int) -> Label | Answer:
    """Return the label to store, or why the item does not count.

    `names` are the names of the revision's classes, empty where it has none; a receipt older than `horizon_s` is too
    old.
    """
    item, receipt = claim.item, claim.receipt
    age_s = (now_ms - receipt.time_ms) / 1000
    if age_s > horizon_s:
        return Answer(
            Outcome.EXPIRED,
            "TooOld",
            f"the prediction is {age_s / 86400:.1f} days old; labels are taken for {horizon_s / 86400:g} days "
            "(feedback.horizonDays of the chart)",
        )
    if age_s < -SKEW_S:
        return Answer(Outcome.MALFORMED, "InFuture", f"the prediction is {-age_s:.0f} s ahead of this service's clock")
    if item.row >= receipt.rows:
        return Answer(Outcome.MALFORMED, "NoSuchRow", f"row is {item.row}, the receipt has {receipt.rows} rows")
    origin = receipt.origin
    source = Source(origin.subject, origin.revision, int(origin.assignment), origin.classes)
    if origin.classes == 0:
        if isinstance(item.label, str):
            return Answer(Outcome.MALFORMED, "NoNumber", "the model predicts numbers: label has to be a number")
        predicted, confidence, actual = receipt.number(item.row), 0, float(item.label)
        if not abs(predicted) < MOST:  # nor is NaN
            return Answer(
                Outcome.MALFORMED,
                "NoNumber",
                f"the model's own prediction is {predicted:g}: errors are counted of numbers between -2^53 and 2^53",
            )
    else:
        found = _class_of(item.label, names, origin.classes)
        if isinstance(found, Answer):
            return found
        class_, share = receipt.predicted(item.row)
        if class_ >= origin.classes:
            return Answer(
                Outcome.MALFORMED, "UnknownClass", f"the receipt predicts class {class_} of {origin.classes}, from 0"
            )
        predicted, confidence, actual = float(class_), round(share * receipts.SCALE), float(found)
    return Label(source, receipt.nonce, item.row, receipt.time_ms, predicted, confidence, actual, item.corrects)


def told_of(body: bytes, subject: bytes, now_ms: int) -> Told:
    """Return what a replica tells of itself. Raises BadPost; who sent it was checked before.

    Runtimes from before there was an assignment say `variant`, of everything at once.
    """
    document = _loaded(body)
    try:
        source = Source(
            subject,
            _text(document["revision"]),
            _assignment(document["assignment"] if "assignment" in document else document["variant"]),
            _within(document["classes"], MAX_CLASSES),
        )
        totals: dict[tuple[int, int, int], int] = {}
        for cohort in document["cohorts"]:
            start = _within(cohort["start"], now_ms // 1000 + SKEW_S)
            if start % COHORT_S:
                raise ValueError(f"cohorts start at multiples of {COHORT_S} s, not at {start}")
            assignment = _assignment(cohort.get("assignment", source.assignment))
            for class_, count in cohort["counts"]:
                place = assignment, start, _within(class_, max(0, source.classes - 1))
                totals[place] = _within(count, 1 << 53)
        ids = tuple((_id(name), _text(receipt, 1 << 20)) for name, receipt in document.get("ids", ()))
        pairs = tuple(_pair(row, source.classes) for row in document.get("pairs", ()))
        names = tuple(_text(name, 1024) for name in document.get("names", ()))
        if names and len(names) != source.classes:
            raise ValueError(f"there are {len(names)} names of {source.classes} classes")
        return Told(source, _bytes(document["process"], receipts.PROCESS_BYTES), names, totals, ids, pairs)
    except (KeyError, TypeError, ValueError) as e:
        raise BadPost(f"this is not what a replica tells: {e!r}") from e


def source_of(origin: Origin) -> tuple[bytes, str]:
    """Return what the names of classes are kept under."""
    return origin.subject, origin.revision


def names_or_none(origin: Origin, names: Mapping[tuple[bytes, str], tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the names of the classes, empty where they have none; None where they have some that are not known."""
    if not origin.is_named:
        return ()
    return names.get(source_of(origin)) or None


def _class_of(label: str | float, names: Sequence[str], classes: int) -> int | Answer:
    """Return the index that a label means: by its name where the classes have names, else as the index itself."""
    word = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
    if names:
        if word in names:
            return names.index(word)
        return Answer(Outcome.MALFORMED, "UnknownClass", f"the model has no class {word[:80]!r}; it has {_some(names)}")
    if word.isascii() and word.isdigit() and len(word) < 6 and int(word) < classes:
        return int(word)
    return Answer(Outcome.MALFORMED, "UnknownClass", f"the model has no class {word[:80]!r}; it has 0 to {classes - 1}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:20])
    return f"{shown}, …" if len(names) > 20 else shown


def _read_line(line: bytes) -> Item | Answer:
    try:
        return _item(_loaded(line))
    except BadPost as e:
        return Answer(Outcome.MALFORMED, "NoItem", e.message)


def _item(entry: Any) -> Item | Answer:
    if not isinstance(entry, dict):
        return Answer(Outcome.MALFORMED, "NoItem", "an item has to be an object with receipt and label")
    unknown = entry.keys() - {"receipt", "label", "row", "corrects", "id", "model"}
    if unknown:
        return _no_item(f"{min(unknown)[:80]} is not known; an item has receipt or id, label, row and corrects")
    receipt, own, model = entry.get("receipt", ""), entry.get("id", ""), entry.get("model", "")
    if not all(isinstance(text, str) for text in (receipt, own, model)) or bool(receipt) == bool(own):
        return _no_item("an item has to have either receipt or id, as text")
    if own and not receipts.is_id(own):
        return _no_item(
            f"id has to be 1 to {receipts.MAX_ID} printable characters of ASCII, as {receipts.ID_HEADER} is"
        )
    label, row = entry.get("label"), entry.get("row", 0)
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        return _no_item("label is missing: the class, or the number, that turned out to be true")
    if not isinstance(label, str) and not abs(label) < MOST:
        return _no_item("label has to be a number between -2^53 and 2^53")
    if type(row) is not int or not 0 <= row <= receipts.MAX_ROWS:
        return _no_item("row has to be the row's number within the request, from 0")
    if not isinstance(corrects := entry.get("corrects", False), bool):
        return _no_item("corrects has to be true or false")
    return Item(receipt, row, label if isinstance(label, str) else float(label), corrects, own, model)


def _no_item(message: str) -> Answer:
    return Answer(Outcome.MALFORMED, "NoItem", message)


def _loaded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as e:
        raise BadPost(f"the body is not JSON: {str(e)[:200]}") from e


def _require_few(count: int) -> None:
    if count > MOST_ITEMS:
        raise BadPost(f"the body has {count} items, more than the {MOST_ITEMS} of one post; send them in parts", 413)


def _pair(row: Any, classes: int) -> Pair:
    nonce, number, start, stable, canary_revision, canary = row
    return Pair(
        _bytes(nonce, receipts.NONCE_BYTES),
        _within(number, receipts.MAX_ROWS),
        _within(start, 1 << 40) // COHORT_S * COHORT_S,
        _within(stable, classes - 1),
        _text(canary_revision),
        _within(canary, classes - 1),
    )


def _assignment(value: Any) -> int:
    return int(receipts.Assignment(_within(value, 255)))


def _within(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{str(value)[:40]} is not a number from 0 to {most}")
    return value


def _text(value: Any, longest: int = 255) -> str:
    """Return a text that every database takes: PostgreSQL has no NUL, and none has half of a surrogate pair."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or "\0" in value:
        raise ValueError(f"{str(value)[:40]!r} is not a text of 1 to {longest} characters")
    value.encode()  # a UnicodeEncodeError is a ValueError
    return value


def _id(value: Any) -> str:
    if not receipts.is_id(name := _text(value)):
        raise ValueError(f"{name[:40]!r} is not an id of 1 to {receipts.MAX_ID} printable characters of ASCII")
    return name


def _bytes(value: Any, length: int) -> bytes:
    if len(found := bytes.fromhex(value)) != length:
        raise ValueError(f"{value[:40]!r} is not {length} bytes in hex")
    return found
