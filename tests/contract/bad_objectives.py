"""Which objectives of quality does the API server refuse? Rows of `bad_specs.BAD`."""

from __future__ import annotations

from evenkeel_operator.api.modeldeployment import Object
from tests.contract.bad_spec import BadSpec
from tests.contract.specs import merged


def _judged(says: str, objective: Object, field: str, word: str) -> BadSpec:
    accuracy = merged({"metric": "F1", "floor": 0.9}, objective)
    return BadSpec(says, {"objectives": {"accuracy": [accuracy]}}, f"spec.objectives.accuracy[0]{field}", word)


def _erring(says: str, objective: Object, field: str, word: str, **changes: Object) -> BadSpec:
    accuracy = merged({"metric": "MAE", "ceiling": 3.5, "maxError": 20, "margin": 0.2}, objective)
    spec = {"objectives": {"accuracy": [accuracy]}, **changes}
    return BadSpec(says, spec, field if changes else f"spec.objectives.accuracy[0]{field}", word)


BAD_OBJECTIVES = (
    # How good the answers have to be.
    _judged("a floor in percent", {"floor": 92}, ".floor", "between 0 and 1"),
    _judged("a floor of nothing", {"floor": 0}, ".floor", "between 0 and 1"),
    _judged("a margin of nothing", {"margin": 0}, ".margin", "must be above 0"),
    _judged("a metric that nobody computes", {"metric": "MAPE"}, ".metric", "Unsupported value"),
    _judged("an average that is not known", {"average": "Micro"}, ".average", "Unsupported value"),
    _judged("no positive class", {"average": "Binary"}, ".positiveClass", "name the class that counts as positive"),
    _judged("a positive class of an average", {"positiveClass": "7"}, ".positiveClass", "leave it out"),
    _judged("a horizon in days", {"horizon": "3d"}, ".horizon", "one number and its unit"),
    _judged("a horizon of no time", {"horizon": "0s"}, ".horizon", "from 1s to 720h"),
    _judged("a horizon beyond which no label is taken", {"horizon": "721h"}, ".horizon", "takes labels for 30 days"),
    _judged("no floor", {"floor": None}, ".floor", "such as 0.92"),
    _judged("a share with a ceiling", {"ceiling": 3.5}, ".ceiling", "a share has a floor"),
    _judged("a share with a largest error", {"maxError": 3.5}, ".maxError", "a share has a floor"),
    _judged("a margin of more than half", {"margin": 0.6}, ".margin", "at most 0.5"),
    _erring("an error with a floor", {"floor": 0.9}, ".floor", "name a ceiling"),
    _erring("an error without a ceiling", {"ceiling": None}, ".ceiling", "unit of the predictions"),
    _erring("an error without a largest one", {"maxError": None}, ".maxError", "a few times the ceiling"),
    _erring("an error without a margin", {"margin": None}, ".margin", "how much a canary's error may be larger"),
    _erring("a ceiling that no error exceeds", {"maxError": 3.5}, ".maxError", "must be above ceiling"),
    _erring("a largest error beyond any", {"maxError": 1e16}, ".maxError", "from 1e-9 to 1e15"),
    _erring("a ceiling of nothing", {"ceiling": 0}, ".ceiling", "from 1e-9 to 1e15"),
    _erring("an error of a class", {"positiveClass": "7", "average": "Binary"}, ".positiveClass", "leave it out"),
    _erring(
        "errors of mirrored requests",
        {},
        "spec.rollout.canary.mode",
        "set Split",
        rollout={"strategy": "Canary", "canary": {"mode": "Mirror"}},
    ),
    _erring(
        "numbers that stand for labels",
        {},
        "spec.rollout.canary.onMissingLabels",
        "set Hold or LatencyOnly",
        rollout={"strategy": "Canary", "canary": {"onMissingLabels": "Proxy"}},
    ),
    BadSpec(
        "errors and shares of one model",
        {
            "objectives": {
                "accuracy": [
                    {"metric": "F1", "floor": 0.9},
                    {"metric": "MAE", "ceiling": 3.5, "maxError": 20, "margin": 0.2},
                ]
            }
        },
        "spec.objectives.accuracy",
        "of one kind",
    ),
    BadSpec(
        "two objectives of one metric",
        {"objectives": {"accuracy": [{"metric": "F1", "floor": 0.9}, {"metric": "F1", "floor": 0.8}]}},
        "spec.objectives.accuracy[1]",
        "Duplicate value",
    ),
)
