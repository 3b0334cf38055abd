"""Does a real API server take the CRD, refuse every bad spec where it is bad, and serve what users type?

Specs are created as dry runs: they pass through decoding, defaulting and validation, and nothing is stored
that an operator in the same cluster would act on.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from evenkeel_operator.api.modeldeployment import GROUP, PLURAL, VERSION, Object
from tests.cluster.kubectl import Kubectl, columns, wait_until
from tests.contract.bad_specs import BAD, BadSpec
from tests.contract.specs import GOOD, GoodSpec, merged, minimal

pytestmark = pytest.mark.cluster


class Of(NamedTuple):
    """A CRD of a group of its own, and what the spec of an object of it says."""

    group: str
    crd: str
    spec: Object


CRD = Path(__file__).resolve().parents[2] / "crds" / "modeldeployments.evenkeel.dev.yaml"
NAME = f"{PLURAL}.{GROUP}"


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    return Kubectl.of()


@pytest.fixture(scope="module")
def api(kubectl: Kubectl) -> client.ApiClient:
    made: client.ApiClient = config.new_client_from_config(kubectl.kubeconfig)  # type: ignore[no-untyped-call]
    return made


@pytest.fixture(scope="module")
def custom(api: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api)


@pytest.fixture(scope="module", autouse=True)
def crd(kubectl: Kubectl) -> Iterator[None]:
    """The CRD of this checkout. Where an installation has brought one, only its spec is set and it stays."""
    existed = bool(kubectl.ask("get", "crd", NAME, "--ignore-not-found", "--output=name"))
    kubectl.ask("apply", "--server-side", "--force-conflicts", f"--filename={CRD}")
    kubectl.ask("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=30s")
    yield
    if not existed:
        kubectl.ask("delete", "crd", NAME)


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl, crd: None) -> Iterator[str]:
    name = f"crd-{uuid.uuid4().hex[:8]}"
    kubectl.ask("create", "namespace", name)
    yield name
    kubectl.ask("delete", "namespace", name, "--wait=false")


def create(custom: client.CustomObjectsApi, namespace: str, document: Object, dry_run: bool = True) -> Object:
    made = custom.create_namespaced_custom_object(
        *(GROUP, VERSION, namespace, PLURAL, document),
        field_validation="Strict",
        dry_run="All" if dry_run else None,
    )
    return cast(Object, made)


def refusal(custom: client.CustomObjectsApi, namespace: str, document: Object) -> list[str]:
    """Return what the API server has to say against `document`: a line per cause."""
    with pytest.raises(ApiException) as caught:
        create(custom, namespace, document)
    answer = json.loads(caught.value.body or "{}")
    assert answer["code"] in (400, 422), answer
    causes = answer.get("details", {}).get("causes")
    return [f"{c['field']}: {c['message']}" for c in causes] if causes else [answer["message"]]


def test_the_api_server_has_nothing_against_the_crd(kubectl: Kubectl) -> None:
    """A schema that is not structural, or whose names are taken, is stored all the same; conditions tell."""
    found = json.loads(kubectl.ask("get", "crd", NAME, "--output=json"))
    got = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert got["Established"] == got["NamesAccepted"] == "True"
    assert got.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("bad", [pytest.param(b, id=b.says) for b in BAD])
def test_bad_spec_is_refused_at_its_field(bad: BadSpec, custom: client.CustomObjectsApi, namespace: str) -> None:
    got = refusal(custom, namespace, bad.document())
    assert any(bad.field in line and bad.word in line for line in got), "\n".join(got)


@pytest.mark.parametrize("good", [pytest.param(g, id=g.says) for g in GOOD])
def test_good_spec_is_accepted_with_its_defaults(
    good: GoodSpec, custom: client.CustomObjectsApi, namespace: str
) -> None:
    document = merged(minimal(), {"spec": good.spec})
    got = create(custom, namespace, document)["spec"]
    assert merged(got, good.stored) == got
    assert merged(merged(got, good.spec), good.stored) == got, "a list that was filled in stands in `stored`"


def test_minimal_spec_is_stored_without_noise(custom: client.CustomObjectsApi, namespace: str) -> None:
    got = create(custom, namespace, minimal())["spec"]
    assert got == GOOD[0].stored


def test_name_of_forty_characters_is_accepted(custom: client.CustomObjectsApi, namespace: str) -> None:
    name = "d" * 40
    assert create(custom, namespace, minimal(name))["metadata"]["name"] == name


@pytest.fixture
def of_before(kubectl: Kubectl, namespace: str, custom: client.CustomObjectsApi) -> Iterator[Of]:
    """A CRD of another group, as it was when horizons were up to 2160h; in it an object with one of 1000h."""
    crd = yaml.safe_load(CRD.read_text())
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    crd["metadata"] = {"name": f"{PLURAL}.{group}"}
    crd["spec"]["group"] = group
    del crd["spec"]["names"]["shortNames"], crd["spec"]["names"]["categories"]
    of = Of(group, json.dumps(crd), {"objectives": {"accuracy": [{"metric": "F1", "floor": 0.9, "horizon": "1000h"}]}})
    before = of.crd.replace("duration('720h')", "duration('2160h')")
    assert before != of.crd
    kubectl.apply(before)
    try:
        kubectl.ask("wait", "--for=condition=Established", f"crd/{PLURAL}.{group}", "--timeout=30s")
        document = merged(minimal(), {"apiVersion": f"{group}/{VERSION}", "spec": of.spec})
        wait_until("it is served", lambda: _is_made(custom, (group, VERSION, namespace, PLURAL), document))
        yield of
    finally:
        kubectl.ask("delete", "crd", f"{PLURAL}.{group}")


def _is_made(custom: client.CustomObjectsApi, place: tuple[str, str, str, str], document: Object) -> bool:
    try:
        custom.create_namespaced_custom_object(*place, document)
    except ApiException as e:
        if e.status != 404:
            raise
        return False
    return True


def test_a_horizon_that_is_stored_already_hinders_no_other_change(
    of_before: Of, kubectl: Kubectl, namespace: str, custom: client.CustomObjectsApi
) -> None:
    """The API server judges again only what changes (from Kubernetes 1.30 on), so that the operator writes its status
    and the user whatever else; a horizon that is written has to be one that labels are taken for."""
    place = (of_before.group, VERSION, namespace, PLURAL, "digits")

    def changed(horizon: str) -> None:
        accuracy = [{"metric": "F1", "floor": 0.9, "horizon": horizon}]
        custom.patch_namespaced_custom_object(*place, {"spec": {"objectives": {"accuracy": accuracy}}}, dry_run="All")

    changed("1100h")
    kubectl.apply(of_before.crd)

    def is_judged() -> bool:
        try:
            changed("1100h")
        except ApiException as e:
            told = str(e.body)
            return e.status == 422 and "accuracy[0].horizon" in told and "takes labels for 30 days" in told
        return False

    wait_until("the rule is in force", is_judged)
    custom.patch_namespaced_custom_object_status(*place, {"status": {"replicas": 3}})
    custom.patch_namespaced_custom_object(*place, {"spec": {"replicas": 4}})
    floor = [{"metric": "F1", "floor": 0.8, "horizon": "1000h"}]
    custom.patch_namespaced_custom_object(*place, {"spec": {"objectives": {"accuracy": floor}}})
    got = cast(Object, custom.get_namespaced_custom_object(*place))
    assert (got["spec"]["replicas"], got["status"]["replicas"]) == (4, 3)
    assert got["spec"]["objectives"]["accuracy"][0] == got["spec"]["objectives"]["accuracy"][0] | floor[0]
    changed("720h")


@pytest.fixture
def stored(custom: client.CustomObjectsApi, namespace: str, kubectl: Kubectl) -> Iterator[str]:
    """One ModelDeployment that is really there, asking for two GPUs of a kind that no node has."""
    name = f"digits-{uuid.uuid4().hex[:6]}"
    spec = {
        "gpu": {"count": 2, "resourceName": "example.com/none"},
        "rollout": {"paused": True},
        "objectives": {"latency": [{"target": "200ms"}]},
    }
    create(custom, namespace, merged(minimal(name), {"spec": spec}), dry_run=False)
    yield name
    kubectl.ask("delete", "mdep", name, "--namespace", namespace)


STATUS: Object = {
    "replicas": 3,
    "readyReplicas": 2,
    "selector": "evenkeel.dev/modeldeployment=digits",
    "url": "http://digits.team-a.svc",
    "stableRevision": "digits-6b8f",
    "latency": [
        {
            "metric": "EndToEnd",
            "quantile": 0.95,
            "state": "Fresh",
            "observed": "120ms",
            "target": "200ms",
            "asOf": "2026-01-01T00:00:00Z",
        }
    ],
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "Unschedulable",
            "message": "No node has a free GPU.",
        }
    ],
}


def report(kubectl: Kubectl, namespace: str, name: str, status: Object) -> None:
    patch = json.dumps({"status": status})
    where = ("mdep", name, "--namespace", namespace, "--subresource=status")
    kubectl.ask("patch", *where, "--type=merge", f"--patch={patch}")


@pytest.fixture
def no_operator(kubectl: Kubectl) -> Iterator[None]:
    """Nobody but the test writes a status: an installed operator has an opinion of its own, and is back afterwards."""
    where = ("--namespace=evenkeel-system", "--selector=app.kubernetes.io/name=evenkeel")
    installed = kubectl.get("deployments", *where)["items"]
    sizes = {found["metadata"]["name"]: found["spec"]["replicas"] for found in installed}

    def scale(sizes: dict[str, int]) -> None:
        for name, size in sizes.items():
            kubectl.ask("scale", f"deployment/{name}", where[0], f"--replicas={size}")

    scale(dict.fromkeys(sizes, 0))
    wait_until("no operator runs", lambda: not kubectl.get("pods", *where)["items"], timeout_s=60)
    yield
    scale(sizes)
    for name in sizes:
        kubectl.wait_for_rollout(f"deployment/{name}", "evenkeel-system")


def test_get_tells_how_it_is_and_why(no_operator: None, stored: str, kubectl: Kubectl, namespace: str) -> None:
    want = {
        "NAME": stored,
        "READY": "False",
        "REASON": "Unschedulable",
        "REPLICAS": "2",
        "P95": "120ms",
        "TARGET": "200ms",
    }
    wide = {
        "URL": "http://digits.team-a.svc",
        "MODEL": "pvc://models/digits.pt2",
        "GPU": "2",
        "REVISION": "digits-6b8f",
    }
    report(kubectl, namespace, stored, STATUS)
    narrow_got = columns(kubectl.ask("get", "mdep", stored, "--namespace", namespace))
    wide_got = columns(kubectl.ask("get", "mdep", stored, "--namespace", namespace, "--output=wide"))
    assert list(narrow_got) == [
        "NAME",
        "READY",
        "REASON",
        "REPLICAS",
        "P95",
        "TARGET",
        "ACCURACY",
        "FLOOR",
        "CANARY",
        "AGE",
    ]
    assert narrow_got | want == narrow_got
    assert list(wide_got) == [*narrow_got, *wide]
    assert wide_got | want | wide == wide_got


def test_category_lists_it(stored: str, kubectl: Kubectl, namespace: str) -> None:
    assert f"modeldeployment.evenkeel.dev/{stored}" in kubectl.ask(
        *("get", "evenkeel", "--output=name", "--namespace", namespace)
    )


def test_scale_writes_the_spec_and_reads_the_status(
    stored: str, custom: client.CustomObjectsApi, kubectl: Kubectl, namespace: str
) -> None:
    kubectl.ask("scale", "mdep", stored, "--replicas=4", "--namespace", namespace)
    got = cast(Object, custom.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, stored))
    assert got["spec"]["replicas"] == 4
    report(kubectl, namespace, stored, STATUS)
    scale = cast(Object, custom.get_namespaced_custom_object_scale(GROUP, VERSION, namespace, PLURAL, stored))
    assert scale["spec"]["replicas"] == 4
    assert scale["status"]["selector"]


def test_scale_beyond_the_bounds_is_refused(stored: str, custom: client.CustomObjectsApi, namespace: str) -> None:
    with pytest.raises(ApiException, match="1000"):
        custom.patch_namespaced_custom_object_scale(
            *(GROUP, VERSION, namespace, PLURAL, stored, {"spec": {"replicas": 1001}}), dry_run="All"
        )


def test_status_is_out_of_reach_of_who_writes_the_spec(
    stored: str, custom: client.CustomObjectsApi, namespace: str
) -> None:
    elsewhere = {"status": {"url": "http://elsewhere"}}
    got = custom.patch_namespaced_custom_object(*(GROUP, VERSION, namespace, PLURAL, stored, elsewhere), dry_run="All")
    assert cast(Object, got).get("status", {}).get("url") != "http://elsewhere"


def test_two_conditions_of_one_type_are_refused(stored: str, custom: client.CustomObjectsApi, namespace: str) -> None:
    twice: dict[str, Any] = {"status": {"conditions": STATUS["conditions"] * 2}}
    with pytest.raises(ApiException, match="Duplicate"):
        custom.patch_namespaced_custom_object_status(*(GROUP, VERSION, namespace, PLURAL, stored, twice), dry_run="All")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("mdep.spec.gpu", ("count", "resourceName", "minMemory", "products"), id="a part"),
        pytest.param("mdep.spec.gpu.count", ("GPUs per replica.",), id="a field"),
        pytest.param("mdep.spec.model.format", ("TorchExport", "ENUM"), id="a choice"),
        pytest.param("mdep.status.conditions", ("lastTransitionTime", "What it means"), id="the conditions"),
        pytest.param("mdep", ("GROUP:      evenkeel.dev", "spec", "-required-"), id="the whole"),
    ],
)
def test_explain(path: str, words: tuple[str, ...], kubectl: Kubectl) -> None:
    for _ in range(20):
        got = kubectl.ask("explain", path)
        if all(word in got for word in words):
            return
        time.sleep(0.5)  # a schema is published a moment after the CRD is changed
    for word in words:
        assert word in got


def test_committed_file_is_one_document() -> None:
    assert len(list(yaml.safe_load_all(CRD.read_text()))) == 1
