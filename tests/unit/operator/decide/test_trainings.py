"""What may a Job be made from, and what is read of one that stands?"""

from __future__ import annotations

from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import names
from evenkeel_operator.decide.trainings import Template, Unusable, template, training
from tests.builders import NAME, NAMESPACE


def cron_job(labels: dict[str, str] | None = None, **job: Any) -> Object:
    """Return a suspended CronJob as the API server sends it back."""
    pod = {"metadata": {"creationTimestamp": None, "labels": {"app": "train"}}, "spec": {"containers": []}}
    return {
        "metadata": {"name": "retrain", "labels": {names.RETRAINS_LABEL: NAME} if labels is None else labels},
        "spec": {
            "suspend": True,
            "jobTemplate": {"metadata": {"annotations": {"note": "x"}}, "spec": {"template": pod, **job}},
        },
    }


def test_the_template_is_the_cron_jobs() -> None:
    got = template("retrain", cron_job(backoffLimit=2), NAME, NAMESPACE)
    want = {
        "backoffLimit": 2,
        "template": {"metadata": {"labels": {"app": "train"}, "annotations": {}}, "spec": {"containers": []}},
    }
    assert got == Template("retrain", {}, {"note": "x"}, want)


def test_a_job_of_it_stays_until_its_end_is_written_down_and_names_its_pods_by_itself() -> None:
    got = template("retrain", cron_job(ttlSecondsAfterFinished=0, manualSelector=True, selector={}), NAME, NAMESPACE)
    assert isinstance(got, Template)
    assert got.spec.keys() == {"template"}


def test_what_is_the_operators_to_name_is_left_out() -> None:
    made = cron_job()
    made["spec"]["jobTemplate"]["metadata"] = {"labels": {**names.labels("other", "x", "serve"), "team": "a"}}
    got = template("retrain", made, NAME, NAMESPACE)
    assert isinstance(got, Template)
    assert got.labels == {"team": "a"}


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        pytest.param(None, "CronJobMissing", "create it", id="there is none"),
        pytest.param(cron_job({}), "CronJobNotMeant", "kubectl label cronjob/retrain", id="it is for nobody"),
        pytest.param(
            cron_job({names.RETRAINS_LABEL: "other"}),
            "CronJobNotMeant",
            "evenkeel.dev/retrains=digits",
            id="for another",
        ),
    ],
)
def test_a_cron_job_that_may_not_be_started_is_told_with_the_way_out(
    found: Object | None, reason: str, words: str
) -> None:
    got = template("retrain", found, NAME, NAMESPACE)
    assert isinstance(got, Unusable)
    assert got.reason == reason
    assert words in got.message


def stands(*conditions: Object) -> Object:
    metadata = {"name": "digits-retrain-1", "creationTimestamp": "2026-01-01T12:00:00Z"}
    return {"metadata": metadata, "status": {"conditions": list(conditions)}}


def its_pod(created: str, **status: Any) -> Object:
    return {"metadata": {"creationTimestamp": created}, "status": status}


def ends(exit_code: int, message: str = "") -> Object:
    state = {"terminated": {"exitCode": exit_code, "message": message}}
    return {"containerStatuses": [{"name": "train", "state": state}]}


FAILED = {"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T13:00:00Z", "message": "limit reached"}
COMPLETE = {**FAILED, "type": "Complete", "message": ""}


@pytest.mark.parametrize(
    ("job", "pods", "warning", "want"),
    [
        pytest.param(stands(), [], "", "", id="nothing is seen yet"),
        pytest.param(stands(), [], "exceeded quota", "exceeded quota", id="its pod may not be made"),
        pytest.param(
            stands(),
            [its_pod("1", conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}])],
            "",
            "its pod is not scheduled: no node",
            id="its pod has no place",
        ),
        pytest.param(
            stands(),
            [
                its_pod(
                    "1", containerStatuses=[{"name": "train", "state": {"waiting": {"reason": "ContainerCreating"}}}]
                )
            ],
            "",
            "",
            id="its pod is on its way",
        ),
        pytest.param(stands(FAILED), [], "", "limit reached", id="it failed and its pods are gone"),
        pytest.param(
            stands(FAILED),
            [its_pod("2", **ends(1, "later")), its_pod("1", **ends(2, "earlier"))],
            "",
            "container train ended with exit code 1: later",
            id="it failed twice",
        ),
        pytest.param(
            stands(COMPLETE),
            [its_pod("1", **ends(1, "first try")), its_pod("2", **ends(0))],
            "",
            "",
            id="it ended well",
        ),
    ],
)
def test_why_it_does_not_get_on(job: Object, pods: list[Object], warning: str, want: str) -> None:
    got = training(job, pods, warning)
    assert got.trouble == want
    assert (got.ended_at is not None) is bool(job["status"]["conditions"])
    assert got.is_complete is (COMPLETE in job["status"]["conditions"])
