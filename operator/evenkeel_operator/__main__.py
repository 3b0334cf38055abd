"""The operator's process: log in, wait for the Lease, watch, work, and leave in good order.

Exit codes: 0 asked to stop; 1 cannot work (no cluster, no CRD, port taken) or a part of it failed; 2 bad flags;
3 the Lease is lost. Whatever ends the process, the next one goes on from what is in the cluster.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from evenkeel_operator.api.modeldeployment import GROUP, PLURAL, Object
from evenkeel_operator.control import watch
from evenkeel_operator.control.controller import Controller, Decisions
from evenkeel_operator.control.memories import Memories
from evenkeel_operator.control.qualities import Qualities
from evenkeel_operator.control.resync import Resync
from evenkeel_operator.control.retrainings import Retrainings
from evenkeel_operator.control.scaling import Scaler
from evenkeel_operator.control.trials import Trials
from evenkeel_operator.decide import plan
from evenkeel_operator.decide.snapshot import Defaults, Feedback
from evenkeel_operator.feedback.settings import master_keys
from evenkeel_operator.flags import log_to_stderr
from evenkeel_operator.settings import Settings, parse
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cloudevents import Receivers
from evenkeel_operator.world.cluster import Cluster
from evenkeel_operator.world.connection import ApiError, Connection, LoginError
from evenkeel_operator.world.events import Recorder
from evenkeel_operator.world.feedback import Labels
from evenkeel_operator.world.fleet import FleetWatch
from evenkeel_operator.world.health import Health
from evenkeel_operator.world.kinds import Kind
from evenkeel_operator.world.lease import Lease, LeaseLost
from evenkeel_operator.world.signals import Replicas

log = logging.getLogger("evenkeel_operator")

DRAIN_S = 4.0
FLEET_S = 10.0
DECISIONS = Decisions(plan.plan, plan.invalid, plan.rejected)


class Unable(Exception):
    """The operator cannot work here, and waiting will not help."""


class Process:
    """One run of the operator."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._stop = asyncio.Event()
        self._lease = Lease(
            connection,
            settings.lease_namespace,
            settings.lease_name,
            settings.identity,
            settings.lease_duration_s,
        )
        cluster = Cluster(connection, self._lease.check, self._lease.write_timeout_s)
        self._fleet = FleetWatch(connection, lambda: self._controller.fleet_changed())
        self._scaler = Scaler(
            replicas=Replicas(settings.signals_port),
            memories=Memories(cluster),
            fleet=self._fleet.fleet,
            changed=lambda key: self._controller.queue.add(key),
            interval_s=settings.signals_s,
        )
        feedback = _feedback(settings)
        self._qualities = Qualities(
            status=lambda key: self._controller.status(key),
            labels=None if feedback is None else Labels(feedback),
            changed=lambda key: self._controller.queue.add(key),
            interval_s=settings.quality_s,
        )
        self._trials = Trials(
            replicas=Replicas(settings.signals_port),
            cluster=cluster,
            qualities=self._qualities,
            status=lambda key: self._controller.status(key),
            changed=lambda key: self._controller.queue.add(key),
            interval_s=settings.signals_s,
            judge_s=settings.quality_s,
        )
        self._retrainings = Retrainings(
            cluster=cluster,
            receivers=Receivers(settings.event_hosts),
            status=lambda key: self._controller.status(key),
            changed=lambda key: self._controller.queue.add(key),
            interval_s=settings.signals_s,
        )
        self._controller = Controller(
            cluster=cluster,
            recorder=Recorder(cluster, settings.identity),
            decisions=DECISIONS,
            defaults=Defaults(
                settings.runtime_image,
                settings.runtime_image_pull_policy,
                settings.drain_delay_s,
                feedback,
            ),
            fleet=self._fleet.fleet,
            scaler=self._scaler,
            qualities=self._qualities,
            trials=self._trials,
            retrainings=self._retrainings,
        )
        self._resync = Resync(connection, self._controller, settings.namespaces, settings.resync_s)
        self._is_leading = False

    async def run(self) -> int:
        """Run until asked to stop or unable to go on; return the exit code."""
        self._catch_signals()
        metrics.LAST_EVENT_AGE.set_function(self._controller.last_event_age_s)
        metrics.PER_DEPLOYMENT.measured = self._scaler.measured
        metrics.PER_DEPLOYMENT.stated = self._controller.stated
        health = Health(alive=self._alive, ready=self._ready, standing=self._standing)
        await health.start(self._settings.http_port)
        log.info("started identity=%s http_port=%d", self._settings.identity, health.port)
        try:
            await self._unless_stopped(self._require_crd())
            await self._unless_stopped(self._lease.acquire())
            return 0 if self._stop.is_set() else await self._lead()
        finally:
            await health.stop()

    async def _lead(self) -> int:
        self._is_leading = True
        running = {
            asyncio.create_task(self._lease.hold(), name="lease"),
            asyncio.create_task(self._fleet.run(), name="fleet"),
            asyncio.create_task(self._resync.run(), name="resync"),
        }
        workers = [
            asyncio.create_task(self._work(number), name=f"worker {number}") for number in range(self._settings.workers)
        ]
        running |= {
            *workers,
            # Last: see `watch.follow`.
            asyncio.create_task(
                watch.follow(self._connection, self._settings.namespaces, self._observe, self._catch_signals),
                name="watch",
            ),
        }
        stopped = asyncio.create_task(self._stopped(), name="stop")
        await asyncio.wait({stopped, *running}, return_when=asyncio.FIRST_COMPLETED)
        code = 0 if self._stop.is_set() else _report(task for task in running if task.done())
        await self._controller.drain(workers, DRAIN_S)
        for follower in (self._scaler, self._trials, self._qualities, self._retrainings):
            await follower.stop()
        await self._lease.release()
        running.add(stopped)
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=DRAIN_S)
        return code

    async def _work(self, number: int) -> None:
        await self._resync.listed.wait()
        await self._fleet.settled(FLEET_S)
        await self._controller.work(number)

    def _observe(self, kind: Kind, what: str | None, obj: Object) -> None:
        if what is None and self._resync.listed.is_set():
            self._resync.want()  # kopf lists only after a gap, and keeps the deletions in it to itself
        self._controller.observe(kind, obj, is_deleted=what == "DELETED")

    async def _require_crd(self) -> None:
        while True:
            try:
                found = await self._connection.request("GET", kinds.MODELDEPLOYMENT.root)
            except ApiError as e:
                if e.status == 404:
                    found = {}
                elif e.status == 401:
                    raise Unable(f"the API server does not accept the credentials: {e.message}") from e
                else:
                    log.warning("API server not reached error=%s", e)
                    await asyncio.sleep(2)
                    continue
            if any(r["name"] == PLURAL for r in found.get("resources") or ()):
                return
            raise Unable(
                f"the CustomResourceDefinition {PLURAL}.{GROUP} is not installed. The Helm chart installs it, or: "
                f"kubectl apply --server-side -f crds/{PLURAL}.{GROUP}.yaml"
            )

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stopped())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            stopped.cancel()
            task.result()
        else:
            task.cancel()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    def _alive(self) -> Iterable[str]:
        yield from self._controller.stuck()
        if self._is_leading:
            yield from self._resync.overdue()

    def _ready(self) -> Iterable[str]:
        if self._stop.is_set():
            yield "stopping"
        elif self._is_leading and not self._resync.listed.is_set():
            yield "listing what there is"

    def _standing(self) -> str:
        return "leading" if self._is_leading else "standing by for the Lease"


