"""How is a verdict told? Sentences with the numbers that made it, for `evenkeel explain` and the conditions."""

from __future__ import annotations

from evenkeel_operator.decide.quality.betting import as_number
from evenkeel_operator.decide.quality.evidence import Evidence, Finding
from evenkeel_operator.decide.quality.floors import Interval, as_text
from evenkeel_operator.decide.quality.measures import ERRORS
from evenkeel_operator.decide.quality.verdict import Compared, State, Verdict, Why
from evenkeel_operator.decide.snapshot import NoSignal

_HEADLINES = {
    Why.NOT_PLACED: "The canary waits for a node: none of its replicas is placed.",
    Why.STARTING: "The canary's replicas start; it has no traffic yet.",
    Why.TESTING: "The canary is under test in step {step}.",
    Why.STEP_PASSED: "The canary goes on to step {step}.",
    Why.NOT_WORSE: "The canary was promoted: it is shown to be not worse than the stable revision in every objective.",
    Why.ANSWERS_GOOD: "The canary was promoted on its answers alone: nothing is known of its accuracy.",
    Why.WORSE: "The canary was rolled back: it is worse than the stable revision by more than the margin.",
    Why.BELOW_FLOOR: "The canary was rolled back: it is below its floor, or above its ceiling, which the "
    "stable revision meets.",
    Why.SLOW: "The canary was rolled back: too many of its answers are slow.",
    Why.FAILING: "The canary was rolled back: too many of its answers fail.",
    Why.NO_GPU: "The canary is held in step {step}: no GPU is free for it, and the stable revision can lend none. It "
    "goes on when that changes.",
    Why.NO_TRAFFIC: "The canary has had no traffic, so nothing is known of it.",
    Why.LABELS_MISSING: "The canary is held: it has made predictions, and no label has come for any of them. "
    "Post labels, or let spec.rollout.canary.onMissingLabels say LatencyOnly or Proxy.",
    Why.LABELS_UNKNOWN: "The canary stays in step {step}: the feedback service has not answered yet, so nobody knows "
    "what labels there are.",
    Why.PROXY_DIFFERS: "The canary is held: no label has come, and it predicts other classes than the stable revision.",
    Why.DRIFT_SUSPECTED: "The canary is held: it misses its floor or ceiling, and so does the stable revision. The "
    "data seem to have changed; going back would not help.",
    Why.BY_HAND: "A person decided.",
    Why.CANNOT_BE_JUDGED: "The canary is held: its labels cannot be compared with those of the stable revision.",
    Why.OUT_OF_TIME: "The rollout's time is up, and neither has been shown: the canary may be worse or not. Promote it "
    "or abort it, or give it more traffic, more labels, more time or a wider margin.",
}

_TESTS = {
    "worse": "{measure} is worse than the stable revision's by more than the margin",
    "floor": "{measure} is below its floor",
    "ceiling": "{measure} is above its ceiling",
    "failing": "more samples fail than the stable revision's",
    "slower": "more samples are slow than the stable revision's",
    "slow": "more samples are slow than the latency objective allows",
}

_ASIDE = {
    "floor": "the stable revision is not seen to meet it either",
    "slow": "so are too many of the stable revision's",
}


def sentences(verdict: Verdict) -> tuple[str, ...]:
    """Return the verdict in sentences: what happened, the numbers, and what the evidence is held against."""
    step = "" if verdict.step is None else str(verdict.step + 1)
    told = [_HEADLINES[verdict.why].format(step=step)]
    told += [_compared(row) for row in verdict.compared]
    if verdict.evidence is not None:
        told += _evidence(verdict.evidence, verdict)
    if verdict.quarantine is not None:
        told.append(f"Revision {verdict.quarantine} is not tried again while the spec stays as it is.")
    return tuple(told)


def claim(finding: Finding) -> str:
    """Return what a test's evidence is for, after "that"."""
    is_of_error = finding.test == "floor" and finding.measure in ERRORS
    return _TESTS["ceiling" if is_of_error else finding.test].format(measure=finding.measure)


def times(log: float) -> str:
    """Return evidence of this logarithm as it is told: so many times to one."""
    number = as_number(log)
    if number >= 1e6:
        return f"{number:.1e}"
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _compared(row: Compared) -> str:
    if isinstance(row.canary, NoSignal):
        return f"{row.measure}: no label of the canary counts yet ({row.limit}, margin {row.margin:g})."
    beside = "no labels of the stable revision" if isinstance(row.stable, NoSignal) else _interval(row.stable)
    return f"{row.measure}: canary {_interval(row.canary)}, stable {beside}; {row.limit}, margin {row.margin:g}."


def _interval(found: Interval) -> str:
    return f"{as_text(found.value)} ({as_text(found.lower)} to {as_text(found.upper)}, {found.labels} labels)"


def _evidence(evidence: Evidence, verdict: Verdict) -> list[str]:
    told = []
    for finding in evidence.against:
        if finding.log_e == 0:
            continue
        words = claim(finding)
        # Where nothing speaks for the claim, whether it counts is nobody's question.
        is_set_aside = finding.log_e > 0 and not finding.counts
        aside = f" It does not count: {_ASIDE[finding.test]}." if is_set_aside else ""
        told.append(
            f"Evidence that {words}: {times(finding.log_e)} to 1, with {finding.share:.0%} of the whole.{aside}"
        )
    verb = "reached" if evidence.refused_at is not None else "needs"
    told.append(
        f"Together against the canary: {times(evidence.log_e)} to 1; a rollback {verb} {times(evidence.log_threshold)}."
    )
    if evidence.shown and verdict.state is not State.ROLLED_BACK:
        told.append(
            f"For the canary, in its weakest objective: {times(min(evidence.shown))} to 1; "
            f"a promotion needs {times(evidence.shown_log_threshold)}."
        )
    if verdict.samples:
        told.append(f"{verdict.samples} samples of its answers since the step began.")
    return told
