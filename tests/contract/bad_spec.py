"""A spec that the API server refuses."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import Object
from tests.contract.specs import merged, minimal


@dataclass(frozen=True)
class BadSpec:
    """A spec that is refused: what differs from the minimal one, and what the refusal has to name."""

    says: str
    spec: Object
    field: str
    word: str
    name: str = "digits"

    def document(self) -> Object:
        """Return the whole ModelDeployment."""
        return merged(minimal(self.name), {"spec": self.spec})
