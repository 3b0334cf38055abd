"""What is done about one ModelDeployment when its turn comes? Freeze, plan, apply, answer.

Level-triggered: events only say whose turn it is. Whatever happened, the same steps look at what is there and do what
is missing, so that a worker killed at any line leaves nothing that the next one does not put right.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control import cache
from evenkeel_operator.control.apply import Applier
from evenkeel_operator.control.cache import Cache, Key
from evenkeel_operator.control.qualities import Qualities
from evenkeel_operator.control.retrainings import Retrainings
from evenkeel_operator.control.scaling import Scaler
from evenkeel_operator.control.trials import Trials
from evenkeel_operator.control.workqueue import WorkQueue
from evenkeel_operator.decide.intent import Plan
from evenkeel_operator.decide.names import Reason
from evenkeel_operator.decide.snapshot import Defaults, Fleet, NoSignal, Snapshot, freeze
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cluster import Cluster, Rejected, Transient
from evenkeel_operator.world.events import Recorder
from evenkeel_operator.world.kinds import Kind
from evenkeel_operator.world.lease import LeaseLost
from evenkeel_operator.world.metrics import Stated

log = logging.getLogger(__name__)

STUCK_AFTER_S = 300.0
"""A reconciliation that takes longer hangs: its requests end in a tenth of that."""
FLEET_SETTLES_S = 1.0
"""Changes of the fleet come in bursts; those who wait for a GPU are woken once per burst."""

CHILDREN_SETTLE_S = 0.05
"""What happens to children comes in bursts and over several watches, in any order: a Job may be seen to have ended
before its pod is. Each burst is looked at once."""

START_AGAIN_S = 60.0
"""No event tells that a quota was raised for a Job that was refused."""

_WAITS_FOR_GPU = frozenset({Reason.ROLLOUT_BLOCKED_NO_GPU, Reason.UNSCHEDULABLE})


@dataclass(frozen=True, slots=True)
class Decisions:
    """The pure functions that decide: see decide/plan.py."""

    plan: Callable[[Snapshot, datetime], Plan]
    invalid: Callable[[Object, str, datetime], Plan]
    rejected: Callable[[Snapshot, str, str, datetime], Plan]


class Controller:
    """Observes, and works on what was observed."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        recorder: Recorder,
        decisions: Decisions,
        defaults: Defaults,
        fleet: Callable[[], Fleet | NoSignal],
        scaler: Scaler,
        qualities: Qualities,
        trials: Trials,
        retrainings: Retrainings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self._applier = Applier(cluster, self.cache)
        self._recorder = recorder
        self._decisions = decisions
        self._defaults = defaults
        self._fleet = fleet
        self._scaler = scaler
        self._qualities = qualities
        self._trials = trials
        self._retrainings = retrainings
        self._now = now
        self._waiting_for_gpu: set[Key] = set()
        self._busy: dict[int, tuple[Key, float]] = {}
        self._is_draining = False
        self._last_event = time.monotonic()

    def observe(self, kind: Kind, obj: Object, *, is_deleted: bool = False) -> bool:
        """Take note of one object; return whether it was news. No I/O, no waiting."""
        self._last_event = time.monotonic()
        before = self.cache.get(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        is_news = self.cache.drop(kind, obj) if is_deleted else self.cache.put(kind, obj)
        if is_news:
            self.enqueue(kind, obj)
            if before is not None:
                self.enqueue(kind, before)  # whose it was, when somebody has taken our label off
        return is_news

    def enqueue(self, kind: Kind, obj: Object) -> None:
        """Queue whoever `obj` matters to."""
        key = self.cache.owner_of_event(obj) if kind is kinds.EVENT else cache.key_of(kind, obj)
        if key is not None:
            self.queue.add_after(key, 0 if kind is kinds.MODELDEPLOYMENT else CHILDREN_SETTLE_S)

    def status(self, key: Key) -> Object:
        """Return the newest status of `key` that is known, empty where there is none."""
        deployment = self.cache.get(kinds.MODELDEPLOYMENT, key.namespace, key.name)
        found: Object = {} if deployment is None else deployment.get("status") or {}
        return found

    def fleet_changed(self) -> None:
        """Look again at whoever waits for a GPU."""
        for key in self._waiting_for_gpu:
            self.queue.add_after(key, FLEET_SETTLES_S)

    def last_event_age_s(self) -> float:
        """Return the seconds since anything was observed."""
        return time.monotonic() - self._last_event

    def stated(self) -> Iterator[Stated]:
        """Yield the conditions of every ModelDeployment, for Prometheus."""
        for key in self.cache.deployments():
            deployment = self.cache.get(kinds.MODELDEPLOYMENT, key.namespace, key.name) or {}
            for row in (deployment.get("status") or {}).get("conditions") or ():
                holds = {"True": True, "False": False}.get(row["status"])
                yield Stated(key.namespace, key.name, row["type"], holds, row["reason"])

    def stuck(self) -> Iterable[str]:
        """Return what hangs."""
        for key, since in self._busy.values():
            if time.monotonic() - since > STUCK_AFTER_S:
                yield f"reconciliation of {key} has taken {time.monotonic() - since:.0f} s"

    async def work(self, number: int) -> None:
        """Work on one key after the other, until drained."""
        while not self._is_draining:
            key = await self.queue.get()
            metrics.QUEUE_DEPTH.set(len(self.queue))
            started = time.monotonic()
            self._busy[number] = key, started
            try:
                await self._turn(key)
            finally:
                del self._busy[number]
                metrics.RECONCILE_DURATION.observe(time.monotonic() - started)
                self.queue.done(key)

    async def drain(self, workers: Sequence[asyncio.Task[None]], timeout_s: float) -> None:
        """Let the reconciliations under way end, for `timeout_s` at most; start no other."""
        self._is_draining = True
        for number, worker in enumerate(workers):
            if number not in self._busy:
                worker.cancel()
        if workers:
            await asyncio.wait(workers, timeout=timeout_s)
        for worker in workers:
            worker.cancel()
        self.queue.close()

    async def _turn(self, key: Key) -> None:
        """Reconcile `key` and decide when its next turn is."""
        reconcile_id = uuid.uuid4().hex[:8]
        try:
            result, look_again_after_s = await self.reconcile(key)
        except Transient as e:
            delay_s = self.queue.add_rate_limited(key, e.retry_after_s or 0.0)
            log.warning("again deployment=%s reconcile=%s delay_s=%.3f error=%s", key, reconcile_id, delay_s, e)
            metrics.ERRORS.labels(kind="api").inc()
            result = "transient"
        except LeaseLost:
            self._is_draining = True
            result = "lease_lost"
        except Exception:
            # Ours to mend; meanwhile the other deployments are served.
            delay_s = self.queue.add_rate_limited(key)
            log.exception("failed deployment=%s reconcile=%s delay_s=%.3f", key, reconcile_id, delay_s)
            metrics.ERRORS.labels(kind="bug").inc()
            result = "error"
        else:
            self.queue.forget(key)
            if look_again_after_s is not None:
                self.queue.add_after(key, look_again_after_s)
        metrics.RECONCILES.labels(result=result).inc()

    async def reconcile(self, key: Key) -> tuple[str, float | None]:
        """Do what is missing for `key`; return the result in one word, and when to look again."""
        deployment = self.cache.get(kinds.MODELDEPLOYMENT, key.namespace, key.name)
        if deployment is None:
            self._applier.forget(key)
            for follower in (self._scaler, self._qualities, self._trials, self._retrainings):
                follower.forget(key)
            self._waiting_for_gpu.discard(key)
            return "gone", None
        if "deletionTimestamp" in deployment["metadata"]:
            return "gone", None  # the garbage collector's
        result, plan = "ok", self._plan(key, deployment)
        if isinstance(plan, Plan):
            result = "invalid"
        else:
            snapshot, plan = plan
            try:
                await self._applier.children(key, deployment, plan)
            except Rejected as e:
                log.warning("rejected deployment=%s reason=%s message=%s", key, e.reason, e.message)
                told = self._decisions.rejected(snapshot, e.reason, e.message, self._now())
                result, plan = "rejected", told
        self._note_waiting(key, plan.status)
        if await self._applier.status(key, deployment, plan.status):
            self._log_transition(key, deployment, plan.status)
            for event in plan.events:
                await self._recorder.tell(deployment, event)
            if plan.start is not None and not await self._started(key, deployment, plan.start):
                return result, min(START_AGAIN_S, plan.look_again_after_s or START_AGAIN_S)
        return result, plan.look_again_after_s

    async def _started(self, key: Key, deployment: Object, job: Object) -> bool:
        """Create a Job; return False where the API server refuses it, which is told and is nobody else's trouble."""
        refusal = None
        try:
            await self._applier.start(key, deployment, job)
        except Rejected as e:
            log.warning("rejected deployment=%s reason=%s message=%s", key, e.reason, e.message)
            refusal = e.message
        self._retrainings.refused(key, job, refusal)
        return refusal is None

    def _plan(self, key: Key, deployment: Object) -> Plan | tuple[Snapshot, Plan]:
        """Return the plan with its snapshot, or the plan for a spec that cannot be read."""
        now = self._now()
        try:
            snapshot = freeze(
                deployment=deployment,
                children=cache.own(deployment, self.cache.children(key)),
                warnings=self.cache.warnings(key),
                fleet=self._fleet(),
                defaults=self._defaults,
            )
        except ValidationError as e:
            return self._decisions.invalid(deployment, _readable(e), now)
        for follower in (self._qualities, self._trials, self._retrainings, self._scaler):
            snapshot = follower.look(key, deployment, snapshot)
        return snapshot, self._decisions.plan(snapshot, now)

    def _note_waiting(self, key: Key, status: Object) -> None:
        if any(c["reason"] in _WAITS_FOR_GPU for c in status.get("conditions") or ()):
            self._waiting_for_gpu.add(key)
        else:
            self._waiting_for_gpu.discard(key)

    @staticmethod
    def _log_transition(key: Key, deployment: Object, status: Object) -> None:
        was, is_now = _ready(deployment.get("status") or {}), _ready(status)
        if was != is_now:
            ready, reason = is_now
            log.info("state deployment=%s ready=%s reason=%s was=%s", key, ready, reason, was[1] or "-")


def _ready(status: Object) -> tuple[str, str]:
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            return condition["status"], condition["reason"]
    return "", ""


def _readable(error: ValidationError) -> str:
    """Return what is wrong with a spec, as a person reads it."""
    rows = [f"spec.{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in error.errors(include_url=False)]
    return "; ".join(rows)
