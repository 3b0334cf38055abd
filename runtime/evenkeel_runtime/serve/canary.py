"""Which requests are the canary's, and who answers them?

    Split    the canary's share goes to the canary, and its answer to the client, byte for byte
    Mirror   the stable replica answers everything; the canary is sent a copy of its share, and what it says is compared

The user of a stable replica does not see a canary that fails. Whatever is not a 200 within the budget is answered by
the stable replica itself, as if it had just come in. The budget is what the latency target leaves when the stable
replica's own p95 is taken off, for it may still have to answer; but not less than that p95: a canary that is as fast
as stable is in time. One user's requests go one way where a header names the user: its hash is below the share or is
not, so as the share grows, users go over to the canary and none comes back. The hash is different for every canary, or
the same users would try them all.

What a replica is told ends by itself. With it, nothing is left on the way of a request but one look at an attribute.
Requests that name the model's version are never the canary's, for it has another one; nor are those by gRPC, which
costs so much more that a second hop of it would be felt, nor, of a split, those of a client that would not wait for two
answers. What is passed on says so, and is not passed on again.

All of that is found out before a split draws, and receipts say what a request has drawn (`receipts.Assignment`). So the
labels of what drew stable and of what drew the canary differ by chance and by the model alone, however much easier the
requests are that were never in the draw.

What drew the canary and was answered by stable in its place stays CANARY (intention to treat, as in `tally`). Counted
as stable's, or not at all, it would leave the canary without the requests that it fails at: where those are the hard
ones, a canary that fails at one in twenty, of which stable gets half right, looks better by two points. Kept, it makes
the difference smaller by the share that the canary did not answer, and never turns its sign; how large that share may
be is for the tests of failed and of slow answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from dataclasses import dataclass
from random import Random

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import MIRROR, SPLIT
from evenkeel_runtime.receipts import Assignment
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.directives import Directive, place_of
from evenkeel_runtime.serve.headers import waits_s_of
from evenkeel_runtime.serve.metrics import Histogram
from evenkeel_runtime.serve.mirror import Mirror
from evenkeel_runtime.serve.onward import Answer, Attempt, Onward, Outcome, head_of
from evenkeel_runtime.serve.pairs import Pairs
from evenkeel_runtime.serve.protocol import Exchange
from evenkeel_runtime.serve.service import Service
from evenkeel_runtime.serve.tally import Arm, Failure, Tally, failure_of, is_refused_alike

HEADER = receipts.ONWARD_HEADER.encode()

_STABLE, _CANARY, _UNASSIGNED = Assignment.STABLE, Assignment.CANARY, Assignment.UNASSIGNED
_BUDGET_S = 1.0
"""How often the budget is computed again."""
_KNOWN = 20
"""From so many answers on, the stable replica's p95 is taken for known."""

log = logging.getLogger("evenkeel")


