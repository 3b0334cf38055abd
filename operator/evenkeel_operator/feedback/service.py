"""What does each address of the feedback service answer?

A post is answered when every label of it that counts is on the disk: 200 and an outcome per item, whatever they are;
429 when too much waits, 503 when the database or the API server does not answer: then nothing is promised, and the
same post may be sent again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from evenkeel_operator.feedback import access, judge, openapi, quality
from evenkeel_operator.feedback.access import Anybody, Caller, Denied, Kubernetes, Replica, User
from evenkeel_operator.feedback.commits import Commits, Full
from evenkeel_operator.feedback.judge import NDJSON, BadPost, Claim, Item
from evenkeel_operator.feedback.metrics import Metrics
from evenkeel_operator.feedback.names import Names, Of
from evenkeel_operator.feedback.reads import Reads
from evenkeel_operator.feedback.records import Answer, Label, Outcome, Row
from evenkeel_operator.feedback.store import Store, Unavailable
from evenkeel_runtime import receipts

MOST_BODY_BYTES = 8 << 20
QUALITY_SINCE_S = 7 * 86400
"""How far back GET /v1/quality looks where nobody says."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Service:
    """The handlers, and what they share. `kubernetes` is None where nobody is asked for a right.

    What posts look up has a connection of its own, so that they do not wait for whoever asks how good a model is.
    """

    def __init__(
        self,
        keys: Mapping[int, bytes],
        commits: Commits,
        questions: Store,
        lookups: Store,
        kubernetes: Kubernetes | None,
        horizon_s: int,
    ) -> None:
        self._keys = keys
        self._commits = commits
        self._questions = Reads(questions)
        self._lookups = Reads(lookups)
        self._kubernetes = kubernetes
        self._horizon_s = horizon_s
        self._names = Names()
        self.metrics = Metrics()

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._answer_errors])
        app.add_routes(
            [
                web.post("/v1/feedback", self._feedback),
                web.post("/v1/predictions", self._predictions),
                web.get("/v1/quality/{namespace}/{name}", self._quality),
                web.get("/v1/labels/{namespace}/{name}", self._labels),
                web.get("/openapi.json", self._openapi),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._healthz),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    # labels

    async def _feedback(self, request: web.Request) -> web.Response:
        body = await request.read()
        caller = await self._caller(request, receipts.PASSED_ON, body)
        entries, is_single = judge.items_of(body, request.content_type)
        now_ms = int(time.time() * 1000)
        claims = await self._claims(entries, caller)
        names = await self._names_of([claim for claim in claims if isinstance(claim, Claim)])
        judged = [self._judged(claim, names, now_ms) for claim in claims]
        labels = [one for one in judged if isinstance(one, Label)]
        stored = iter(await self._commits.labels(labels) if labels else ())
        answers = [next(stored) if isinstance(one, Label) else one for one in judged]
        self.metrics.answered(answers)
        if is_single:
            return web.json_response(_told(answers[0]))
        if request.content_type == NDJSON:
            text = "".join(json.dumps(_told(answer)) + "\n" for answer in answers)
            return web.Response(text=text, content_type=NDJSON)
        return web.json_response({"results": [_told(answer) for answer in answers]})

    async def _claims(self, entries: Sequence[Item | Answer], caller: Caller) -> list[Claim | Answer]:
        """Return every item with its receipt verified and its caller's right to post it, or why not."""
        entries = await self._with_receipts(entries, caller)
        claims = [judge.claimed(entry, self._key_of) if isinstance(entry, Item) else entry for entry in entries]
        subjects = {claim.receipt.origin.subject for claim in claims if isinstance(claim, Claim)}
        allowed = {subject: await self._may_post(caller, subject) for subject in subjects}
        return [
            _foreign(claim) if isinstance(claim, Claim) and not allowed[claim.receipt.origin.subject] else claim
            for claim in claims
        ]

    async def _with_receipts(self, entries: Sequence[Item | Answer], caller: Caller) -> list[Item | Answer]:
        """Return the items with a receipt in the place of a user's own id."""
        by_subject: dict[bytes, set[str]] = {}
        subject_of: dict[str, bytes | None] = {}
        for entry in entries:
            if isinstance(entry, Item) and entry.id:
                if entry.model not in subject_of:
                    subject_of[entry.model] = await self._subject_of(entry.model, caller)
                if (subject := subject_of[entry.model]) is not None:
                    by_subject.setdefault(subject, set()).add(entry.id)
        if not subject_of:
            return list(entries)
        found: dict[tuple[bytes, str], str] = {}
        for subject, ids in by_subject.items():
            receipts_of_ids = await self._lookups.ask(partial(_receipts, subject=subject, ids=sorted(ids)))
            found |= {(subject, name): receipt for name, receipt in receipts_of_ids.items()}

        def with_receipt(entry: Item | Answer) -> Item | Answer:
            if isinstance(entry, Answer) or not entry.id:
                return entry
            if isinstance(caller, Replica) and entry.corrects:
                return judge.RECEIPT_NEEDED
            subject = subject_of[entry.model]
            receipt = None if subject is None else found.get((subject, entry.id))
            if receipt is None:
                return Answer(
                    Outcome.MALFORMED,
                    "UnknownId",
                    f"no prediction of the id {entry.id[:128]!r} is known; model has to be NAMESPACE/NAME, and ids "
                    "arrive a second or two after their predictions",
                )
            return Item(receipt, entry.row, entry.label, entry.corrects)

        return [with_receipt(entry) for entry in entries]

    async def _subject_of(self, model: str, caller: Caller) -> bytes | None:
        if isinstance(caller, Replica):
            return caller.subject
        namespace, _, name = model.partition("/")
        return await self._subject(namespace, name)

    def _judged(self, claim: Claim | Answer, of: Mapping[Of, tuple[str, ...]], now_ms: int) -> Label | Answer:
        if isinstance(claim, Answer):
            return claim
        names = judge.names_or_none(claim.receipt.origin, of)
        if names is None:
            raise Unavailable(f"the names of the classes of {claim.receipt.origin.revision} have not arrived yet")
        return judge.judged(claim, names, now_ms, self._horizon_s)

    async def _names_of(self, claims: Sequence[Claim]) -> dict[Of, tuple[str, ...]]:
        """Return the names of all classes that these are about, as far as they have arrived.

        All at once: what is at hand now may have made room for another post's when this one is judged.
        """
        found: dict[Of, tuple[str, ...]] = {}
        for of in {judge.source_of(claim.receipt.origin) for claim in claims if claim.receipt.origin.is_named}:
            if not (names := self._names.get(of)):
                names = await self._lookups.ask(partial(_names, of=of))
                if not names:
                    continue
                self._names.put(of, names)
            found[of] = names
        return found

    # what replicas tell

    async def _predictions(self, request: web.Request) -> web.Response:
        body = await request.read()
        now_ms = int(time.time() * 1000)
        replica = access.replica_of(request.headers, receipts.COUNTS, body, self._key_of, now_ms)
        if replica is None:
            raise Denied(401, "NoSignature", "only replicas tell their counts")
        told = judge.told_of(body, replica.subject, now_ms)
        await self._commits.told(told)
        if told.names:
            self._names.put((replica.subject, told.source.revision), told.names)
        return web.json_response({})

    # questions

    async def _quality(self, request: web.Request) -> web.Response:
        namespace, name, subject = await self._asked_for(request)
        since_s = _since(request, int(time.time()) - QUALITY_SINCE_S)
        text = await self._questions.ask(
            lambda store: quality.quality(namespace, name, subject, since_s, store.quality(subject, since_s))
        )
        return web.Response(text=text, content_type="application/json")

    async def _labels(self, request: web.Request) -> web.StreamResponse:
        """Every labelled prediction, an NDJSON line each, for retraining."""
        _, _, subject = await self._asked_for(request)
        pages = self._questions.store.labelled(subject, _since(request, 0))
        names: dict[str, tuple[str, ...]] = {}

        def page(store: Store) -> list[Row] | None:
            """Read some rows, and the names that they need: labels are counted only once their names are known."""
            rows = next(pages, None)
            for revision in {row[0] for row in rows or ()} - names.keys():
                names[revision] = store.names(subject, revision)
            return rows

        rows = await self._questions.ask(page)
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        await response.prepare(request)
        try:
            while rows is not None:
                await response.write("".join(_line(row, names[row[0]]) for row in rows).encode())
                rows = await self._questions.ask(page)
        except Unavailable as e:
            # The status is said already: an answer that breaks off is not taken for all of it.
            log.warning("labels not told to their end error=%s", e)
            if request.transport is not None:
                request.transport.close()
        return response

    async def _asked_for(self, request: web.Request) -> tuple[str, str, bytes]:
        """Return namespace, name and subject of what is asked for, if the caller may ask."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        now_ms = int(time.time() * 1000)
        asked = request.raw_path.encode()
        signer = access.replica_of(request.headers, receipts.QUALITY, asked, self._key_of, now_ms)
        if signer is not None:  # the operator, with the key of the ModelDeployment that it asks about
            return namespace, name, signer.subject
        if self._kubernetes is not None:
            user = await self._kubernetes.user(request.headers.get("Authorization", ""))
            if not await self._kubernetes.may(user, "get", "quality", namespace, name):
                raise Denied(
                    403,
                    "Forbidden",
                    f"{user.name} may not get modeldeployments/quality of {name} in namespace {namespace}",
                )
        subject = await self._subject(namespace, name)
        if subject is None:
            raise BadPost(f"there is no ModelDeployment {name} in namespace {namespace}", 404)
        return namespace, name, subject

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.json_response(openapi.DESCRIPTION)

    async def _healthz(self, _: web.Request) -> web.Response:
        if not self._commits.is_alive:
            return web.Response(status=503, text="nothing is written any more\n")
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body = self.metrics.exposition(with_quality=await self._may_see_all(request))
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _may_see_all(self, request: web.Request) -> bool:
        """Return whether the caller may get the quality of every model; the counts are everybody's, and always told."""
        if self._kubernetes is None:
            return True
        try:
            user = await self._kubernetes.user(request.headers.get("Authorization", ""))
            return await self._kubernetes.may(user, "get", "quality", namespace="", name="")
        except Denied:
            return False

    # who

    async def _caller(self, request: web.Request, purpose: bytes, body: bytes) -> Caller:
        now_ms = int(time.time() * 1000)
        replica = access.replica_of(request.headers, purpose, body, self._key_of, now_ms)
        if replica is not None:
            return replica
        if self._kubernetes is None:
            return Anybody()
        return await self._kubernetes.user(request.headers.get("Authorization", ""))

    async def _may_post(self, caller: Caller, subject: bytes) -> bool:
        if isinstance(caller, Replica):
            return caller.subject == subject
        if not isinstance(caller, User) or self._kubernetes is None:
            return True
        place = await self._kubernetes.place(subject)
        if place is None:
            return False
        await self._remember_places()
        return await self._kubernetes.may(caller, "create", "feedback", *place)

    async def _subject(self, namespace: str, name: str) -> bytes | None:
        if self._kubernetes is not None:
            return await self._kubernetes.subject(namespace, name)
        try:  # nobody to ask what it is called: the uid is the name
            return receipts.subject_of(name)
        except ValueError:
            return None

    async def _remember_places(self) -> None:
        assert self._kubernetes is not None, "asked before"
        if new := self._kubernetes.unstored:
            await self._lookups.ask(lambda store: store.remember(new))
            self._kubernetes.stored(new)

    def _key_of(self, key_id: int, subject: bytes) -> bytes | None:
        master = self._keys.get(key_id)
        return None if master is None else receipts.derived_key(master, key_id, subject)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadPost as e:
            return _error(e.status, "BadRequest", e.message)
        except Denied as e:
            if e.status == 503:
                self.metrics.unavailable.inc()
            return _error(e.status, e.reason, e.message)
        except Full:
            self.metrics.refused.inc()
            return _error(429, "Full", "too many labels wait to be written; try again", retry_after_s=1)
        except Unavailable as e:
            self.metrics.unavailable.inc()
            return _error(503, "Unavailable", f"{e}; nothing is promised, send it again", retry_after_s=1)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "TooLarge", f"the body has more than {MOST_BODY_BYTES} bytes; send it in parts")


