"""Who else is in the cluster? Controllers of Jobs and ReplicaSets and a kubelet, as far as the operator sees them.

Jobs that retrain stand until a test ends them: what they do is not the operator's.
"""

from __future__ import annotations

import asyncio

from evenkeel_runtime import contract
from tests.system.operator.fakeapi.resources import Resource
from tests.system.operator.fakeapi.store import NotFound, Object, Store, timestamp
from tests.system.operator.replicas import FakeReplicas

PREPARED = contract.Prepared(digest="sha256:" + "ab" * 32, format="TorchExport", file="digits.pt2", size_bytes=1000)


class Actors:
    """Runs Jobs to their end and keeps ReplicaSets at their size, `delay_s` after each change."""

    def __init__(
        self,
        store: Store,
        *,
        delay_s: float = 0.01,
        report: contract.Prepared | contract.Failed = PREPARED,
        replicas: FakeReplicas | None = None,
    ) -> None:
        self._store = store
        self._delay_s = delay_s
        self.report = report
        self._replicas = replicas
        self.removed: list[str] = []
        store.listeners.append(self._changed)

    def _changed(self, resource: Resource, what: str, obj: Object) -> None:
        metadata = obj["metadata"]
        later = asyncio.get_running_loop().call_later
        if resource.plural == "jobs" and what == "ADDED" and not _retrains(obj):
            later(self._delay_s, self._run_job, metadata["namespace"], metadata["name"])
        elif resource.plural == "replicasets" and what != "DELETED":
            later(self._delay_s, self._scale, metadata["namespace"], metadata["name"])
        elif resource.plural == "pods" and what == "DELETED":
            for owner in metadata.get("ownerReferences") or ():
                if owner["kind"] == "ReplicaSet":
                    later(self._delay_s, self._scale, metadata["namespace"], owner["name"])

    def _find(self, plural: str, namespace: str, name: str) -> Object | None:
        try:
            return self._store.get(plural, namespace, name)
        except NotFound:
            return None

    def _run_job(self, namespace: str, name: str) -> None:
        if (job := self._find("jobs", namespace, name)) is None:
            return
        report = contract.encode(self.report)
        code = 0 if isinstance(self.report, contract.Prepared) else 1
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": report}
        status = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "prepare", "state": {"terminated": ended}, "restartCount": 0}],
        }
        self._store.create(_pod(job, f"{name}-x", status))
        word = "Complete" if code == 0 else "Failed"
        job["status"] = {"conditions": [{"type": word, "status": "True", "lastTransitionTime": timestamp()}]}
        self._store.replace(job)

    def _scale(self, namespace: str, name: str) -> None:
        if (replica_set := self._find("replicasets", namespace, name)) is None:
            return
        own = [name for plural, _, name in self._store.owned(replica_set["metadata"]["uid"]) if plural == "pods"]
        own.sort(key=lambda name: -_cost(self._store.get("pods", namespace, name)))
        wanted = replica_set["spec"]["replicas"]
        for surplus in own[wanted:]:
            if self._replicas is not None:
                self._replicas.stop(self._store.get("pods", namespace, surplus)["status"]["podIP"])
            self.removed.append(surplus)
            self._store.delete("pods", namespace, surplus)
        for _ in range(wanted - len(own)):
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp()}
            status: Object = {"phase": "Running", "conditions": [ready]}
            if self._replicas is not None:
                status["podIP"] = self._replicas.start()
            self._store.create(_pod(replica_set, None, status))
        replica_set["status"] = {"replicas": wanted, "readyReplicas": wanted}
        self._store.replace(replica_set)


def _retrains(job: Object) -> bool:
    return (job["metadata"].get("labels") or {}).get("evenkeel.dev/role") == "retrain"


def _cost(pod: Object) -> int:
    # As the ReplicaSet's controller reads it: what has no annotation costs 0.
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get("controller.kubernetes.io/pod-deletion-cost", "0"))


def _pod(owner: Object, name: str | None, status: Object) -> Object:
    template, metadata = owner["spec"]["template"], owner["metadata"]
    place = {"name": name} if name is not None else {"generateName": f"{metadata['name']}-"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **place,
            "namespace": metadata["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {**template["spec"], "nodeName": "node-1"},
        "status": status,
    }
