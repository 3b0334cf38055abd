"""Which objects does a label or field selector select?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Object = dict[str, Any]


def matcher(label_selector: str, field_selector: str) -> Callable[[Object], bool]:
    """Return a function that tells whether an object is selected. Only `=`, `!=` and a bare label are known."""
    labels = [_term(text) for text in label_selector.split(",") if text]
    fields = [_term(text) for text in field_selector.split(",") if text]

    def is_selected(obj: Object) -> bool:
        own = obj["metadata"].get("labels") or {}
        return all(_holds(own.get(key), op, value) for key, op, value in labels) and all(
            _holds(_at(obj, key), op, value) for key, op, value in fields
        )

    return is_selected


def _term(text: str) -> tuple[str, str, str]:
    for op in ("!=", "="):
        key, found, value = text.partition(op)
        if found:
            return key, op, value
    return text, "exists", ""


def _holds(got: Any, op: str, value: str) -> bool:
    if op == "exists":
        return got is not None
    return (str(got or "") == value) == (op == "=")


def _at(obj: Object, path: str) -> Any:
    found: Any = obj
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
