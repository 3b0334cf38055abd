"""Does every way in which a pod fails have its own reason, and a sentence that says what to do?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.failures import Failure, of_pod, of_pod_creation, of_write, prepare_retry_delay
from evenkeel_runtime import contract
from tests.builders import ended, pod


def container(state: Object, last: Object | None = None, *, init: bool = False, restarts: int = 3) -> Object:
    row = {"name": "serve", "image": "evenkeel/runtime:1", "state": state, "restartCount": restarts}
    if last is not None:
        row["lastState"] = last
    return {"initContainerStatuses" if init else "containerStatuses": [row]}


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def unschedulable(message: str) -> Object:
    row = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"conditions": [row]}


FAILED_LOAD = contract.encode(contract.Failed("LoadFailed", "digits.pt2: KeyError: 'fc1.weight'."))


@pytest.mark.parametrize(
    ("status", "want", "says"),
    [
        pytest.param(
            container(waiting("ErrImagePull", "not found")), "ImagePullFailed", "imagePullSecrets", id="image not found"
        ),
        pytest.param(
            container(waiting("ImagePullBackOff")), "ImagePullFailed", "evenkeel/runtime:1", id="image still not found"
        ),
        pytest.param(
            container(waiting("ErrImageNeverPull")),
            "ImagePullFailed",
            "load it onto the nodes",
            id="image not on the node",
        ),
        pytest.param(
            container(waiting("CreateContainerConfigError", 'secret "keys" not found')),
            "AccessDenied",
            "Secret keys",
            id="no such Secret",
        ),
        pytest.param(
            container(waiting("CreateContainerError", "bad")), "Invalid", "bad", id="the container cannot be created"
        ),
        pytest.param(
            container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            "OutOfMemory",
            "limits.memory",
            id="killed for memory",
        ),
        pytest.param(
            container(waiting("CrashLoopBackOff"), {"terminated": {"exitCode": 1, "message": FAILED_LOAD}}),
            "LoadFailed",
            "fc1.weight",
            id="the runtime's own report beats the crash loop",
        ),
        pytest.param(
            container({"running": {}}, {"terminated": {"exitCode": 1, "message": FAILED_LOAD}}),
            "LoadFailed",
            "fc1.weight",
            id="started again after a failed load",
        ),
        pytest.param(
            container(waiting("CrashLoopBackOff"), {"terminated": {"exitCode": 2, "message": "a\nlast line\n"}}),
            "CrashLooping",
            "last line",
            id="a crash without a report: its last line",
        ),
        pytest.param(
            container(waiting("CrashLoopBackOff"), {"terminated": {"exitCode": 2}}),
            "CrashLooping",
            "kubectl logs",
            id="a crash without a word",
        ),
        pytest.param(
            container(
                {
                    "terminated": {
                        "exitCode": 1,
                        "message": contract.encode(contract.Failed("ModelChanged", "other bytes")),
                    }
                },
                init=True,
            ),
            "ModelChanged",
            "other bytes",
            id="the fetch container's report",
        ),
        pytest.param(
            unschedulable("0/3 nodes: Insufficient nvidia.com/gpu"),
            "Unschedulable",
            "Insufficient",
            id="no node takes it",
        ),
        pytest.param(
            unschedulable('persistentvolumeclaim "models" not found'),
            "ModelNotFound",
            "claim models",
            id="no such claim",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
            "CrashLooping",
            "low on memory",
            id="evicted",
        ),
    ],
)
def test_a_pod_that_does_not_run(status: Object, want: str, says: str) -> None:
    got = of_pod(pod("digits-1", ready=False, **status))
    assert got is not None
    assert got.reason == want
    assert says.split()[0] in got.message
    assert says in got.message or says.split()[-1] in got.message


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="just created"),
        pytest.param(container(waiting("ContainerCreating")), id="being created"),
        pytest.param(container(waiting("PodInitializing")), id="its init container runs"),
        pytest.param(
            container({"terminated": {"exitCode": 0, "reason": "Completed"}}, init=True),
            id="its init container is done",
        ),
        pytest.param(container({"running": {}}), id="running"),
    ],
)
def test_a_pod_on_its_way_has_no_failure(status: Object) -> None:
    assert of_pod(pod("digits-1", ready=False, **status)) is None


@pytest.mark.parametrize(
    ("message", "want"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=1', "QuotaExceeded"),
        ('pods "x" is forbidden: failed quota: q: must specify limits.memory', "QuotaExceeded"),
        ('pods "x" is forbidden: violates PodSecurity "restricted"', "Invalid"),
    ],
)
def test_a_pod_that_may_not_be_created(message: str, want: str) -> None:
    assert of_pod_creation(message).reason == want


@pytest.mark.parametrize(
    ("message", "want"),
    [
        pytest.param(
            'services "digits" is forbidden: exceeded quota: few, requested: services=1, used: services=5',
            Failure(
                "QuotaExceeded",
                "the namespace's ResourceQuota refuses Service digits: exceeded quota: few, requested: services=1, "
                "used: services=5. Raise the quota, or free some of it.",
            ),
            id="a quota",
        ),
        pytest.param(
            "admission webhook denied the request: no team label",
            Failure(
                "Invalid",
                "the API server refuses Service digits: admission webhook denied the request: no team label",
            ),
            id="an admission webhook",
        ),
    ],
)
def test_an_object_that_may_not_be_written_is_named(message: str, want: Failure) -> None:
    assert of_write("Service digits", message) == want


@pytest.mark.parametrize(
    ("reason", "attempt", "want"),
    [("ModelNotFound", 1, 10), ("ModelNotFound", 3, 40), ("ModelNotFound", 50, 300), ("ChecksumMismatch", 1, 300)],
)
def test_prepare_is_tried_again_ever_more_slowly(reason: str, attempt: int, want: int) -> None:
    assert prepare_retry_delay(Failure(reason, ""), attempt) == timedelta(seconds=want)


def test_a_report_survives_the_termination_message_limit() -> None:
    long = contract.Failed("LoadFailed", "é" * 9000)
    text = contract.encode(long)
    assert len(text.encode()) <= contract.TERMINATION_MESSAGE_BYTES
    got = contract.decode(text)
    assert isinstance(got, contract.Failed)
    assert got.message.endswith("…")


@pytest.mark.parametrize("text", ["", "Killed", "[]", "{}", '{"digest": 1}', '{"reason": "x"}', "null", "7"])
def test_a_foreign_termination_message_is_no_report(text: str) -> None:
    assert contract.decode(text) is None
    got = of_pod(pod("digits-1", ready=False, **ended(text)))
    assert got is not None
    assert got.reason == "CrashLooping"