class Traffic:
    """What this replica does for a canary: nothing, until it is told of one, and when that has ended."""

    def __init__(self, service: Service, key: bytes | None) -> None:
        """`key` is the one that the operator signs with, None where this replica has none."""
        self.key = key
        self.moment_ms = 0
        """The time of the signature that was followed last."""
        self.pairs = None if key is None else Pairs(key)
        self._service = service
        self._onward = Onward()
        self._mirror = Mirror(service, self._onward, self.pairs)
        self._tally: Tally | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def follow(self, directive: Directive) -> None:
        """Do what a directive says of the canary."""
        if not directive.says_canary or directive.moment_ms is None:
            return
        self.moment_ms = directive.moment_ms
        canary = directive.canary
        if canary is None:
            self.end()
            return
        service = self._service
        if self._tally is None or self._tally.revision != canary.revision:
            service.timings.bin()  # what was beside the last canary
            self._tally = service.metrics.canary = Tally(canary.revision, service.signals.target_s)
            log.info("canary revision=%s mode=%s share=%g", canary.revision, canary.mode, canary.share)
        for arm in self._tally.arms.values():
            arm.retarget(service.signals.target_s)
        self._onward.use([place_of(address) for address in canary.addresses])
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(canary.expires_s, self._expire)
        self._mirror.tally = self._tally
        service.canary = Canary(service, canary, self._tally, self._onward, self._mirror) if canary.share else None

    def end(self) -> None:
        """Serve everything from now on; what the canary has in hand, it may finish."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._service.canary = None
        self._onward.use(())

    def told(self) -> dict[str, object] | None:
        """Return what the signals show, None where there never was a canary."""
        if self._tally is None:
            return None
        left_s = 0.0 if self._expiry is None else self._expiry.when() - asyncio.get_running_loop().time()
        return {**self._tally.told(), "expiresSeconds": max(0.0, left_s), "momentMillis": self.moment_ms}

    def _expire(self) -> None:
        log.warning("nobody has spoken of the canary for too long: this replica serves all by itself")
        self.end()


class Canary:
    """Who answers, as the last directive says."""

    def __init__(self, service: Service, told: contract.Canary, tally: Tally, onward: Onward, mirror: Mirror) -> None:
        self._service, self._onward = service, onward
        self._arm = tally.arms[SPLIT]
        self._mirror = mirror if told.mode == MIRROR else None
        self._predict_path = f"/v1/models/{service.name}:predict".encode()
        self._paths = {self._predict_path, f"/v2/models/{service.name}/infer".encode()}
        self._choice = Choice(told)
        self._budget = Budget(0.0, 0.0)
        self._budget_due = 0.0

    def takes(self, exchange: Exchange, begun: float) -> bool:
        """Return whether the request is on its way to the canary, and will be answered without further ado."""
        headers = exchange.headers
        exchange.assignment = _UNASSIGNED
        if HEADER in headers or exchange.path not in self._paths:
            return False
        if self._mirror is not None:
            self._copy(self._mirror, exchange, begun)
            return False
        within_s = self._within_s(headers, begun)
        if within_s <= 0:
            return False
        # From here on nothing but the draw may tell one from the other: whoever is left out is left out above.
        if not self._choice.chooses(headers):
            exchange.assignment = _STABLE
            exchange.within_s = within_s
            return False
        exchange.assignment = _CANARY
        arm = self._arm
        arm.sent += 1
        sent = self._onward.send(
            head_of(exchange, SPLIT),
            exchange.body,
            within_s,
            lambda outcome: self._passed(exchange, begun, outcome),
        )
        if not isinstance(sent, Attempt):
            arm.fail(sent, 0.0)
            return False
        exchange.abandoned = lambda: _abandon(arm, sent)
        return True

    def _copy(self, mirror: Mirror, exchange: Exchange, begun: float) -> None:
        """Send the canary a copy, if it is the canary's. The same goes into the comparison, chosen or not: what is
        dropped comes when there is much to do, and would be missing on one side."""
        why = mirror.reason_to_drop(len(exchange.body))
        if why is None:
            exchange.within_s = self._service.signals.target_s
        if not self._choice.chooses(exchange.headers):
            return
        if why is None:
            mirror.copy(exchange, begun)
        else:
            mirror.drop(why)

    def _passed(self, exchange: Exchange, begun: float, outcome: Outcome) -> None:
        """Give the client the canary's answer, or let the stable replica answer."""
        arm = self._arm
        waited_s = time.perf_counter() - begun
        if isinstance(outcome, Answer) and outcome.status == 200:
            arm.answered += 1
            arm.latency.observe(waited_s)
            exchange.respond_head(outcome.head, outcome.body)
            return
        exchange.abandoned = None
        self._service.infer(exchange, is_v1=exchange.path == self._predict_path, since=begun)
        if isinstance(outcome, Answer) and is_refused_alike(outcome.status, exchange.answer):
            arm.invalid += 1
        else:
            arm.fail(outcome if isinstance(outcome, Failure) else failure_of(outcome.status), waited_s)

    def _within_s(self, headers: dict[bytes, bytes], begun: float) -> float:
        """Return how long the canary may take, zero or less where the client's time is too short for trying."""
        if begun >= self._budget_due:
            self._budget_due = begun + _BUDGET_S
            signals = self._service.signals
            self._service.timings.bin()
            self._budget = budget_of(signals.target_s, signals.latency)
        try:
            return self._budget.of(waits_s_of(headers))
        except BadRequest:
            return 0.0


class Choice:
    """Which requests are the canary's: its share of them, or of the values of a header."""

    def __init__(self, told: contract.Canary, chance: Random | None = None) -> None:
        self._share = told.share
        self._header = None if told.affinity_header is None else told.affinity_header.encode()
        self._begun = hashlib.blake2b(told.revision.encode() + b"\0", digest_size=8)
        self._limit = told.share * 2**64
        self._random = (Random() if chance is None else chance).random

    def chooses(self, headers: dict[bytes, bytes]) -> bool:
        value = None if self._header is None else headers.get(self._header)
        if value is None:
            return self._random() < self._share
        found = self._begun.copy()
        found.update(value)
        return int.from_bytes(found.digest()) < self._limit


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the canary may take, and what the stable replica needs after that, in seconds.

    `own_s` may be more than the target: a client that waits longer than that is to be answered all the same.
    """

    within_s: float
    own_s: float

    def of(self, left_s: float | None) -> float:
        """Return how long the canary may take for a client that waits for `left_s` (None: it does not say)."""
        return self.within_s if left_s is None else min(self.within_s, left_s - self.own_s)


def budget_of(target_s: float, latency: Histogram) -> Budget:
    """Return the budget for a target, by the stable replica's latencies; half of the target while those are unknown."""
    count = latency.count
    if count < _KNOWN:
        return Budget(target_s / 2, target_s / 2)
    rank, running, own_s = 0.95 * count, 0, math.inf
    for edge, counted in zip(latency.bounds, latency.counts, strict=False):
        running += counted
        if running >= rank:
            own_s = edge
            break
    return Budget(max(target_s - own_s, min(own_s, target_s)), own_s)


def _abandon(arm: Arm, sent: Attempt) -> None:
    arm.abandoned += 1
    sent.cancel()
