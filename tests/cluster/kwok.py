"""How are hundreds of nodes simulated?

KWOK runs as a pod and plays the kubelet of every node annotated `kwok.x-k8s.io/node: fake`: heartbeats, and
pods that turn Ready at once, run their init containers, and complete when a Job owns them. Its stages are
those of its own release; `--kwok-stage FILE` at `up`, or `install(..., more_stages=[...])`, adds others, such
as pods that are slow to start. A pod gets onto these nodes only if it tolerates their taint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster.gpus import H100, RESOURCE, Model, labels
from tests.cluster.kubectl import Kubectl, manifest, wait_until
from tests.cluster.state import content_key

ANNOTATION = "kwok.x-k8s.io/node"
TAINT = {"key": ANNOTATION, "value": "fake", "effect": "NoSchedule"}
TOLERATION = {"key": ANNOTATION, "operator": "Equal", "value": "fake", "effect": "NoSchedule"}
LABEL = "type=kwok"  # on every simulated node

STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)


def install(kubectl: Kubectl, image: str, stages: Path, more_stages: Sequence[Path] = ()) -> None:
    """`stages` is the folder of KWOK's own ones. Installing again with other stages restarts it."""
    files = [*(stages / name for name in STAGES), *more_stages]
    text = "\n---\n".join(path.read_text() for path in files)
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kwok-stages", "namespace": "evenkeel-test"},
        "data": {"stages.yaml": text},
    }
    # $(POD_IP) is the kubelet's to fill in.
    kubectl.apply(content, manifest("kwok.yaml", {"IMAGE": image, "STAGES_KEY": content_key(text)}))


def add_nodes(
    count: int,
    model: Model = H100,
    *,
    prefix: str = "kwok",
    kubeconfig: str | None = None,
    wait_s: float = 60,
) -> list[str]:
    """Simulated nodes `<prefix>-0`, ... with the model's labels and GPUs, once they are Ready."""
    kubectl = Kubectl.of(kubeconfig)
    wanted = [f"{prefix}-{index}" for index in range(count)]
    kubectl.apply(*(_node(name, model) for name in wanted))
    wait_until(f"{count} simulated nodes are Ready", lambda: set(wanted) <= _ready(kubectl), wait_s)
    return wanted


def remove_nodes(*, prefix: str | None = None, kubeconfig: str | None = None) -> None:
    """All simulated nodes, or those of one prefix. The pods on them go, too."""
    kubectl = Kubectl.of(kubeconfig)
    found = kubectl.ask("get", "nodes", f"--selector={LABEL}", "--output=name").split()
    doomed = [name for name in found if prefix is None or name.removeprefix("node/").rpartition("-")[0] == prefix]
    if doomed:
        kubectl.ask("delete", "--wait=false", *doomed)


def _ready(kubectl: Kubectl) -> set[str]:
    condition = '{.status.conditions[?(@.type=="Ready")].status}'
    line = "{range .items[*]}{.metadata.name} " + condition + '{"\\n"}{end}'
    answer = kubectl.ask("get", "nodes", f"--selector={LABEL}", f"--output=jsonpath={line}")
    return {words[0] for words in map(str.split, answer.splitlines()) if words[1:] == ["True"]}


def _node(name: str, model: Model) -> dict[str, object]:
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", RESOURCE: str(model.count)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {
                **labels(model),
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
            },
        },
        "spec": {"taints": [TAINT]},
        "status": {"capacity": resources, "allocatable": resources},
    }
