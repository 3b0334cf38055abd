"""Is the object in the cluster as we asked for? Pure; decides whether a write is needed at all.

The API server fills in defaults, so what is stored is more than what was asked for. As asked for means: everything we
ask for is there, and nothing is there that only we asked for once and do not any more.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from evenkeel_operator.api.modeldeployment import Object

ATOMIC = frozenset({"selector", "matchLabels", "nodeSelector"})
"""Maps that an apply replaces whole (x-kubernetes-map-type: atomic). A label added to a Service's selector by hand
takes its replicas away; it cannot stay because it is not ours."""


def is_subset(desired: Any, observed: Any) -> bool:
    """Return whether `observed` holds all of `desired`: dicts by key, lists element by element, values equal.

    Lists are never defaulted longer in what we apply, so a list of another length has been changed by somebody.
    """
    if isinstance(desired, dict):
        return isinstance(observed, dict) and all(
            key in observed and (observed[key] == value if key in ATOMIC else is_subset(value, observed[key]))
            for key, value in desired.items()
        )
    if isinstance(desired, list):
        return isinstance(observed, list) and len(desired) == len(observed) and all(map(is_subset, desired, observed))
    # 1 == True in Python, not in JSON.
    return bool(desired == observed) and isinstance(desired, bool) == isinstance(observed, bool)


def owns_more(fields: Object, desired: Any) -> bool:
    """Return whether `fields` (managedFields' fieldsV1 of our field manager) names a key that `desired` lacks.

    Counter-example to `is_subset` alone: a Service whose selector we asked for with two labels and now ask for with
    one still holds all we ask for.
    """
    for name, inner in fields.items():
        if name.startswith("f:") and isinstance(desired, dict):
            key = name[2:]
            if key not in desired or owns_more(inner, desired[key]):
                return True
        elif name.startswith("k:") and isinstance(desired, list):
            keys = json.loads(name[2:])
            own = next((d for d in desired if is_subset(keys, d)), None)
            # An entry without a match has one of its keys by default (a port's protocol); lengths are compared anyway.
            if own is not None and owns_more(inner, own):
                return True
    return False


def digest(value: Any) -> bytes:
    """Return a hash under which equal JSON values are equal."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


def content(obj: Object) -> Object:
    """Return what of `obj` a person or controller may have edited: everything but status and bookkeeping."""
    metadata = {
        key: value
        for key, value in obj["metadata"].items()
        if key not in ("resourceVersion", "managedFields", "generation", "creationTimestamp", "uid")
    }
    return {key: value for key, value in obj.items() if key not in ("status", "metadata")} | {"metadata": metadata}