def _names(store: Store, of: Of) -> tuple[str, ...]:
    return store.names(*of)


def _receipts(store: Store, subject: bytes, ids: Sequence[str]) -> dict[str, str]:
    return store.receipts(subject, ids)


def _foreign(claim: Claim) -> Answer:
    return Answer(
        Outcome.FORGED,
        "Foreign",
        f"the receipt is of a prediction of {claim.receipt.origin.revision}, whose labels may not be posted here: "
        "send it to that ModelDeployment, or with a token that may create modeldeployments/feedback there",
    )


def _told(answer: Answer) -> dict[str, str]:
    told = {"outcome": answer.outcome.value}
    if answer.reason:
        told["reason"] = str(answer.reason)
    if answer.message:
        told["message"] = answer.message
    return told


def _line(row: Row, names: Sequence[str]) -> str:
    revision, assignment, nonce, number, time_ms, predicted, confidence, actual, own_id = row
    told: dict[str, Any] = {
        "revision": revision,
        "assignment": receipts.Assignment(assignment).name.capitalize(),
        "nonce": bytes(nonce).hex(),
        "row": number,
        "timeMs": time_ms,
        "predicted": _named(predicted, names),
        "label": _named(actual, names),
        "confidence": round(confidence / receipts.SCALE, 5),
    } | ({} if own_id is None else {"id": own_id})
    return json.dumps(told) + "\n"


def _named(value: float, names: Sequence[str]) -> str | float:
    """Return a class's name, the value itself where it has none: a number, or the index of a class without a name."""
    return names[int(value)] if 0 <= value < len(names) else value


def _since(request: web.Request, default_s: int) -> int:
    text = request.query.get("since", "")
    if not text:
        return default_s
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise BadPost(f"since is {text[:40]!r}; it has to be a time in Unix seconds")
    return int(text)


def _error(status: int, reason: str, message: str, retry_after_s: int | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": message, "reason": reason}, status=status, headers=headers)
