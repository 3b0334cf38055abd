"""What does Evenkeel do, seen from the outside? `make demo`: every step on a real cluster, with its time.

Nothing here is staged: the model is trained, the pods are scheduled on nodes that offer GPUs (whose devices are not
there, see tests/cluster/gpus.py; torch computes on the CPU), every prediction is an HTTP request.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import traffic, volumes
from tests.cluster.installation import Deployment, folder_with, install, wait_answering
from tests.cluster.kubectl import Kubectl
from tests.cluster.state import CHECKOUT, Cache, Cluster, content_key, read

NAMESPACE, NAME, CLAIM, NODE_PORT = "demo", "digits", "models", 30080
BEGAN = time.monotonic()


def main() -> int:
    """Run the demo; return 0 when everything it shows went as it says."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keep-up", action="store_true", help="use the cluster that is up as it is")
    keep_up = options.parse_args().keep_up

    training = start_training()
    if not keep_up:
        with step("a Kubernetes cluster: 1 control plane, 2 workers with 4 GPUs each"):
            subprocess.run([sys.executable, "-m", "tests.cluster", "up", "--no-services"], check=True, cwd=CHECKOUT)
    cluster = read()
    kubectl = Kubectl.of(cluster.kubeconfig)
    with step("helm upgrade --install evenkeel charts/evenkeel"):
        install(cluster)
    with step("train two versions of examples/digits on 1,437 real handwritten digits (since the start)"):
        models = finish_training(training)
    port = cluster.node_ports[str(NODE_PORT)]
    deployment = Deployment(kubectl, NAMESPACE, NAME)
    with step("a namespace, a volume with the model file"):
        prepare_namespace(cluster, kubectl, models)
    failed = deploy(deployment, port, models)
    failed += update_under_load(deployment, port, models)
    refuse_wrong_checksum(deployment, port, models)
    scale(deployment)
    show_shortage(deployment)
    say(f"the whole demo took {time.monotonic() - BEGAN:.0f} s; failed requests: {failed}")
    say('look around: eval "$(python3 -m tests.cluster env)"; kubectl -n demo get mdep    end it: make demo-down')
    return 1 if failed else 0


def start_training() -> list[tuple[Path, subprocess.Popen[bytes] | None]]:
    """Start training both versions, unless this code has trained them before."""
    sources = sorted((CHECKOUT / "examples" / "digits").glob("*.py"))
    cache = Cache.of_environment().folder("models", content_key(*(p for p in sources if p.name != "demo.py")))
    started: list[tuple[Path, subprocess.Popen[bytes] | None]] = []
    for version, flags in (("v1", ()), ("v2", ("--seed", "2", "--epochs", "12"))):
        folder = cache / version
        if (folder / "metrics.json").exists():
            started.append((folder, None))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "examples/digits/train.py", "--out", str(folder), *flags]
        with (folder / "train.log").open("wb") as log:
            # One thread each: beside a build, threads that wait for each other burn three times the CPU.
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(words, cwd=CHECKOUT, env=env, stdout=log, stderr=subprocess.STDOUT)
        atexit.register(process.terminate)  # a demo that is given up trains nothing
        started.append((folder, process))
    return started


def finish_training(started: list[tuple[Path, subprocess.Popen[bytes] | None]]) -> list[Path]:
    for folder, process in started:
        log = folder / "train.log"
        if process is not None and process.wait() != 0:
            raise SystemExit(f"training failed:\n{log.read_text(errors='replace')[-2000:]}")
        metrics = json.loads((folder / "metrics.json").read_text())
        figures = "  ".join(f"{key} {metrics[key]:.4f}" for key in ("accuracy", "precision", "recall", "f1"))
        say(f"    {folder.name}: {figures}{'' if process else '   (trained by an earlier run of this code)'}")
    return [folder for folder, _ in started]


def prepare_namespace(cluster: Cluster, kubectl: Kubectl, models: list[Path]) -> None:
    kubectl.ask("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", "--timeout=120s")
    kubectl.ask("delete", "pv", f"{NAMESPACE}-{CLAIM}", "--ignore-not-found")
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    folder = volumes.expose(cluster, NAMESPACE, CLAIM)
    folder_with(folder, **{f"{m.name}__pt2": (m / "digits.pt2").read_bytes() for m in models})


