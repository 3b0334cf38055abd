"""Which other Python servers is the runtime measured against, and in which configurations?

Each has a module here that is run in an environment of its own (environments.py) as
`python -m tests.bench.runtime.peers.MODULE FORM MODEL PORT`, and says why its fastest form is the fastest that we know
of: whoever knows a faster one is asked to correct it. All get the same requests, the same core, one thread and the same
compiled model (tensors.py), so that only the servers differ.

*idiomatic* is what the server's own documentation shows first, *fastest* has every switch set that helped, *route* goes
around the server's inference API where it has one: it is shown, and does not count as the server's.
"""

from __future__ import annotations

from dataclasses import dataclass

IDIOMATIC = "idiomatic"
FASTEST = "fastest"
ROUTE = "route"


@dataclass(frozen=True, slots=True)
class Peer:
    """`distribution` is what is pinned; `binary` are the forms that take a binary tensor, `forms` all there are."""

    distribution: str
    module: str
    forms: tuple[str, ...] = (IDIOMATIC, FASTEST)
    binary: tuple[str, ...] = (FASTEST,)


PEERS = (
    Peer("litserve", "lit"),
    Peer("ray", "rayserve"),
    Peer("bentoml", "bento"),
    Peer("mlserver", "mls", (IDIOMATIC, FASTEST, ROUTE), (ROUTE,)),
    Peer("kserve", "kserving"),
)
