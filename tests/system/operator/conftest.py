"""The fake API server of a test, and whoever else is in the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """Yield a fake API server."""
    async with FakeApi() as found:
        yield found


@pytest.fixture
def actors(api: FakeApi) -> Actors:
    """Let the fake cluster run Jobs and ReplicaSets."""
    return Actors(api.store)
