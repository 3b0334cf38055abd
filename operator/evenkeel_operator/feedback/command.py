"""`evenkeel feedback`: open the database, listen, delete what is too old, end in good order.

Exit codes: 0 asked to stop; 1 cannot work (no key, no database, no cluster, port taken); 2 bad flags.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from evenkeel_operator.feedback.access import Kubernetes
from evenkeel_operator.feedback.commits import Commits
from evenkeel_operator.feedback.ratings import Ratings
from evenkeel_operator.feedback.service import QUALITY_SINCE_S, Service
from evenkeel_operator.feedback.settings import FeedbackSettings, master_keys, parse
from evenkeel_operator.feedback.sqlite import SqliteStore
from evenkeel_operator.feedback.store import Store, Unavailable
from evenkeel_operator.feedback.totals import subjects
from evenkeel_operator.flags import log_to_stderr
from evenkeel_operator.world.connection import Connection, LoginError

EXPIRE_EVERY_S = 600.0
DRAIN_S = 10.0
WARM_UP_S = 1.0

log = logging.getLogger(__name__)


def feedback(argv: Sequence[str]) -> int:
    """Run the service; return the exit code."""
    settings = parse(argv, os.environ)
    log_to_stderr(settings.log_level)
    try:
        return asyncio.run(_run(settings))
    except (ValueError, OSError, Unavailable, LoginError) as e:
        log.error("%s", e)
        return 1


def opener(settings: FeedbackSettings) -> Callable[[], Store]:
    """Return what opens a connection to the database that is asked for."""
    if not settings.dsn:
        return lambda: SqliteStore(settings.path)
    from evenkeel_operator.feedback.postgres import PostgresStore  # psycopg is slow to import

    return lambda: PostgresStore(settings.dsn)


def warm_up(questions: Store, for_s: float = WARM_UP_S) -> None:
    """Ask how good each model is, for so long at most, so that the first who asks need not wait for what is made once.

    Raises Unavailable.
    """
    until = time.monotonic() + for_s
    for subject in subjects(questions.ask):
        if time.monotonic() >= until:
            return
        questions.quality(subject, int(time.time()) - QUALITY_SINCE_S)


async def _run(settings: FeedbackSettings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keys = master_keys(settings.keys_dir)
    open_store = opener(settings)
    writes = await asyncio.to_thread(open_store)
    questions = await asyncio.to_thread(open_store)
    lookups = await asyncio.to_thread(open_store)
    connection = None if settings.is_open else await Connection.open(settings.kubeconfig)
    kubernetes = None if connection is None else Kubernetes(connection, settings.namespaces)
    if kubernetes is not None:
        kubernetes.recall(await asyncio.to_thread(lookups.models))
    await asyncio.to_thread(warm_up, questions)
    commits = Commits(writes)
    service = Service(keys, commits, questions, lookups, kubernetes, settings.horizon_s)
    rates = await asyncio.to_thread(open_store)
    present = None if kubernetes is None else kubernetes.present
    ratings = Ratings(rates, present, service.metrics.rated, settings.quality_s)
    rating = asyncio.create_task(ratings.run(), name="ratings")
    runner = web.AppRunner(service.application(), access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host or None, settings.port)
        await site.start()
        log.info("listening http_port=%d keys=%s", runner.addresses[0][1], ",".join(map(str, sorted(keys))))
        while not stop.is_set():
            now_s = int(time.time())
            # An id is of use for as long as a label may come, or be corrected; after that it is only somebody's name.
            commits.expire(now_s - settings.retention_s, now_s - settings.horizon_s)
            try:
                await asyncio.wait_for(stop.wait(), EXPIRE_EVERY_S)
            except TimeoutError:
                continue
    finally:
        ratings.stop()
        await runner.cleanup()
        await commits.stop()
        await rating
        writes.close()
        questions.close()
        lookups.close()
        rates.close()
        if connection is not None:
            await connection.close()
    log.info("stopped")
    return 0
