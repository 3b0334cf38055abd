"""What becomes of a new revision that is tried first: sizes, who is told what, and what is said of it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import canary, names
from evenkeel_operator.decide.canary import Judged
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.verdict import State, Verdict, Why
from evenkeel_operator.decide.replicas import NoTraffic
from evenkeel_operator.decide.sizing import Sizing
from evenkeel_operator.decide.snapshot import NO_SIGNAL, Feedback, Fleet, NoSignal, Snapshot, freeze
from evenkeel_runtime import contract
from tests.builders import DEFAULTS, modeldeployment, node, pod, revision_of
from tests.plans import NOW, message, of_kind, prepared_children, ready, serving, sizes

TOLD = replace(DEFAULTS, feedback=Feedback("http://feedback.test", 1, bytes(32)))
STEPS = [{"weight": 10}, {"weight": 50}]
ROLLOUT = {"strategy": "Canary", "canary": {"mode": "Split", "steps": STEPS}}


def spec(**changes: Any) -> dict[str, Any]:
    return {"replicas": 4, "rollout": ROLLOUT, **changes}


OLD = modeldeployment(**spec())
STABLE = revision_of(OLD)


def new(status: Object | None = None, **changes: Any) -> Object:
    """Return the ModelDeployment that asks for another model than the one that serves."""
    asked = spec(model={"uri": "pvc://models/v2.pt2"}) | changes
    found = modeldeployment(status={"stableRevision": STABLE, **(status or {})}, generation=2, **asked)
    return found


CANARY = revision_of(new())


def standing(canaries: int, *, ready_: int | None = None, asked: int | None = None, lent: int = 0) -> list[Object]:
    """Return stable in full service, and a canary's ReplicaSet with its pods, of which `ready_` answer."""
    children = serving(OLD, defaults=TOLD, count=4 - lent)
    found = serving(new(), defaults=TOLD, count=canaries)
    pods = [pod(CANARY, n, ready=ready_ is None or n < ready_, podIP=f"10.0.1.{n}") for n in range(canaries)]
    size = canaries if asked is None else asked
    found[1]["spec"]["replicas"] = size
    found[1]["status"]["replicas"] = canaries
    return [*children, *found[:2], *pods]


def known(
    deployment: Object,
    children: Sequence[Object],
    *,
    fleet: Fleet | NoSignal = (),
    judged: Verdict | None = None,
    sizing: Sizing | None = None,
) -> Snapshot:
    found = freeze(deployment=deployment, children=children, fleet=fleet, defaults=TOLD)
    return replace(found, judged=None if judged is None else Judged(CANARY, judged), sizing=sizing)


def planned(deployment: Object, children: Sequence[Object], **more: Any) -> Plan:
    return plan(known(deployment, children, **more), NOW)


def begun(steps: int, mode: str = "Split", **more: Any) -> Object:
    """Return the status of a canary whose first `steps` steps have begun."""
    at = [f"2026-01-01T11:{n:02}:00Z" for n in range(steps)]
    row = {
        "revision": CANARY, "stable": STABLE, "state": "Canary", "why": "Testing", "summary": "", "mode": mode,
        "weight": 10, "began": "2026-01-01T10:00:00Z", "stepsBegan": at, **more,
    }  # fmt: skip
    return {"canaryRevision": CANARY, "canary": row}


def selector(got: Plan) -> str | None:
    (service,) = of_kind(got, "Service")
    found: str | None = service["spec"]["selector"].get(names.REVISION_LABEL)
    return found


def conditions(got: Plan) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in got.status["conditions"]}


def test_the_first_revision_of_all_is_not_tried() -> None:
    got = planned(modeldeployment(**spec()), prepared_children(OLD))
    assert sizes(got) == {STABLE: 4}
    assert selector(got) is None
    assert "canary" not in got.status


def test_while_its_model_is_prepared_stable_serves_alone() -> None:
    got = planned(new(), serving(OLD, defaults=TOLD))
    assert sizes(got) == {STABLE: 4}
    assert selector(got) == STABLE
    assert ready(got) == ("False", "Preparing")


