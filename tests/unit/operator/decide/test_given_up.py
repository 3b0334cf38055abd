"""Does a rollout that is given up midway take away what serves, or lead requests to what is not trusted?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import canary, names
from evenkeel_operator.decide.canary import Course, Judged
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.plan import plan
from evenkeel_operator.decide.quality.verdict import State, Verdict, Why
from evenkeel_operator.decide.snapshot import Feedback, Snapshot, freeze
from tests.builders import DEFAULTS, NAME, modeldeployment, node, observed, pod, revision_of
from tests.plans import NOW, message, of_kind, ready, serving, sizes

TOLD = replace(DEFAULTS, feedback=Feedback("http://feedback.test", 1, bytes(32)))
MODELS = ("v1", "v2", "v3")


def asking(model: str, *, strategy: str = "Canary", replicas: int = 4, **more: Any) -> Object:
    steps = {"canary": {"mode": "Split", "steps": [{"weight": 10}, {"weight": 50}]}} if strategy == "Canary" else {}
    rollout = {"strategy": strategy, **more.pop("rollout", {}), **steps}
    return modeldeployment(model={"uri": f"pvc://models/{model}.pt2"}, replicas=replicas, rollout=rollout, **more)


FIRST, SECOND, THIRD = (revision_of(asking(model)) for model in MODELS)
PROMOTED = {
    "revision": SECOND, "stable": FIRST, "state": "Promoted", "why": "NotWorse", "summary": "Promoted",
    "mode": "Split", "weight": 0, "began": "2026-01-01T10:00:00Z", "decided": "2026-01-01T11:59:00Z",
}  # fmt: skip


def service(revision: str | None) -> Object:
    """Return the Service as the API server has it, which leads to all replicas, or to those of `revision`."""
    only = {} if revision is None else {names.REVISION_LABEL: revision}
    selector = names.replica_selector(NAME) | only
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"selector": selector}}
    return observed(made)


def led_to(got: Plan) -> str | None:
    (made,) = of_kind(got, "Service")
    found: str | None = made["spec"]["selector"].get(names.REVISION_LABEL)
    return found


def midway(first: int, second: int, third: int = 0, *, leads_to: str | None = None) -> list[Object]:
    """Return the children while the second revision replaces the first: as many replicas of each answer."""
    rows = zip(MODELS, (first, second, third), strict=True)
    sets = [child for model, count in rows for child in serving(asking(model), defaults=TOLD, count=count)]
    return [service(leads_to), *sets]


def known(deployment: Object, children: Sequence[Object], status: Object, **annotations: str) -> Snapshot:
    metadata = deployment["metadata"] | {"annotations": annotations}
    told = {**deployment, "metadata": metadata, "status": {"stableRevision": FIRST, **status}}
    return freeze(deployment=told, children=children, fleet=(node(gpus=8),), defaults=TOLD)


ABORT = {names.ABORT_ANNOTATION: SECOND}


@pytest.mark.parametrize(
    ("deployment", "status", "annotations"),
    [
        pytest.param(asking("v2"), {"canary": PROMOTED}, ABORT, id="a person aborts"),
        pytest.param(asking("v3"), {"canary": PROMOTED}, {}, id="a third revision is asked for"),
        pytest.param(asking("v3"), {}, {}, id="the strategy was Direct until a third revision was asked for"),
        pytest.param(asking("v2"), {}, {}, id="the strategy was Direct, and the same revision shall be tried"),
        pytest.param(asking("v1"), {}, {}, id="the strategy was Direct, and the first revision is asked for again"),
    ],
)
def test_stable_gets_its_size_back_before_what_serves_in_its_place_goes(
    deployment: Object, status: Object, annotations: dict[str, str]
) -> None:
    got = plan(known(deployment, midway(1, 3), status, **annotations), NOW)
    assert led_to(got) is None
    assert (sizes(got)[FIRST], sizes(got)[SECOND], sizes(got).get(THIRD, 0)) == (2, 3, 0)
    assert ready(got) == ("False", "RollingOut")
    assert got.status["stableRevision"] == FIRST
    assert "canaryRevision" not in got.status
    assert "reverted" not in got.status
    then = plan(known(deployment, midway(3, 2), got.status, **annotations), NOW)
    assert (led_to(then), sizes(then)[FIRST], sizes(then)[SECOND]) == (None, 3, 1)
    last = plan(known(deployment, midway(4, 1), then.status, **annotations), NOW)
    assert (led_to(last), sizes(last)[FIRST]) == (FIRST, 4)


def test_what_a_test_has_found_to_be_bad_answers_nobody_any_more() -> None:
    bad = PROMOTED | {"state": "RolledBack", "why": "Worse"}
    got = plan(known(asking("v2"), midway(2, 2), {"canary": bad}), NOW)
    assert (led_to(got), sizes(got)[FIRST], sizes(got)[SECOND]) == (FIRST, 4, 0)


def test_a_canary_never_serves_in_the_place_of_stable_replicas_that_are_missing() -> None:
    tried = PROMOTED | {"state": "Canary", "why": "Testing", "stepsBegan": ["2026-01-01T11:00:00Z"]}
    for asked, count in (("v2", 1), ("v3", 0), ("v1", 0)):
        got = plan(known(asking(asked), midway(1, 2, leads_to=FIRST), {"canary": tried}), NOW)
        assert (led_to(got), sizes(got)[FIRST], sizes(got)[SECOND]) == (FIRST, 4, count)


@pytest.mark.parametrize(
    "deployment",
    [
        pytest.param(asking("v3", strategy="Direct"), id="by the strategy Direct"),
        pytest.param(asking("v3"), id="by a person's word"),
    ],
)
@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_canary_is_gone_before_the_service_leads_to_more_than_stable(deployment: Object, is_prepared: bool) -> None:
    tried = PROMOTED | {"state": "Canary", "why": "Testing", "stepsBegan": ["2026-01-01T11:00:00Z"]}
    children = midway(3, 1, leads_to=FIRST)
    if not is_prepared:
        children = [child for child in children if not child["metadata"]["name"].startswith(THIRD)]
    got = plan(known(deployment, children, {"canary": tried}, **{names.PROMOTE_ANNOTATION: THIRD}), NOW)
    assert (led_to(got), sizes(got)[SECOND]) == (None, 0)


def test_a_pause_keeps_the_mix_of_a_rollout_that_is_given_up_but_not_what_a_person_takes_back() -> None:
    paused: dict[str, Any] = {"rollout": {"paused": True}}
    held = plan(known(asking("v3", **paused), midway(1, 3), {"canary": PROMOTED}), NOW)
    assert (led_to(held), sizes(held)[FIRST], sizes(held)[SECOND]) == (None, 1, 3)
    assert ready(held) == ("False", "RolloutPaused")
    back = plan(known(asking("v2", **paused), midway(1, 3), {"canary": PROMOTED}, **ABORT), NOW)
    assert (sizes(back)[FIRST], sizes(back)[SECOND]) == (2, 3)


def test_without_a_free_gpu_for_stable_what_serves_in_its_place_stays_and_it_is_said() -> None:
    gpu: dict[str, Any] = {"gpu": {"count": 1}, "replicas": 1}
    first, second = revision_of(asking("v1", **gpu)), revision_of(asking("v2", **gpu))
    children = [service(None), serving(asking("v1", **gpu), defaults=TOLD)[0], *serving(asking("v2", **gpu))]
    status = {"stableRevision": first, "canary": PROMOTED | {"revision": second, "stable": first}}
    metadata = asking("v2")["metadata"] | {"annotations": {names.ABORT_ANNOTATION: second}}
    told = {**asking("v2", **gpu), "metadata": metadata, "status": status}
    found = freeze(deployment=told, children=children, fleet=(node(gpus=1, used=1),), defaults=TOLD)
    got = plan(found, NOW)
    assert (led_to(got), sizes(got)) == (None, {first: 0, second: 1})
    assert ready(got) == ("False", "RolloutBlockedNoGPU")
    assert f"Revision {second} serves until then" in message(got)


def test_the_replica_set_of_stable_is_not_taken_for_left_over_when_it_grows_again() -> None:
    children = midway(0, 4)
    got = plan(known(asking("v2"), children, {"canary": PROMOTED}, **ABORT), NOW)
    assert sizes(got)[FIRST] == 1
    assert [ref.name for ref in got.delete if ref.kind == "ReplicaSet"] == [THIRD]


class World:
    """A ModelDeployment, what carries out its plans, and a memory of who may be trusted."""

    def __init__(self) -> None:
        self.model, self.strategy, self.paused, self.replicas = "v1", "Canary", False, 4
        self.annotations: dict[str, str] = {}
        self.status: Object = {}
        self.judged: Verdict | None = None
        self.led_to: str | None = None
        self.sizes: dict[str, int] = {}
        self.pods: dict[str, tuple[bool, ...]] = {}
        self.untrusted: set[str] = set()
        self.made = {revision_of(asking(model)): serving(asking(model), defaults=TOLD)[:2] for model in MODELS}

    @property
    def asked(self) -> str:
        return revision_of(asking(self.model))

    def snapshot(self) -> Snapshot:
        spec = asking(self.model, strategy=self.strategy, replicas=self.replicas, rollout={"paused": self.paused})
        spec["metadata"] = spec["metadata"] | {"annotations": self.annotations}
        children = [service(self.led_to), *(made[0] for made in self.made.values())]
        for name, size in self.sizes.items():
            made, pods = self.made[name][1], self.pods[name]
            children.append(made | {"spec": made["spec"] | {"replicas": size}, "status": {"replicas": len(pods)}})
            children += [pod(name, n, ready=answers) for n, answers in enumerate(pods)]
        found = freeze(deployment={**spec, "status": self.status}, children=children, fleet=(), defaults=TOLD)
        return replace(found, judged=None if self.judged is None else Judged(self.asked, self.judged))

    def answering(self, led_to: str | None, sizes_: dict[str, int]) -> int:
        """Return how many replicas answer those whom the Service leads, of ReplicaSets of these sizes."""
        return sum(min(sum(self.pods.get(name, ())), size) for name, size in sizes_.items() if led_to in (None, name))

    def carry_out(self) -> None:
        found = self.snapshot()
        way = canary.course(found, self.asked)
        if way is not Course.TRIAL:
            found, self.judged = replace(found, judged=None), None
            way = canary.course(found, self.asked)
        before = self.answering(self.led_to, self.sizes)
        got = plan(found, NOW)
        wanted = {**self.sizes, **sizes(got)}
        if way is Course.DIRECT:
            self.untrusted.discard(self.asked)
        led = led_to(got)
        if led is not None:
            self.untrusted |= {name for name, size in wanted.items() if size and name != led}
        assert self.answering(led, wanted) >= min(before, self.replicas), (way, self.sizes, wanted, self.pods)
        for name in self.untrusted:
            assert led not in (None, name) or not wanted.get(name), f"{name} was only tried: {way}"
        self.led_to, self.status, self.judged = led, got.status, None
        gone = {ref.name for ref in got.delete if ref.kind == "ReplicaSet"}
        self.sizes = {name: size for name, size in wanted.items() if name not in gone}
        # As the ReplicaSet controller does: of those that are too many, the ones that do not answer go first.
        self.pods = {name: self.padded(self.pods.get(name, ()), size) for name, size in self.sizes.items()}

    @staticmethod
    def padded(pods: Sequence[bool], size: int) -> tuple[bool, ...]:
        return (*sorted(pods, reverse=True), *[False] * size)[:size]

    def starts(self) -> None:
        """Have one more replica of every revision answer."""
        self.pods = {name: self.padded((True, *sorted(p, reverse=True)), len(p)) for name, p in self.pods.items()}


def puts(**changes: Any) -> Callable[[World], None]:
    def happens(world: World) -> None:
        for field, value in changes.items():
            setattr(world, field, value)

    return happens


def says(annotation: str) -> Callable[[World], None]:
    def happens(world: World) -> None:
        world.annotations = {annotation: world.asked}

    return happens


def fails(model: str) -> Callable[[World], None]:
    def happens(world: World) -> None:
        name = revision_of(asking(model))
        if pods := world.pods.get(name):
            world.pods[name] = (*sorted(pods, reverse=True)[1:], False)

    return happens


def ends(found: Verdict) -> Callable[[World], None]:
    def happens(world: World) -> None:
        row = world.status.get("canary", {})
        if row.get("stepsBegan") and row["revision"] == world.asked:
            world.judged = found

    return happens


EVENTS: dict[str, Callable[[World], None]] = {
    **{f"ask for {model}": puts(model=model) for model in MODELS},
    **{f"a replica of {model} fails": fails(model) for model in MODELS},
    **{f"{n} replicas": puts(replicas=n) for n in (1, 3, 4, 8)},
    "try it": puts(strategy="Canary"),
    "do not try it": puts(strategy="Direct"),
    "pause": puts(paused=True),
    "go on": puts(paused=False),
    "promote": says(names.PROMOTE_ANNOTATION),
    "abort": says(names.ABORT_ANNOTATION),
    "it is good": ends(Verdict(State.PROMOTED, Why.NOT_WORSE)),
    "it is bad": ends(Verdict(State.ROLLED_BACK, Why.WORSE)),
    "the next step": ends(Verdict(State.CANARY, Why.STEP_PASSED, step=1)),
}
_OFTEN = ["ask for v1", "ask for v2", "ask for v3", "promote", "abort", "it is good", "do not try it", "try it"]
_HAPPENS = st.tuples(st.sampled_from(_OFTEN) | st.sampled_from(sorted(EVENTS)), st.integers(0, 3))
"""What happens, and how many times replicas start before the next."""


@settings(max_examples=100, deadline=None)
@given(happens=st.lists(_HAPPENS, min_size=3, max_size=15))
def test_whatever_is_asked_for_at_any_moment_what_serves_goes_on_serving(
    happens: list[tuple[str, int]],
) -> None:
    world = World()
    for event, starts in [("ask for v1", 5), *happens]:
        EVENTS[event](world)
        world.carry_out()
        for _ in range(starts):
            world.starts()
            world.carry_out()
    world.paused = False
    for _ in range(80):
        before = (world.led_to, world.sizes, world.pods, world.status)
        world.starts()
        world.carry_out()
        if before == (world.led_to, world.sizes, world.pods, world.status):
            break
    course = canary.course(world.snapshot(), world.asked)
    stable = world.status["stableRevision"]
    assert world.sizes[stable] == world.replicas, "stable has its size in the end, whatever came before"
    assert world.led_to == (None if world.strategy == "Direct" else stable)
    assert stable == world.asked or course in (Course.TRIAL, Course.BACK)
