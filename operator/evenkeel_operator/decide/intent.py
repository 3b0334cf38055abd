"""What can a plan ask for? The values that leave `decide/`, carried out by `world/`."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import Object


@dataclass(frozen=True, slots=True)
class Ref:
    """One object in the ModelDeployment's namespace."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """One Kubernetes Event about the ModelDeployment; `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be done, in this order: apply, delete, write the status, then tell.

    `victims` are the pods that go first when a ReplicaSet shrinks; they are marked before anything is applied.
    `apply` holds whole objects for server-side apply; one that already is as asked for costs no request. `status` is
    the whole status. `start` is a Job that is created once the status that tells of it is written; that it is refused
    keeps nothing else from being done. `look_again_after_s` is None when only a change can make a difference.
    """

    apply: tuple[Object, ...]
    delete: tuple[Ref, ...]
    status: Object
    events: tuple[Event, ...] = ()
    victims: tuple[str, ...] = ()
    start: Object | None = None
    look_again_after_s: float | None = None
