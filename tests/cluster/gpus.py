"""How do nodes without a GPU offer GPUs, and how does a test break one?

A device plugin of our own (go/addons/deviceplugin) runs on every worker and offers `nvidia.com/gpu`. The
workers carry the labels that NVIDIA's GPU feature discovery sets. A container finds the devices it was given
in NVIDIA_VISIBLE_DEVICES, as "GPU-0,GPU-2".

To break devices of a node from a test: `set_unhealthy("evenkeel-worker", ["GPU-0"])`; the node's allocatable
`nvidia.com/gpu` falls within two seconds. `set_unhealthy(node, [])` heals them. It is the annotation
`evenkeel.test/unhealthy-gpus` of the node, so `kubectl annotate` does it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.kubectl import Kubectl

RESOURCE = "nvidia.com/gpu"
UNHEALTHY_ANNOTATION = "evenkeel.test/unhealthy-gpus"


@dataclass(frozen=True)
class Model:
    product: str
    memory_mib: int
    count: int = 4


H100 = Model("NVIDIA-H100-80GB-HBM3", 81559)
L4 = Model("NVIDIA-L4", 23034)
MODELS = (H100, L4)  # of the first worker, the second, and so on in turn


def labels(model: Model) -> dict[str, str]:
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": model.product,
        "nvidia.com/gpu.memory": str(model.memory_mib),
        "nvidia.com/gpu.count": str(model.count),
    }


def set_unhealthy(node: str, devices: Sequence[str], *, kubeconfig: str | None = None) -> None:
    """Marks exactly these devices of the node unhealthy; `["all"]` means each of them."""
    value = f"{UNHEALTHY_ANNOTATION}={','.join(devices)}" if devices else f"{UNHEALTHY_ANNOTATION}-"
    Kubectl.of(kubeconfig).ask("annotate", "--overwrite", "node", node, value)


def allocatable(node: str, *, kubeconfig: str | None = None) -> int:
    """How many GPUs the kubelet offers at this moment."""
    path = "jsonpath={.status.allocatable.nvidia\\.com/gpu}"
    return int(Kubectl.of(kubeconfig).ask("get", "node", node, "--output", path) or "0")
