"""Does the Job of the example learn what has changed, and ask for its model with the rights and words that it needs?"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from evenkeel_operator.decide import names
from evenkeel_operator.decide.alarms import ENVIRONMENT_PREFIX
from evenkeel_operator.decide.trainings import Template, template
from examples.digits import data, drift, evaluate, export, retrain, train
from examples.digits.model import Net

FOLDER = Path(retrain.__file__).parent
ALARM = "0123456789abcdef"
TOKEN = "a.service.account"

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Cluster:
    """The API server and the feedback service, as far as the Job asks them."""

    url: str = ""
    status: int = 200
    asked: list[tuple[str, str, str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(("GET", self.path, self.headers["Authorization"], None))
            self.answer(200, "".join(json.dumps(row) + "\n" for row in found.labels))

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json-patch+json"
            found.asked.append(("PATCH", self.path, self.headers["Authorization"], json.loads(body)))
            self.answer(found.status, "the test failed" if found.status != 200 else "{}")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> data.Digits:
    """A few of the digits, on one thread: batches this small are no faster on two."""
    all_of_them = data.load()
    images, labels = all_of_them.heldout_images[:150], all_of_them.heldout_labels[:150]
    found = data.Digits(images, labels, images[:20], labels[:20])
    monkeypatch.setattr(data, "load", lambda: found)
    return found


def run(cluster: Cluster, folder: Path, few: data.Digits, **environ: str) -> None:
    (folder / "token").write_text(TOKEN)
    drift.write(folder / "requests.jsonl", few)
    words = [f"--examples={folder}/requests.jsonl", f"--out={folder}", "--claim=models", "--epochs=1"]
    told = {
        "NAMESPACE": "team-a",
        "NAME": "digits",
        "REVISION": "digits-old",
        "MODEL_URI": "pvc://models/digits.pt2",
        "ALARM": ALARM,
        "ALARM_REASON": "DriftSuspected",
        "METRIC": "Accuracy",
        "FLOOR": "0.01",
        "OBSERVED": "0.1",
        "LABELS_URL": f"{cluster.url}/v1/labels/team-a/digits?since=5",
    } | environ
    retrain.main(
        [*words, f"--api={cluster.url}", f"--account={folder}"],
        {ENVIRONMENT_PREFIX + key: value for key, value in told.items()},
    )


def test_a_quarter_turn_is_another_image_and_four_are_the_same(few: data.Digits) -> None:
    images = once = drift.turned(few.train_images)
    assert not torch.equal(once, few.train_images)
    for _ in range(3):
        images = drift.turned(images)
    assert torch.equal(images, few.train_images)


def test_what_an_application_keeps_is_read_as_it_was_sent(few: data.Digits, tmp_path: Path) -> None:
    drift.write(tmp_path / "requests.jsonl", few)
    images, labels = drift.read(tmp_path / "requests.jsonl")
    want = drift.turned(torch.cat([few.train_images, few.heldout_images]))
    torch.testing.assert_close(images, want, atol=5.1e-5, rtol=0)
    assert torch.equal(labels, torch.cat([few.train_labels, few.heldout_labels]))


def test_the_new_model_is_written_and_asked_for(
    cluster: Cluster, few: data.Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.labels = [
        {"revision": "digits-old", "predicted": 1, "label": 1},
        {"revision": "digits-old", "predicted": 1, "label": 7},
        {"revision": "digits-older", "predicted": 7, "label": 7},
    ]
    run(cluster, tmp_path, few)
    assert "holds 2 labels of it since the decay began; 1 predictions were right" in capsys.readouterr().out
    path = tmp_path / f"digits-{ALARM}.pt2"
    (asked, patched) = cluster.asked
    assert asked == ("GET", "/v1/labels/team-a/digits?since=5", f"Bearer {TOKEN}", None)
    assert patched == (
        "PATCH",
        "/apis/evenkeel.dev/v1alpha1/namespaces/team-a/modeldeployments/digits",
        f"Bearer {TOKEN}",
        [
            {"op": "test", "path": "/spec/model/uri", "value": "pvc://models/digits.pt2"},
            {"op": "add", "path": "/spec/model/uri", "value": f"pvc://models/digits-{ALARM}.pt2"},
            {"op": "add", "path": "/spec/model/sha256", "value": export.sha256(path)},
        ],
    )
    assert torch.export.load(path).module()(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "requests.jsonl", "token"]


def test_a_model_that_has_learned_too_little_is_not_asked_for(
    cluster: Cluster, few: data.Digits, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"is below the floor 0\.999: nothing is asked for"):
        run(cluster, tmp_path, few, FLOOR="0.999")
    assert [what for what, *_ in cluster.asked] == ["GET"]
    assert not list(tmp_path.glob("*.pt2"))


def test_another_model_that_a_person_has_asked_for_meanwhile_stays(
    cluster: Cluster, few: data.Digits, tmp_path: Path
) -> None:
    cluster.status = 422
    with pytest.raises(SystemExit, match=r"answers 422 to the new spec\.model: the test failed"):
        run(cluster, tmp_path, few)


def test_the_manifests_fit_together() -> None:
    objects = {o["kind"]: o for o in yaml.safe_load_all((FOLDER / "retrain.yaml").read_text())}
    deployment = yaml.safe_load((FOLDER / "modeldeployment-retraining.yaml").read_text())
    name = deployment["metadata"]["name"]
    found = template(deployment["spec"]["retraining"]["cronJobRef"]["name"], objects["CronJob"], name, "team-a")
    assert isinstance(found, Template)
    assert objects["CronJob"]["metadata"]["name"] == found.cron_job
    assert objects["CronJob"]["metadata"]["labels"] == {names.RETRAINS_LABEL: name}
    assert objects["CronJob"]["spec"]["suspend"] is True, "it is the template alone"
    pod = found.spec["template"]["spec"]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert {r["resourceNames"][0] for r in objects["Role"]["rules"]} == {name}
    assert {verb for r in objects["Role"]["rules"] for verb in r["verbs"]} == {"patch", "get"}
    assert pod["containers"][0]["command"] == ["python", "-m", retrain.__name__]


def test_digits_that_are_turned_are_another_task(few: data.Digits) -> None:
    """Else nothing would have to be learned: of a model that knows upright ones it is a guess."""
    torch.manual_seed(0)
    net = Net()
    options = train.Options(epochs=6)
    for _ in train.fit(net, few.train_images, few.train_labels, options):
        pass
    net.eval()
    upright, sideways = (
        evaluate.quality(few.train_labels, evaluate.predictions(net, images)).accuracy
        for images in (few.train_images, drift.turned(few.train_images))
    )
    assert upright > sideways + 0.2
