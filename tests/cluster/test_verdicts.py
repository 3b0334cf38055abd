"""Do the verdicts of labels come out right on a real cluster, with real digits, whatever is killed meanwhile?

Labels count by the quarter of an hour, so this takes up to half an hour: four deployments go their ways at once.

    good      the canary is another training of the same network: promoted
    mirrored  so is this one, which is sent copies and answers nobody: promoted
    bad       the canary was trained so little that it is five points worse at least: rolled back
    silent    nobody ever posts a label: held, and says why
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.digits import data, evaluate, export, train
from examples.digits.model import Net
from tests.cluster import installation, labelled
from tests.cluster.installation import SYSTEM_NAMESPACE, Deployment, kill, operator_pods
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.labelled import Application
from tests.cluster.place import Places
from tests.cluster.state import Cluster
from tests.cluster.test_canary import QUICK, canary, wait_state

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

RPS = 10.0
OBJECTIVE = {"metric": "Accuracy", "floor": 0.85, "margin": 0.02, "horizon": "1s"}
WORSE = 0.05


@dataclass(frozen=True)
class Digits:
    """A trained network: its file and its accuracy on the images that it has not seen."""

    content: bytes
    accuracy: float


def trained(folder: Path, name: str, digits: data.Digits, seed: int, epochs: int, images: int) -> Digits:
    options = replace(train.Options(), epochs=epochs, seed=seed)
    torch.manual_seed(seed)
    net = Net()
    for _ in train.fit(net, digits.train_images[:images], digits.train_labels[:images], options):
        pass
    path = folder / f"{name}.pt2"
    model = export.save(net.eval(), path, digits.heldout_images)
    quality = evaluate.quality(digits.heldout_labels, evaluate.predictions(model, digits.heldout_images))
    return Digits(path.read_bytes(), quality.accuracy)


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.load()


@pytest.fixture(scope="module")
def models(digits: data.Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Digits]:
    """Two good ones, and one that was shown ever fewer images until it is worse enough."""
    folder = tmp_path_factory.mktemp("digits")
    found = {name: trained(folder, name, digits, seed, 15, 2000) for seed, name in enumerate(("v1", "v2"))}
    for images in (400, 200, 100, 50):
        found["v3"] = trained(folder, "v3", digits, 0, 2, images)
        if found["v3"].accuracy <= found["v1"].accuracy - WORSE:
            break
    assert found["v3"].accuracy <= found["v1"].accuracy - WORSE
    return found


@pytest.fixture(scope="module")
def requests(digits: data.Digits) -> list[dict[str, Any]]:
    labels = digits.heldout_labels.tolist()
    return [
        {"body": export.request(image, "image"), "label": label}
        for image, label in zip(digits.heldout_images, labels, strict=True)
    ]


@dataclass(frozen=True)
class Trial:
    """One deployment with its canary under way."""

    deployment: Deployment
    application: Application
    revision: str


@pytest.fixture(scope="module")
def trials(
    places: Places, cluster: Cluster, models: dict[str, Digits], requests: list[dict[str, Any]]
) -> Iterator[dict[str, Trial]]:
    installation.install(cluster, f"extraArgs={{{QUICK}}}")
    steps = [{"weight": 50, "minDuration": "10s", "minSamples": 20}]
    with ExitStack() as stack:
        here = stack.enter_context(places())
        here.put(**{f"{name}__pt2": model.content for name, model in models.items()})
        found: dict[str, Trial] = {}
        for name, version, mode, share in (
            ("good", "v2", "Split", 1.0),
            ("bad", "v3", "Split", 1.0),
            ("mirrored", "v2", "Mirror", 1.0),
            ("silent", "v2", "Split", 0.0),
        ):
            one = here.deployment(name)
            rollout = {"strategy": "Canary", "canary": {"mode": mode, "steps": steps}}
            common: dict[str, Any] = {"rollout": rollout, "objectives": {"accuracy": [OBJECTIVE]}}
            one.apply(here.spec("v1.pt2", **common))
            one.settle(1)
            application = stack.enter_context(labelled.application(here, one, requests, rps=RPS, share=share))
            one.apply(here.spec(f"{version}.pt2", **common))
            found[name] = Trial(one, application, first_step(one))
        yield found


def first_step(deployment: Deployment) -> str:
    """Wait until the canary has its share of the traffic; return its revision."""
    wait_until("its step begins", lambda: bool(canary(deployment).get("stepsBegan")), timeout_s=180)
    return str(canary(deployment)["revision"])


def kill_both(kubectl: Kubectl, trial: Trial) -> None:
    """Kill the operator, and the canary's replica."""
    kill(kubectl, lambda: str(operator_pods(kubectl)[0]["metadata"]["name"]), SYSTEM_NAMESPACE)
    pods = trial.deployment.replicas()
    its = [p["metadata"]["name"] for p in pods if p["metadata"]["labels"]["evenkeel.dev/revision"] == trial.revision]
    if its:
        kill(kubectl, lambda: str(its[0]), trial.deployment.namespace)


def quarters(trial: Trial) -> float:
    """Return the seconds until the first quarter of an hour that counts is over."""
    began = time.mktime(time.strptime(canary(trial.deployment)["stepsBegan"][0], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    return (began // 900 + 2) * 900 - time.time()


def test_verdicts_come_out_right_whatever_is_killed(
    kubectl: Kubectl, trials: dict[str, Trial], models: dict[str, Digits]
) -> None:
    good, bad, silent = trials["good"], trials["bad"], trials["silent"]
    accuracies = {name: round(model.accuracy, 4) for name, model in models.items()}
    for _ in range(3):
        time.sleep(20)
        kill_both(kubectl, good)
    time.sleep(max(0.0, quarters(silent)))
    worse = wait_state(bad.deployment, "RolledBack", timeout_s=300)
    better = wait_state(good.deployment, "Promoted", timeout_s=300)
    copied = wait_state(trials["mirrored"].deployment, "Promoted", timeout_s=300)
    held = wait_state(silent.deployment, "Held", timeout_s=1000)
    print(
        json.dumps(
            {"accuracies": accuracies, "good": better, "bad": worse, "mirrored": copied, "silent": held}, indent=1
        )
    )
    assert worse["why"] in ("Worse", "BelowFloor")
    assert better["why"] == copied["why"] == "NotWorse"
    assert held["why"] == "LabelsMissing"
    assert "onMissingLabels" in silent.deployment.condition()[2]

    def is_gone() -> bool:
        left = {p["metadata"]["labels"]["evenkeel.dev/revision"] for p in bad.deployment.replicas()}
        return bad.revision not in left

    wait_until("the bad one is gone", is_gone, timeout_s=30)
    wait_until("the good one serves", lambda: good.deployment.condition()[1] == "Serving", timeout_s=120)
    assert good.deployment.get()["status"]["stableRevision"] == good.revision
    assert bad.deployment.condition()[1] == "RolledBack"
    for name, trial in trials.items():
        counts = trial.application.counts()
        assert counts.failed == {}, f"{name}: the first at {counts.first}"
        assert set(counts.labels) <= {"accepted"}, (name, counts.labels)
    (row,) = good.deployment.get()["status"]["accuracy"]
    assert row["state"] == "Fresh"
    print(kubectl.ask("get", "mdep", f"--namespace={good.deployment.namespace}"))
