"""How many replicas may each revision have next, without a GPU that is not free?

Computed from what is observed, never from a stored step, so that an operator killed at any moment goes on from where
the pods are. One call gives one step; the next follows when the pods have changed.

With a slot free for one more replica the new one starts beside the old ones (surge). With none, an old replica makes
room, one at a time, and only while another goes on serving. With neither, the rollout is blocked and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MAX_SURGE = 0.25
"""Share of the size that may stand beside it during a rollout, rounded up: the default of apps/v1 Deployment."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What one revision has: replicas asked of its ReplicaSet, those bound to a node, those that answer."""

    asked: int
    placed: int
    ready: int


@dataclass(frozen=True, slots=True)
class Step:
    """The next size of every revision. `blocked`: only a GPU that is not free could move the rollout on."""

    sizes: Mapping[str, int]
    blocked: bool = False


def next_step(
    *,
    desired: int,
    target: str,
    standing: Mapping[str, Standing],
    terminating: int,
    free_slots: int | None,
    paused: bool = False,
) -> Step:
    """Return the next sizes on the way to `desired` replicas of `target` and none of any other revision.

    `standing` has a row for every revision that has a ReplicaSet. `terminating` replicas still hold their GPUs and
    will give them back. `free_slots` is how many more replicas of `target` could get their GPUs now, None where it
    needs none.

    Invariants: the sum of the sizes grows only into free slots; replicas that answer never fall below `desired` while
    there is room beside them, never below `desired` - 1 otherwise, never to 0.
    """
    new = standing.get(target, Standing(0, 0, 0))
    old = {name: row for name, row in standing.items() if name != target}
    old_asked = sum(row.asked for row in old.values())
    reach = desired if free_slots is None else new.placed + free_slots
    if old_asked == 0 or desired == 0:
        # The last GPUs of the old revisions are on their way back: a replica that waits for them is not unschedulable.
        size = desired if terminating == 0 else min(desired, max(new.asked, reach))
        return Step(dict.fromkeys(old, 0) | {target: size})
    if paused:
        return Step(_resized(desired, target, standing))

    most = desired + _surge(desired)
    size = min(desired, max(new.asked, min(most - old_asked, reach)))

    old_ready = sum(min(row.ready, row.asked) for row in old.values())
    ready = new.ready + old_ready
    # A GPU on its way back counts as room: counter-example without it, 2 replicas and 1 free GPU: after the first
    # exchange the freed GPU is not free yet, and the second old replica would be taken while 1 of 2 answers.
    has_room = min(size, reach) + min(terminating, desired - min(size, reach)) + old_asked > desired
    least = desired if has_room else max(1, desired - 1)
    idle = old_asked - old_ready
    # Replicas that do not answer protect nothing: they go as soon as they are too many, or in the way.
    shrink = min(idle, old_asked + size - desired if has_room else desired - min(size, reach))
    shrink += min(old_ready, max(0, ready - least))
    if new.ready >= desired:
        shrink = old_asked
    shrink = max(0, shrink)

    stuck = shrink == 0 and terminating == 0 and size <= max(reach, new.asked)
    blocked = stuck and reach < desired and new.placed >= reach and new.ready >= new.placed
    return Step(_shrunk(old, shrink) | {target: size}, blocked)


def _surge(desired: int) -> int:
    return max(1, math.ceil(desired * MAX_SURGE))


def _shrunk(old: Mapping[str, Standing], shrink: int) -> dict[str, int]:
    """Return the old revisions' sizes after `shrink` replicas are taken: first those that do not answer."""
    sizes = {name: row.asked for name, row in old.items()}
    for is_serving in (False, True):
        for name in sorted(old, key=lambda n: (old[n].ready, n)):
            idle = max(0, sizes[name] - old[name].ready)
            taken = min(shrink, sizes[name] if is_serving else idle)
            sizes[name] -= taken
            shrink -= taken
    return sizes


def _resized(desired: int, target: str, standing: Mapping[str, Standing]) -> dict[str, int]:
    """Return the sizes of a paused rollout: the mix stays, the revision with most ready replicas meets `desired`.

    As in a paused Deployment, the whole may exceed `desired` by the surge while two revisions stand.
    """
    sizes = {name: row.asked for name, row in standing.items()} | {
        target: standing[target].asked if target in standing else 0
    }
    difference = desired - sum(sizes.values())
    if -_surge(desired) <= difference < 0 and sum(size > 0 for size in sizes.values()) > 1:
        # What has started beside the old ones stays, to be looked at: counter-example without it, 2 old replicas and
        # 1 new one: the pause would take the new one away, that is, undo the rollout.
        return sizes
    if difference > 0 or not sizes:
        best = max(standing, key=lambda n: (standing[n].ready, n != target, n), default=target)
        sizes[best] += difference
        return sizes
    for name in sorted(standing, key=lambda n: (standing[n].ready, n)):
        taken = min(sizes[name], -difference)
        sizes[name] -= taken
        difference += taken
    return sizes