def test_a_prepared_canary_starts_beside_stable_at_the_size_of_its_first_step() -> None:
    got = planned(new(), [*serving(OLD, defaults=TOLD), *prepared_children(new())])
    assert sizes(got) == {STABLE: 4, CANARY: 1}
    assert selector(got) == STABLE, "nobody reaches it but by a stable replica"
    assert ready(got) == ("False", "CanaryStarting")
    assert conditions(got)["Available"][0] == "True"
    assert got.status["stableRevision"] == STABLE
    assert got.status["canary"]["state"] == "Pending"
    assert "stepsBegan" not in got.status["canary"]


def test_its_first_step_begins_when_it_answers_and_is_told_then() -> None:
    got = planned(new(), standing(1))
    row = got.status["canary"]
    assert (row["state"], row["stepsBegan"], row["weight"]) == ("Canary", ["2026-01-01T12:00:00Z"], 10)
    assert row["summary"] == "1/2 10%"
    assert [e.reason for e in got.events if e.reason.startswith("Canary")] == ["CanaryRunning", "CanaryStep"]
    told = canary.directive(known(new(got.status), standing(1)), CANARY)
    assert told == contract.Canary(CANARY, "Split", 0.1, ("10.0.1.0:8080",), canary.EXPIRES_S)
    assert canary.directive(known(new(), standing(1)), CANARY) is None, "no step has begun"
    assert canary.directive(known(new(got.status), standing(1, ready_=0)), CANARY) is None, "it does not answer"


def test_the_next_step_waits_for_the_replicas_that_it_needs() -> None:
    passed = Verdict(State.CANARY, Why.STEP_PASSED, step=1)
    got = planned(new(begun(1)), standing(1), judged=passed)
    assert sizes(got) == {STABLE: 4, CANARY: 2}, "half of four"
    assert len(got.status["canary"]["stepsBegan"]) == 1
    then = planned(new(begun(1)), standing(2), judged=passed)
    assert len(then.status["canary"]["stepsBegan"]) == 2
    assert then.status["canary"]["summary"] == "2/2 50%"
    again = planned(new(then.status), standing(2), judged=passed)
    assert again.status["canary"]["stepsBegan"] == then.status["canary"]["stepsBegan"], "one step at a time"


def test_a_promoted_canary_replaces_stable_as_any_revision_does() -> None:
    shown = Verdict(State.PROMOTED, Why.NOT_WORSE, step=1)
    got = planned(new(begun(2)), standing(2), judged=shown)
    assert selector(got) is None, "both are trusted"
    assert sizes(got) == {STABLE: 2, CANARY: 2}, "four answer, as four are asked for"
    row = got.status["canary"]
    assert (row["state"], row["decided"]) == ("Promoted", "2026-01-01T12:00:00Z")
    assert got.status["stableRevision"] == STABLE, "until it is in full service"
    assert canary.directive(known(new(got.status), standing(2)), CANARY) is None
    after = planned(new(got.status), serving(new(), defaults=TOLD, count=4))
    assert ready(after) == ("True", "Serving")
    assert after.status["stableRevision"] == CANARY
    assert "canaryRevision" not in after.status
    last = planned(new(after.status), serving(new(), defaults=TOLD, count=4))
    assert selector(last) == CANARY
    assert last.status["canary"]["state"] == "Promoted", "its story is told until another one comes"


def test_a_verdict_outlives_the_operator_that_made_it() -> None:
    shown = Verdict(State.PROMOTED, Why.NOT_WORSE, step=1)
    first = planned(new(begun(2)), standing(2), judged=shown)
    second = planned(new(first.status), standing(2))
    assert sizes(second) == sizes(first)
    assert second.status["canary"] == first.status["canary"]


