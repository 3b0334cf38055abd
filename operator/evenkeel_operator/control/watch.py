"""What happens in the cluster, as it happens? The only file that knows kopf.

Of kopf only the watch streams are used, by `on.event` handlers that put an object into the cache and return None:
nothing of it writes annotations, finalizers or patches, and no handler can fail. Its other handlers store their state
in the objects; its indices start in quadratic time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import kopf

from evenkeel_operator.api.modeldeployment import GROUP, Object
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.connection import Connection
from evenkeel_operator.world.kinds import Kind

log = logging.getLogger(__name__)

Observe = Callable[[Kind, str | None, Object], None]
"""Called with the kind, the type of the watch event (None for an item of a list) and the object."""

_Coroutine = Coroutine[Any, Any, Any] | Generator[Any, None, Any]

FIRST_DELAY_S, MOST_DELAY_S = 1.0, 60.0
ENDING_S = 3.0
"""How long kopf is left alone to end by itself, and the time between two reminders after that."""


class _Backoffs:
    """Delays between attempts without end: the operator outlives an API server that restarts."""

    def __iter__(self) -> Iterator[float]:
        delay_s = 1.0
        while True:
            yield delay_s * random.uniform(0.75, 1.25)
            delay_s = min(delay_s * 2, 30.0)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of an object to compare it with, for handlers of changes, of which there are none.

    kopf copies every object of every event for that all the same: half of all the time it takes.
    """

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: ours make none."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


async def follow(
    connection: Connection, namespaces: tuple[str, ...], observe: Observe, spawned: Callable[[], None]
) -> None:
    """Watch every kind for ever. `spawned` is called when kopf has set its signal handlers, to set others.

    kopf ends on an error it does not expect in a stream or a list (a 410 for a page of a list, a 500 inside a watch).
    That is no reason to give up the cache and the Lease: it is started again, and nobody else's task ends with it.
    """
    delay_s = FIRST_DELAY_S
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await asyncio.create_task(_operate(connection, namespaces, observe, spawned))
        except Exception as e:  # noqa: BLE001 (a supervisor)
            log.error("watch ended error=%r", e)
        metrics.ERRORS.labels(kind="watch").inc()
        if asyncio.get_running_loop().time() - started > MOST_DELAY_S:
            delay_s = FIRST_DELAY_S
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
        delay_s = min(delay_s * 2, MOST_DELAY_S)


class _Others(Collection[asyncio.Task[Any]]):
    """The tasks that kopf has not created, for its question which ones it shall leave alone on its way out.

    It means to cancel whatever is younger than itself: the tasks that follow one deployment's signals and labels, too.
    A task of kopf's is one that was created by another of its tasks, which is what a context variable is handed on to.
    """

    _is_kopfs: ContextVar[bool] = ContextVar("is_kopfs", default=False)

    def __init__(self) -> None:
        self.kopfs: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._is_kopfs.set(True)

    def task(self, loop: asyncio.AbstractEventLoop, coro: _Coroutine, **more: Any) -> asyncio.Task[Any]:
        """Create a task, as an event loop's factory of them does."""
        found = asyncio.Task(coro, loop=loop, **more)
        if self._is_kopfs.get():
            self.kopfs.add(found)
        return found

    def __contains__(self, task: object) -> bool:
        return task not in self.kopfs

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return (task for task in asyncio.all_tasks() if task in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def _operate(
    connection: Connection, namespaces: tuple[str, ...], observe: Observe, spawned: Callable[[], None]
) -> None:
    """Run kopf until it ends; this is a task of its own, since its context is kopf's from here on."""
    others = _Others()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(others.task)
    try:
        tasks = await kopf.spawn_tasks(
            registry=registry(connection, observe),
            settings=settings(),
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        spawned()
        running = loop.create_task(kopf.run_tasks(tasks, ignored=others))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            raise
        finally:
            # On its way out kopf cancels its tasks, each once. A watch that takes the cancellation for that of its
            # pause lists anew instead, waits for a login that nobody will make any more, and kopf waits for it.
            while not (await asyncio.wait({running}, timeout=ENDING_S))[0]:
                for task in others.kopfs - {running}:
                    task.cancel()
            await running
    finally:
        loop.set_task_factory(None)


def registry(connection: Connection, observe: Observe) -> kopf.OperatorRegistry:
    """Return a registry of our own: one handler per kind and the login."""
    own = kopf.OperatorRegistry()

    @kopf.on.login(registry=own)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = await connection.credentials()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.is_insecure,
            token=found.token,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            proxy_url=found.proxy_url,
        )

    for kind in kinds.WATCHED:
        _register(own, kind, observe)
    return own


def _register(own: kopf.OperatorRegistry, kind: Kind, observe: Observe) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=own)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        obj: Object = dict(event["object"])
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        observe(kind, event["type"], obj)


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings."""
    own = kopf.OperatorSettings()
    own.peering.standalone = True
    own.scanning.disabled = True  # else it reads and watches the schema of every CRD
    own.posting.enabled = False
    for kind in kinds.WATCHED:
        if kind.label_selector:
            own.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.label_selector
        if kind.field_selector:
            own.watching.field_selectors[kind.group, kind.version, kind.plural] = kind.field_selector
    own.watching.chunk_size = 500
    own.watching.server_timeout = 600
    own.watching.client_timeout = 660
    own.watching.connect_timeout = 10
    own.watching.reconnect_backoff = 1.0  # the default lists ten times a second under repeated 410
    own.networking.request_timeout = 60
    own.networking.error_backoffs = _Backoffs()
    own.queueing.worker_limit = None  # a limit below the number of objects dead-locks (nolar/kopf#1243)
    own.queueing.idle_timeout = 0.5
    own.queueing.exit_timeout = 0.5
    own.execution.max_workers = 4
    own.process.ultimate_exiting_timeout = None  # else it kills the process ten minutes after it was started again
    own.persistence.diffbase_storage = _NoDiffBase()
    own.persistence.progress_storage = _NoProgress()
    own.persistence.finalizer = f"{GROUP}/finalizer"  # never written; to be recognised if it ever is
    return own
