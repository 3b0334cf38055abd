"""Which GPUs are promised to replicas that have no node yet, by ModelDeployment?"""

from __future__ import annotations

from evenkeel_operator.control.cache import Key
from evenkeel_operator.decide import placement
from evenkeel_operator.decide.gpus import Promised
from evenkeel_operator.decide.snapshot import Snapshot


class Promises:
    """What is on its way to a GPU. Few are at a time, however many ModelDeployments there are."""

    def __init__(self) -> None:
        self._known: dict[Key, Promised] = {}

    def note(self, key: Key, snapshot: Snapshot, size: int | None) -> None:
        """Take note of how the replicas of `key` stand, for which `size` is decided; None where its spec says it."""
        found = placement.promised(snapshot, size)
        if found is None:
            self.forget(key)
        else:
            self._known[key] = found

    def beside(self, key: Key) -> tuple[Promised, ...]:
        """Return what is promised to others than `key`."""
        return tuple(found for other, found in self._known.items() if other != key)

    def forget(self, key: Key) -> None:
        """Forget what was promised to `key`."""
        self._known.pop(key, None)
