"""Who tells the stable replicas of a canary, counts how both answer, and has it judged?

One task per ModelDeployment whose new revision is tried: every five seconds it asks the stable replicas what they
count, tells those that do not know it yet what their canary's share is, and once a minute has the verdict made in a
thread. How both have answered is kept in a ConfigMap, once a minute: an operator that is killed goes on from there.

The task outlives the trial until no stable replica speaks of a canary any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import Status
from evenkeel_operator.control.cache import Key, controller_uid
from evenkeel_operator.control.qualities import Qualities
from evenkeel_operator.control.tasks import Tasks
from evenkeel_operator.decide import canary, names, resources, served
from evenkeel_operator.decide.answers import Samples
from evenkeel_operator.decide.canary import Course, Judged
from evenkeel_operator.decide.quality import counted, verdict
from evenkeel_operator.decide.quality.counted import Counted, Unjudgeable
from evenkeel_operator.decide.quality.verdict import Progress, Rows, Rules, Verdict
from evenkeel_operator.decide.readings import BadReading, Flaw, Reading
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal, Snapshot
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cluster import Cluster, Rejected, Transient
from evenkeel_operator.world.lease import LeaseLost
from evenkeel_operator.world.signals import Command, Replicas, Target
from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import MIRROR

log = logging.getLogger(__name__)

ASK_S = 5.0
JITTER = 0.1
JUDGE_S = 60.0
RENEW_S = canary.EXPIRES_S / 2


@dataclass(slots=True)
class _Followed:
    """One trial, or what is left of it. `told`: what each process of a stable replica was told last."""

    deployment: Object
    snapshot: Snapshot
    target: str
    samples: Samples | None = None
    judged: Judged | None = None
    steps_judged: int = 0
    judged_at: float = float("-inf")
    kept_at: float = float("-inf")
    told: dict[str, contract.Canary | None] = field(default_factory=dict)
    canaries: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    is_running: bool = True


class Trials:
    """Follows every canary. `changed` is called with a ModelDeployment whose plan may be another.

    `status` returns the newest status that is known: what a plan has written is no event that leads to another plan.
    """

    def __init__(
        self,
        *,
        replicas: Replicas,
        cluster: Cluster,
        qualities: Qualities,
        status: Callable[[Key], Object],
        changed: Callable[[Key], None],
        interval_s: float = ASK_S,
        judge_s: float = JUDGE_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._cluster = cluster
        self._qualities = qualities
        self._status = status
        self._changed = changed
        self._interval_s = interval_s
        self._judge_s = judge_s
        self._now = now
        self._clock = clock
        self._followed: dict[Key, _Followed] = {}
        self._tasks = Tasks("canary")

    def look(self, key: Key, deployment: Object, snapshot: Snapshot) -> Snapshot:
        """Take note of what a plan is about to be made from; return it with what was found out about its canary."""
        settled, target = served.settled(snapshot)
        found = self._followed.get(key)
        if found is not None and found.deployment["metadata"]["uid"] != deployment["metadata"]["uid"]:
            self.forget(key)
            found = None
        judged = found.judged if found is not None and found.target == target else None
        snapshot = replace(snapshot, judged=judged)
        is_running = canary.course(replace(settled, judged=judged), target) is Course.TRIAL
        if found is None and not is_running and not _has_just_ended(snapshot, self._now()):
            return snapshot
        if found is None or (is_running and found.target != target):
            self.forget(key)
            found = self._followed[key] = _Followed(deployment, snapshot, target)
            self._tasks.begin(key, self._follow(key, found))
        found.deployment, found.snapshot, found.is_running = deployment, snapshot, is_running
        return snapshot

    def forget(self, key: Key) -> None:
        """Look no more at `key`."""
        self._followed.pop(key, None)
        self._tasks.end(key)

    async def stop(self) -> None:
        """End every task; what the replicas were told ends by itself, or is told anew by the next operator."""
        self._followed.clear()
        await self._tasks.end_all()
        await self._replicas.close()

    async def _follow(self, key: Key, found: _Followed) -> None:
        while self._followed.get(key) is found:
            try:
                if await self._round(key, found):
                    break
            except (Transient, Rejected) as e:
                metrics.ERRORS.labels(kind="canary").inc()
                log.warning("canary's samples not kept deployment=%s error=%s", key, e)
            except LeaseLost:
                return
            except Exception:
                # Ours to mend; the canary keeps its share until what was told expires.
                metrics.ERRORS.labels(kind="bug").inc()
                log.exception("canary not looked at deployment=%s", key)
            await asyncio.sleep(self._interval_s * random.uniform(1 - JITTER, 1 + JITTER))
        if self._followed.get(key) is found:
            del self._followed[key]
            self._tasks.ended(key)

    async def _round(self, key: Key, found: _Followed) -> bool:
        """Ask, tell, count, judge; return whether there is nothing left to do."""
        target, now = found.target, self._now()
        snapshot = found.snapshot = replace(found.snapshot, status=Status.model_validate(self._status(key)))
        stable = snapshot.status.stable_revision or ""
        if found.samples is None:
            found.samples = await self._restored(key, found, stable)
        targets = [
            Target(r.name, r.address, r.name in found.silent)
            for r in snapshot.replicas
            if r.revision == stable and r.ready and not r.terminating and r.address is not None
        ]
        answers = await self._replicas.ask(targets) if targets else {}
        found.silent = frozenset(
            name for name, a in answers.items() if isinstance(a, BadReading) and a.flaw is Flaw.TOO_SLOW
        )
        standing = frozenset(r.name for r in snapshot.live(target) if r.ready)
        was_taken_away = not found.canaries <= frozenset(r.name for r in snapshot.live(target))
        found.canaries = standing
        wanted = canary.directive(snapshot, target) if found.is_running else None
        speaks = False
        for one in targets:
            answer = answers[one.replica]
            if isinstance(answer, Reading):
                found.samples.note(one.replica, answer, now, was_taken_away=was_taken_away)
                speaks |= answer.canary is not None and answer.canary.expires_s > 0
                await self._tell(key, found, one, answer, wanted)
        found.samples.keep([one.replica for one in targets])
        if not found.is_running:
            return not speaks
        await self._judge(key, found, now)
        await self._keep(found)
        return False

    async def _tell(
        self, key: Key, found: _Followed, target: Target, answer: Reading, wanted: contract.Canary | None
    ) -> None:
        """Tell a stable replica of the canary where it does not know, or will soon forget."""
        left_s = 0.0 if answer.canary is None else answer.canary.expires_s
        if wanted is None and not left_s:
            return
        if wanted is not None and found.told.get(answer.boot) == wanted and left_s > RENEW_S:
            return
        secret = self._key(found.snapshot)
        if secret is None:
            return
        moment_ms = int(self._now().timestamp() * 1000)
        if answer.canary is not None:
            moment_ms = max(moment_ms, answer.canary.moment_ms + 1)
        command = Command(found.snapshot.generation, answer.boot, moment_ms, wanted, secret)
        result = await self._replicas.command(target, command)
        if result == "ok":
            if found.told.get(answer.boot) != wanted or not left_s:
                log.info(
                    "told deployment=%s replica=%s canary=%s share=%g",
                    key, target.replica, wanted.revision if wanted else None, wanted.share if wanted else 0.0,
                )  # fmt: skip
            found.told[answer.boot] = wanted
        else:
            log.warning("not told deployment=%s replica=%s result=%s", key, target.replica, result)

    @staticmethod
    def _key(snapshot: Snapshot) -> bytes | None:
        """Return the key that the stable replicas know, None where they have none."""
        feedback = snapshot.defaults.feedback
        stable = snapshot.revision(snapshot.status.stable_revision or "")
        number = None if stable is None else canary.key_id(stable.template)
        if feedback is None or number is None or number not in feedback.master_keys:
            return None
        return receipts.derived_key(feedback.master_keys[number], number, receipts.subject_of(snapshot.uid))

    async def _judge(self, key: Key, found: _Followed, now: datetime) -> None:
        """Have the canary judged, once a minute and whenever a step has begun; queue what is news."""
        snapshot, target = found.snapshot, found.target
        progress = canary.progress(snapshot, target)
        steps = len(progress.steps_began)
        if not steps or found.samples is None:
            return
        if steps == found.steps_judged and self._clock() - found.judged_at < self._judge_s:
            return
        found.steps_judged, found.judged_at = steps, self._clock()
        quality = self._qualities.latest(key)
        labels = quality.counted if quality is not None else NO_SIGNAL
        counted_at = quality.measured_at if quality is not None else now
        before = canary.kept(snapshot, target)
        mode = before.mode if before is not None else MIRROR
        judged = await asyncio.to_thread(
            _judged, snapshot, target, mode, labels, counted_at, found.samples, progress, now
        )
        if self._followed.get(key) is not found or found.target != target:
            return
        was = found.judged
        if was is None or (was.verdict.state, was.verdict.why) != (judged.verdict.state, judged.verdict.why):
            log.info(
                "judged deployment=%s canary=%s state=%s why=%s step=%s",
                key, target, judged.verdict.state, judged.verdict.why, judged.verdict.step,
            )  # fmt: skip
        found.judged = judged
        if was is None or _told(was) != _told(judged):
            self._changed(key)

    async def _restored(self, key: Key, found: _Followed, stable: str) -> Samples:
        """Return what was kept of this trial; empty where nothing was, or of another."""
        new = Samples(stable, found.target)
        kept = await self._cluster.read(kinds.CONFIG_MAP, key.namespace, names.trial_name(key.name))
        if kept is None or controller_uid(kept) != found.deployment["metadata"]["uid"]:
            return new
        try:
            read = Samples.from_json((kept.get("data") or {}).get("samples", ""))
        except ValueError as e:
            log.warning("canary's samples not read deployment=%s error=%s", key, e)
            return new
        return read if (read.stable, read.canary) == (stable, found.target) else new

    async def _keep(self, found: _Followed) -> None:
        if found.samples is None or self._clock() - found.kept_at < self._judge_s:
            return
        found.kept_at = self._clock()
        began = canary.progress(found.snapshot, found.target).steps_began
        await self._cluster.apply(resources.samples(found.deployment, found.samples.to_json(self._now(), began)))


def _judged(
    snapshot: Snapshot,
    target: str,
    mode: str,
    labels: Counted | NoSignal,
    counted_at: datetime,
    samples: Samples,
    progress: Progress,
    now: datetime,
) -> Judged:
    """Return the verdict on a canary by the labels that were counted at `counted_at`, NoSignal where nobody knows."""
    stable, problem = samples.stable, None
    known = counted.NOTHING if isinstance(labels, NoSignal) else labels
    try:
        wanted = counted.objectives(snapshot.spec.objectives.accuracy, known, stable, target)
    except Unjudgeable as e:
        # How it answers is judged all the same: a canary that fails does not wait for a person.
        wanted, problem = (), e.message
    rules: Rules = canary.rules(snapshot.spec, wanted)
    rows = Rows(
        stable,
        target,
        known.cohorts(stable, target),
        known.pairs(stable, target) if mode == MIRROR else None,
        samples.rows(),
        NO_SIGNAL if isinstance(labels, NoSignal) else counted_at,
    )
    found = verdict.judge(rules, progress, rows, now)
    if problem is not None and found.state is not verdict.State.ROLLED_BACK:
        found = Verdict(verdict.State.HELD, verdict.Why.CANNOT_BE_JUDGED, found.step, found.evidence)
    return Judged(target, found, problem)


def _has_just_ended(snapshot: Snapshot, now: datetime) -> bool:
    """Return whether a stable replica may speak of a canary that is gone: the operator that knew may have been killed
    before it told them."""
    last = snapshot.status.canary
    return (
        last is not None
        and last.decided is not None
        and now - parse_time(last.decided) < timedelta(seconds=canary.EXPIRES_S)
    )


def _told(judged: Judged) -> tuple[object, ...]:
    """Return what of a verdict is worth a write."""
    found = judged.verdict
    return found.state, found.why, found.step, found.compared, found.samples, judged.problem
