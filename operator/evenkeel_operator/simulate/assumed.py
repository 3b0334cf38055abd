"""What does a simulation take for granted? Sentences, so that whoever reads its figures can judge what they rest on."""

from __future__ import annotations

from collections.abc import Iterator

from evenkeel_operator.simulate.replay import Case


def sentences(case: Case) -> Iterator[str]:
    """Yield what was not measured, the general first, then what was concluded from this input."""
    scaling, interval_s = case.scaling, case.trace.interval_s
    yield (
        f"it begins with {scaling.least} replica{'s' * (scaling.least != 1)} ready and nothing learnt; each more is "
        f"ready {case.cold_start_s} s after it was asked for (--cold-start), and GPUs for all {scaling.most} are free"
    )
    yield "all replicas are equally fast all the time, and are measured without a fault or a delay"
    yield (
        "each request has one row; requests come independently of each other (drawn with --seed "
        f"{case.seed}) and of how long answers take"
    )
    if interval_s > 1:
        how = {"steps": "evenly over its seconds", "linear": "along a line to the next one's"}[case.expansion]
        yield f"requests of each {interval_s} s come {how} (--expand {case.expansion})"
    yield (
        "the other autoscalers aim at 70 % of what a replica carries within the target, which they are told; the "
        "static size is the one that the peak needs"
    )
    yield from case.notes
    yield from case.trace.notes
