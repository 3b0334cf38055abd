"""Does the chart render to what Kubernetes knows, refuse other values, and ask for no more than it says?

Whether the permissions are those that are used is not asked here: that needs the audit log of a cluster.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes import client

from evenkeel_operator import settings
from evenkeel_operator.api import crd
from evenkeel_operator.decide import names
from evenkeel_runtime import contract
from tests.contract.conftest import CHART, Helm, Render
from tests.contract.rendered import find, kinds, pod, rules_of, verbs

WATCHED = "watchNamespaces={team-a,team-b}"
EVERYTHING = (
    "replicas=2",
    "image.digest=sha256:" + "a" * 64,
    "runtimeImage.tag=1.2.3",
    "imagePullSecrets={pull}",
    "serviceAccount.annotations.a=b",
    "leaderElection.leaseName=keel",
    "extraArgs={--log-level=DEBUG}",
    "podLabels.team=a",
    "podAnnotations.note=b",
    "nodeSelector.zone=a",
    "tolerations[0].operator=Exists",
    "affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
    "affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=zone",
    "priorityClass.create=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=prometheus",
    "metrics.podMonitor.enabled=true",
    "metrics.podMonitor.labels.release=prometheus",
    "metrics.rules.prometheusRule.enabled=true",
    "metrics.rules.prometheusRule.labels.release=prometheus",
    "metrics.rules.configMap.enabled=true",
    "metrics.rules.configMap.labels.team=a",
    "metrics.dashboard.enabled=true",
    "metrics.dashboard.annotations.grafana_folder=Models",
    "networkPolicy.enabled=true",
    "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
    "networkPolicy.eventsTo[0].ports[0].port=443",
    "retraining.eventHosts={events.example.com,*.svc}",
)
FEEDBACK = ("feedback.enabled=true",)
POSTGRES = (*FEEDBACK, "feedback.postgres.secretName=database", "feedback.replicas=3")
VALUES = [
    pytest.param((), id="the defaults"),
    pytest.param((WATCHED,), id="two namespaces"),
    pytest.param(EVERYTHING, id="everything at once"),
    pytest.param((*EVERYTHING, WATCHED), id="everything at once, in two namespaces"),
    pytest.param(
        ("crds.install=false", "rbac.create=false", "serviceAccount.create=false", "serviceAccount.name=own"),
        id="as little as possible",
    ),
    pytest.param((*FEEDBACK, "networkPolicy.enabled=true"), id="with feedback, in a file"),
    pytest.param((*POSTGRES, *EVERYTHING), id="with feedback, on PostgreSQL, and everything else"),
    pytest.param((*POSTGRES, WATCHED), id="with feedback, in two namespaces"),
    pytest.param(("crds.keep=false", "rbac.aggregate=false", "priorityClassName=high"), id="other choices"),
]


def test_chart_is_clean(helm: Helm) -> None:
    got = helm("lint", "--strict", str(CHART))
    assert got.returncode == 0, got.stdout


@pytest.mark.parametrize("values", VALUES)
def test_objects_are_what_kubernetes_knows(values: tuple[str, ...], render: Render) -> None:
    """The client's models refuse a wrong type and drop an unknown field: what went in must come back."""
    names = set()
    for want in render(*values):
        key = (want["kind"], want["metadata"].get("namespace"), want["metadata"]["name"])
        assert key not in names
        names.add(key)
        if want["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # the Prometheus operator's: see test_chart_monitoring.py
        version = want["apiVersion"].rpartition("/")[2].capitalize()
        model = getattr(client, version + want["kind"])
        got = client.ApiClient().sanitize_for_serialization(model.from_dict(want))  # type: ignore[no-untyped-call]
        assert got == want


@pytest.mark.parametrize("values", VALUES)
def test_names_belong_to_the_release(values: tuple[str, ...], render: Render) -> None:
    for release, want in (("evenkeel", "evenkeel"), ("prod", "prod-evenkeel")):
        for found in render(*values, release=release):
            if found["kind"] != "CustomResourceDefinition":
                assert found["metadata"]["name"].startswith(want)
            assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == release


@pytest.mark.parametrize(
    ("value", "word"),
    [
        pytest.param("replica=2", "replica", id="a misspelt value"),
        pytest.param("image.repo=x", "repo", id="a misspelt part of a value"),
        pytest.param("metrics.serviceMonitor.enable=true", "enable", id="a misspelt part deep down"),
        pytest.param("replicas=0", "minimum", id="no operator"),
        pytest.param("replicas=two", "integer", id="a number in words"),
        pytest.param("image.pullPolicy=Sometimes", "pullPolicy", id="a policy that is not known"),
        pytest.param("image.digest=latest", "digest", id="a digest that is none"),
        pytest.param("image.repository=a@b", "repository", id="a digest in the repository"),
        pytest.param("watchNamespaces=team-a", "array", id="one namespace that is no list"),
        pytest.param("watchNamespaces={Team_A}", "pattern", id="a namespace that none can be named"),
        pytest.param("watchNamespaces={a,a}", "equal", id="a namespace twice"),
        pytest.param("extraArgs={verbose}", "pattern", id="an argument that is no flag"),
        pytest.param("podLabels.app\\.kubernetes\\.io/name=x", "propertyName", id="a label of the chart"),
        pytest.param("networkPolicy.apiServerPorts={70000}", "maximum", id="a port that is none"),
        pytest.param("retraining.eventHosts={https://events.example}", "pattern", id="an address as a host"),
        pytest.param("metrics.serviceMonitor.interval=often", "pattern", id="an interval that is none"),
        pytest.param("metrics.qualityReaders[0].name=prometheus", "namespace", id="an account of no namespace"),
        pytest.param("metrics.rules.enabled=true", "enabled", id="rules of no form"),
        pytest.param("metrics.podMonitor.interval=often", "pattern", id="another interval that is none"),
        pytest.param("feedback.persistence.size=much", "pattern", id="a size that is none"),
        pytest.param("feedback.horizonDays=0", "exclusiveMinimum|greater than", id="no time to label"),
    ],
)
def test_bad_value_is_refused(value: str, word: str, render: Render) -> None:
    with pytest.raises(RuntimeError, match=word):
        render(value)


def test_an_old_cluster_is_refused(helm: Helm) -> None:
    got = helm("template", "evenkeel", str(CHART), "--kube-version=1.29.9")
    assert "kubeVersion" in got.stderr


def test_values_are_described_by_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)

    def missing(node: Any, described: Any, path: str = "") -> list[str]:
        if not isinstance(described, dict) or "properties" not in described:
            return []
        assert described["additionalProperties"] is False, path
        only = set(described["properties"]) ^ set(node) - {"global"}
        inner = [m for k in node for m in missing(node[k], described["properties"].get(k), f"{path}.{k}")]
        return [f"{path}.{key}" for key in only - {"global"}] + inner

    assert missing(values, schema) == []


