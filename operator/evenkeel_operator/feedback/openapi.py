"""How is the service described to machines? OpenAPI 3.1, served at /openapi.json."""

from __future__ import annotations

from typing import Any

from evenkeel_operator.decide.quality.deviations import ZERO
from evenkeel_operator.feedback.judge import MOST_ITEMS, NDJSON
from evenkeel_operator.feedback.records import Outcome
from evenkeel_runtime.receipts import MAX_ID, Assignment

_ITEM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["label"],
    "oneOf": [{"required": ["receipt"]}, {"required": ["id"]}],
    "properties": {
        "receipt": {"type": "string", "description": "The header evenkeel-receipt of the prediction's answer."},
        "id": {
            "type": "string",
            "pattern": f"^[ -~]{{1,{MAX_ID}}}$",
            "description": "Instead of the receipt: what the request's header evenkeel-id has called the prediction. "
            "Known until the prediction is too old to be labelled. Where a replica takes the post, only a first label.",
        },
        "model": {
            "type": "string",
            "description": "With id: NAMESPACE/NAME of the ModelDeployment. Not needed where a replica takes the post.",
        },
        "label": {
            "type": ["string", "number"],
            "description": "The truth: the name of the class, its index where the classes have no names, or a number.",
        },
        "row": {"type": "integer", "minimum": 0, "default": 0, "description": "Which row of the request."},
        "corrects": {
            "type": "boolean",
            "default": False,
            "description": "Replace the label that is stored. With id, not where a replica takes the post.",
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["outcome"],
    "properties": {
        "outcome": {"enum": [outcome.value for outcome in Outcome]},
        "reason": {"type": "string"},
        "message": {"type": "string"},
    },
}
_REF_ITEM = {"$ref": "#/components/schemas/Item"}
_REF_ANSWER = {"$ref": "#/components/schemas/Answer"}
_OF_ONE = [
    {"name": "namespace", "in": "path", "required": True, "schema": {"type": "string"}},
    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
    {
        "name": "since",
        "in": "query",
        "description": "Unix seconds: predictions from then on.",
        "schema": {"type": "integer"},
    },
]

_COUNTS = {
    "predictions": "[class, count] of what was predicted.",
    "confusion": "[predicted class, actual class, count] of what has a label.",
    "errors": "Of numbers: count, and the sums of the absolute and of the squared errors of what has a label.",
    "deviations": "[exponent, count, absolute, squared]: the errors from 2^(exponent-1) to below 2^exponent, those of "
    f"0 with the exponent {ZERO}.",
    "pairs": "[canary revision, class by stable, class by canary, actual class, count] of mirrored rows with a label.",
    "unlabelledPairs": "[canary revision, class by stable, class by canary, count] of those whose label is not known.",
}
_COHORT = {
    "type": "object",
    "required": ["start"],
    "description": "Predictions of cohortSeconds; what has no counts is left out. Classes are indices.",
    "properties": {
        "start": {"type": "integer", "description": "Unix seconds."},
        **{
            name: {"type": "object" if name == "errors" else "array", "description": description}
            for name, description in _COUNTS.items()
        },
    },
}
_QUALITY = {
    "type": "object",
    "properties": {
        "cohortSeconds": {"type": "integer"},
        "revisions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "revision": {"type": "string"},
                    "assignment": {
                        "enum": [assignment.name.capitalize() for assignment in Assignment],
                        "description": "What the requests have drawn while a canary was given its share by lot. Each "
                        "revision is told once for every assignment that there is: its counts are the sum of these.",
                    },
                    "cohorts": {"type": "array", "items": {"$ref": "#/components/schemas/Cohort"}},
                },
            },
        },
    },
}


def _said(description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description} | ({} if content is None else {"content": content})


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_DENIED = {
    "401": _said("No token, or one that the cluster does not know."),
    "403": _said("The token's user has not the right."),
}

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Evenkeel feedback",
        "version": "1",
        "description": "Truths about predictions, each counted once, and how good each revision of a model is.",
    },
    "paths": {
        "/v1/feedback": {
            "post": {
                "summary": "Tell the truth about predictions. Answered when what counts is on the disk.",
                "security": [{"token": []}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "oneOf": [_REF_ITEM, {"type": "array", "items": _REF_ITEM, "maxItems": MOST_ITEMS}]
                            }
                        },
                        NDJSON: {"schema": _REF_ITEM},
                    },
                },
                "responses": {
                    "200": _said(
                        "What became of each item, in the order of the post.",
                        {
                            "application/json": {
                                "schema": {
                                    "oneOf": [
                                        _REF_ANSWER,
                                        {
                                            "type": "object",
                                            "properties": {"results": {"type": "array", "items": _REF_ANSWER}},
                                        },
                                    ]
                                }
                            },
                            NDJSON: {"schema": _REF_ANSWER},
                        },
                    ),
                    "400": _said("The body is not JSON."),
                    "413": _said(f"More than {MOST_ITEMS} items, or too many bytes; nothing was stored."),
                    "429": _said("Too much waits to be written; nothing was stored. Retry-After says when."),
                    "503": _said("The database does not answer. Send the same post again: nothing counts twice."),
                    "401": _DENIED["401"],
                },
            }
        },
        "/v1/quality/{namespace}/{name}": {
            "get": {
                "summary": "The counts of predictions and labels per revision and cohort of 15 minutes.",
                "security": [{"token": []}],
                "parameters": _OF_ONE,
                "responses": {"200": _said("The counts.", _json(_QUALITY)), **_DENIED},
            }
        },
        "/v1/labels/{namespace}/{name}": {
            "get": {
                "summary": "Every labelled prediction, one per line.",
                "security": [{"token": []}],
                "parameters": _OF_ONE,
                "responses": {"200": _said("The lines.", {NDJSON: {"schema": {"type": "object"}}}), **_DENIED},
            }
        },
    },
    "components": {
        "schemas": {"Item": _ITEM, "Answer": _ANSWER, "Cohort": _COHORT},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
