"""What does a plan do about one ModelDeployment, from its first sight to its last revision?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.plan import invalid, plan, rejected
from evenkeel_operator.decide.replicas import Fresh
from evenkeel_operator.decide.sizing import Sizing
from evenkeel_operator.decide.snapshot import Defaults, Warning, freeze
from evenkeel_runtime import contract
from tests.builders import DEFAULTS, PREPARED, ended, modeldeployment, node, observed, pod, revision_of
from tests.plans import NOW, complete, message, of_kind, planned, prepare_job, prepared_children, ready, serving, sizes

GPU = {"count": 1}
FIRST_UID, SECOND_UID = "b3c1f8b2-6a54-4a40-9d0f-0f7c5b1d2e3f", "0c6d2a56-94f3-4b1c-8c5e-7f1f9f2a1b3d"


def test_the_service_has_a_port_for_grpc_where_it_was_asked_for() -> None:
    for runtime, want in (
        ({}, {"http": (80, "http")}),
        ({"grpc": True}, {"http": (80, "http"), "grpc": (8081, "grpc")}),
    ):
        (service,) = of_kind(planned(modeldeployment(runtime=runtime)), "Service")
        assert {port["name"]: (port["port"], port["targetPort"]) for port in service["spec"]["ports"]} == want


def test_first_sight_prepares_without_a_gpu_and_without_replicas() -> None:
    got = planned(modeldeployment(gpu=GPU))
    assert [o["kind"] for o in got.apply] == ["Service", "PodDisruptionBudget", "Job"]
    container = got.apply[2]["spec"]["template"]["spec"]["containers"][0]
    assert "limits" not in container["resources"], "a broken model never takes a GPU"
    assert ready(got) == ("False", "Preparing")
    assert got.events[0].reason == "Preparing"


def test_a_prepared_model_is_pinned_before_its_replicas_start() -> None:
    deployment = modeldeployment(gpu=GPU, replicas=2)
    got = planned(deployment, prepared_children(deployment), fleet=(node(),))
    kinds = [o["kind"] for o in got.apply]
    assert kinds.index("ControllerRevision") < kinds.index("ReplicaSet")
    assert of_kind(got, "ControllerRevision")[0]["data"]["model"]["digest"] == PREPARED.digest
    server = of_kind(got, "ReplicaSet")[0]["spec"]["template"]["spec"]["containers"][0]
    assert server["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert sizes(got) == {revision_of(deployment): 2}
    assert not got.delete, "the Job's report is needed until the ControllerRevision is seen"


def test_full_service_is_ready_and_a_second_plan_says_the_same() -> None:
    deployment = modeldeployment(replicas=2)
    children = serving(deployment)
    got = planned(deployment, children)
    assert ready(got) == ("True", "Serving")
    assert got.status["model"]["digest"] == PREPARED.digest
    assert got.status["stableRevision"] == revision_of(deployment)
    again = planned({**deployment, "status": got.status}, children, now=NOW + timedelta(hours=1))
    assert (again.status, again.events, again.delete) == (got.status, (), ())
    assert again.look_again_after_s is None


def test_a_failed_prepare_names_its_reason_and_is_tried_again_after_a_while() -> None:
    deployment = modeldeployment()
    job = prepare_job(deployment, **complete("Failed"))
    report = contract.Failed("ModelNotFound", "pvc://models/digits.pt2: no such file.")
    failed = pod(revision_of(deployment), role="prepare", owner=job, ready=False, phase="Failed", **ended(report))
    got = planned(deployment, [job, failed])
    assert ready(got) == ("False", "ModelNotFound")
    assert next(c["status"] for c in got.status["conditions"] if c["type"] == "Stalled") == "True"
    assert got.look_again_after_s is not None
    later = planned(deployment, [job, failed], now=NOW + timedelta(seconds=got.look_again_after_s))
    assert [o["metadata"]["name"] for o in of_kind(later, "Job")] == [f"{revision_of(deployment)}-prepare-2"]
    assert not later.delete, "the first Job's report is all that is known until the second one ends"


def test_while_a_failed_prepare_is_tried_again_its_reason_stays() -> None:
    deployment = modeldeployment()
    children: list[Object] = []
    for number in (1, 2):
        job = of_kind(planned(deployment, children, now=NOW + timedelta(minutes=number)), "Job")[0]
        job = observed(job, **complete("Failed", at="2026-01-01T12:00:00Z"))
        report = contract.Failed("ModelNotFound", f"no such file, seen {number} times.")
        done = pod(revision_of(deployment), number, role="prepare", owner=job, ready=False, **ended(report))
        children += [job, done]
    running = [*children[:2], {**children[2], "status": {}}]
    assert message(planned(deployment, running)) == "no such file, seen 1 times."
    got = planned(deployment, children)
    assert message(got) == "no such file, seen 2 times."
    assert [r.name for r in got.delete] == [children[0]["metadata"]["name"]]


def test_an_ended_prepare_job_is_given_five_seconds_for_its_pod_to_be_seen() -> None:
    deployment = modeldeployment()
    job = prepare_job(deployment, **complete("Failed"))
    got = planned(deployment, [job])
    assert ready(got) == ("False", "Preparing")
    assert [o["metadata"]["name"] for o in of_kind(got, "Job")] == [job["metadata"]["name"]]
    assert got.look_again_after_s == 4.0
    later = planned(deployment, [job], now=NOW + timedelta(seconds=4))
    assert ready(later) == ("False", "SourceUnavailable")
    assert "ended without a report" in message(later)


def test_a_controller_revision_that_cannot_be_read_is_named_and_what_serves_goes_on() -> None:
    old, new = modeldeployment(replicas=2), modeldeployment(replicas=2, runtime={"image": "registry/own:2"})
    children = serving(old)
    (kept,) = (c for c in serving(new) if c["kind"] == "ControllerRevision")
    foreign = {**kept, "data": {**kept["data"], "model": {"of": "a later version"}}}
    got = planned(new, [*children, foreign])
    assert ready(got) == ("False", "Invalid")
    assert f"kubectl delete controllerrevision {revision_of(new)} -n team-a" in message(got)
    assert sizes(got) == {revision_of(old): 2}
    assert not of_kind(got, "Job")
    assert not got.delete
    passed_over = planned(old, [*children, foreign])
    assert ready(passed_over) == ("True", "Serving"), "one that is not asked for is in nobody's way"


def test_a_quota_that_refuses_the_prepare_pod_is_told() -> None:
    deployment = modeldeployment()
    job = prepare_job(deployment)
    told = Warning("Job", job["metadata"]["name"], "FailedCreate", 'pods "x" is forbidden: exceeded quota: q')
    assert ready(planned(deployment, [job], warnings=[told])) == ("False", "QuotaExceeded")


def test_a_wrong_checksum_leaves_the_old_revision_serving() -> None:
    old = modeldeployment(replicas=2)
    children = serving(old)
    new = modeldeployment(replicas=2, model={"uri": "pvc://models/digits.pt2", "sha256": "00" * 32}, generation=2)
    job = prepare_job(new, **complete("Failed"))
    report = contract.Failed("ChecksumMismatch", "sha256 is ab, spec.model.sha256 is 00.")
    failed = pod(revision_of(new), role="prepare", owner=job, ready=False, phase="Failed", **ended(report))
    got = planned(new, [*children, job, failed])
    assert ready(got) == ("False", "ChecksumMismatch")
    assert sizes(got) == {revision_of(old): 2}
    assert f"Revision {revision_of(old)} keeps serving with 2 replicas" in message(got)


def test_an_upgraded_operator_restarts_nothing_and_says_what_is_outdated() -> None:
    deployment = modeldeployment()
    children = serving(deployment)
    before = planned(deployment, children)
    got = planned(deployment, children, defaults=Defaults(runtime_image="evenkeel/runtime:2"))
    assert of_kind(got, "ReplicaSet") == of_kind(before, "ReplicaSet")
    outdated = next(c for c in got.status["conditions"] if c["type"] == "RuntimeOutdated")
    assert "evenkeel restart digits -n team-a" in outdated["message"]
    assert ready(got) == ("True", "Serving")


def test_one_replica_and_no_free_gpu_block_the_rollout_and_say_so() -> None:
    old = modeldeployment(gpu=GPU)
    new = modeldeployment(gpu=GPU, generation=2, pod={"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}})
    children = [*serving(old), *prepared_children(new)]
    got = planned(new, children, fleet=(node(gpus=1, used=1),))
    assert sizes(got) == {revision_of(old): 1, revision_of(new): 0}
    assert ready(got) == ("False", "RolloutBlockedNoGPU")
    assert "0 of 1 are free" in message(got)
    freed = planned(new, children, fleet=(node(gpus=2, used=1),))
    assert sizes(freed) == {revision_of(old): 1, revision_of(new): 1}


def test_a_shortage_names_the_resource_and_how_many_are_free() -> None:
    deployment = modeldeployment(gpu={"count": 2}, replicas=2)
    children = serving(deployment, count=2)
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes."}
    children[-1] = pod(revision_of(deployment), 1, ready=False, node=None, conditions=[refused])
    got = planned(deployment, children, fleet=(node(gpus=4, used=3),))
    assert ready(got) == ("False", "Unschedulable")
    assert "asks for 2 nvidia.com/gpu; 1 of 4 on nodes that fit are free" in message(got)


def test_going_back_to_an_old_revision_prepares_nothing_and_makes_it_the_newest() -> None:
    first, second = modeldeployment(), modeldeployment(generation=2, model={"uri": "pvc://models/v2.pt2"})
    old, new = serving(first), serving(second)
    new[0]["revision"] = 2
    got = planned(modeldeployment(generation=3), [old[0], *new])
    assert not of_kind(got, "Job")
    assert of_kind(got, "ControllerRevision")[0]["revision"] == 3
    assert sizes(got) == {revision_of(first): 1, revision_of(second): 1}


def test_a_controller_revision_deleted_by_hand_is_written_again_with_the_same_template() -> None:
    deployment = modeldeployment()
    children = serving(deployment)
    got = planned(deployment, children[1:], defaults=Defaults(runtime_image="evenkeel/runtime:2"))
    assert of_kind(got, "ControllerRevision")[0]["data"]["template"] == children[0]["data"]["template"]
    assert of_kind(got, "ControllerRevision")[0]["data"]["runtimeImage"] == "evenkeel/runtime:1"


def test_a_controller_revision_written_again_is_not_outdated_for_the_defaults_in_its_replica_set() -> None:
    deployment = modeldeployment(gpu=GPU)
    children = serving(deployment)
    body = children[1]["spec"]["template"]["spec"]
    body |= {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always"}
    body["containers"][0] |= {"terminationMessagePath": "/dev/termination-log"}
    body["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    got = planned(deployment, children[1:], fleet=(node(),))
    assert of_kind(got, "ControllerRevision")[0]["data"] == children[0]["data"]
    again = planned(deployment, [observed(of_kind(got, "ControllerRevision")[0]), *children[1:]], fleet=(node(),))
    assert "RuntimeOutdated" not in {c["type"] for c in again.status["conditions"]}


def test_paused_keeps_serving_and_starts_nothing() -> None:
    old = modeldeployment()
    new = modeldeployment(generation=2, rollout={"paused": True}, model={"uri": "pvc://models/v2.pt2"})
    got = planned(new, serving(old))
    assert not of_kind(got, "Job")
    assert sizes(got) == {revision_of(old): 1}
    assert ready(got) == ("False", "RolloutPaused")


def test_scaling_while_the_next_model_is_prepared_scales_what_serves() -> None:
    old = modeldeployment(replicas=1)
    new = modeldeployment(replicas=3, generation=2, model={"uri": "pvc://models/v2.pt2"})
    assert sizes(planned(new, serving(old))) == {revision_of(old): 3}


def test_an_empty_replica_set_of_an_old_revision_is_deleted_its_history_stays() -> None:
    first, second = modeldeployment(), modeldeployment(generation=2, model={"uri": "pvc://models/v2.pt2"})
    got = planned(second, [*serving(first, count=0), *serving(second)])
    assert [(r.kind, r.name) for r in got.delete] == [("ReplicaSet", revision_of(first))]


def test_history_keeps_ten_idle_revisions() -> None:
    deployment = modeldeployment()
    children = serving(deployment)
    idle = []
    for number in range(2, 14):
        copy = observed(children[0])
        copy["metadata"]["name"], copy["revision"] = f"digits-{number}", -number
        idle.append(copy)
    got = planned(deployment, [*children, *idle])
    assert sorted(r.name for r in got.delete) == ["digits-12", "digits-13"]


def test_on_the_way_for_ten_minutes_is_stalled_and_stays_so() -> None:
    deployment = modeldeployment()
    first = planned(deployment)
    assert first.look_again_after_s == 600
    late = planned({**deployment, "status": first.status}, [prepare_job(deployment)], now=NOW + timedelta(minutes=10))
    status = {c["type"]: c["status"] for c in late.status["conditions"]}
    assert (status["Reconciling"], status["Stalled"]) == ("False", "True")
    later = planned({**deployment, "status": late.status}, [prepare_job(deployment)], now=NOW + timedelta(minutes=11))
    assert {c["type"]: c["status"] for c in later.status["conditions"]} == status


def test_a_child_that_the_api_server_refuses_becomes_a_condition() -> None:
    known = freeze(deployment=modeldeployment(), children=(), defaults=DEFAULTS)
    got = rejected(known, "Invalid", "spec.template.spec.tolerations[0].operator: Unsupported value", NOW)
    assert ready(got) == ("False", "Invalid")
    assert not got.apply


def test_a_spec_that_cannot_be_read_keeps_the_rest_of_the_status() -> None:
    stored = modeldeployment(status={"replicas": 2, "readyReplicas": 2, "stableRevision": "digits-1"}, generation=7)
    got = invalid(stored, "spec.model: Field required", NOW)
    assert ready(got) == ("False", "Invalid")
    assert got.status["stableRevision"] == "digits-1"
    assert got.status["observedGeneration"] == 7


SCALED: dict[str, Any] = {
    "scaling": {"minReplicas": 1, "maxReplicas": 8},
    "objectives": {"latency": [{"metric": "EndToEnd", "quantile": 0.95, "target": "200ms"}]},
}


def sized(deployment: Object, children: Sequence[Object], size: int | None, busy: Mapping[str, int]) -> Plan:
    known = freeze(deployment=deployment, children=children, fleet=(), defaults=DEFAULTS, warnings=())
    return plan(replace(known, sizing=Sizing(size, Fresh(0.1), NOW, in_flight=busy)), NOW)


def test_with_scaling_the_decision_is_the_size_and_replicas_changes_nothing() -> None:
    deployment = modeldeployment(replicas=2, **SCALED)
    children = serving(deployment)
    deployment["spec"]["replicas"] = 7
    (size,) = sizes(sized(deployment, children, 3, {})).values()
    assert size == 3
    (size,) = sizes(sized(modeldeployment(replicas=7), children, None, {})).values()
    assert size == 7, "without scaling it is the other way round"


def test_an_operator_that_starts_keeps_the_size_it_finds() -> None:
    deployment = modeldeployment(replicas=5, **SCALED)
    children = serving(deployment)
    deployment["spec"]["replicas"] = 1
    assert set(sizes(planned(deployment, children)).values()) == {5}
    deployment["spec"]["scaling"] = {"minReplicas": 1, "maxReplicas": 3}
    assert set(sizes(planned(deployment, children)).values()) == {3}


def test_those_with_the_fewest_requests_go_first() -> None:
    deployment = modeldeployment(replicas=4, **SCALED)
    children = serving(deployment)
    names = [o["metadata"]["name"] for o in children if o["kind"] == "Pod"]
    busy = dict(zip(names, (5, 0, 7, 1), strict=True))
    assert sized(deployment, children, 2, busy).victims == (names[1], names[3])
    assert sized(deployment, children, 4, busy).victims == (), "where none goes, none is marked"


def test_who_goes_is_chosen_once() -> None:
    deployment = modeldeployment(replicas=4, **SCALED)
    children = serving(deployment)
    names = [o["metadata"]["name"] for o in children if o["kind"] == "Pod"]
    (replica_set,) = (o for o in children if o["kind"] == "ReplicaSet")
    replica_set["spec"]["replicas"] = 2
    busy_by_now = dict(zip(names, (0, 5, 1, 7), strict=True))
    got = sized(deployment, children, 2, busy_by_now)
    assert got.victims == (), "the smaller size is written, the pods are on their way out"
    assert sized(deployment, children, 1, busy_by_now).victims == (names[0], names[2], names[1])
