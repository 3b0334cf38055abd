"""Does the chart install the feedback service where replicas look for it, with no more rights than it needs?"""

from __future__ import annotations

import base64

import pytest

from evenkeel_operator.api.rules import MOST_HORIZON_DAYS
from evenkeel_operator.feedback import settings as feedback
from tests.contract.conftest import Render
from tests.contract.rendered import find, kinds, pod, verbs
from tests.contract.test_chart import FEEDBACK, POSTGRES, WATCHED


@pytest.mark.parametrize("values", [pytest.param(FEEDBACK, id="file"), pytest.param(POSTGRES, id="PostgreSQL")])
def test_feedback_pods_are_restricted_and_understand_their_arguments(values: tuple[str, ...], render: Render) -> None:
    objects = render(*values)
    spec = pod(objects, "evenkeel-feedback")
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["command"] == ["evenkeel", "feedback"]
    got = feedback.parse(container["args"], {})
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(got.keys_dir)] == "keys"
    assert got.port == container["ports"][0]["containerPort"]
    assert not got.is_open
    if values == FEEDBACK:
        assert mounts[str(got.path.parent)] == "labels"
        assert find(objects, "Deployment", "evenkeel-feedback")["spec"]["strategy"] == {"type": "Recreate"}
    else:
        assert "labels" not in mounts.values()
        assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "database", "key": "dsn"}


def test_a_database_may_take_an_hour_to_be_brought_up(render: Render) -> None:
    (container,) = pod(render(*FEEDBACK), "evenkeel-feedback")["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600
    assert probe["httpGet"] == container["livenessProbe"]["httpGet"]


def test_labels_are_taken_for_as_long_as_any_objective_may_wait_for_them(render: Render) -> None:
    installed = feedback.parse(pod(render(*FEEDBACK), "evenkeel-feedback")["containers"][0]["args"], {})
    for got in (installed, feedback.parse([], {})):
        assert got.horizon_s == MOST_HORIZON_DAYS * feedback.DAY_S
        assert got.retention_s >= 2 * got.horizon_s, "so far back labels are looked at"


def test_feedback_is_where_replicas_look_for_it(render: Render) -> None:
    objects = render(*FEEDBACK)
    (url,) = [a for a in pod(objects)["containers"][0]["args"] if a.startswith("--feedback-url=")]
    service, deployment = (find(objects, kind, "evenkeel-feedback") for kind in ("Service", "Deployment"))
    assert url == "--feedback-url=http://evenkeel-feedback.evenkeel-system.svc"
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"][0]["port"] == 80
    assert service["spec"]["selector"] != find(objects, "Deployment")["spec"]["selector"]["matchLabels"]


def test_operator_and_feedback_have_the_same_master_key(render: Render) -> None:
    objects = render(*FEEDBACK)
    secret = find(objects, "Secret", "evenkeel-receipt-keys")
    assert len(base64.b64decode(secret["data"]["1"])) >= feedback.LEAST_KEY_BYTES
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    for name in ("evenkeel", "evenkeel-feedback"):
        (keys,) = [v for v in pod(objects, name)["volumes"] if v["name"] == "keys"]
        assert keys["secret"] == {"secretName": "evenkeel-receipt-keys"}
    own = render(*FEEDBACK, "feedback.keysSecretName=mine")
    assert "Secret" not in kinds(own)


def test_only_with_feedback_a_secret_is_created_and_none_is_read(render: Render) -> None:
    assert verbs(render(), "secrets") == set()
    assert verbs(render(*FEEDBACK), "secrets") == {"create"}


def test_only_feedback_asks_who_somebody_is(render: Render) -> None:
    objects = render(*FEEDBACK)
    for review in ("tokenreviews", "subjectaccessreviews"):
        assert verbs(objects, review, "evenkeel-feedback") == {"create"}
        assert verbs(objects, review) == set()
    assert verbs(objects, "modeldeployments", "evenkeel-feedback") == {"list"}
    named = render(*FEEDBACK, WATCHED)
    (role,) = [o for o in named if o["kind"] == "ClusterRole"]
    assert {r for rule in role["rules"] for r in rule["resources"]} == {"tokenreviews", "subjectaccessreviews"}


def test_a_file_has_one_writer(render: Render) -> None:
    with pytest.raises(RuntimeError, match="PostgreSQL"):
        render(*FEEDBACK, "feedback.replicas=2")


def test_counts_that_would_be_deleted_before_a_test_may_use_them_are_refused(render: Render) -> None:
    with pytest.raises(RuntimeError, match=r"feedback\.retentionDays: an hour more than feedback\.horizonDays"):
        render(*FEEDBACK, "feedback.horizonDays=7", "feedback.retentionDays=7")
    render(*FEEDBACK, "feedback.horizonDays=7", "feedback.retentionDays=8")