def test_crd_is_the_one_of_the_models(render: Render) -> None:
    got = find(render(), "CustomResourceDefinition", "modeldeployments.evenkeel.dev")
    assert got["spec"] == crd.crd()["spec"]
    assert got["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crd_goes_with_the_release_where_that_is_asked_for(render: Render) -> None:
    got = find(render("crds.keep=false"), "CustomResourceDefinition", "modeldeployments.evenkeel.dev")
    assert "annotations" not in got["metadata"]
    assert "CustomResourceDefinition" not in kinds(render("crds.install=false"))


@pytest.mark.parametrize("values", VALUES)
def test_no_permission_is_a_wildcard(values: tuple[str, ...], render: Render) -> None:
    roles = [o for o in render(*values) if o["kind"] in ("Role", "ClusterRole")]
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@pytest.mark.parametrize(
    ("resource", "want"),
    [
        pytest.param("secrets", set(), id="Secrets are out of reach"),
        pytest.param("pods", {"list", "watch", "patch"}, id="pods are seen and marked, never made or removed"),
        pytest.param("pods/exec", set(), id="nothing is run in a pod"),
        pytest.param("modeldeployments", {"list", "watch"}, id="what users want is read only"),
        pytest.param("modeldeployments/status", {"patch"}, id="the status is written only"),
        pytest.param("nodes", {"list", "watch"}, id="nodes are seen, never written"),
        pytest.param("services", {"list", "watch", "create", "patch"}, id="Services go with their ModelDeployment"),
        pytest.param("configmaps", {"get", "create", "patch"}, id="ConfigMaps are read by name, never listed"),
        pytest.param("jobs", {"list", "watch", "create", "patch", "delete"}, id="Jobs are made and removed"),
        pytest.param("cronjobs", {"get"}, id="a CronJob is read by its name, never listed or written"),
        pytest.param("deployments", set(), id="what nobody needs"),
        pytest.param("roles", set(), id="no role is written"),
    ],
)
def test_operator_may_do_no_more(resource: str, want: set[str], render: Render) -> None:
    assert verbs(render(), resource) == want


def test_named_permissions_are_for_one_name(render: Render) -> None:
    rules = rules_of(render("leaderElection.leaseName=keel"))
    got = {
        rule["resources"][0]: rule.get("resourceNames")
        for rule in rules
        if rule["resources"] == ["leases"] and "create" not in rule["verbs"]
    }
    assert got == {"leases": ["keel"]}


def test_named_namespaces_need_no_cluster_role(render: Render) -> None:
    objects = render(WATCHED)
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)
    got = {o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"}
    assert got == {"team-a", "team-b", "evenkeel-system"}
    assert verbs(objects, "nodes") == set()
    assert "--namespaces=team-a,team-b" in pod(objects)["containers"][0]["args"]


def test_roles_in_named_namespaces_say_what_the_cluster_role_says(render: Render) -> None:
    everywhere = find(render(), "ClusterRole")["rules"]
    named = find(render(WATCHED), "Role")["rules"]
    assert [rule for rule in everywhere if rule not in named] == everywhere[len(named) :]
    got = {rule["resources"][0] for rule in everywhere[len(named) :]}
    assert got == {"nodes"}


@pytest.mark.parametrize("values", VALUES)
def test_every_role_is_bound_to_the_account_of_the_pods(values: tuple[str, ...], render: Render) -> None:
    objects = render(*values)
    for binding in (o for o in objects if o["kind"].endswith("RoleBinding")):
        is_feedback = binding["metadata"]["name"] == "evenkeel-feedback"
        account = pod(objects, "evenkeel-feedback" if is_feedback else "evenkeel")["serviceAccountName"]
        want = [{"kind": "ServiceAccount", "name": account, "namespace": "evenkeel-system"}]
        assert binding["subjects"] == want
        want_role = (*binding["roleRef"].values(), binding["metadata"].get("namespace"))
        roles = [
            ("rbac.authorization.k8s.io", o["kind"], o["metadata"]["name"], o["metadata"].get("namespace"))
            for o in objects
        ]
        assert want_role in roles


def test_users_get_what_they_may_do_elsewhere(render: Render) -> None:
    objects = render()
    edit, view = (find(objects, "ClusterRole", f"evenkeel-{who}") for who in ("edit", "view"))
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {v for rule in view["rules"] for v in rule["verbs"]} == {"get", "list", "watch"}
    assert not [r for r in edit["rules"] if "modeldeployments/status" in r["resources"]]


@pytest.mark.parametrize("values", VALUES)
def test_pods_are_restricted(values: tuple[str, ...], render: Render) -> None:
    spec = pod(render(*values))
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(set(volume) <= {"name", "emptyDir"} for volume in spec["volumes"] if volume["name"] != "keys")
    for container in spec["containers"]:
        want = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["securityContext"] == want
        assert {"requests", "limits"} <= container["resources"].keys()


def test_only_a_second_replica_needs_a_disruption_budget(render: Render) -> None:
    assert "PodDisruptionBudget" not in kinds(render())
    objects = render("replicas=2")
    budget, deployment = find(objects, "PodDisruptionBudget"), find(objects, "Deployment")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


@pytest.mark.parametrize("values", VALUES)
def test_operator_understands_its_arguments(values: tuple[str, ...], render: Render) -> None:
    objects = render(*values)
    container = pod(objects)["containers"][0]
    got = settings.parse(container["args"], {"POD_NAME": "evenkeel-0", "POD_NAMESPACE": "evenkeel-system"})
    leases = [r["resourceNames"] for r in rules_of(objects) if r["resources"] == ["leases"] and "resourceNames" in r]
    roles = {o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"}
    assert got.runtime_image.startswith("evenkeel/runtime:")
    assert got.runtime_image_pull_policy == "IfNotPresent"
    assert got.lease_namespace == "evenkeel-system"
    assert got.identity.startswith("evenkeel-0_")
    assert got.http_port == container["ports"][0]["containerPort"]
    assert leases in ([], [[got.lease_name]])
    assert set(got.namespaces) == roles - {"evenkeel-system"}
    assert got.event_hosts in ((), ("events.example.com", "*.svc"))
    has_feedback = any(found["metadata"]["name"] == "evenkeel-feedback" for found in objects)
    assert (got.feedback_url == "http://evenkeel-feedback.evenkeel-system.svc") == has_feedback


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param((), "evenkeel/operator:0.1.0", id="the chart's version"),
        pytest.param(("image.tag=x",), "evenkeel/operator:x", id="a tag"),
        pytest.param(
            ("image.tag=x", "image.digest=sha256:" + "a" * 64),
            "evenkeel/operator@sha256:" + "a" * 64,
            id="a digest before a tag",
        ),
    ],
)
def test_image(values: tuple[str, ...], want: str, render: Render) -> None:
    assert pod(render(*values))["containers"][0]["image"] == want


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param((), None, id="none"),
        pytest.param(("priorityClass.create=true",), "evenkeel", id="that of the chart"),
        pytest.param(("priorityClassName=high", "priorityClass.create=true"), "high", id="another one"),
    ],
)
def test_priority(values: tuple[str, ...], want: str | None, render: Render) -> None:
    assert pod(render(*values)).get("priorityClassName") == want


