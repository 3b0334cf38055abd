"""Do Prometheus and Grafana get what they read: where to scrape, alert rules, a dashboard?

The objects of the Prometheus operator are held to the fields that it documents: its CustomResourceDefinitions are not
here. No Grafana is either, as nobody packages one that can be installed here; its dashboard is read by the models that
Grafana generates from its own schema, which drop what the schema does not know. Whether rules and queries work is asked
of a real Prometheus in tests/system/monitoring.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import names, podspec
from tests.contract.conftest import CHART, Render
from tests.contract.rendered import find, kinds, pod
from tests.contract.test_chart import FEEDBACK, WATCHED

RULES = CHART / "files" / "rules.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
ALL = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "metrics.rules.prometheusRule.enabled=true",
    "metrics.rules.configMap.enabled=true",
    "metrics.dashboard.enabled=true",
)


def test_nothing_of_it_is_there_unasked(render: Render) -> None:
    assert not {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"} & kinds(render(*FEEDBACK))


def test_series_keep_the_namespace_of_their_modeldeployment(render: Render) -> None:
    objects = render(*ALL, *FEEDBACK)
    for name in ("evenkeel", "evenkeel-feedback"):
        (endpoint,) = find(objects, "ServiceMonitor", name)["spec"]["endpoints"]
        assert endpoint["honorLabels"] is True
        selector = find(objects, "ServiceMonitor", name)["spec"]["selector"]["matchLabels"]
        services = [
            o for o in objects if o["kind"] == "Service" and selector.items() <= o["metadata"]["labels"].items()
        ]
        (service,) = services
        assert [p["name"] for p in service["spec"]["ports"]] == [endpoint["port"]]
        assert service["spec"]["ports"][0]["targetPort"] == pod(objects, name)["containers"][0]["ports"][0]["name"]


def test_whoever_is_named_may_get_the_quality_of_every_model(render: Render) -> None:
    readers = ("metrics.qualityReaders[0].name=prometheus", "metrics.qualityReaders[0].namespace=monitoring")
    objects = render(*ALL, *FEEDBACK, *readers)
    binding = find(objects, "ClusterRoleBinding", "evenkeel-quality-readers")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}]
    (rule,) = find(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])["rules"]
    assert rule == {"apiGroups": ["evenkeel.dev"], "resources": ["modeldeployments/quality"], "verbs": ["get"]}
    (endpoint,) = find(objects, "ServiceMonitor", "evenkeel-feedback")["spec"]["endpoints"]
    assert endpoint["bearerTokenFile"].endswith("/serviceaccount/token")
    for values in ((*ALL, *FEEDBACK), (*ALL, *readers), (*ALL, *FEEDBACK, *readers, "rbac.create=false")):
        assert not [o for o in render(*values) if o["metadata"]["name"] == "evenkeel-quality-readers"]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param((), {"any": True}, id="in every namespace"),
        pytest.param((WATCHED,), {"matchNames": ["team-a", "team-b"]}, id="in those that are served"),
    ],
)
def test_replicas_are_scraped_where_they_answer(values: tuple[str, ...], want: Object, render: Render) -> None:
    spec = find(render(*ALL, *values), "PodMonitor", "evenkeel-replicas")["spec"]
    assert spec["namespaceSelector"] == want
    assert spec["selector"]["matchLabels"] == {names.ROLE_LABEL: names.SERVE_ROLE}
    assert [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]] == [podspec.HTTP_PORT_NAME]


def test_rules_are_the_same_in_each_form(render: Render) -> None:
    objects = render(*ALL)
    want = yaml.safe_load(RULES.read_text())
    assert find(objects, "PrometheusRule")["spec"] == want
    assert yaml.safe_load(find(objects, "ConfigMap", "evenkeel-rules")["data"]["evenkeel.rules.yaml"]) == want


def test_dashboard_is_rendered_as_it_is_for_the_sidecar(render: Render) -> None:
    found = find(render(*ALL), "ConfigMap", "evenkeel-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"]["evenkeel.json"] == DASHBOARD.read_text()


@pytest.fixture(scope="module")
def dashboard() -> Object:
    register_default_plugins()
    found: Object = json.loads(DASHBOARD.read_text())
    return found


def unknown(dashboard: Object) -> list[str]:
    """Return the places that Grafana's schema does not know, or knows otherwise."""
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return list(_lost(dashboard, read, ""))


def _lost(want: Any, got: Any, at: str) -> list[str]:
    match want, got:
        case dict(), dict():
            return [
                place
                for key in want
                for place in ([f"{at}.{key}"] if key not in got else _lost(want[key], got[key], f"{at}.{key}"))
            ]
        case list(), list() if len(want) == len(got):
            pairs = zip(want, got, strict=True)
            return [place for i, (one, other) in enumerate(pairs) for place in _lost(one, other, f"{at}[{i}]")]
        case _:
            return [] if want == got else [at]


def test_dashboard_is_of_grafanas_schema(dashboard: Object) -> None:
    assert unknown(dashboard) == []


def _panel(dashboard: Object, kind: str) -> Object:
    return next(p for p in dashboard["panels"] if p["type"] == kind)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(lambda d: d.update(refreshh="30s"), id="a setting of the dashboard"),
        pytest.param(lambda d: _panel(d, "timeseries")["options"].update(legends={}), id="an option of a panel"),
        pytest.param(lambda d: _panel(d, "timeseries")["targets"][0].update(query="x"), id="a part of a query"),
        pytest.param(
            lambda d: _panel(d, "state-timeline")["fieldConfig"]["defaults"]["custom"].update(spanNull=True),
            id="a setting of a field",
        ),
        pytest.param(lambda d: d["templating"]["list"][0].update(multiple=True), id="a part of a variable"),
    ],
)
def test_the_schema_finds_a_misspelt_word(mistake: Callable[[Object], None], dashboard: Object) -> None:
    wrong = copy.deepcopy(dashboard)
    mistake(wrong)
    assert len(unknown(wrong)) == 1


def test_panels_fill_the_page_and_do_not_overlap(dashboard: Object) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        is_below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert is_beside or is_below, (one["title"], other["title"])


def test_every_panel_says_what_it_shows_and_asks_the_chosen_prometheus(dashboard: Object) -> None:
    for panel in (p for p in dashboard["panels"] if p["type"] != "row"):
        assert panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["datasource"] for target in panel["targets"]] == [panel["datasource"]] * len(panel["targets"])
