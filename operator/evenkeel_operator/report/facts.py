"""What is known of a ModelDeployment at one moment?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.api.status import CanaryStatus, Status
from evenkeel_operator.decide.answers import Samples
from evenkeel_operator.decide.quality.cohorts import Answers
from evenkeel_operator.decide.quality.counted import Counted
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

SINCE = timedelta(days=14)
"""How far back labels are looked at: as far as the operator does."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read at `now`.

    `counted`: predictions and labels since `since`, NoSignal where the feedback service was not asked or did not
    answer. `answers`: how the revisions of the last trial have answered. `missing`: a sentence for each thing that
    could not be had, and how it can be.
    """

    namespace: str
    name: str
    spec: Spec
    status: Status
    counted: Counted | NoSignal
    answers: tuple[Answers, ...] | NoSignal
    since: datetime
    now: datetime
    missing: tuple[str, ...] = ()


def facts(
    deployment: Object,
    counted: Counted | NoSignal,
    samples: Object | None,
    now: datetime,
    *,
    since: datetime | None = None,
    missing: tuple[str, ...] = (),
) -> Facts:
    """Return what is known, from objects as the API server sends them; raises pydantic.ValidationError for others.

    `samples` is the ConfigMap in which the operator keeps how a canary is answered, None where there is none.
    """
    metadata = deployment["metadata"]
    status = Status.model_validate(deployment.get("status") or {})
    answers: tuple[Answers, ...] | NoSignal = NO_SIGNAL
    if status.canary is not None and samples is not None and _owner(samples) == metadata["uid"]:
        answers = _answers(samples, status.canary)
    return Facts(
        metadata["namespace"],
        metadata["name"],
        Spec.model_validate(deployment["spec"]),
        status,
        counted,
        answers,
        now - SINCE if since is None else since,
        now,
        missing,
    )


def _owner(found: Mapping[str, object]) -> str | None:
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), None)


def _answers(samples: Object, canary: CanaryStatus) -> tuple[Answers, ...] | NoSignal:
    try:
        read = Samples.from_json((samples.get("data") or {}).get("samples", ""))
    except ValueError:
        return NO_SIGNAL
    is_of_this = (read.stable, read.canary) == (canary.stable, canary.revision)
    return read.rows() if is_of_this else NO_SIGNAL
