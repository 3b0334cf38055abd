"""How do labels and counts of predictions get from a replica to the feedback service?

A replica keeps no label: it passes a post on, signed with its key, and answers what the service has answered, or 503.
The signature says which ModelDeployment's replica it was, so that nobody labels another's predictions through it.
Totals of predictions are told every few seconds and once more at the end; a total that is told twice counts once.
So does a pair of predictions, the stable replica's and the canary's, of a request that was mirrored.
HTTP in a few threads of their own: none of this is on the way of a prediction.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from evenkeel_runtime import config
from evenkeel_runtime.receipts import (
    COUNTS,
    KEY_ID_HEADER,
    PASSED_ON,
    SIGNATURE_HEADER,
    SUBJECT_HEADER,
    TIME_HEADER,
    signature,
)
from evenkeel_runtime.serve.ids import Id
from evenkeel_runtime.serve.pairs import Pair, Pairs
from evenkeel_runtime.serve.protocol import Exchange, error_body
from evenkeel_runtime.serve.receipts import Receipts, Totals

PUSH_EVERY_S = 10.0
IDS_EVERY_S = 1.0
"""Users' own ids are told sooner: a label may follow within seconds."""
INTRODUCED_S = 300.0
"""A replica that has nothing to tell says what it answers this often."""
COUNTS_BYTES_PER_PUSH = 2 << 20
IDS_PER_PUSH = 1000
IDS_BYTES_PER_PUSH = 1 << 20
PAIRS_PER_PUSH = 2000
"""With the counts and the ids about 4 MiB: half of what the service takes."""
TIMEOUT_S = 5.0
THREADS = 4
WAITING, WAITING_BYTES = 256, 32 << 20
"""Posts under way; more are answered 503, for a replica is no queue."""
MOST_POST_BYTES = 8 << 20
"""What the service takes."""

_JSON = b"application/json"
_NEVER = (400, 413)
"""Answers that are the same however often one asks."""