def test_a_canary_that_is_worse_goes_at_once_and_stable_is_at_full_size_all_the_time() -> None:
    worse = Verdict(State.ROLLED_BACK, Why.WORSE, step=1, quarantine=CANARY)
    got = planned(new(begun(2)), standing(2), judged=worse)
    assert sizes(got) == {STABLE: 4, CANARY: 0}
    assert selector(got) == STABLE
    assert ready(got) == ("False", "RolledBack")
    assert conditions(got)["RolledBack"] == ("True", "RolledBack")
    assert conditions(got)["Stalled"][0] == "True", "nothing happens until the spec changes"
    assert f"evenkeel promote digits -n {got.apply[0]['metadata']['namespace']}" in message(got)
    later = plan(known(new(got.status), serving(OLD, defaults=TOLD)), NOW + timedelta(days=1))
    assert sizes(later) == {STABLE: 4}
    assert ready(later) == ("False", "RolledBack")
    assert later.status["stableRevision"] == STABLE
    back = planned({**OLD, "status": later.status}, serving(OLD, defaults=TOLD))
    assert ready(back) == ("True", "Serving")
    assert "canary" not in back.status
    assert "RolledBack" not in conditions(back)


@pytest.mark.parametrize(
    ("verdict", "want"),
    [
        pytest.param(Verdict(State.HELD, Why.LABELS_MISSING, step=0), "CanaryHeld", id="no labels"),
        pytest.param(Verdict(State.INCONCLUSIVE, Why.OUT_OF_TIME, step=0), "CanaryInconclusive", id="out of time"),
    ],
)
def test_one_that_waits_for_a_person_keeps_its_share_and_says_so(verdict: Verdict, want: str) -> None:
    got = planned(new(begun(1)), standing(1), judged=verdict)
    assert sizes(got) == {STABLE: 4, CANARY: 1}
    assert ready(got) == ("False", want)
    assert conditions(got)["Stalled"][0] == "True", "no tool waits for it for ever"
    assert canary.directive(known(new(got.status), standing(1)), CANARY) is not None


@pytest.mark.parametrize(
    ("annotation", "want", "state"),
    [
        pytest.param(names.PROMOTE_ANNOTATION, None, "Promoted", id="promote"),
        pytest.param(names.ABORT_ANNOTATION, STABLE, "RolledBack", id="abort"),
    ],
)
def test_a_person_has_the_last_word(annotation: str, want: str | None, state: str) -> None:
    deployment = new(begun(1))
    deployment["metadata"]["annotations"] = {annotation: CANARY}
    got = planned(deployment, standing(1), judged=Verdict(State.CANARY, Why.TESTING, step=0))
    assert selector(got) == want
    assert (got.status["canary"]["state"], got.status["canary"]["why"]) == (state, "ByHand")
    deployment["metadata"]["annotations"] = {annotation: "digits-another"}
    other = planned(deployment, standing(1))
    assert other.status["canary"]["state"] == "Canary", "said of another revision"


def test_another_revision_ends_the_trial_of_the_one_before() -> None:
    third = new(begun(1), model={"uri": "pvc://models/v3.pt2"})
    got = planned(third, standing(1))
    assert sizes(got) == {STABLE: 4, CANARY: 0}
    assert selector(got) == STABLE
    assert canary.directive(known(third, standing(1)), revision_of(third)) is None


def test_a_pause_starts_nothing_goes_no_further_and_does_not_promote() -> None:
    paused = spec(model={"uri": "pvc://models/v2.pt2"}, rollout=ROLLOUT | {"paused": True})
    waiting = modeldeployment(status={"stableRevision": STABLE}, **paused)
    got = planned(waiting, [*serving(OLD, defaults=TOLD), *prepared_children(waiting)])
    assert sizes(got) == {STABLE: 4}
    running = modeldeployment(status={"stableRevision": STABLE, **begun(1)}, **paused)
    shown = planned(running, standing(1), judged=Verdict(State.PROMOTED, Why.NOT_WORSE, step=1))
    assert sizes(shown) == {STABLE: 4, CANARY: 1}
    worse = planned(running, standing(1), judged=Verdict(State.ROLLED_BACK, Why.FAILING, step=0))
    assert sizes(worse) == {STABLE: 4, CANARY: 0}, "what fails is not waited for"


GPU = {"gpu": {"count": 1}}


def with_gpus(status: Object | None = None) -> Object:
    return new(status, **GPU)


