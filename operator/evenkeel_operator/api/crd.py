"""What does the CustomResourceDefinition say? `python -m evenkeel_operator.api.crd` prints it.

With `--write` it goes where the repository keeps it: into `crds/` and, for Helm, into the chart.

pydantic writes JSON Schema with references, `anyOf` and titles; the API server takes structural schemas only.
The generator below keeps optional fields plain, one recursive pass turns the rest into what the API server
takes, and whatever it does not know how to turn is an error here, not a surprise in a cluster.

An object's default is `{}` where something below it has a default, else there is none: the API server then
fills in the parts, and a stored object holds no empty maps and lists.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from evenkeel_operator.api import rules
from evenkeel_operator.api.core import Model
from evenkeel_operator.api.modeldeployment import GROUP, KIND, PLURAL, VERSION, Object, Spec
from evenkeel_operator.api.status import Status

HEADER = "# Generated: edit operator/evenkeel_operator/api/ and run `make crd`.\n"

CHECKOUT = Path(__file__).resolve().parents[3]
PLACES = (f"crds/{PLURAL}.{GROUP}.yaml", "charts/evenkeel/files/crd.yaml")

_FORBIDDEN = frozenset({"anyOf", "oneOf", "allOf", "not", "$ref", "prefixItems", "patternProperties"})
_DROPPED = frozenset({"title", "$schema", "$defs", "examples", "discriminator"})
_TYPELESS = frozenset({"x-kubernetes-int-or-string"})


class SchemaError(Exception):
    """A model says something that a structural schema cannot."""


class _PlainDumper(yaml.SafeDumper):
    """Writes out what stands twice instead of an anchor and a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Generator(GenerateJsonSchema):
    """Writes an optional field as the field itself: absent and null are the same thing to the API server."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        written = super().default_schema(schema)
        if written.get("default", ...) is None:
            del written["default"]
        return written


def structural(model: type[Model]) -> Object:
    """Return the structural schema of `model`."""
    written = model.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    return _structural(written, written.get("$defs", {}), model.__name__)


def crd() -> Object:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["evenkeel"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def text() -> str:
    """Return the CustomResourceDefinition as YAML."""
    return HEADER + yaml.dump(crd(), Dumper=_PlainDumper, sort_keys=False, width=110, allow_unicode=True)


def _root() -> Object:
    name = {"type": "string", "description": f"Name; at most {rules.MAX_NAME_LENGTH} characters."}
    return {
        "type": "object",
        "description": "A model that is served: kept at its size, replaced revision by revision.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            # Named so that a rule can point at it; the API server allows nothing else about metadata.
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": structural(Spec),
            "status": structural(Status),
        },
        **rules.ROOT,
    }


def _columns() -> list[Object]:
    def column(name: str, path: str, kind: str, description: str, wide: bool = False) -> Object:
        made: Object = {"name": name, "type": kind, "jsonPath": path, "description": description}
        return made | {"priority": 1} if wide else made

    latency = '.{}.latency[?(@.metric=="EndToEnd")]'
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        column("Ready", f"{ready}.status", "string", "Whether it is in full service."),
        column("Reason", f"{ready}.reason", "string", "Why it is, or is not."),
        column("Replicas", ".status.readyReplicas", "integer", "Replicas that answer."),
        column(
            "P95", f"{latency.format('status')}.observed", "string", "Measured latency, of the objective's quantile."
        ),
        column("Target", f"{latency.format('spec.objectives')}.target", "string", "Latency that shall be held."),
        column("Accuracy", ".status.accuracy[0].observed", "number", "Measured quality, of the first objective."),
        column(
            "Floor", ".status.accuracy[0].limit", "string", "What it shall not fall below; of an error, rise above."
        ),
        column("Canary", ".status.canary.summary", "string", "Where the new revision's test stands."),
        column("Age", ".metadata.creationTimestamp", "date", "Time since it was created."),
        column("URL", ".status.url", "string", "Where predictions are served.", wide=True),
        column("Model", ".spec.model.uri", "string", "Address of the model.", wide=True),
        column("GPU", ".spec.gpu.count", "integer", "GPUs per replica.", wide=True),
        column("Revision", ".status.stableRevision", "string", "Revision in full service.", wide=True),
    ]


def _structural(node: Object, definitions: Object, path: str) -> Object:
    """Return `node` with references inlined and everything dropped that a structural schema cannot hold."""
    if "$ref" in node:
        inlined = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _structural({**inlined, **{k: v for k, v in node.items() if k != "$ref"}}, definitions, path)
    found = {key: value for key, value in node.items() if key not in _DROPPED}
    if left := _FORBIDDEN & found.keys():
        raise SchemaError(f"{path}: {', '.join(sorted(left))} has no structural form")
    if "type" not in found and not _TYPELESS & found.keys():
        raise SchemaError(f"{path}: no type")
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "exclusiveMinimum" in found:
        found["minimum"], found["exclusiveMinimum"] = found["exclusiveMinimum"], True
    if "properties" in found:
        found["properties"] = {
            name: _structural(child, definitions, f"{path}.{name}") for name, child in found["properties"].items()
        }
        found.pop("additionalProperties", None)
    elif isinstance(found.get("additionalProperties"), dict):
        found["additionalProperties"] = _structural(
            found["additionalProperties"], definitions, f"{path}.additionalProperties"
        )
    elif found.get("additionalProperties") is True:
        raise SchemaError(f"{path}: additionalProperties without a schema; use a type that says what it holds")
    if "items" in found:
        found["items"] = _structural(found["items"], definitions, f"{path}.items")
    if "default" in found:
        found["default"] = _default(found, path)
        if found["default"] is None:
            del found["default"]
    return found


def _default(node: Object, path: str) -> Any:
    """Return the default that the API server shall write for `node`, or None where it shall write nothing."""
    written = _without_empties(node["default"])
    if written is None or "properties" not in node:
        return written
    if written != (filled := _fill(node)):
        raise SchemaError(f"{path}: the default {written} differs from the defaults of its parts, {filled}")
    return {}


def _without_empties(value: Any) -> Any:
    """Return `value` without nulls, empty lists and empty maps at any depth; None where nothing is left."""
    if isinstance(value, dict):
        kept = {key: inner for key, part in value.items() if (inner := _without_empties(part)) is not None}
        return kept or None
    return None if isinstance(value, list | tuple) and not value else value


def _fill(node: Object) -> Any:
    """Return what the API server makes of an empty `node`: the defaults of its parts."""
    if "properties" not in node:
        return node["default"]
    return {name: _fill(child) for name, child in node["properties"].items() if "default" in child}


def main(arguments: Sequence[str]) -> None:
    """Print the CRD, or write it to its places in the checkout."""
    if "--write" not in arguments:
        print(text(), end="")
        return
    for place in PLACES:
        (CHECKOUT / place).write_text(text())


if __name__ == "__main__":
    main(sys.argv[1:])