log = logging.getLogger("evenkeel")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said; `retry_after` is empty where it named no time."""

    status: int
    content_type: bytes
    body: bytes
    retry_after: bytes = b""


class Feedback:
    """One replica's way to the feedback service."""

    def __init__(self, told: config.Feedback) -> None:
        self.pairs: Pairs | None = None
        self._told = told
        self._posts = ThreadPoolExecutor(THREADS, thread_name_prefix="feedback")
        self._pushes = ThreadPoolExecutor(1, thread_name_prefix="counts")  # so that no posts hold up the counts
        self._under_way = self._bytes_under_way = 0
        self._receipts: Receipts | None = None
        self._is_told = True
        self._introduced_at = -math.inf  # its classes are told before the first prediction

    def use(self, receipts: Receipts) -> None:
        """Tell the counts of these from now on."""
        self._receipts = receipts

    def pass_on(self, exchange: Exchange) -> None:
        """Answer with what the service answers to this post."""
        size = len(exchange.body)
        if size > MOST_POST_BYTES:
            message = f"the body has more than {MOST_POST_BYTES} bytes; send it in parts"
            exchange.respond(413, _JSON, error_body(message))
            return
        if self._under_way >= WAITING or self._bytes_under_way + size > WAITING_BYTES:
            _unavailable(exchange, "too many posts are under way; try again")
            return
        self._under_way += 1
        self._bytes_under_way += size
        content_type = exchange.headers.get(b"content-type", _JSON)
        future = asyncio.get_running_loop().run_in_executor(
            self._posts, self._post, "/v1/feedback", content_type.decode("latin-1"), PASSED_ON, exchange.body
        )
        future.add_done_callback(lambda done: self._answer(exchange, done))

    def _answer(self, exchange: Exchange, done: asyncio.Future[Answer]) -> None:
        self._under_way -= 1
        self._bytes_under_way -= len(exchange.body)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            log.warning("feedback not passed on error=%s", error)
            _unavailable(exchange, "the feedback service does not answer; nothing was stored, so try again")
            return
        answer = done.result()
        if answer.status >= 500 or answer.status in (401, 403):
            log.warning("feedback not passed on status=%d answer=%s", answer.status, answer.body[:300])
            _unavailable(exchange, "the feedback service did not take it; nothing was stored, so try again")
            return
        more = b"retry-after: %s\r\n" % answer.retry_after if answer.retry_after.isdigit() else b""
        exchange.respond(answer.status, answer.content_type, answer.body, more)

    async def run(self) -> None:
        """Tell the counts, until cancelled."""
        due = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(IDS_EVERY_S)
            if self._receipts is not None and (self._receipts.ids or loop.time() >= due):
                due = loop.time() + PUSH_EVERY_S
                await self.push()

    async def push(self) -> None:
        """Tell counts, users' own ids and pairs once; what cannot be told is told another time.

        Where the service refuses what it is told, it is told the counts alone: if it takes them, what came with them
        is given up, or nothing would ever be told again.
        """
        receipts = self._receipts
        if receipts is None:
            return
        suspects: tuple[list[Id], list[Pair]] | None = None
        while True:
            totals, is_all = receipts.changed(COUNTS_BYTES_PER_PUSH)
            is_alone = suspects is not None
            ids = [] if is_alone else receipts.ids.first(IDS_PER_PUSH, IDS_BYTES_PER_PUSH)
            pairs = [] if is_alone or self.pairs is None else self.pairs.first(PAIRS_PER_PUSH)
            if not (totals or ids or pairs or is_alone) and self._is_known():
                return
            body = json.dumps(self._counts(receipts, totals, ids, pairs), separators=(",", ":")).encode()
            try:
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._pushes, self._post, "/v1/predictions", _JSON.decode(), COUNTS, body
                )
            except (OSError, http.client.HTTPException) as error:
                self._untold(f"error={error}")
                return
            if answer.status in _NEVER and (ids or pairs):
                suspects = ids, pairs
                continue
            if answer.status != 200:
                self._untold(f"status={answer.status} answer={answer.body[:300]!r}")
                return
            self._is_told = True
            self._introduced_at = time.monotonic()
            receipts.told(totals)
            receipts.ids.told(ids)
            if self.pairs is not None:
                self.pairs.told(pairs)
            if suspects is not None:
                self._give_up(receipts, *suspects)
                suspects = None
            elif not receipts.ids and not pairs and is_all:
                return

    def _is_known(self) -> bool:
        """Return whether the service was told lately what this replica answers.

        It may have lost that, and a canary that has copies alone counts nothing that would tell it: with its classes
        unknown, one that cannot be compared would wait for labels.
        """
        return time.monotonic() < self._introduced_at + INTRODUCED_S

    def _give_up(self, receipts: Receipts, ids: list[Id], pairs: list[Pair]) -> None:
        """Drop what the service will never take: the counts without it were taken."""
        receipts.ids.refused(ids)
        if self.pairs is not None:
            self.pairs.refused(pairs)
        log.warning("the feedback service does not take these, they are given up ids=%d pairs=%d", len(ids), len(pairs))

    def end(self) -> None:
        """Begin nothing more; what is in a thread's hands ends with the process."""
        for threads in (self._posts, self._pushes):
            threads.shutdown(wait=False, cancel_futures=True)

    def _untold(self, why: str) -> None:
        if self._is_told:
            self._is_told = False
            log.warning("counts of predictions are not told, but kept %s", why)

    def _counts(self, receipts: Receipts, totals: Totals, ids: list[Id], pairs: list[Pair]) -> dict[str, object]:
        origin = receipts.issuer.origin
        return {
            "process": receipts.issuer.process,
            "revision": origin.revision,
            "assignment": origin.assignment,
            "classes": origin.classes,
            "names": list(receipts.prediction.told_names),
            "cohorts": [
                {"start": cohort, "assignment": assignment, "counts": [list(count) for count in counts.items()]}
                for (cohort, assignment), counts in totals.items()
            ],
            "ids": ids,
            "pairs": pairs,
        }

    def _post(self, path: str, content_type: str, purpose: bytes, body: bytes) -> Answer:
        told = self._told
        moment = str(int(time.time() * 1000))
        headers = {
            "content-type": content_type,
            SUBJECT_HEADER: told.uid,
            KEY_ID_HEADER: str(told.key_id),
            TIME_HEADER: moment,
            SIGNATURE_HEADER: signature(told.key, purpose, moment.encode(), body),
        }
        parts = urlsplit(told.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", parts.path + path, body, headers)
            response = connection.getresponse()
            found = response.read()
            return Answer(
                response.status,
                (response.getheader("content-type") or _JSON.decode()).encode("latin-1"),
                found,
                (response.getheader("retry-after") or "").encode("latin-1"),
            )
        finally:
            connection.close()


def _unavailable(exchange: Exchange, message: str) -> None:
    exchange.respond(503, _JSON, error_body(message), b"retry-after: 1\r\n")