def on_gpus(canaries: int, lent: int = 0) -> list[Object]:
    """Return what `standing` does, of a model on GPUs."""
    old, fresh = modeldeployment(**spec(**GPU)), with_gpus()
    stable = serving(old, defaults=TOLD, count=4 - lent)
    found = serving(fresh, defaults=TOLD, count=canaries)
    return [*stable, *(found if canaries else prepared_children(fresh))]


def gpu_status(status: Object | None = None) -> Object:
    return with_gpus({"stableRevision": revision_of(modeldeployment(**spec(**GPU))), **(status or {})})


def sized(can_spare: bool, *, needs_all: bool = False) -> Sizing:
    return Sizing(size=None, latency=NoTraffic(), measured_at=NOW, can_spare=can_spare, needs_all=needs_all)


def test_without_a_free_gpu_a_canary_is_refused_and_says_so() -> None:
    got = planned(gpu_status(), on_gpus(0), fleet=(node(gpus=4, used=4),))
    assert set(sizes(got).values()) == {4}, "no pod is made that would only wait"
    assert ready(got) == ("False", "RolloutBlockedNoGPU")
    assert got.look_again_after_s is not None


def test_it_borrows_one_of_stable_where_the_latency_loop_allows_it() -> None:
    fleet = (node(gpus=4, used=4),)
    got = planned(gpu_status(), on_gpus(0), fleet=fleet, sizing=sized(True))
    old, fresh = revision_of(modeldeployment(**spec(**GPU))), revision_of(with_gpus())
    assert sizes(got) == {old: 3, fresh: 1}
    assert got.status["canary"]["lent"] == 1
    assert got.status["canary"]["mode"] == "Split"
    then = planned(gpu_status(got.status), on_gpus(1, lent=1), fleet=fleet, sizing=sized(False))
    assert sizes(then) == {old: 3, fresh: 1}, "what was lent stays lent while nobody needs it"


def test_what_was_lent_goes_back_when_the_latency_needs_it_and_the_trial_is_held() -> None:
    old, fresh = revision_of(modeldeployment(**spec(**GPU))), revision_of(with_gpus())
    lent = begun(1, lent=1)
    lent["canary"] |= {"revision": fresh, "stable": old}
    lent["canaryRevision"] = fresh
    full, needed = (node(gpus=4, used=4),), sized(False, needs_all=True)
    got = planned(gpu_status(lent), on_gpus(1, lent=1), fleet=full, sizing=needed)
    assert sizes(got) == {old: 4, fresh: 0}
    row = got.status["canary"]
    assert (row["state"], row["why"], row["stepsBegan"]) == ("Held", "NoGPU", lent["canary"]["stepsBegan"])
    assert "lent" not in row
    assert ready(got) == ("False", "RolloutBlockedNoGPU")
    assert "stable needs each of its own" in message(got)
    assert [e.reason for e in got.events if e.reason.startswith("Canary")] == ["CanaryHeld"]
    freed = planned(gpu_status(got.status), on_gpus(0, lent=1), fleet=(node(gpus=4, used=3),), sizing=needed)
    assert sizes(freed)[old] == 4
    assert sizes(freed).get(fresh, 0) == 0, "the GPU that comes free is stable's"
    again = planned(gpu_status(freed.status), on_gpus(0), fleet=full, sizing=sized(True))
    assert sizes(again) == {old: 3, fresh: 1}
    assert again.status["canary"]["stepsBegan"] == lent["canary"]["stepsBegan"], "it goes on where it was"
    another = (node(gpus=5, used=4),)
    kept = planned(gpu_status(lent), on_gpus(1, lent=1), fleet=another, sizing=needed)
    assert sizes(kept) == {old: 4, fresh: 1}, "stable gets the one that is free"
    assert kept.status["canary"]["state"] == "Canary"


REFUSED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes."}
NOT_YET = {"type": "Ready", "status": "False"}