def spec(file: Path, **changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256((file / "digits.pt2").read_bytes()).hexdigest()
    model = {"uri": f"pvc://{CLAIM}/{file.name}.pt2", "sha256": digest}
    return {"model": model, "gpu": {"count": 1}, **changes}


def deploy(deployment: Deployment, port: int, models: list[Path]) -> int:
    with step("kubectl apply: one ModelDeployment, until it is Ready"):
        deployment.apply(spec(models[0], replicas=1))
        deployment.wait("Serving")
        deployment.expose(NODE_PORT)
    show(deployment)
    with step("a prediction of a held-out digit"):
        body, truth = held_out(models[0])
        wait_answering(deployment, port, body)
        answer = deployment.predict(port, body)
        scores = answer["outputs"][0]["data"]
        seen = max(range(10), key=lambda digit: float(scores[digit]))
        say(f"    POST /v2/models/{NAME}/infer -> class {seen} (truth {truth}), revision {answer['model_version']}")
    return int(seen != truth)


def update_under_load(deployment: Deployment, port: int, models: list[Path]) -> int:
    body, _ = held_out(models[0])
    target = traffic.Target(port, f"/v2/models/{NAME}/infer", body)
    with step("a rolling update to the second version under load"), traffic.constant(target) as tally:
        time.sleep(2)
        deployment.apply(spec(models[1], replicas=1))
        wait_for_generation(deployment, "Serving")
        time.sleep(8)  # the old replica drains and goes
    say(f"    answered {tally.answered}, by revision {dict(tally.versions)}; failed requests: {tally.failures()}")
    if tally.failures():
        say(f"    {dict(tally.failed)}, the first at {tally.first_failure}")
    return tally.failures()


def refuse_wrong_checksum(deployment: Deployment, port: int, models: list[Path]) -> None:
    with step("an update with a wrong checksum: refused, the old revision serves on"):
        wrong = spec(models[0], replicas=1)
        wrong["model"]["sha256"] = "0" * 64
        deployment.apply(wrong)
        say(f"    {wait_for_generation(deployment, 'ChecksumMismatch')}")
        answer = deployment.predict(port, held_out(models[0])[0])
    show(deployment)
    say(f"    still answering: revision {answer['model_version']}")
    with step("back to the version that serves"):
        deployment.apply(spec(models[1], replicas=1))
        wait_for_generation(deployment, "Serving")


def scale(deployment: Deployment) -> None:
    with step("kubectl scale mdep/digits --replicas=2"):
        deployment.kubectl.ask("scale", f"mdep/{NAME}", "--replicas=2", f"--namespace={NAMESPACE}")
        wait_for_generation(deployment, "Serving")
    nodes = sorted(pod["spec"]["nodeName"] for pod in deployment.replicas())
    say(f"    on {', '.join(nodes)}")


def show_shortage(deployment: Deployment) -> None:
    with step("a GPU shortage: 9 replicas, 8 GPUs"):
        deployment.kubectl.ask("scale", f"mdep/{NAME}", "--replicas=9", f"--namespace={NAMESPACE}")
        say(f"    {wait_for_generation(deployment, 'Unschedulable')}")
    show(deployment)
    with step("back to 1 replica"):
        deployment.kubectl.ask("scale", f"mdep/{NAME}", "--replicas=1", f"--namespace={NAMESPACE}")
        wait_for_generation(deployment, "Serving")


def wait_for_generation(deployment: Deployment, reason: str) -> str:
    """Wait until the status answers the present spec with `reason`."""
    return deployment.wait(reason, timeout_s=180)


def held_out(model: Path) -> tuple[bytes, int]:
    """Return the request of a held-out digit, and what it is."""
    digit = 7
    return (model / "heldout" / f"{digit}.json").read_bytes(), digit


def show(deployment: Deployment) -> None:
    table = deployment.kubectl.ask("get", "mdep", f"--namespace={NAMESPACE}")
    print("\n".join(f"    {line}" for line in table.splitlines()), flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    began = time.monotonic()
    say(f"{title} ...")
    yield
    say(f"{title}: {time.monotonic() - began:.1f} s")


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
