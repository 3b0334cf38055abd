"""Does the page say what is known, with the operator's own numbers, and what is not known?"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import accuracy
from evenkeel_operator.decide.quality import counted
from evenkeel_operator.decide.quality.guard import Served
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.report.facts import Facts, facts
from evenkeel_operator.report.measured import MOST_STRETCHES, measured
from evenkeel_operator.report.page import page
from tests.builders import UID, modeldeployment
from tests.reports import CANARY, NOW, OBJECTIVES, STABLE, Story, counts, deployment, quality, samples

SHORT = Story(days=1.0, trial_hours=6.0, labels=20, canary=0.7)


def known(story: Story = SHORT, *, tried: Object | None = None, **spec: Any) -> Facts:
    return facts(deployment(story, **spec), counted.read(counts(story)), tried or samples(story), NOW)


def text(found: Facts) -> str:
    """Return the words of the page, without its style."""
    body = page(found).partition("</head>")[2]
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", body)).replace("&#x27;", "'")


@pytest.fixture(scope="module")
def rolled_back() -> str:
    return text(known())


@pytest.mark.parametrize(
    "want",
    [
        pytest.param("ModelDeployment in namespace team-a, model pvc://models/digits.pt2", id="what it is about"),
        pytest.param("✕ RolledBack", id="the state, by more than a colour"),
        pytest.param("Latency, 0.95 quantile 143ms target 200ms", id="the latency"),
        pytest.param("✓ above the floor", id="how the accuracy stands to its floor"),
        pytest.param("labels are of predictions younger than the horizon (1h).", id="labels that do not count yet"),
        pytest.param("it raises an alarm at 35040", id="the detector of decay"),
        pytest.param("The canary was rolled back: it is worse", id="the canary's story"),
        pytest.param("rollback at 100 to 1", id="the threshold of a rollback"),
        pytest.param("promotion at 20 to 1", id="the threshold of a promotion"),
        pytest.param("step 1, 10 %", id="when a step began"),
        pytest.param("Accuracy is worse than the stable revision's by more than the margin", id="each test in words"),
        pytest.param("true ↓ predicted → cat dog horse ship labels", id="the matrix, by the classes' names"),
        pytest.param(f"Canary, since its test began: {CANARY}", id="the canary's matrix"),
        pytest.param(f"{STABLE} Stable 4 of 4", id="a revision with its role"),
        pytest.param("25.0% 25.0% to 25.0%", id="its coverage"),
        pytest.param("3 → 4 Demand 41.2 requests per second", id="a decision"),
        pytest.param("arrivalsPerSecond 41.2 (Fresh, 2.1 s old)", id="what it was made from"),
        pytest.param("AccuracyMet True AboveFloor", id="a condition"),
    ],
)
def test_a_rollback_is_told_whole(rolled_back: str, want: str) -> None:
    assert want in rolled_back


def test_of_numbers_their_errors_are_told_beside_the_ceiling() -> None:
    body = quality(SHORT)
    for one in body["revisions"]:
        error = 1.25 if one["revision"] == STABLE else 1.75
        one["classes"] = 0
        for row in one["cohorts"]:
            del row["confusion"]
            row |= {"predictions": [[0, 40]], "deviations": [[1, 20, 20 * error, 20 * error**2]]}
    spec = {"accuracy": [{"metric": "MAE", "ceiling": 1.5, "maxError": 4, "margin": 0.1, "horizon": "1h"}]}
    tried = deployment(SHORT, objectives=spec)
    got = text(facts(tried, counted.read(json.dumps(body).encode()), samples(SHORT), NOW))
    for want in (
        "MAE, ceiling 1.5 ✓ below the ceiling 1.2500 (",
        "for “above the ceiling since some time”",
        "MAE is worse than the stable revision's by more than the margin",
        "MAE is above its ceiling",
        f"Revision {STABLE} answers numbers: it has no classes to confuse.",
        "50.0% 50.0% to 50.0%",
    ):
        assert want in got
    body["revisions"] = [one for one in body["revisions"] if one["revision"] != STABLE]
    got = text(facts(tried, counted.read(json.dumps(body).encode()), samples(SHORT), NOW))
    assert "answers numbers: it has no classes to confuse." in got, "nothing is known but of the canary"


def test_the_numbers_are_those_that_the_operator_would_say() -> None:
    found = known()
    assert not isinstance(found.counted, NoSignal)
    (wanted,) = found.spec.objectives.accuracy
    (want,) = accuracy.measure((wanted,), found.counted, Served(STABLE, found.since), NOW).intervals
    (curve,) = measured(found).curves
    assert curve.now == want
    assert curve.stable[-1].so_far == want
    assert curve.waiting == 4 * SHORT.labels, "of the quarters of an hour whose horizon is not over"
    assert sum(stretch.own.labels for stretch in curve.stable) == want.labels
    assert not isinstance(want, NoSignal)
    assert f"{want.value:.4f} ({want.lower:.4f} to {want.upper:.4f}) over {want.labels} labels." in text(found)


@pytest.mark.parametrize(
    ("story", "role"),
    [
        pytest.param(SHORT, "canary", id="a split canary"),
        pytest.param(replace(SHORT, state="Canary", mode="Mirror"), "canary", id="a mirrored canary"),
        pytest.param(replace(SHORT, state="Promoted", canary=0.96), "which it has replaced", id="after a promotion"),
    ],
)
def test_the_other_revision_stands_beside_the_stable_one(story: Story, role: str) -> None:
    found = known(story)
    (curve,) = measured(found).curves
    want = 23 * story.labels - 4 * story.labels
    of_canary = curve.stable if story.state == "Promoted" else curve.other
    assert abs(sum(stretch.own.labels for stretch in of_canary) - want) <= 2 * story.labels
    assert role in text(found)
    assert len({s.end - s.start for s in (*curve.stable, *curve.other)}) == 1, "both by the same width"
    assert len(curve.stable) <= MOST_STRETCHES


def test_the_evidence_is_what_the_verdict_fell_on() -> None:
    tested = measured(known()).tested
    assert tested is not None
    assert tested.evidence.refused_at is not None
    assert tested.end == NOW - timedelta(hours=2), "what came after the verdict does not count"
    assert tested.moments[-1].at <= tested.end
    by_time = {moment.at: moment for moment in tested.moments}
    assert by_time[tested.evidence.refused_at].log_e == tested.evidence.log_e


def test_how_the_revisions_answer_is_part_of_the_evidence() -> None:
    failing = samples(SHORT, failed=200)
    found = measured(known(tried=failing)).tested
    assert found is not None
    assert found.evidence.strongest.test == "failing"


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param(
            {"counted": NO_SIGNAL},
            "The counts of labels could not be read. What the operator said last",
            id="the feedback service was not asked",
        ),
        pytest.param({"counted": NO_SIGNAL}, "Accuracy 0.9488 0.9421 to 0.9551, floor 0.9", id="the last word counts"),
        pytest.param({"counted": counted.NOTHING}, "No label counts yet.", id="it knows of nothing"),
        pytest.param({"answers": NO_SIGNAL}, "the evidence is of labels alone", id="the samples could not be read"),
        pytest.param({"missing": ("no luck",)}, "no luck", id="why something is missing"),
    ],
)
def test_what_is_not_known_is_said(changes: dict[str, Any], want: str) -> None:
    got = text(replace(known(), **changes))
    assert want in got
    assert "Conditions" in got


@pytest.mark.parametrize(
    ("made", "want"),
    [
        pytest.param(modeldeployment(), "The operator has not looked at it yet.", id="a new one"),
        pytest.param(modeldeployment(), "spec.objectives.accuracy asks for nothing", id="nothing is asked for"),
        pytest.param(modeldeployment(), "With spec.rollout.strategy Canary", id="no canary"),
        pytest.param(
            modeldeployment(objectives={"accuracy": OBJECTIVES}), "No revision has been in full service", id="no stable"
        ),
    ],
)
def test_a_deployment_without_a_past_has_a_page(made: Object, want: str) -> None:
    made["metadata"] |= {"namespace": "team-a"}
    assert want in text(facts(made, NO_SIGNAL, None, NOW))


def test_labels_that_cannot_be_judged_are_no_reason_for_no_page() -> None:
    asked = [{**OBJECTIVES[0], "metric": "F1", "average": "Binary", "positiveClass": "bird"}]
    got = text(known(objectives={"accuracy": asked}))
    assert "positiveClass of F1 is bird, which the model does not answer" in got
    assert "Confusion matrix" in got


def test_of_many_classes_the_confusions_are_told() -> None:
    many = replace(SHORT, classes=tuple(f"class-{k}" for k in range(30)), days=0.5, trial_hours=2.0, stable=0.9)
    got = text(known(many))
    assert "most frequent confusions, of" in got
    assert "true ↓ predicted →" not in got


def test_samples_of_another_trial_or_another_object_are_not_taken() -> None:
    others = samples()
    others["metadata"]["ownerReferences"][0]["uid"] = UID[::-1]
    assert isinstance(known(tried=others).answers, NoSignal)
    older = samples()
    older["data"]["samples"] = older["data"]["samples"].replace(CANARY, "digits-0")
    assert isinstance(known(tried=older).answers, NoSignal)
    broken = samples()
    broken["data"] = {"samples": "{"}
    assert isinstance(known(tried=broken).answers, NoSignal)
    assert not isinstance(known().answers, NoSignal)


HOSTILE = "<script>1</script>\"'><img src=x onload=2>\u202e"


def test_hostile_names_and_messages_are_texts() -> None:
    """Whatever the cluster, its users and the feedback service say: no element comes of it."""
    clean = known(replace(SHORT, days=0.5))
    found = json.loads(json.dumps(deployment(replace(SHORT, days=0.5))))
    told = quality(replace(SHORT, days=0.5))

    def spoilt(value: Any, path: str = "") -> Any:
        if isinstance(value, dict):
            return {key: spoilt(entry, f"{path}.{key}") for key, entry in value.items()}
        if isinstance(value, list):
            return [spoilt(entry, path) for entry in value]
        is_free = re.search(r"(message|reason|limit|story|summary|why|inputs\.name|inputs\.state|url)$", path)
        return value + HOSTILE if is_free and isinstance(value, str) else value

    found["status"] = spoilt(found["status"])
    found["spec"]["model"]["uri"] += HOSTILE
    found["status"]["conditions"][-1]["type"] += HOSTILE
    for revision in told["revisions"]:
        revision["classes"] = [name + HOSTILE for name in revision["classes"]]
    read = counted.read(json.dumps(told).encode())
    hostile = page(facts(found, read, samples(replace(SHORT, days=0.5)), NOW, missing=(HOSTILE,)))
    tags = re.findall(r"<(\w+)", hostile)
    assert sorted(tags) == sorted([*re.findall(r"<(\w+)", page(clean)), "p"]), "one more paragraph: what is missing"
    assert hostile.count("&lt;script&gt;1&lt;/script&gt;") > 20
    assert "\u202e" not in hostile
    assert not re.search(r"\s(?:src|href|style|on\w+)=", re.sub(r">[^<]*<", "><", hostile))
