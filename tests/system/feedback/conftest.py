"""What do the tests of the feedback service need: each of its databases, empty."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.feedback.postgres import PostgresStore
from evenkeel_operator.feedback.sqlite import SqliteStore
from evenkeel_operator.feedback.store import Store
from tests.system.feedback.databases import Postgres
from tests.system.feedback.server import Service

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """The flags of `evenkeel feedback` that name an empty database."""
    if request.param == "sqlite":
        return "--path", str(tmp_path / "feedback.db")
    server: Postgres = request.getfixturevalue("postgres")
    return "--dsn", server.create(f"test_{next(_NUMBERS)}")


@pytest.fixture
def open_store(database: tuple[str, ...]) -> Iterator[Callable[[], Store]]:
    """Open connections to one database, closed in the end."""
    opened: list[Store] = []

    def open_one() -> Store:
        flag, where = database
        opened.append(SqliteStore(Path(where)) if flag == "--path" else PostgresStore(where))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services that end with the test."""
    started: list[Service] = []

    def begin(*flags: str, **more: Any) -> Service:
        started.append(Service(tmp_path, *flags, **more))
        return started[-1]

    yield begin
    for service in started:
        service.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a file, shared by a module's tests: each has ModelDeployments of its own."""
    folder = tmp_path_factory.mktemp("feedback")
    found = Service(folder, "--path", str(folder / "feedback.db"))
    yield found
    found.kill()
