"""Does a rollout ever need a GPU that is not free, or stop serving? A table of steps, and a world in which it runs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.rollout import Standing, next_step

OLD, NEW = "m-old", "m-new"


@pytest.mark.parametrize(
    ("desired", "old", "new", "terminating", "free", "want", "want_blocked"),
    [
        pytest.param(
            2,
            (2, 2, 2),
            (0, 0, 0),
            0,
            None,
            (2, 1),
            False,
            id="without GPUs one replica starts beside the old ones",
        ),
        pytest.param(8, (8, 8, 8), (0, 0, 0), 0, None, (8, 2), False, id="eight replicas surge by a quarter"),
        pytest.param(1, (1, 1, 1), (0, 0, 0), 0, 1, (1, 1), False, id="one replica and a free GPU: start beside"),
        pytest.param(1, (1, 1, 1), (1, 1, 0), 0, 0, (1, 1), False, id="the old one stays until the new one answers"),
        pytest.param(1, (1, 1, 1), (1, 1, 1), 0, 0, (0, 1), False, id="the new one answers: the old one goes"),
        pytest.param(
            1,
            (1, 1, 1),
            (0, 0, 0),
            0,
            0,
            (1, 0),
            True,
            id="one replica and no free GPU: blocked, still serving",
        ),
        pytest.param(2, (2, 2, 2), (0, 0, 0), 0, 0, (1, 0), False, id="no free GPU and two replicas: one makes room"),
        pytest.param(2, (1, 1, 1), (0, 0, 0), 1, 0, (1, 0), False, id="wait for the GPU that comes back"),
        pytest.param(2, (1, 1, 1), (0, 0, 0), 0, 1, (1, 1), False, id="the GPU came back: take it"),
        pytest.param(
            2,
            (1, 1, 1),
            (1, 1, 0),
            0,
            0,
            (1, 1),
            False,
            id="in place, the last old one stays while the new one starts",
        ),
        pytest.param(
            2,
            (1, 1, 1),
            (1, 1, 1),
            1,
            0,
            (1, 1),
            False,
            id="after a surge the GPU on its way back is waited for",
        ),
        pytest.param(
            2,
            (2, 2, 2),
            (1, 1, 0),
            0,
            0,
            (2, 1),
            False,
            id="a new revision that never answers leaves the old one whole",
        ),
        pytest.param(2, (2, 2, 0), (0, 0, 0), 0, 0, (0, 0), False, id="nothing answers: nothing to protect, make room"),
        pytest.param(0, (2, 2, 2), (1, 1, 1), 0, 0, (0, 0), False, id="scaled to zero: all go"),
        pytest.param(
            1,
            (3, 3, 3),
            (0, 0, 0),
            0,
            0,
            (1, 0),
            False,
            id="scaled down during a rollout: the surplus goes first",
        ),
    ],
)
def test_one_step(
    desired: int,
    old: tuple[int, int, int],
    new: tuple[int, int, int],
    terminating: int,
    free: int | None,
    want: tuple[int, int],
    want_blocked: bool,
) -> None:
    step = next_step(
        desired=desired,
        target=NEW,
        standing={OLD: Standing(*old), NEW: Standing(*new)},
        terminating=terminating,
        free_slots=free,
    )
    got = (step.sizes[OLD], step.sizes[NEW])
    assert (got, step.blocked) == (want, want_blocked)


@pytest.mark.parametrize(
    ("desired", "want"),
    [
        pytest.param(3, (2, 1), id="paused: the mix stays"),
        pytest.param(5, (4, 1), id="paused and scaled up: the revision that serves most grows"),
        pytest.param(2, (2, 1), id="paused with one beside the old ones: it stays"),
        pytest.param(1, (1, 0), id="paused and scaled down: what serves least goes first"),
    ],
)
def test_paused(desired: int, want: tuple[int, int]) -> None:
    standing = {OLD: Standing(2, 2, 2), NEW: Standing(1, 1, 1)}
    step = next_step(desired=desired, target=NEW, standing=standing, terminating=0, free_slots=0, paused=True)
    assert (step.sizes[OLD], step.sizes[NEW]) == want


def test_three_revisions_converge_to_the_newest() -> None:
    standing = {"m-1": Standing(2, 2, 2), "m-2": Standing(1, 1, 0), "m-3": Standing(0, 0, 0)}
    step = next_step(desired=2, target="m-3", standing=standing, terminating=0, free_slots=0)
    assert step.sizes == {"m-1": 2, "m-2": 0, "m-3": 0}, "the one in between that never served makes room"


@dataclass
class World:
    """GPUs, pods and a scheduler: enough of Kubernetes to run a rollout in."""

    gpus: int
    rng: random.Random
    pods: list[dict[str, object]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()

    def used(self) -> int:
        return sum(1 for p in self.pods if p["placed"])

    def tick(self) -> None:
        for name, size in self.sizes.items():
            live = [p for p in self.pods if p["rev"] == name and not p["leaving"]]
            for _ in range(size - len(live)):
                self.pods.append({"rev": name, "placed": False, "ready": False, "leaving": False})
            # as the ReplicaSet controller: unplaced first, then not ready
            live.sort(key=lambda p: (bool(p["placed"]), bool(p["ready"])))
            for pod in live[: max(0, len(live) - size)]:
                pod["leaving"] = True
        event = self.rng.choice(["place", "ready", "gone"])
        candidates = {
            "place": [p for p in self.pods if not p["placed"] and not p["leaving"] and self.used() < self.gpus],
            "ready": [
                p
                for p in self.pods
                if p["placed"] and not p["ready"] and not p["leaving"] and p["rev"] not in self.broken
            ],
            "gone": [p for p in self.pods if p["leaving"]],
        }[event]
        if not candidates:
            return
        pod = self.rng.choice(candidates)
        if event == "gone":
            self.pods.remove(pod)
        else:
            pod["placed" if event == "place" else "ready"] = True

    def answering(self) -> int:
        return sum(1 for p in self.pods if p["ready"] and not p["leaving"])

    def standing(self) -> dict[str, Standing]:
        def row(name: str) -> Standing:
            live = [p for p in self.pods if p["rev"] == name and not p["leaving"]]
            placed, ready = sum(bool(p["placed"]) for p in live), sum(bool(p["ready"]) for p in live)
            return Standing(self.sizes[name], placed, ready)

        return {name: row(name) for name in self.sizes}


@settings(max_examples=150)
@given(
    desired=st.integers(1, 9),
    spare=st.integers(0, 4),
    revisions=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    last_is_broken=st.booleans(),
)
def test_any_rollout_keeps_serving_and_asks_for_no_gpu_that_is_not_free(
    desired: int, spare: int, revisions: int, seed: int, last_is_broken: bool
) -> None:
    rng = random.Random(seed)
    world = World(gpus=desired + spare, rng=rng)
    names = [f"m-{i}" for i in range(revisions)]
    world.sizes = {names[0]: desired}
    for _ in range(100 * desired):
        world.tick()
    world.pods = [p for p in world.pods if p["ready"]]
    assert world.answering() == desired
    if last_is_broken:
        world.broken = frozenset({names[-1]})
    changes = sorted(rng.sample(range(40), revisions - 1))
    target, blocked = names[0], False
    for tick in range(700 if last_is_broken else 2500):
        if not changes and {p["rev"] for p in world.pods} == {target} and world.answering() == desired:
            break
        if changes and tick == changes[0]:
            changes.pop(0)
            target = names[names.index(target) + 1]
            world.sizes[target] = 0
        free = world.gpus - world.used()
        pending = sum(1 for p in world.pods if not p["placed"] and not p["leaving"])
        leaving = sum(1 for p in world.pods if p["leaving"] and p["placed"])
        before = sum(world.sizes.values())
        step = next_step(
            desired=desired, target=target, standing=world.standing(), terminating=leaving, free_slots=free
        )
        grown = sum(step.sizes.values()) - before
        assert grown <= max(0, free - pending) or grown <= 0, "asks for a GPU that is not free"
        world.sizes, blocked = dict(step.sizes), step.blocked
        world.tick()
        assert world.answering() >= max(1, desired - 1), "stopped serving"
        if spare > 0:
            assert world.answering() >= desired, "fewer answer although a GPU was free"
    if desired == 1 and spare == 0:
        assert blocked
        assert world.answering() == 1
    elif not last_is_broken:
        assert {p["rev"] for p in world.pods} == {target}, "did not converge to the newest"
        assert world.answering() == desired
