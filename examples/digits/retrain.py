"""Learn from what the model was asked since its accuracy decayed, and ask for the result to be tried as a canary.

Runs as the Job that an alarm starts, see `retrain.yaml`. What happened is in its environment (EVENKEEL_…); what the
feedback service holds of it is told by its export: each label, with what was predicted and the receipt's nonce. The
inputs it never sees, so they come from who has kept them: here a file of the application, a line of JSON for each
request with its truth (`drift.py`). One that keeps inputs by their nonces joins the two.

The new model is written beside the old one, and spec.model is made to name it by this Job's own service account. That
is all: with the strategy Canary it is tried like anybody's change, and serves when it is shown to be not worse.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.digits import data, drift, evaluate, export, train
from examples.digits.model import Net

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 60.0


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Train, measure, write, ask; exits with 1 and a sentence where there is nothing good enough to be tried."""
    given = _arguments(argv, environ)
    alarm, token = environ["EVENKEEL_ALARM"], (given.account / "token").read_text()
    observed, metric = environ.get("EVENKEEL_OBSERVED", "not known"), environ["EVENKEEL_METRIC"]
    print(
        f"alarm {alarm}: {metric} of {environ['EVENKEEL_REVISION']} is {observed} ({environ['EVENKEEL_ALARM_REASON']})"
    )
    if url := environ.get("EVENKEEL_LABELS_URL"):
        right, total = labelled(url, token, environ["EVENKEEL_REVISION"])
        print(f"the feedback service holds {total} labels of it since the decay began; {right} predictions were right")

    images, labels = drift.read(given.examples)
    kept, heldout = data.split_indices(labels)
    known = data.load()
    torch.manual_seed(given.seed)
    net = Net()
    options = replace(train.Options(), epochs=given.epochs, seed=given.seed)
    learned = torch.cat([known.train_images, images[kept]]), torch.cat([known.train_labels, labels[kept]])
    for epoch, loss in enumerate(train.fit(net, *learned, options), 1):
        print(f"epoch {epoch:2}/{given.epochs}  loss {loss:.4f}", flush=True)
    found = evaluate.quality(labels[heldout], evaluate.predictions(net.eval(), images[heldout]))
    floor = float(environ["EVENKEEL_FLOOR"])
    print(f"held out of what was asked: accuracy {found.accuracy:.4f}, floor {floor:g}")
    if found.accuracy < floor:
        sys.exit(
            f"accuracy {found.accuracy:.4f} is below the floor {floor:g}: nothing is asked for; a person has to look"
        )

    path = given.out / f"digits-{alarm}.pt2"
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        made = Path(folder) / path.name
        export.save(net, made, images[heldout])
        made.rename(path)  # whoever reads it finds all of it
    uri = f"pvc://{given.claim}/{path.name}"
    ask(given.api, token, given.account / "ca.crt", environ, uri, export.sha256(path))
    print(f"spec.model of {environ['EVENKEEL_NAME']} is {uri} now")


def labelled(url: str, token: str, revision: str) -> tuple[int, int]:
    """Return how many labelled predictions of `revision` the feedback service exports: the right ones, and all."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    counts: Counter[bool] = Counter()
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        for row in map(json.loads, response):
            if row["revision"] == revision:
                counts[row["predicted"] == row["label"]] += 1
    return counts[True], counts.total()


def ask(api: str, token: str, authority: Path, environ: Mapping[str, str], uri: str, sha256: str) -> None:
    """Make spec.model name the new file, unless somebody has made it name another one meanwhile."""
    place = f"namespaces/{environ['EVENKEEL_NAMESPACE']}/modeldeployments/{environ['EVENKEEL_NAME']}"
    patch = [
        {"op": "test", "path": "/spec/model/uri", "value": environ["EVENKEEL_MODEL_URI"]},
        {"op": "add", "path": "/spec/model/uri", "value": uri},
        {"op": "add", "path": "/spec/model/sha256", "value": sha256},
    ]
    request = urllib.request.Request(
        f"{api}/apis/evenkeel.dev/v1alpha1/{place}",
        data=json.dumps(patch).encode(),
        method="PATCH",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json-patch+json"},
    )
    context = ssl.create_default_context(cafile=str(authority)) if api.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context):
            pass
    except urllib.error.HTTPError as e:
        sys.exit(f"the API server answers {e.code} to the new spec.model: {e.read()[:1000].decode(errors='replace')}")


def _arguments(argv: list[str] | None, environ: Mapping[str, str]) -> argparse.Namespace:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--examples", type=Path, required=True, help="what the application was asked, with the truths")
    add("--out", type=Path, required=True, help="folder of the claim, as it is mounted here")
    add("--claim", required=True, help="the claim's name")
    add("--epochs", type=int, default=8, help="passes over the digits")
    add("--seed", type=int, default=0, help="of first weights, order and dropout")
    add("--api", default=server, help="address of the API server")
    add("--account", type=Path, default=ACCOUNT, help="folder of the service account's token")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
