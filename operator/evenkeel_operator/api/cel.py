"""How is a rule of the API server written into a schema?"""

from __future__ import annotations

from typing import Any

Rules = dict[str, Any]
"""Schema extras that hold `x-kubernetes-validations`."""


def rules(*validations: dict[str, str], **extras: Any) -> Rules:
    """Return the schema extras that carry `validations`, and `extras` beside them."""
    return {"x-kubernetes-validations": list(validations), **extras}


def must(rule: str, message: str, field: str = "", reason: str = "FieldValueInvalid") -> dict[str, str]:
    """Return one rule; `field` is a path below the node that carries it, such as `.sha256`."""
    validation = {"rule": rule, "message": message, "reason": reason}
    if field:
        validation["fieldPath"] = field
    return validation