def _feedback(settings: Settings) -> Feedback | None:
    """Return what new revisions have to know of the feedback service; raises Unable where its key is missing."""
    if not settings.feedback_url:
        return None
    try:
        keys = master_keys(Path(settings.feedback_keys_dir))
    except (OSError, ValueError) as e:
        raise Unable(
            f"no key for receipts: {e}. Install the chart with feedback.enabled, or drop --feedback-url"
        ) from e
    return Feedback(settings.feedback_url, max(keys), keys[max(keys)], keys)


def _report(ended: Iterable[asyncio.Task[None]]) -> int:
    """Log why tasks that run for ever have ended; return the exit code."""
    code = 1
    for task in ended:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LeaseLost):
            log.error("%s", error)
            code = 3
        else:
            log.error("ended task=%s error=%r", task.get_name(), error, exc_info=error)
    return code


async def _run(settings: Settings) -> int:
    try:
        connection = await Connection.open(settings.kubeconfig)
        try:
            return await Process(settings, connection).run()
        finally:
            await connection.close()
    except (LoginError, Unable, OSError) as e:
        log.error("%s", e)
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator; return the exit code."""
    settings = parse(sys.argv[1:] if argv is None else argv, os.environ)
    log_to_stderr(settings.log_level)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    # Why kopf ended is said once, by `watch.follow`, not also by two of its floors with a traceback each.
    logging.getLogger("kopf._core.reactor").setLevel(logging.CRITICAL)
    # At Python's 700 new objects a collection, a third of the CPU of a thousand ModelDeployments would be collections.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    return asyncio.run(_run(settings))


if __name__ == "__main__":
    sys.exit(main())
