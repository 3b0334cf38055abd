"""What does a server-side apply make of an object? The part of it that the operator relies on.

Dicts merge by key, lists and atomic maps are replaced whole; what the manager applied before and leaves out now is
removed. Always forced. Lists as maps are not known.
"""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]

_ATOMIC = ("selector", "matchLabels", "nodeSelector")  # x-kubernetes-map-type: atomic
_NOT_OWNED = ("apiVersion", "kind")


def applied(existing: Object, body: Object, manager: str, subresource: str | None) -> Object:
    """Return `existing` after `manager` applied `body`."""
    found: Object = json.loads(json.dumps(existing))
    wanted = _part(body, subresource)
    entries = found["metadata"].pop("managedFields", [])
    for entry in entries:
        if entry["manager"] == manager and entry.get("subresource") == subresource:
            _remove(found, entry["fieldsV1"], wanted)
    _merge(found, wanted)
    others = [e for e in entries if e["manager"] != manager or e.get("subresource") != subresource]
    entry = {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": _fields(wanted)}
    if subresource is not None:
        entry["subresource"] = subresource
    found["metadata"]["managedFields"] = [*others, entry]
    return found


def _part(body: Object, subresource: str | None) -> Object:
    if subresource is not None:
        return {subresource: body.get(subresource) or {}}
    metadata = {k: v for k, v in body["metadata"].items() if k not in ("name", "namespace", "uid", "managedFields")}
    rest = {k: v for k, v in body.items() if k not in ("metadata", "status", *_NOT_OWNED)}
    return {"metadata": metadata, **rest}


def _fields(value: Any) -> Object:
    return {f"f:{key}": _fields(inner) for key, inner in value.items()} if isinstance(value, dict) else {}


def _remove(found: Object, fields: Object, wanted: Object) -> None:
    for name, inner in fields.items():
        key = name[2:]
        if key not in found:
            continue
        if key not in wanted:
            del found[key]
        elif inner and isinstance(found[key], dict) and isinstance(wanted[key], dict):
            _remove(found[key], inner, wanted[key])


def _merge(found: Object, wanted: Object) -> None:
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict) and key not in _ATOMIC:
            _merge(found[key], value)
        else:
            found[key] = json.loads(json.dumps(value))
