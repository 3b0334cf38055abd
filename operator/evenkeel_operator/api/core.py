"""What is the resource built from: its base, its words, and the structures of core/v1 that it carries?

Small structures are spelled out, so that a misspelt key is refused where it is written. Large ones are opaque:
spelling them out costs hundreds of kilobytes of schema and falls behind Kubernetes.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from evenkeel_operator.api import rules

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""


class Model(BaseModel):
    """Base of every part of the resource: camelCase on the wire, snake_case here."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        frozen=True,
    )


Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

LabelValue = Annotated[str, Field(max_length=63, json_schema_extra=rules.LABEL_VALUE)]

Product = Annotated[str, Field(min_length=1, max_length=63, json_schema_extra=rules.PRODUCT)]
"""What `nvidia.com/gpu.product` may say."""

TypeName = Annotated[str, Field(min_length=3, max_length=256, json_schema_extra=rules.TYPE_NAME)]
"""The full name of a Python type."""

Quantity = Annotated[
    str | int,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
            "maxLength": 32,
            **rules.POSITIVE_QUANTITY,
        }
    ),
]
"""A Kubernetes quantity; always more than zero."""

Duration = Annotated[str, Field(min_length=2, max_length=16, json_schema_extra=rules.DURATION)]
"""One number and its unit: ms, s or m."""

LongDuration = Annotated[str, Field(min_length=2, max_length=16, json_schema_extra=rules.LONG_DURATION)]
"""One number and its unit: s, m or h."""

Horizon = Annotated[str, Field(min_length=2, max_length=16, json_schema_extra=rules.HORIZON)]
"""A LongDuration within which the feedback service takes labels."""

OpaqueObject = Annotated[Object, WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""A core/v1 structure that goes into the pod as it is and is judged by the API server there."""

EnvVar = Annotated[
    Object,
    WithJsonSchema(
        {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {
                    "type": "string",
                    "description": "Name of the variable; EVENKEEL_ is the operator's prefix.",
                    "pattern": "^[-._a-zA-Z][-._a-zA-Z0-9]*$",
                    "maxLength": 253,
                },
                "value": {
                    "type": "string",
                    "description": "Value; $(NAME) stands for an earlier variable. Quote a number.",
                    "maxLength": 32768,
                },
                "valueFrom": {
                    "type": "object",
                    "description": "Where the value comes from, as in core/v1 EnvVarSource.",
                    "x-kubernetes-preserve-unknown-fields": True,
                },
            },
            **rules.ENV,
        }
    ),
]
"""A core/v1 EnvVar."""

Toleration = Annotated[
    Object,
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "key": {
                    "type": "string",
                    "description": "Key of the taint; absent: every key.",
                    "maxLength": 316,
                },
                "operator": {
                    "type": "string",
                    "description": "How value is compared, for example Equal or Exists.",
                    "maxLength": 32,
                },
                "value": {"type": "string", "description": "Value of the taint.", "maxLength": 63},
                "effect": {
                    "type": "string",
                    "description": "Effect of the taint; absent: every effect.",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "description": "How long a NoExecute taint is tolerated; absent: for ever.",
                },
            },
        }
    ),
]
"""A core/v1 Toleration."""

LocalObjectReference = Annotated[
    Object,
    WithJsonSchema(
        {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {
                    "type": "string",
                    "description": "Name of the Secret, in the ModelDeployment's namespace.",
                    "minLength": 1,
                    "maxLength": 253,
                }
            },
        }
    ),
]
"""A core/v1 LocalObjectReference."""


@functools.lru_cache(maxsize=1024)
def seconds(duration: str) -> float:
    """Return a Duration or LongDuration in seconds. Raises ValueError for what is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", duration)
    if found is None:
        raise ValueError(f"{duration!r} is not a duration such as 200ms or 24h")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


def parse_time(text: str) -> datetime:
    """Return the moment that a Kubernetes timestamp names, aware, in UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}


def map_by(key: str) -> dict[str, Any]:
    """Return the schema extras of a list whose entries `key` tells apart, so that appliers can share it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
