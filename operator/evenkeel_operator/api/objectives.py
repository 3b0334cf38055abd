"""Which objectives of quality does the API server refuse? Those of shares and those of errors have fields of their own.

As in `rules.py`, every rule is CEL and its message names the way out.
"""

from __future__ import annotations

from evenkeel_operator.api.cel import must, rules

ERRORS = ("MAE", "RMSE")
"""Metrics of numbers: they have a ceiling and the unit of the predictions, where the others have a floor and are
shares."""

SHARE = rules(must("self > 0.0 && self < 1.0", "must be between 0 and 1, such as 0.92"))
MARGIN = rules(
    must("self > 0.0", "must be above 0: of two revisions that are alike, neither is ever shown to be better")
)
ERROR = rules(
    must(
        "self >= 1e-9 && self <= 1e15",
        "must be from 1e-9 to 1e15: predict in another unit, such as millions, if errors are larger or smaller",
    )
)

_OF_ERRORS, _REQUIRED, _FORBIDDEN = " and ".join(ERRORS), "FieldValueRequired", "FieldValueForbidden"
_IS_ERROR = "self.metric in [" + ", ".join(f"'{name}'" for name in ERRORS) + "]"


def _of_errors(field: str, what: str) -> tuple[dict[str, str], dict[str, str]]:
    return (
        must(f"!({_IS_ERROR}) || has(self.{field})", f"is required with {_OF_ERRORS}: {what}", f".{field}", _REQUIRED),
        must(
            f"{_IS_ERROR} || !has(self.{field})",
            f"is for {_OF_ERRORS}: leave it out, a share has a floor",
            f".{field}",
            _FORBIDDEN,
        ),
    )


ACCURACY = rules(
    must(
        f"{_IS_ERROR} || has(self.floor)",
        "is required with a metric of classes: the share that it shall not fall below, such as 0.92",
        ".floor",
        _REQUIRED,
    ),
    must(
        f"!({_IS_ERROR}) || !has(self.floor)",
        f"is of shares, and {_OF_ERRORS} are errors, of which less is better: leave it out, and name a ceiling",
        ".floor",
        _FORBIDDEN,
    ),
    *_of_errors("ceiling", "the error that shall not be exceeded, in the unit of the predictions"),
    *_of_errors("maxError", "the largest error that counts as it is, a few times the ceiling; larger ones count as it"),
    must(
        "!has(self.ceiling) || !has(self.maxError) || self.ceiling < self.maxError",
        "must be above ceiling: no error counts as more than maxError, so nothing would ever exceed the ceiling",
        ".maxError",
    ),
    must(
        f"!({_IS_ERROR}) || has(self.margin)",
        f"is required with {_OF_ERRORS}: by how much a canary's error may be larger, in the unit of the predictions",
        ".margin",
        _REQUIRED,
    ),
    must(
        f"{_IS_ERROR} || !has(self.margin) || self.margin <= 0.5",
        "must be at most 0.5; 0.01 is one point of a hundred",
        ".margin",
    ),
    must(
        f"{_IS_ERROR} || self.metric == 'Accuracy' || self.average != 'Binary' || has(self.positiveClass)",
        "is required with average Binary: name the class that counts as positive, or choose Macro or Weighted",
        ".positiveClass",
        "FieldValueRequired",
    ),
    must(
        f"!has(self.positiveClass) || (!({_IS_ERROR}) && self.metric != 'Accuracy' && self.average == 'Binary')",
        "is for Precision, Recall and F1 with average Binary: leave it out, or set average to Binary",
        ".positiveClass",
        "FieldValueForbidden",
    ),
)

_NO_ERROR = f"self.accuracy.all(one, !({_IS_ERROR.replace('self', 'one')}))"

OBJECTIVES = rules(
    must(
        f"!has(self.accuracy) || {_NO_ERROR} || self.accuracy.all(one, {_IS_ERROR.replace('self', 'one')})",
        f"must be of one kind: a model answers numbers, of which {_OF_ERRORS} are, or classes, of which the others are",
        ".accuracy",
    )
)


def _judged_by_classes(field: str, value: str, way_out: str) -> dict[str, str]:
    """Return the rule for what a canary of a model of numbers cannot have."""
    return must(
        f"!has(self.rollout) || !has(self.rollout.canary) || self.rollout.canary.{field} != '{value}' || "
        f"!has(self.objectives) || !has(self.objectives.accuracy) || {_NO_ERROR.replace('self', 'self.objectives')}",
        f"must not be {value} with {_OF_ERRORS}, as {way_out}",
        f".rollout.canary.{field}",
        _FORBIDDEN,
    )


CANARY = (
    _judged_by_classes("mode", "Mirror", "pairs are told of classes alone: leave it at Auto, or set Split"),
    _judged_by_classes("onMissingLabels", "Proxy", "numbers have no classes to compare: set Hold or LatencyOnly"),
)
"""Rules of the whole spec."""
