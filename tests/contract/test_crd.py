"""Is the CRD in the repository the one that the models describe, and one that an API server takes?"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
import yaml
from pydantic import Field

from evenkeel_operator.api import crd, rules
from evenkeel_operator.api.core import Model
from evenkeel_operator.api.modeldeployment import ModelSource, Object, Rollout, Spec
from evenkeel_runtime.models.formats import FORMATS
from evenkeel_runtime.models.recognised import BUNDLED
from tests.contract.bad_specs import BAD
from tests.contract.specs import GOOD, GoodSpec, merged, minimal

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / crd.PLACES[0]
NOT_STRUCTURAL = {
    *("$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "not", "const", "title", "examples"),
    *(
        "patternProperties",
        "prefixItems",
        "uniqueItems",
        "readOnly",
        "writeOnly",
        "discriminator",
        "dependencies",
    ),
}


def schema() -> Object:
    return crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]  # type: ignore[no-any-return]


def nodes(node: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Yield every schema node with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def fields(node: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Yield what has a name: the nodes that `kubectl explain` shows."""
    return ((p, n) for p, n in nodes(node, path) if p and not p.endswith(("[]", "{}")))


@pytest.mark.parametrize("place", crd.PLACES)
def test_committed_crd_is_what_the_models_say(place: str) -> None:
    want = crd.text()
    got = (ROOT / place).read_text()
    assert got == want, "run `make crd`"


def test_crd_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crd.main([])
    assert capsys.readouterr().out == crd.text()
    monkeypatch.setattr(crd, "CHECKOUT", tmp_path)
    for place in crd.PLACES:
        (tmp_path / place).parent.mkdir(parents=True)
    crd.main(["--write"])
    assert [(tmp_path / place).read_text() for place in crd.PLACES] == [crd.text()] * 2


def test_crd_is_small_enough_for_a_client_side_apply() -> None:
    assert len(crd.text()) < 100_000


@pytest.mark.parametrize(("path", "node"), [pytest.param(p, n, id=p or "root") for p, n in nodes(schema())])
def test_node_is_structural(path: str, node: Object) -> None:
    assert not NOT_STRUCTURAL & node.keys()
    assert "type" in node or node.get("x-kubernetes-int-or-string")
    assert not ("properties" in node and "additionalProperties" in node)
    if node.get("type") == "array":
        assert "items" in node
        assert "x-kubernetes-list-type" in node
    if node.get("x-kubernetes-list-type") == "map":
        items = node["items"]
        defaulted = {name for name, part in items["properties"].items() if "default" in part}
        assert set(node["x-kubernetes-list-map-keys"]) <= set(items["required"]) | defaulted
    if node.get("type") == "object" and path not in ("", ".metadata"):
        holds = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
        assert holds & node.keys()


@pytest.mark.parametrize(("path", "node"), [pytest.param(p, n, id=p) for p, n in fields(schema())])
def test_field_is_described(path: str, node: Object) -> None:
    if path != ".metadata":  # described by Kubernetes itself
        assert node.get("description", "").endswith(".")


SPEC_NODES = [pytest.param(n, id=p) for p, n in nodes(schema()["properties"]["spec"], "spec")]


@pytest.mark.parametrize("node", SPEC_NODES)
def test_spec_is_bounded(node: Object) -> None:
    """Rules are costed by bounds, and an object in etcd is one request."""
    match node:
        case {"type": "string"}:
            assert "enum" in node or node["maxLength"] <= 32768
        case {"type": "array"}:
            assert node["maxItems"] <= 128
        case {"additionalProperties": _}:
            assert node["maxProperties"] <= 32
        case {"type": "integer"}:
            assert "maximum" in node or "format" in node


@pytest.mark.parametrize("node", [n for _, n in nodes(schema()) if "x-kubernetes-validations" in n])
def test_rule_says_what_to_do(node: Object) -> None:
    for rule in node["x-kubernetes-validations"]:
        assert 20 < len(rule["message"]) < 200
        assert "\n" not in rule["rule"]
        if path := rule.get("fieldPath"):
            at = node
            for part in path.removeprefix(".").split("."):
                at = at["properties"][part]


def test_names() -> None:
    got = crd.crd()["spec"]["names"]
    want = {
        "kind": "ModelDeployment",
        "plural": "modeldeployments",
        "shortNames": ["mdep"],
        "categories": ["evenkeel"],
    }
    assert got | want == got


