"""For how long does a person's word on a revision hold, and can it be said again?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.cli import rollback_patch
from evenkeel_operator.decide import canary, names, words
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.canary import Course
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.counted import NOTHING
from evenkeel_operator.decide.quality.guard import Finding, Outcome
from evenkeel_operator.decide.snapshot import Snapshot, freeze
from tests.builders import DEFAULTS, modeldeployment, revision_of
from tests.plans import NOW, serving, sizes


def asking(model: str) -> Object:
    return modeldeployment(model={"uri": f"pvc://models/{model}.pt2"}, replicas=2, rollout={"strategy": "Canary"})


FIRST, SECOND, THIRD = (revision_of(asking(model)) for model in ("v1", "v2", "v3"))
PROMOTE, ABORT = names.PROMOTE_ANNOTATION, names.ABORT_ANNOTATION


def known(model: str, status: Object, word: str, answering: str, annotation: str = PROMOTE) -> Snapshot:
    """Return a world in which `model` is asked for, two replicas of `answering` answer, and `word` has been said."""
    children = []
    for one in ("v1", "v2", "v3"):
        made = serving(asking(one), count=2)
        children += made if revision_of(asking(one)) == answering else made[:1]
    deployment = asking(model)
    metadata = deployment["metadata"] | {"annotations": {annotation: word}}
    return freeze(
        deployment={**deployment, "metadata": metadata, "status": status}, children=children, defaults=DEFAULTS
    )


def through(model: str, status: Object, word: str, answering: str) -> Object:
    """Return the status after everything that is asked for has come to pass."""
    return plan(known(model, status, word, answering), NOW).status


@pytest.mark.parametrize("word", [SECOND, f"{SECOND}@2026-01-01T12:00:00Z"])
def test_what_was_promoted_by_hand_once_is_tried_when_it_is_asked_for_again(word: str) -> None:
    first = known("v2", {"stableRevision": FIRST}, word, FIRST)
    assert canary.course(first, SECOND) is Course.DIRECT
    assert "overtaken" not in plan(first, NOW).status, "until it is in full service, the word holds"
    done = through("v2", plan(first, NOW).status, word, SECOND)
    assert (done["stableRevision"], done["overtaken"]) == (SECOND, {"promote": word})
    later = through("v3", {**done, "stableRevision": THIRD}, word, THIRD)
    assert later["overtaken"] == {"promote": word}
    again = known("v2", later, word, THIRD)
    assert canary.course(again, SECOND) is Course.TRIAL
    assert plan(again, NOW).status["overtaken"] == {"promote": word}, "as long as the annotation stays"
    said = known("v2", later, f"{SECOND}@again", THIRD)
    assert canary.course(said, SECOND) is Course.DIRECT
    assert "overtaken" not in plan(said, NOW).status


@pytest.mark.parametrize(
    ("annotation", "want"),
    [pytest.param(PROMOTE, "promote", id="promote"), pytest.param(ABORT, "abort", id="abort")],
)
def test_a_word_ends_with_the_asking_for_its_revision_whether_or_not_it_has_served(annotation: str, want: str) -> None:
    status = {"stableRevision": FIRST}
    said = plan(known("v2", status, SECOND, FIRST, annotation), NOW).status
    assert "overtaken" not in said
    other = plan(known("v3", said, SECOND, FIRST, annotation), NOW).status
    assert other["overtaken"] == {want: SECOND}
    assert canary.course(known("v2", other, SECOND, FIRST, annotation), SECOND) is Course.TRIAL


def test_who_promoted_a_revision_has_not_forbidden_the_guard_to_leave_it_when_it_decays() -> None:
    served = [{"revision": FIRST, "since": "2025-12-01T10:00:00Z"}]
    done = through("v2", {"stableRevision": FIRST, "served": served}, SECOND, SECOND)
    decayed = Quality(NOTHING, NOW, finding=Finding(Outcome.ROLL_BACK, (), target=FIRST, quarantine=SECOND))
    found = plan(replace(known("v2", done, SECOND, SECOND), quality=decayed), NOW)
    assert found.status["reverted"]["to"] == FIRST
    assert sizes(found)[FIRST] > 0
    kept = plan(replace(known("v2", done, f"{SECOND}@keep", SECOND), quality=decayed), NOW)
    assert "reverted" not in kept.status, "said of the revision in service, it is about the finding"
    assert "overtaken" not in kept.status


def test_a_rollback_to_the_revision_in_service_leaves_no_word_behind() -> None:
    asked = asking("v2")
    asked["metadata"]["resourceVersion"] = "7"
    for stable, want in ((SECOND, f"{FIRST}@now"), (FIRST, None)):
        told = {**asked, "status": {"stableRevision": stable}}
        patch = rollback_patch(told, {"model": {"uri": "pvc://models/v1.pt2"}}, FIRST, "now")
        said = [row["value"] for row in patch if row["path"].endswith("promote")]
        assert said == ([] if want is None else [want])
    assert words.about(f"{FIRST}@now", None) == FIRST
