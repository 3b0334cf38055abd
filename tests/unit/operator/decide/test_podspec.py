"""What runs in the pods: restricted, with exactly the GPUs asked for, and never with credentials beside the model?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.decide.podspec import Address, pod_template, prepare_pod_spec
from evenkeel_operator.decide.snapshot import Feedback
from tests.builders import DEFAULTS, PREPARED

WITH_FEEDBACK = replace(DEFAULTS, feedback=Feedback("http://feedback", 1, b"m" * 32))


def spec(**changes: Any) -> Spec:
    return Spec.model_validate({"model": {"uri": "pvc://models/a/b.pt2"}, **changes})


def template(given: Spec) -> Object:
    return pod_template("digits", "digits-1", given, PREPARED, DEFAULTS)


def containers(body: Object) -> list[Object]:
    return [*body.get("initContainers", ()), *body["containers"]]


EVERY_POD = [
    pytest.param(template(spec())["spec"], id="a replica over a claim"),
    pytest.param(
        template(spec(model={"uri": "s3://b/k", "secretName": "keys"}, gpu={}))["spec"], id="a replica that fetches"
    ),
    pytest.param(
        pod_template("digits", "digits-1", spec(), PREPARED, WITH_FEEDBACK, "some-uid")["spec"], id="with receipts"
    ),
    pytest.param(prepare_pod_spec("digits", "digits-1", spec(gpu={}), DEFAULTS), id="prepare"),
]


@pytest.mark.parametrize("body", EVERY_POD)
def test_every_pod_is_restricted(body: Object) -> None:
    assert body["automountServiceAccountToken"] is False
    assert body["securityContext"]["runAsNonRoot"] is True
    assert body["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(body):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_only_the_fetch_container_sees_the_credentials() -> None:
    body = template(spec(model={"uri": "s3://b/digits.pt2", "secretName": "keys"}))["spec"]
    fetch, server = body["initContainers"][0], body["containers"][0]
    assert fetch["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert "envFrom" not in server
    assert [m for m in server["volumeMounts"] if m["name"] == "model"] == [
        {"name": "model", "mountPath": "/model", "readOnly": True}
    ]


def test_a_claim_is_mounted_read_only_and_nothing_is_fetched() -> None:
    body = template(spec())["spec"]
    assert "initContainers" not in body
    assert {"name": "EVENKEEL_MODEL_PATH", "value": "/mnt/model/a/b.pt2"} in body["containers"][0]["env"]
    assert body["volumes"][1]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


@pytest.mark.parametrize("uri", ["s3://b/digits", "s3://b/digits/"])
def test_a_folder_is_fetched_and_served_by_its_name_and_its_files_are_known(uri: str) -> None:
    prepared = replace(PREPARED, file="digits/", marks="abcdefgh")
    body = pod_template("digits", "digits-1", spec(model={"uri": uri}), prepared, DEFAULTS)["spec"]
    fetch, server = body["initContainers"][0], body["containers"][0]
    assert {"name": "EVENKEEL_MODEL_PATH", "value": "/model/digits"} in server["env"]
    for container in (fetch, server):
        assert {"name": "EVENKEEL_MODEL_MARKS", "value": "abcdefgh"} in container["env"]


def test_a_folder_on_a_claim_is_served_where_it_lies() -> None:
    prepared = replace(PREPARED, file="b/")
    body = pod_template("digits", "digits-1", spec(model={"uri": "pvc://models/a/b/"}), prepared, DEFAULTS)["spec"]
    (server,) = body["containers"]
    assert {"name": "EVENKEEL_MODEL_PATH", "value": "/mnt/model/a/b"} in server["env"]
    assert "EVENKEEL_MODEL_MARKS" not in {entry["name"] for entry in server["env"]}


@pytest.mark.parametrize(
    ("gpu", "want"),
    [
        ({"count": 2}, {"nvidia.com/gpu": 2}),
        ({"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}, {"nvidia.com/mig-1g.10gb": 1}),
    ],
)
def test_a_replica_asks_for_exactly_its_gpus(gpu: Object, want: Object) -> None:
    server = template(spec(gpu=gpu))["spec"]["containers"][0]
    assert server["resources"]["limits"] == want


def test_a_replica_without_a_gpu_sees_none() -> None:
    server = template(spec())["spec"]["containers"][0]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in server["env"]


def test_what_the_gpu_asks_of_nodes_holds_in_every_alternative_of_the_user() -> None:
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]} for z in "ab"]
    wanted = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zones}}}
    body = template(spec(gpu={"products": ["NVIDIA-L4"], "minMemory": "20Gi"}, pod={"affinity": wanted}))["spec"]
    terms = body["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    for zone, term in zip("ab", terms, strict=True):
        assert term["matchExpressions"] == [
            {"key": "zone", "operator": "In", "values": [zone]},
            {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L4"]},
            {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["20479"]},
        ]


def test_prepare_leaves_gpu_nodes_alone() -> None:
    given = spec(gpu={}, pod={"nodeSelector": {"pool": "gpu"}, "tolerations": [{"operator": "Exists"}]})
    body = prepare_pod_spec("digits", "digits-1", given, DEFAULTS)
    assert "nodeSelector" not in body
    assert body["tolerations"] == [{"operator": "Exists"}]


def test_a_limit_is_not_undercut_by_a_default_request() -> None:
    given = spec(runtime={"resources": {"limits": {"memory": "128Mi"}}})
    assert template(given)["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "100m"},
        "limits": {"memory": "128Mi"},
    }


@pytest.mark.parametrize(
    ("runtime", "want"),
    [
        pytest.param({}, None, id="nothing said: the server measures"),
        pytest.param({"batching": {"maxSize": 8}}, "8", id="a bound is handed on"),
    ],
)
def test_the_largest_batch(runtime: Object, want: str | None) -> None:
    server = template(spec(runtime=runtime))["spec"]["containers"][0]
    got = {variable["name"]: variable["value"] for variable in server["env"]}
    assert got.get("EVENKEEL_MAX_BATCH_SIZE") == want


def test_grpc_is_served_where_it_was_asked_for() -> None:
    for given, want in ((spec(), {"http": 8080}), (spec(runtime={"grpc": True}), {"http": 8080, "grpc": 8081})):
        server = template(given)["spec"]["containers"][0]
        assert {port["name"]: port["containerPort"] for port in server["ports"]} == want
        told = {variable["name"]: variable["value"] for variable in server["env"]}.get("EVENKEEL_GRPC_PORT")
        assert told == ("8081" if "grpc" in want else None)


@pytest.mark.parametrize(
    ("runtime", "want"),
    [
        pytest.param({}, [], id="nothing said: as the file says"),
        pytest.param({"precision": "Auto"}, [], id="the default, written down, is no other revision"),
        pytest.param({"precision": "INT8"}, ["INT8", "INT8"], id="the server computes by it, prepare refuses by it"),
    ],
)
def test_precision(runtime: Object, want: list[str]) -> None:
    given = spec(runtime=runtime)
    bodies = (template(given)["spec"], prepare_pod_spec("digits", "digits-1", given, DEFAULTS))
    told = [row for body in bodies for container in body["containers"] for row in container["env"]]
    assert [row["value"] for row in told if row["name"] == "EVENKEEL_PRECISION"] == want


def test_every_container_that_reads_the_file_knows_the_same_trusted_types_in_whichever_order_they_are_written() -> None:
    model = {"uri": "s3://b/forest.skops", "trustedTypes": ["sklearn.tree._tree.Tree", "a.B"]}
    bodies = (template(spec(model=model))["spec"], prepare_pod_spec("digits", "digits-1", spec(model=model), DEFAULTS))
    told = [row for body in bodies for container in containers(body) for row in container["env"]]
    got = [row["value"] for row in told if row["name"] == "EVENKEEL_TRUSTED_TYPES"]
    assert got == ["a.B,sklearn.tree._tree.Tree"] * 3


def test_no_variable_has_an_empty_value_which_the_api_server_would_drop() -> None:
    given = spec(runtime={"env": [{"name": "EMPTY", "value": ""}]})
    bodies = (template(given)["spec"], prepare_pod_spec("digits", "digits-1", given, DEFAULTS))
    told = [row for body in bodies for container in containers(body) for row in container["env"]]
    assert [row for row in told if row.get("value") == ""] == []
    assert {"name": "EMPTY"} in told


def test_the_users_environment_cannot_replace_ours() -> None:
    given = spec(runtime={"env": [{"name": "LOG", "value": "1"}]})
    names = [row["name"] for row in template(given)["spec"]["containers"][0]["env"]]
    assert names[0] == "LOG"
    assert names.index("EVENKEEL_MODEL_NAME") > 0


@pytest.mark.parametrize(
    ("uri", "want"),
    [
        ("pvc://models/a/b.pt2", Address("a/b.pt2", "models")),
        ("s3://bucket/a/b.pt2", Address("bucket/a/b.pt2", None)),
        ("gs://bucket/a/b.pt2", Address("bucket/a/b.pt2", None)),
        ("hf://ann/digits@v1/b.pt2", Address("ann/digits@v1/b.pt2", None)),
        ("oci://ghcr.io/ann/digits:v1#b.pt2", Address("ghcr.io/ann/digits:v1#b.pt2", None)),
        ("https://example.com/b.pt2", Address("example.com/b.pt2", None)),
    ],
)
def test_addresses(uri: str, want: Address) -> None:
    assert Address.parse(uri) == want


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "models/digits.pt2", "ftp://b/k"])
def test_an_address_that_means_nothing_here_names_those_that_do(uri: str) -> None:
    with pytest.raises(ValueError, match=r"spec\.model\.uri: .* is not pvc://CLAIM/PATH"):
        Address.parse(uri)