def test_scale_subresource_reads_and_writes_fields_that_exist() -> None:
    version = crd.crd()["spec"]["versions"][0]
    for path in version["subresources"]["scale"].values():
        at = schema()
        for part in path.removeprefix(".").split("."):
            at = at["properties"][part]


def test_columns() -> None:
    columns = crd.crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    got = {wide: [c["name"].upper() for c in columns if c.get("priority", 0) == wide] for wide in (0, 1)}
    want = {
        0: ["READY", "REASON", "REPLICAS", "P95", "TARGET", "ACCURACY", "FLOOR", "CANARY", "AGE"],
        1: ["URL", "MODEL", "GPU", "REVISION"],
    }
    assert got == want


def test_native_formats_are_formats() -> None:
    formats = schema()["properties"]["spec"]["properties"]["model"]["properties"]["format"]["enum"]
    assert set(formats) > rules.NATIVE_FORMATS


@pytest.mark.parametrize("precision", rules.COMPUTED_IN)
def test_precisions_of_formats_are_those_of_the_runtime(precision: str) -> None:
    want = {format_.name for format_ in FORMATS.values() if precision in format_.precisions}
    want |= {format_.name for format_ in BUNDLED if precision in format_.precisions}
    assert set(rules.COMPUTED_IN[precision]) == want


@pytest.mark.parametrize("good", [pytest.param(g, id=g.says) for g in GOOD])
def test_good_spec_is_read_by_the_operator(good: GoodSpec) -> None:
    document = merged(minimal(), {"spec": good.spec})
    jsonschema.validate(document, schema())
    Spec.model_validate(document["spec"])


def test_defaults_of_the_server_are_those_of_the_operator() -> None:
    """Else a revision would get another name when its spec comes back from the API server."""
    want = Spec.model_validate(minimal()["spec"])
    got = Spec.model_validate(merged(minimal()["spec"], GOOD[0].stored))
    assert got == want


def test_unknown_fields_of_a_newer_server_are_passed_over() -> None:
    spec = merged(minimal()["spec"], {"objectives": {"latency": []}, "gpu": {"deviceClassName": "x"}})
    got = Spec.model_validate(spec)
    assert got.gpu is not None
    assert got.gpu.count == 1


def test_bad_specs_have_different_sentences_and_differ_from_the_minimal_one() -> None:
    assert len({bad.says for bad in BAD}) == len(BAD) >= 30
    for bad in BAD:
        assert bad.document() != minimal(), bad.says


ALL_RULES = [
    pytest.param(path.replace("{}", ""), rule, id=f"{path}: {rule['message']}")
    for path, node in nodes(schema())
    for rule in node.get("x-kubernetes-validations", ())
]


@pytest.mark.parametrize(("path", "rule"), ALL_RULES)
def test_every_rule_has_a_bad_spec_that_shows_it(path: str, rule: Object) -> None:
    at = (path + rule.get("fieldPath", "")).removeprefix(".")
    shown = [bad for bad in BAD if bad.word in rule["message"]]
    assert any(re.sub(r"\[\w+\]", "", bad.field).startswith(at.replace("[]", "")) for bad in shown)


class Union(Model):
    either: str | int
    """Either."""


class Anything(Model):
    parts: dict[str, Any]
    """Parts."""


class OtherDefault(Model):
    rollout: Rollout = Rollout(paused=True)
    """Rollout."""


class Between(Model):
    share: Annotated[float, Field(gt=0)] = 0.5
    """Share."""


@pytest.mark.parametrize(
    ("model", "word"),
    [
        pytest.param(Union, "anyOf", id="a choice of types"),
        pytest.param(Anything, "additionalProperties", id="a map of anything"),
        pytest.param(OtherDefault, "differs", id="a default that the parts do not add up to"),
    ],
)
def test_generator_refuses_what_has_no_structural_form(model: type[Model], word: str) -> None:
    with pytest.raises(crd.SchemaError, match=word):
        crd.structural(model)


def test_generator_writes_an_open_bound_as_the_api_server_reads_it() -> None:
    got = crd.structural(Between)["properties"]["share"]
    want = {"type": "number", "default": 0.5, "minimum": 0, "exclusiveMinimum": True, "description": "Share."}
    assert got == want


def test_generator_keeps_no_hand_on_what_it_returned() -> None:
    first = crd.structural(ModelSource)
    want = copy.deepcopy(first)
    first["properties"].clear()
    assert crd.structural(ModelSource) == want


def test_committed_crd_is_plain_yaml() -> None:
    text = COMMITTED.read_text()
    assert "&id" not in text
    assert yaml.safe_load(text) == crd.crd()
