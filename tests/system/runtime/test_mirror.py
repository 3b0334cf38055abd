"""Does the canary get copies that cost no user anything, and does a label find what both have predicted?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel_runtime import receipts
from evenkeel_runtime.contract import MIRROR
from evenkeel_runtime.serve.mirror import MOST_COPIES
from tests.system.feedback.server import Deployment, Service
from tests.system.runtime.replica import Replica
from tests.system.runtime.rollout import CALM_S, FAR, HEADER, Rollout, await_that, go_on, stop, versions


@pytest.fixture(scope="module")
def pair(service: Service, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """A stable replica and one of the canary, which tell a feedback service, shared by the module's tests."""
    folder = tmp_path_factory.mktemp("rollout")
    model = Deployment(classes=3)
    found: list[Replica] = []
    try:
        for version in ("stable", "canary"):
            told = model.told(folder / "key", service.url, version)
            found.append(Replica(model_dir / "perceptron.pt2", folder / version, told))
        for replica in found:
            replica.await_ready()
        yield Rollout(model, found[0], (found[1],))
    finally:
        for replica in found:
            replica.kill()


@pytest.fixture
def rollout(pair: Rollout) -> Iterator[Rollout]:
    """The shared replicas, with nothing told and nothing counted of another test."""
    yield pair
    pair.tell(pair.plan(0.0, revision="between"), CALM_S)
    pair.tell(None)


def test_mirrored_requests_are_answered_by_stable(rollout: Rollout) -> None:
    before = rollout.canary.metric("inference_rows_total")
    rollout.tell(rollout.plan(0.5, MIRROR), CALM_S)
    assert versions(rollout.stable, [""] * 400) == {"stable": 400}
    arm = rollout.arm(MIRROR)
    assert abs(arm["sent"] + sum(arm["dropped"].values()) - 200) <= FAR * 10
    assert arm["answered"] == arm["sent"]
    assert rollout.canary.metric("inference_rows_total") - before == arm["sent"]
    assert rollout.signals()["canary"]["split"] is None


def test_a_mirror_that_hangs_holds_up_nobody_and_is_bounded(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(1.0, MIRROR), CALM_S)
    stop(rollout.canary)
    try:
        assert versions(rollout.stable, [""] * 500) == {"stable": 500}
        arm: Any = rollout.signals()["canary"]["mirror"]
    finally:
        go_on(rollout.canary)
    assert arm["underWay"] == arm["sent"] == MOST_COPIES
    assert arm["sent"] + sum(arm["dropped"].values()) == 500
    assert arm["dropped"]["copies"] > 0
    assert rollout.arm(MIRROR)["answered"] == MOST_COPIES


def test_copies_hold_so_many_bytes_and_no_more(rollout: Rollout) -> None:
    """A large request is mirrored once and not twice, where two are more than copies may hold."""
    rollout.tell(rollout.plan(1.0, MIRROR), CALM_S)
    body = json.dumps(HEADER).encode() + b" " * (9 << 20)
    stop(rollout.canary)
    try:
        assert [rollout.stable.infer(body).status for _ in range(2)] == [200, 200]
        arm: Any = rollout.signals()["canary"]["mirror"]
    finally:
        go_on(rollout.canary)
    assert (arm["sent"], arm["dropped"]) == (1, {"memory": 1})
    assert rollout.arm(MIRROR)["answered"] == 1


def test_what_the_canary_does_not_answer_is_counted(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(1.0, MIRROR), CALM_S)
    assert rollout.stable.infer(b'{"inputs": []}').status == 400
    arm = rollout.arm(MIRROR)
    assert (arm["invalid"], arm["failed"]) == (1, {})
    rollout.tell(rollout.plan(1.0, MIRROR, addresses=("127.0.0.1:9",)), CALM_S)
    assert rollout.stable.infer(HEADER).status == 200
    assert rollout.arm(MIRROR)["failed"] == {"unreachable": 1}


def test_a_label_finds_what_both_have_predicted(rollout: Rollout, service: Service) -> None:
    rollout.tell(rollout.plan(1.0, MIRROR), CALM_S)
    answers = [rollout.stable.infer(HEADER, **{receipts.ID_HEADER: f"mine-{number}"}) for number in range(5)]
    assert rollout.arm(MIRROR)["answered"] == 5
    texts = [answer.headers[receipts.HEADER] for answer in answers]
    service.post([{"receipt": text, "label": 1} for text in texts])
    (class_,) = {receipts.opened(text, lambda *_: rollout.model.key).predicted(0)[0] for text in texts}

    def told() -> dict[str, Any]:
        return {revision["revision"]: revision for revision in service.quality(rollout.model)}

    def pairs() -> list[list[Any]]:
        return [pair for cohort in told()["stable"]["cohorts"] for pair in cohort.get("pairs", ())]

    await_that(lambda: sum(pair[4] for pair in pairs()) >= 5)
    quality, found = told(), pairs()
    assert [pair[:4] for pair in found] == [["canary", class_, class_, 1]] * len(found)
    assert sum(pair[4] for pair in found) == 5
    assert quality.get("canary", {"predictions": 0})["predictions"] == 0  # nobody was given the receipts of copies


def test_the_classes_of_a_canary_are_known_before_anybody_is_answered_by_it(rollout: Rollout, service: Service) -> None:
    """Else one that answers other classes than the stable revision would wait for labels that never count."""

    def classes() -> dict[str, Any]:
        return {revision["revision"]: revision["classes"] for revision in service.quality(rollout.model)}

    await_that(lambda: classes() == {"stable": 3, "canary": 3})