def unread(placed: int, waiting: Sequence[Object] = (), **shape: Any) -> tuple[Plan, int]:
    """Return the plan for a canary that needs three where nodes may not be read, and its size in it.

    `placed` of its replicas answer; those `waiting` have no node, and this to say of it.
    """
    old, steps = modeldeployment(**spec(**shape)), {"strategy": "Canary", "canary": {"steps": [{"weight": 75}]}}
    fresh = new({"stableRevision": revision_of(old)}, rollout=steps, **shape)
    count = placed + len(waiting)
    own = serving(fresh, defaults=TOLD, count=count)[:2] if count else prepared_children(fresh)
    pods = [pod(revision_of(fresh), n, podIP=f"10.0.1.{n}") for n in range(placed)]
    pods += [
        pod(revision_of(fresh), placed + n, ready=False, node=None, conditions=[row]) for n, row in enumerate(waiting)
    ]
    got = planned(fresh, [*serving(old, defaults=TOLD, count=4), *own, *pods], fleet=NO_SIGNAL)
    assert sizes(got)[revision_of(old)] == 4
    return got, sizes(got)[revision_of(fresh)]


@pytest.mark.parametrize(
    ("placed", "waiting", "want", "has_begun"),
    [
        pytest.param(0, [], 1, False, id="none stands"),
        pytest.param(1, [], 2, False, id="the first has a node"),
        pytest.param(1, [NOT_YET], 2, False, id="for the next one is looked"),
        pytest.param(1, [REFUSED], 2, True, id="for the next one there is none: the first is tried alone"),
        pytest.param(2, [], 3, False, id="the second has one too"),
        pytest.param(3, [], 3, True, id="no more than its share needs"),
    ],
)
def test_where_nodes_may_not_be_read_it_grows_until_a_replica_waits(
    placed: int, waiting: list[Object], want: int, has_begun: bool
) -> None:
    got, size = unread(placed, waiting, **GPU)
    assert (size, "stepsBegan" in got.status["canary"]) == (want, has_begun)
    assert conditions(got)["Ready"] == ("False", "CanaryRunning" if placed else "CanaryStarting")


def test_a_canary_none_of_whose_replicas_has_a_node_says_so() -> None:
    got, size = unread(0, [REFUSED], **GPU)
    assert (size, conditions(got)["Ready"]) == (1, ("False", "Unschedulable"))


def test_nodes_that_may_not_be_read_are_nothing_to_a_canary_without_gpus() -> None:
    assert unread(0)[1] == unread(1)[1] == 3


def test_where_gpus_are_few_its_share_is_what_its_replicas_can_carry() -> None:
    half = begun(2)
    got = canary.directive(known(new(half), standing(1)), CANARY)
    assert got is not None
    assert got.share == 0.25, "one of the four that all requests need"


def test_auto_mirrors_where_accuracy_is_judged_by_classes_and_splits_elsewhere() -> None:
    auto = {"strategy": "Canary"}
    for objectives, want in (
        ({}, "Split"),
        ({"objectives": {"accuracy": [{"metric": "F1", "floor": 0.9}]}}, "Mirror"),
        ({"objectives": {"accuracy": [{"metric": "MAE", "ceiling": 3, "maxError": 9, "margin": 1}]}}, "Split"),
    ):
        got = planned(new(rollout=auto, **objectives), standing(1))
        assert got.status["canary"]["mode"] == want


def test_replicas_without_a_key_cannot_be_told_and_the_message_says_what_to_do() -> None:
    bare = serving(OLD)
    for defaults, word in ((DEFAULTS, "feedback.enabled"), (TOLD, "evenkeel promote digits")):
        found = freeze(deployment=new(), children=[*bare, *prepared_children(new())], fleet=(), defaults=defaults)
        got = plan(found, NOW)
        assert sizes(got) == {STABLE: 4}
        assert ready(got) == ("False", "CanaryNeedsFeedback")
        assert word in message(got)


def test_a_plan_carried_out_changes_nothing_the_second_time() -> None:
    first = planned(new(), standing(1))
    second = planned(new(first.status), standing(1))
    third = planned(new(second.status), standing(1))
    assert (third.status, third.events) == (second.status, ())
    assert sizes(third) == sizes(second)
