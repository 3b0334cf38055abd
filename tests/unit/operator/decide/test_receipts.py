"""Who gets the key of which receipts, and does feedback restart anything when it comes or goes?"""

from __future__ import annotations

from dataclasses import replace

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.snapshot import Feedback
from evenkeel_runtime import contract, receipts
from tests.builders import DEFAULTS, modeldeployment
from tests.plans import of_kind, planned, prepared_children, ready, serving

FEEDBACK = Feedback("http://feedback", 2, b"m" * 32)
WITH_FEEDBACK = replace(DEFAULTS, feedback=FEEDBACK)
FIRST_UID, SECOND_UID = "b3c1f8b2-6a54-4a40-9d0f-0f7c5b1d2e3f", "0c6d2a56-94f3-4b1c-8c5e-7f1f9f2a1b3d"


def with_uid(deployment: Object, uid: str) -> Object:
    return {**deployment, "metadata": {**deployment["metadata"], "uid": uid}}


def test_replicas_find_the_key_of_their_own_receipts() -> None:
    deployment = with_uid(modeldeployment(), FIRST_UID)
    got = planned(deployment, prepared_children(deployment), defaults=WITH_FEEDBACK)
    kinds = [o["kind"] for o in got.apply]
    assert kinds.index("Secret") < kinds.index("ReplicaSet")
    (secret,), (replicas,) = of_kind(got, "Secret"), of_kind(got, "ReplicaSet")
    want = receipts.derived_key(FEEDBACK.master_key, 2, receipts.subject_of(FIRST_UID)).hex()
    assert secret["stringData"] == {contract.RECEIPT_KEY_FILE: want}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == FIRST_UID
    assert FEEDBACK.master_key.hex() not in str(got)
    assert str(FEEDBACK.master_key) not in str(got)
    body = replicas["spec"]["template"]["spec"]
    (volume,) = [v for v in body["volumes"] if "secret" in v]
    assert volume["secret"] == {"secretName": secret["metadata"]["name"], "optional": True}
    (server,) = body["containers"]
    (mount,) = [m for m in server["volumeMounts"] if m["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == (contract.RECEIPT_KEY_DIR, True)
    told = {v["name"]: v["value"] for v in server["env"]}
    names = (contract.Env.UID, contract.Env.RECEIPT_KEY_ID, contract.Env.FEEDBACK_URL)
    assert [told[name] for name in names] == [FIRST_UID, "2", "http://feedback"]


def test_an_object_created_again_has_another_key_in_another_secret() -> None:
    first, second = (with_uid(modeldeployment(), uid) for uid in (FIRST_UID, SECOND_UID))
    (one,), (other,) = (of_kind(planned(d, serving(d), defaults=WITH_FEEDBACK), "Secret") for d in (first, second))
    assert one["metadata"]["name"] != other["metadata"]["name"]
    assert one["stringData"] != other["stringData"]


def test_feedback_that_is_turned_on_restarts_nothing() -> None:
    deployment = with_uid(modeldeployment(), FIRST_UID)
    children = serving(deployment)
    before = planned(deployment, children)
    got = planned(deployment, children, defaults=WITH_FEEDBACK)
    assert of_kind(got, "ReplicaSet") == of_kind(before, "ReplicaSet")
    assert ready(got) == ("True", "Serving")
    assert any(c["type"] == "RuntimeOutdated" and c["status"] == "True" for c in got.status["conditions"])


def test_feedback_that_is_turned_off_restarts_nothing() -> None:
    deployment = with_uid(modeldeployment(), FIRST_UID)
    children = serving(deployment, defaults=WITH_FEEDBACK)
    before = planned(deployment, children, defaults=WITH_FEEDBACK)
    got = planned(deployment, children)
    assert of_kind(got, "ReplicaSet") == of_kind(before, "ReplicaSet")
    assert of_kind(got, "Secret") == []


def test_a_foreign_image_gets_no_key() -> None:
    deployment = with_uid(modeldeployment(runtime={"image": "example.com/own:1"}), FIRST_UID)
    got = planned(deployment, prepared_children(deployment), defaults=WITH_FEEDBACK)
    assert of_kind(got, "Secret") == []
    assert "receipts" not in str(of_kind(got, "ReplicaSet"))
