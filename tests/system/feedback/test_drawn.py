"""Are labels and counts kept by what their requests had drawn, and told so that a split compares like with like?"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from evenkeel_operator.decide.quality import counted
from evenkeel_operator.decide.quality.evidence import Trial, arms_of, drawn_of
from evenkeel_runtime.receipts import COUNTS, Assignment
from tests.system.feedback.server import Deployment, Service
from tests.system.feedback.test_ratings import OFTEN, awaited

STABLE, CANARY, UNASSIGNED = Assignment.STABLE, Assignment.CANARY, Assignment.UNASSIGNED
HOUR = timedelta(hours=1)


def labelled(service: Service, model: Deployment, assignment: Assignment, right: int, wrong: int) -> None:
    """Post labels of predictions of two hours ago."""
    items = [
        {"receipt": model.receipt(1, after_s=-7200.0, assignment=assignment), "label": int(n < right)}
        for n in range(right + wrong)
    ]
    assert {one["outcome"] for one in service.post(items)["results"]} == {"accepted"}


def told(service: Service, model: Deployment, **more: object) -> tuple[int, object]:
    about = {"process": "ab" * 8, "revision": model.revision, "classes": 2, "cohorts": [], **more}
    body = json.dumps(about).encode()
    answer: tuple[int, object] = service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))
    return answer


@pytest.mark.parametrize(
    ("others", "want_before"),
    [
        pytest.param((300, 0), -1 / 6, id="easier"),
        pytest.param((0, 300), 1 / 3, id="harder"),
        pytest.param((200, 100), 0.0, id="as hard"),
    ],
)
def test_requests_that_were_in_no_draw_do_not_move_the_difference(
    database: tuple[str, ...], start: Callable[..., Service], others: tuple[int, int], want_before: float
) -> None:
    """Both get two of three right of what was drawn; by gRPC came as many again to the stable revision."""
    service, stable = start(*database), Deployment("digits-old", 2)
    canary = Deployment("digits-new", 2, uid=stable.uid)
    labelled(service, stable, STABLE, 200, 100)
    labelled(service, stable, UNASSIGNED, *others)
    labelled(service, canary, CANARY, 60, 30)
    labelled(service, stable, CANARY, 6, 3)  # in the canary's place
    _, text = service.ask("GET", f"/v1/quality/-/{stable.uid}")
    now = datetime.now(UTC)
    rows = counted.read(json.dumps(text).encode()).cohorts("digits-old", "digits-new")
    trial = Trial("digits-old", "digits-new", now - 4 * HOUR, now, cohorts=rows)
    got = {}
    for of in (drawn_of, arms_of):
        sums: Counter[str] = Counter()
        for arms in of(trial, timedelta(seconds=1), 4, now):
            sums += Counter(
                {
                    key: int(count)
                    for key, count in zip(
                        "sncm", (arms.stable[3], sum(arms.stable), arms.canary[3], sum(arms.canary)), strict=True
                    )
                }
            )
        got[of] = sums["c"] / sums["m"] - sums["s"] / sums["n"]
    assert got[drawn_of] == pytest.approx(0.0)
    assert got[arms_of] == pytest.approx(want_before, abs=0.01), "what is told of each, without what was drawn"


def test_totals_are_kept_by_what_was_drawn_and_a_revision_is_rated_by_all_of_them(
    database: tuple[str, ...], start: Callable[..., Service]
) -> None:
    service, model = start(*database, *OFTEN), Deployment(classes=2)
    cohort = int(time.time()) // 900 * 900
    rows = [{"start": cohort, "assignment": a, "counts": [[0, 10**a]]} for a in Assignment]
    for _ in range(2):
        assert told(service, model, assignment=UNASSIGNED, names=["ham", "spam"], cohorts=rows) == (200, {})
    got = {one["assignment"]: (one["predictions"], one["classes"]) for one in service.quality(model)}
    names = ["ham", "spam"]
    assert got == {"Stable": (1, names), "Canary": (10, names), "Unassigned": (100, names)}
    for assignment, right, wrong in ((STABLE, 1, 0), (CANARY, 2, 1), (UNASSIGNED, 3, 3)):
        labelled(service, model, assignment, right, wrong)
    at = f'namespace="-",name="{model.uid}",revision="{model.revision}"'
    text = awaited(service, rf"^evenkeel_quality_labels{{{at}}} 10$")
    assert f"evenkeel_quality_predictions{{{at}}} 111\n" in text
    assert f'evenkeel_quality{{{at},metric="Accuracy"}} 0.6\n' in text
    assert len(re.findall(r"^evenkeel_quality_labels\{", text, re.MULTILINE)) == 1


def test_what_an_earlier_runtime_tells_is_stable_s(service: Service) -> None:
    model = Deployment(classes=2)
    cohort = {"start": int(time.time()) // 900 * 900, "counts": [[0, 7]]}
    assert told(service, model, variant=0, cohorts=[cohort]) == (200, {})
    assert [(one["assignment"], one["predictions"]) for one in service.quality(model)] == [("Stable", 7)]
