"""What of a decision's memory is there again when the operator is started again?"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control.cache import Key
from evenkeel_operator.control.memories import Memories
from evenkeel_operator.decide.capacity import Capacity, Roofline
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.experts import COUNT, Experts, Kept
from evenkeel_operator.decide.memory import LIMIT_BYTES, Memory
from evenkeel_operator.decide.speed import ENOUGH, Speed
from evenkeel_operator.world.cluster import Transient
from tests.builders import NAME, NAMESPACE, modeldeployment

KEY = Key(NAMESPACE, NAME)
CARRIED = Carried(Capacity(93.75, 81.5, 120.25, foreseen_s=(0.05, 0.06, 0.07, 0.09, 0.125, 0.15, 0.2)), 0.2, 0.95)
SPEED = Speed(Roofline(0.01, 0.002, 0.001, 8), _seen=ENOUGH, _is_measured=True)


class Stored:
    """The API server, which has one ConfigMap or none, and may be away."""

    def __init__(self) -> None:
        self.config_map: Object | None = None
        self.is_away = False

    async def read(self, *_: object) -> Object | None:
        if self.is_away:
            raise Transient("it is away")
        return self.config_map

    async def apply(self, obj: Object) -> None:
        if self.is_away:
            raise Transient("it is away")
        self.config_map = json.loads(json.dumps(obj))


async def kept(stored: Any, memory: Memory, carried: Carried | None) -> None:
    """Have the memory written, by an operator that has been there for a while."""
    now = 0.0
    memories = Memories(stored, lambda: now)
    await memories.restored(KEY, modeldeployment())
    now = 3600.0
    await memories.keep(KEY, modeldeployment(), memory, SPEED, carried)


@pytest.mark.parametrize("carried", [CARRIED, None])
async def test_what_was_kept_is_restored(carried: Carried | None) -> None:
    stored: Any = Stored()
    await kept(stored, Memory(), carried)
    got = await Memories(stored).restored(KEY, modeldeployment())
    assert got is not None
    assert (got[1].roofline, got[2]) == (SPEED.roofline, carried)


async def test_what_was_computed_has_its_room_beside_the_largest_memory() -> None:
    source, stored = Random(1), Stored()
    lost = [Kept(-1, 7, [10.0 ** source.uniform(2.0, 7.0) for _ in range(COUNT)]) for _ in range(13)]
    memory = Memory(experts=Experts.of(lost, 0.0))
    assert len(memory.to_json()) > LIMIT_BYTES - 50, "it takes all the room that there is"
    await kept(stored, memory, CARRIED)
    assert stored.config_map is not None
    assert stored.config_map["data"].keys() == {"memory", "speed", "capacity", "foreseen"}
    assert sum(map(len, stored.config_map["data"].values())) <= LIMIT_BYTES


async def test_without_the_api_server_nothing_is_restored_or_kept_yet() -> None:
    stored: Any = Stored()
    await kept(stored, Memory(), CARRIED)
    memories, stored.is_away = Memories(stored), True
    assert await memories.restored(KEY, modeldeployment()) is None
    await memories.keep(KEY, modeldeployment(), Memory(), SPEED, CARRIED)
    stored.is_away = False
    got = await memories.restored(KEY, modeldeployment())
    assert got is not None
    assert got[2] == CARRIED
