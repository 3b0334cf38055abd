"""Is the operator's signed question answered with what was counted, and nobody else's who signs?

The API server that the service would ask for rights does not answer here: the operator's question needs none.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.decide.quality.cohorts import Pairs
from evenkeel_operator.decide.quality.counted import Counted
from evenkeel_operator.decide.quality.measures import cell
from evenkeel_operator.decide.snapshot import Feedback
from evenkeel_operator.feedback.judge import SKEW_S
from evenkeel_operator.world.feedback import Labels, Unanswered
from evenkeel_runtime import receipts
from evenkeel_runtime.receipts import COUNTS, PASSED_ON, QUALITY
from tests.system.feedback.server import KEY_ID, MASTER, NOBODY, Deployment, Service
from tests.system.operator.harness import kubeconfig

CLASSES, CANARY = 3, "digits-canary"
PATH = "/v1/quality/team-a/digits?since=0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("feedback")
    flags = ("--path", str(folder / "feedback.db"), "--kubeconfig", str(kubeconfig(folder, NOBODY)))
    found = Service(folder, *flags, is_open=False)
    yield found
    found.kill()


def asked(service: Service, uid: str, since_s: int = 0, **change: Any) -> Counted:
    """Return the answer to the operator's question, asked by the operator's own client."""

    async def ask() -> Counted:
        labels = Labels(replace(Feedback(service.url, KEY_ID, MASTER, {KEY_ID: MASTER}), **change))
        try:
            return await labels.counted("team-a", "digits", uid, since_s)
        finally:
            await labels.close()

    return asyncio.run(ask())


def deployment(revision: str = "digits-stable", uid: str = "") -> Deployment:
    return Deployment(revision, CLASSES, uid=uid)


def labelled(service: Service, model: Deployment, *labels: tuple[int, int], after_s: float = 0.0) -> list[str]:
    """Post labels (predicted, actual) as a replica passes them on; return their receipts."""
    given = [model.receipt(predicted, after_s=after_s) for predicted, _ in labels]
    items = [{"receipt": text, "label": actual} for text, (_, actual) in zip(given, labels, strict=True)]
    body = json.dumps(items).encode()
    status, got = service.ask("POST", "/v1/feedback", body, model.signed(PASSED_ON, body))
    assert status == 200, got
    assert {one["outcome"] for one in got["results"]} == {"accepted"}
    return given


def told(service: Service, model: Deployment, **more: Any) -> None:
    """Tell what a replica has counted."""
    document = {
        "process": "ab" * 8,
        "revision": model.revision,
        "assignment": 2,
        "classes": CLASSES,
        "cohorts": [],
        **more,
    }
    body = json.dumps(document).encode()
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body)) == (200, {})


def cohort_of(receipt: str, model: Deployment) -> int:
    return receipts.opened(receipt, lambda *_: model.key).time_ms // 1000 // 900 * 900


def cells(known: Counted, revision: str) -> dict[tuple[int, int], int]:
    """Return the labels of all cohorts of a revision by predicted and actual class."""
    both = [(p, a) for p in range(CLASSES) for a in range(CLASSES)]
    found = {(p, a): sum(int(row.labels[cell(p, a, CLASSES)]) for row in known.cohorts(revision)) for p, a in both}
    return {place: count for place, count in found.items() if count}


def test_the_counts_are_those_of_what_was_posted(service: Service) -> None:
    stable = deployment()
    canary = deployment(CANARY, stable.uid)
    labelled(service, stable, (0, 0), (0, 0), (0, 2), (2, 1))
    labelled(service, canary, (1, 1), (2, 2))
    start = int(time.time()) // 900 * 900
    told(service, stable, cohorts=[{"start": start, "counts": [[0, 40], [2, 7]]}])
    told(service, canary, cohorts=[{"start": start - 900, "counts": [[1, 5]]}])
    got = asked(service, stable.uid)
    assert set(got.revisions) == {stable.revision, CANARY}
    assert cells(got, stable.revision) == {(0, 0): 2, (0, 2): 1, (2, 1): 1}
    assert cells(got, CANARY) == {(1, 1): 1, (2, 2): 1}
    predicted = [row.predictions for row in got.cohorts(stable.revision)]
    assert [sum(column) for column in zip(*predicted, strict=True)] == [40, 0, 7]
    first = got.cohorts(CANARY)[0]
    assert (first.start, first.predictions) == (datetime.fromtimestamp(start - 900, UTC), (0, 5, 0))


def test_of_what_both_have_answered_there_are_pairs_once_it_is_labelled(service: Service) -> None:
    model = deployment()
    ours, other = labelled(service, model, (0, 1), (2, 2))
    late = model.receipt(1)
    pairs = [
        [receipts.opened(text, lambda *_: model.key).nonce.hex(), 0, cohort_of(text, model), stable, CANARY, theirs]
        for text, stable, theirs in ((ours, 0, 1), (other, 2, 0), (late, 1, 1))
    ]
    told(service, model, pairs=pairs)
    _, answer = service.ask("GET", PATH, None, question(model.uid, model.key))
    cohorts = [cohort for revision in answer["revisions"] for cohort in revision["cohorts"]]
    assert [row for cohort in cohorts for row in cohort.get("unlabelledPairs", ())] == [[CANARY, 1, 1, 1]]
    _, described = service.ask("GET", "/openapi.json")
    assert {name for cohort in cohorts for name in cohort} <= described["components"]["schemas"]["Cohort"][
        "properties"
    ].keys()
    got = asked(service, model.uid).pairs(model.revision, CANARY)
    assert sum(sum(row.labels.values()) for row in got) == 2, "the third has no label"
    assert all(isinstance(row, Pairs) for row in got)
    both = {place: count for row in got for place, count in row.labels.items()}
    assert both == {
        (cell(0, 1, CLASSES), cell(1, 1, CLASSES)): 1,
        (cell(2, 2, CLASSES), cell(0, 2, CLASSES)): 1,
    }


def test_only_what_was_predicted_since_the_moment_is_told(service: Service) -> None:
    model = deployment()
    labelled(service, model, (0, 0), after_s=-7200.0)
    labelled(service, model, (1, 1), (1, 1))
    assert cells(asked(service, model.uid, int(time.time()) - 3600), model.revision) == {(1, 1): 2}
    assert cells(asked(service, model.uid), model.revision) == {(0, 0): 1, (1, 1): 2}


def test_what_nobody_has_posted_is_no_fault(service: Service) -> None:
    assert asked(service, deployment().uid).revisions == {}


# who may ask


def question(
    uid: str, key: bytes, *, path: str = PATH, purpose: bytes = QUALITY, key_id: int = KEY_ID, after_s: float = 0.0
) -> dict[str, str]:
    """Return the headers of a question."""
    moment = str(int((time.time() + after_s) * 1000))
    return {
        receipts.SUBJECT_HEADER: uid,
        receipts.KEY_ID_HEADER: str(key_id),
        receipts.TIME_HEADER: moment,
        receipts.SIGNATURE_HEADER: receipts.signature(key, purpose, moment.encode(), path.encode()),
    }


Asks = Callable[[Deployment, Deployment], dict[str, str]]


def without(name: str) -> Asks:
    return lambda m, _: {header: value for header, value in question(m.uid, m.key).items() if header != name}


REFUSED = [
    pytest.param(lambda m, o: {}, "NoToken", id="unsigned"),
    pytest.param(lambda m, o: question(m.uid, bytes(32)), "BadSignature", id="signed with another key"),
    pytest.param(lambda m, o: question(m.uid, o.key), "BadSignature", id="signed with another ModelDeployment's key"),
    pytest.param(lambda m, o: question(m.uid, MASTER), "BadSignature", id="signed with the master key itself"),
    pytest.param(
        lambda m, o: question(m.uid, m.key, path="/v1/quality/team-a/digits?since=1"),
        "BadSignature",
        id="the signature of another question",
    ),
    pytest.param(
        lambda m, o: question(m.uid, m.key, purpose=COUNTS), "BadSignature", id="the signature of something else"
    ),
    pytest.param(lambda m, o: question(m.uid, m.key, key_id=9), "BadSignature", id="a key that is not known"),
    pytest.param(lambda m, o: question("digits", m.key), "BadSignature", id="a uid that is none"),
    pytest.param(without(receipts.SUBJECT_HEADER), "BadSignature", id="without a uid"),
    pytest.param(without(receipts.KEY_ID_HEADER), "BadSignature", id="without a key's number"),
    pytest.param(without(receipts.TIME_HEADER), "BadSignature", id="without a time"),
    pytest.param(without(receipts.SIGNATURE_HEADER), "NoToken", id="without a signature"),
    pytest.param(
        lambda m, o: question(m.uid, m.key) | {receipts.TIME_HEADER: "1"}, "BadSignature", id="another time than signed"
    ),
    pytest.param(lambda m, o: question(m.uid, m.key, after_s=-SKEW_S - 60), "ClockSkew", id="said again much later"),
    pytest.param(lambda m, o: question(m.uid, m.key, after_s=SKEW_S + 60), "ClockSkew", id="of a time to come"),
]


@pytest.mark.parametrize(("headers_of", "reason"), REFUSED)
def test_a_question_that_is_not_the_operators_is_refused(headers_of: Asks, reason: str, service: Service) -> None:
    model, other = deployment(), deployment()
    labelled(service, model, (0, 0))
    status, got = service.ask("GET", PATH, None, headers_of(model, other))
    assert (status, got["reason"]) == (401, reason)
    assert got["error"]
    assert service.ask("GET", PATH, None, question(model.uid, model.key))[0] == 200, "the operator's own is answered"


def test_who_signs_for_one_modeldeployment_is_told_of_that_one_alone(service: Service) -> None:
    """Whatever name stands in the path: what the signer's key is of, is answered."""
    mine, other = deployment(), deployment()
    labelled(service, mine, (0, 0))
    labelled(service, other, (1, 1), (1, 1))
    for model, want in ((mine, 1), (other, 2)):
        status, got = service.ask("GET", PATH, None, question(model.uid, model.key))
        assert (status, got["uid"]) == (200, model.uid)
        assert [one["labels"] for one in got["revisions"]] == [want]


def test_a_signed_question_about_labels_themselves_is_another_one(service: Service) -> None:
    model = deployment()
    labelled(service, model, (0, 0))
    status, got = service.ask("GET", "/v1/labels/team-a/digits", None, question(model.uid, model.key))
    assert (status, got["reason"]) == (401, "BadSignature")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"master_key": bytes(32)}, "401", id="another master key"),
        pytest.param({"key_id": 9}, "401", id="a key that the service does not have yet"),
        pytest.param({"url": NOBODY}, "ClientConnectorError", id="nobody listens"),
        pytest.param({"url": "http://nowhere.invalid"}, "ClientConnector", id="a name that is not known"),
        pytest.param({"url": "no url"}, "InvalidUrl", id="no address"),
    ],
)
def test_whoever_is_not_answered_says_why(change: dict[str, Any], words: str, service: Service) -> None:
    with pytest.raises(Unanswered, match=words):
        asked(service, deployment().uid, **change)
