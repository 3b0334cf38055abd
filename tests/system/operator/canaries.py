"""What does a canary look like in the fake cluster, and how does it grow old?

Evidence of answers counts by the minute and that of labels by the quarter of an hour. So that no test waits for these,
a canary grows old while its operator is dead: what is kept of it, its status and its samples, is moved into the past.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evenkeel_operator.decide import names
from evenkeel_operator.decide.answers import Samples
from tests.system.feedback.server import KEY_ID, MASTER, NOBODY, Deployment
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Object, Operator, eventually, is_serving, modeldeployment
from tests.system.operator.replicas import FakeReplica, FakeReplicas

PLACE = ("team-a", "digits")
ROLLOUT: Object = {
    "strategy": "Canary",
    "canary": {"mode": "Split", "steps": [{"weight": 50, "minDuration": "1s", "minSamples": 20}]},
}
COUNT = 4
AGE = timedelta(hours=2)
MODEL = Deployment()


def operator(
    api: FakeApi,
    folder: Path,
    replicas: FakeReplicas,
    name: str = "operator",
    *,
    feedback: str = NOBODY,
    lease_s: float = 30.0,
    more: Sequence[str] = (),
) -> Operator:
    """Return an operator; `lease_s` is for how long its successor waits where it is killed."""
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / str(KEY_ID)).write_bytes(MASTER)
    flags = (
        *(f"--signals-port={replicas.port}", "--signals-seconds=0.3", "--quality-seconds=0.5"),
        *(f"--feedback-url={feedback}", f"--feedback-keys-dir={keys}", f"--lease-duration-seconds={lease_s}"),
    )
    return Operator(api, folder, *flags, *more, name=name)


def found(api: FakeApi) -> Object:
    return api.store.get("modeldeployments", *PLACE)


def row(api: FakeApi) -> Object:
    """Return status.canary."""
    told: Object = found(api)["status"]["canary"]
    return told


def condition(api: FakeApi, kind: str) -> tuple[str, str]:
    told = {c["type"]: c for c in found(api)["status"]["conditions"]}[kind]
    return told["status"], told["reason"]


def selector(api: FakeApi) -> str | None:
    """Return the only revision that the Service leads to, None where it leads to all."""
    leads_to: str | None = api.store.get("services", *PLACE)["spec"]["selector"].get(names.REVISION_LABEL)
    return leads_to


def size(api: FakeApi, revision: str) -> int:
    return int(api.store.get("replicasets", PLACE[0], revision)["spec"]["replicas"])


def of(api: FakeApi, replicas: FakeReplicas, revision: str) -> list[FakeReplica]:
    """Return the replicas of a revision."""
    pods = [p for p in api.store.list("pods") if p["metadata"]["labels"].get(names.REVISION_LABEL) == revision]
    return [replicas.known[p["status"]["podIP"]] for p in pods if "podIP" in p["status"]]


def edit(api: FakeApi, **spec: Any) -> None:
    obj = found(api)
    obj["spec"] |= spec
    api.store.replace(obj)


async def started(api: FakeApi, mode: str = "Split", **spec: Any) -> tuple[str, str]:
    """Serve a revision, ask for another one, and return both once the first step of its trial has begun."""
    rollout = ROLLOUT | {"canary": ROLLOUT["canary"] | {"mode": mode}}
    wanted = modeldeployment(replicas=COUNT, rollout=rollout, **spec)
    wanted["metadata"]["uid"] = MODEL.uid
    api.store.create(wanted)
    await eventually(lambda: is_serving(api))
    stable = found(api)["status"]["stableRevision"]
    edit(api, model={"uri": "pvc://models/better.pt2"})
    await eventually(lambda: row(api)["stepsBegan"])
    return stable, row(api)["revision"]


def grown_old(api: FakeApi, *, slow: int = 0, failed: int = 0) -> None:
    """Let two hours pass for a canary whose operator is dead, in which it answered a sample in each second.

    `slow` and `failed` of 60 were slow and have failed; all of stable's were good.
    """
    obj = found(api)
    told, now = obj["status"]["canary"], datetime.now(UTC)
    began = now - AGE
    told |= {"began": timestamp(began), "stepsBegan": [timestamp(began)]}
    api.store.replace(obj)
    minute = began.replace(second=0, microsecond=0)
    rows = [
        [is_stable, int((minute + timedelta(minutes=n)).timestamp()), 60, *((0, 0) if is_stable else (slow, failed))]
        for n in range(1, 60)
        for is_stable in (True, False)
    ]
    kept = api.store.get("configmaps", PLACE[0], names.trial_name(PLACE[1]))
    text = {"version": 1, "stable": told["stable"], "canary": told["revision"], "rows": rows}
    kept["data"]["samples"] = Samples.from_json(json.dumps(text)).to_json(now, [began])
    api.store.replace(kept)


def timestamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def kept_samples(api: FakeApi, revision: str) -> int:
    kept = api.store.get("configmaps", PLACE[0], names.trial_name(PLACE[1]))
    return sum(r.samples for r in Samples.from_json(kept["data"]["samples"]).rows() if r.revision == revision)


async def asked(those: Sequence[FakeReplica], times: int = 3) -> None:
    """Wait until each of the replicas has been asked a few times more."""
    before = {replica: replica.asked for replica in those}
    await eventually(lambda: all(replica.asked > count + times for replica, count in before.items()))
