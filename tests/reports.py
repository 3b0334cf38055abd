"""What may a report be about? ModelDeployments with labels, as the API server and the feedback service tell of them.

The counts are drawn once, with a seed: a stable revision over days, and a canary beside it at the end.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from evenkeel_operator.decide import names
from evenkeel_operator.decide.answers import Samples
from tests.builders import NAME, NAMESPACE, UID, modeldeployment

NOW = datetime(2026, 1, 8, 9, 20, tzinfo=UTC)
QUARTER_S = 900
OBJECTIVES = [{"metric": "Accuracy", "floor": 0.9, "margin": 0.02, "horizon": "1h"}]
STABLE, CANARY = f"{NAME}-6b8f01aa", f"{NAME}-91cc02bb"
DRAWN = {STABLE: "Stable", CANARY: "Canary"}
WORDS = ("cat", "dog", "horse", "ship")

TOLD = {
    "RolledBack": (
        "The canary was rolled back: it is worse than the stable revision by more than the margin.",
        "Together against the canary: 150 to 1; a rollback reached 100.",
        f"Revision {CANARY} is not tried again while the spec stays as it is.",
    ),
    "Promoted": ("The canary was promoted: it is shown to be not worse than the stable revision in every objective.",),
    "Canary": ("The canary is under test in step 2.", "Together against the canary: 0.1 to 1; a rollback needs 100."),
}


@dataclass(frozen=True)
class Story:
    """What happened: how right either is, how many labels a quarter of an hour brings, how the canary ended."""

    stable: float = 0.95
    canary: float = 0.85
    labels: int = 30
    state: str = "RolledBack"
    mode: str = "Split"
    classes: tuple[str, ...] = WORDS
    days: float = 3.0
    trial_hours: float = 8.0
    seed: int = 1

    @property
    def began(self) -> datetime:
        """When the canary got its first traffic."""
        return NOW - timedelta(hours=self.trial_hours)


def quality(story: Story = Story()) -> dict[str, Any]:
    """Return the answer of GET /v1/quality."""
    chance = random.Random(story.seed)
    last = int(NOW.timestamp()) // QUARTER_S * QUARTER_S
    first, began = last - int(story.days * 86400) // QUARTER_S * QUARTER_S, story.began.timestamp()
    found: dict[str, list[dict[str, Any]]] = {STABLE: [], CANARY: []}
    for start in range(first, last, QUARTER_S):
        tried = began <= start
        found[STABLE].append(_cohort(chance, start, story.labels, story.stable, len(story.classes)))
        if tried and story.mode == "Mirror":
            found[STABLE][-1]["pairs"] = _pairs(chance, story)
        elif tried:
            found[CANARY].append(_cohort(chance, start, story.labels, story.canary, len(story.classes)))
    return {
        "namespace": NAMESPACE,
        "name": NAME,
        "uid": UID,
        "since": first,
        "cohortSeconds": QUARTER_S,
        "revisions": [
            {"revision": name, "assignment": DRAWN[name], "classes": list(story.classes), "cohorts": rows}
            for name, rows in found.items()
            if rows
        ],
    }


def counts(story: Story = Story()) -> bytes:
    """Return the same as it comes over the network."""
    return json.dumps(quality(story)).encode()


def deployment(story: Story = Story(), **spec: Any) -> dict[str, Any]:
    """Return the ModelDeployment, with what the operator has said of it."""
    began = story.began
    steps = [_text(began), _text(began + timedelta(hours=2))]
    is_final = story.state in ("Promoted", "RolledBack")
    canary = {
        "revision": CANARY,
        "stable": STABLE,
        "state": story.state,
        "why": {"RolledBack": "Worse", "Promoted": "NotWorse"}.get(story.state, "Testing"),
        "summary": "2/2 25%" if story.state == "Canary" else story.state,
        "mode": story.mode,
        "weight": 0 if is_final else 25,
        "stepsBegan": steps,
        "began": _text(began - timedelta(minutes=4)),
        "samples": 14000,
        "labels": 900,
        "story": list(TOLD[story.state]),
    }
    if is_final:
        canary["decided"] = _text(NOW - timedelta(hours=2))
    status = {
        "observedGeneration": 4,
        "replicas": 4,
        "readyReplicas": 4,
        "url": f"http://{NAME}.{NAMESPACE}.svc",
        "stableRevision": STABLE,
        "canary": canary,
        "revisions": [
            {"name": STABLE, "role": "Stable", "replicas": 4, "readyReplicas": 4},
            {"name": CANARY, "role": "Canary", "replicas": 1, "readyReplicas": 1},
        ],
        "latency": [
            {
                "metric": "EndToEnd",
                "quantile": 0.95,
                "state": "Fresh",
                "observed": "143ms",
                "target": "200ms",
                "asOf": _text(NOW),
            }
        ],
        "accuracy": [
            {
                "metric": "Accuracy",
                "state": "Fresh",
                "observed": 0.9488,
                "lower": 0.9421,
                "upper": 0.9551,
                "labels": 8100,
                "floor": 0.9,
                "asOf": _text(NOW),
            }
        ],
        "lastDecisions": [
            {
                "time": _text(NOW - timedelta(minutes=40)),
                "from": 3,
                "to": 4,
                "limit": "Demand",
                "message": "41.2 requests per second are asked for, one replica holds 200ms at 11.8",
                "inputs": [{"name": "arrivalsPerSecond", "value": 41.2, "state": "Fresh", "ageSeconds": 2.1}],
            }
        ],
        "conditions": [
            *_ready(story),
            _condition("AccuracyMet", "True", "AboveFloor", "Accuracy is 0.9488 (0.9421 to 0.9551, 8100 labels)"),
        ],
    }
    if not is_final:
        status["canaryRevision"] = CANARY
    if story.state == "Promoted":
        status["stableRevision"] = CANARY
        status["revisions"] = [{"name": CANARY, "role": "Stable", "replicas": 4, "readyReplicas": 4}]
    asked = {
        "objectives": {"accuracy": OBJECTIVES, "latency": [{"quantile": 0.95, "target": "200ms"}]},
        "rollout": {"strategy": "Canary", "canary": {"steps": [{"weight": 10}, {"weight": 25}]}},
    }
    found = modeldeployment(status=status, generation=4, **asked | spec)
    found["metadata"]["resourceVersion"] = "1"
    return found


def _ready(story: Story) -> list[dict[str, Any]]:
    if story.state == "RolledBack":
        text = f"revision {CANARY} was rolled back, {STABLE} serves. {TOLD['RolledBack'][0]} Change the spec"
        return [_condition("Ready", "False", "RolledBack", text), _condition("Stalled", "True", "RolledBack", text)]
    if story.state == "Canary":
        return [_condition("Ready", "False", "CanaryRunning", f"canary {CANARY}: {TOLD['Canary'][0]}")]
    return [_condition("Ready", "True", "Serving", "4 of 4 replicas answer")]


def samples(story: Story = Story(), *, failed: int = 0) -> dict[str, Any]:
    """Return the ConfigMap in which the operator keeps how both have answered."""
    rows = []
    for minute in range(0, int(story.trial_hours * 60), 15):
        start = int(story.began.timestamp()) // QUARTER_S * QUARTER_S + 60 * minute
        rows += [[True, start, 3600, 40, 2], [False, start, 400, 6, failed]]
    kept = Samples.from_json(json.dumps({"version": 1, "stable": STABLE, "canary": CANARY, "rows": rows}))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.trial_name(NAME),
            "namespace": NAMESPACE,
            "ownerReferences": [{"uid": UID, "controller": True}],
        },
        "data": {"samples": kept.to_json(NOW)},
    }


def _cohort(chance: random.Random, start: int, labels: int, right: float, classes: int) -> dict[str, Any]:
    cells: dict[tuple[int, int], int] = {}
    for _ in range(labels):
        actual, predicted = _answer(chance, right, classes)
        cells[predicted, actual] = cells.get((predicted, actual), 0) + 1
    predicted_of = [sum(n for (p, _), n in cells.items() if p == k) * 4 for k in range(classes)]
    return {
        "start": start,
        "predictions": [[k, count] for k, count in enumerate(predicted_of) if count],
        "confusion": [[p, a, count] for (p, a), count in sorted(cells.items())],
    }


def _pairs(chance: random.Random, story: Story) -> list[list[Any]]:
    cells: dict[tuple[int, int, int], int] = {}
    for _ in range(story.labels):
        actual, stable = _answer(chance, story.stable, len(story.classes))
        other = actual if chance.random() < story.canary else (actual + 1) % len(story.classes)
        cells[stable, other, actual] = cells.get((stable, other, actual), 0) + 1
    return [[CANARY, *key, count] for key, count in sorted(cells.items())]


def _answer(chance: random.Random, right: float, classes: int) -> tuple[int, int]:
    actual = chance.randrange(classes)
    return actual, actual if chance.random() < right else (actual + 1 + chance.randrange(classes - 1)) % classes


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    found = {"type": kind, "status": status, "reason": reason, "message": message}
    return found | {"observedGeneration": 4, "lastTransitionTime": _text(NOW - timedelta(hours=2))}


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
