"""Which extended resources does a pod hold on its node? The scheduler's own arithmetic, for GPUs only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from evenkeel_operator.api.modeldeployment import Object


def extended(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the extended resources among `quantities`: named domain/name, whole numbers, not Kubernetes' own."""
    found = {}
    for name, value in (quantities or {}).items():
        domain, slash, _ = name.partition("/")
        if slash and domain != "kubernetes.io" and str(value).isdecimal():
            found[name] = int(value)
    return found


def held(pod: Object) -> dict[str, int]:
    """Return what `pod` holds: its containers together, or its greediest moment of starting up where that is more.

    Init containers run one after another beside the sidecars (restartPolicy Always) started before them; sidecars
    stay. Counterexample to the plain maximum: a sidecar with 1 GPU and a container with 1 hold 2.
    """
    spec = pod["spec"]
    running: Counter[str] = Counter()
    for container in spec.get("containers") or ():
        running.update(_asked(container))
    sidecars: Counter[str] = Counter()
    starting: Counter[str] = Counter()
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            sidecars.update(asked)
            starting |= sidecars
        else:
            starting |= sidecars + Counter(asked)
    return dict((running + sidecars) | starting)


def _asked(container: Object) -> dict[str, int]:
    resources = container.get("resources") or {}
    # Extended resources cannot be overcommitted: where only limits are written, they are the requests.
    return extended(resources.get("limits")) | extended(resources.get("requests"))