def test_service_and_policy_point_at_the_pods_and_their_port(render: Render) -> None:
    """The policy is only rendered: the network of the test cluster that is built does not enforce any."""
    objects = render("networkPolicy.enabled=true", "metrics.serviceMonitor.enabled=true")
    labels = find(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    port = pod(objects)["containers"][0]["ports"][0]["name"]
    service, policy = find(objects, "Service", "evenkeel-metrics"), find(objects, "NetworkPolicy")
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == port
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == port
    assert find(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"] == labels


def test_policy_lets_the_operator_ask_the_replicas(render: Render) -> None:
    policy = find(render("networkPolicy.enabled=true"), "NetworkPolicy")
    (rule,) = [r for r in policy["spec"]["egress"] if r["ports"] == [{"port": contract.ADMIN_PORT, "protocol": "TCP"}]]
    (peer,) = rule["to"]
    assert peer["namespaceSelector"] == {}, "they are in every namespace"
    assert peer["podSelector"] == {"matchLabels": {names.ROLE_LABEL: names.SERVE_ROLE}}


def test_policy_lets_the_operator_ask_the_feedback_service_and_post_events_where_it_is_told(render: Render) -> None:
    """Without the first there is no alarm, without the second nobody hears of it."""
    events = ("networkPolicy.eventsTo[0].ports[0].port=443",)
    for values, want in (((), 3), (FEEDBACK, 4), (events, 4), ((*FEEDBACK, *events), 5)):
        objects = render("networkPolicy.enabled=true", *values)
        policy = find(objects, "NetworkPolicy", "evenkeel")
        assert len(policy["spec"]["egress"]) == want
        if FEEDBACK[0] in values:
            rule = policy["spec"]["egress"][3]
            service = find(objects, "Deployment", "evenkeel-feedback")["spec"]
            assert rule["to"] == [{"podSelector": service["selector"]}]
            assert rule["ports"][0]["port"] == service["template"]["spec"]["containers"][0]["ports"][0]["name"]
        if events[0] in values:
            assert policy["spec"]["egress"][-1] == {"ports": [{"port": 443}]}
