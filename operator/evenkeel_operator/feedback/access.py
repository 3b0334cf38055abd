"""Who posts or asks, and may they?

A replica signs with its ModelDeployment's key and speaks for that one alone. Everybody else brings a bearer token of
the cluster: Kubernetes says whose it is (TokenReview) and whether that user may `create modeldeployments/feedback` or
`get modeldeployments/quality` of that name in that namespace (SubjectAccessReview). A receipt names an object by its
uid; which name that is, the list of ModelDeployments says, and what was seen is kept: labels of a deleted object still
have somebody who may post them.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import GROUP, PLURAL, Object
from evenkeel_operator.feedback.judge import SKEW_S, KeyOf
from evenkeel_operator.world import kinds
from evenkeel_operator.world.connection import ApiError, Connection
from evenkeel_runtime import receipts

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REMEMBERED_S = 30.0
"""How long an answer of Kubernetes is taken for true: so long a right that was taken away still works here."""
LISTED_EVERY_S = 5.0
_MOST_REMEMBERED = 10_000

log = logging.getLogger(__name__)


class Denied(Exception):
    """The request has no right to be answered; `status` is 401, 403 or, where nobody could be asked, 503."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class User:
    """A user of the cluster, as TokenReview has named them.

    `extra` is what else the authenticator says, by its keys: authorizers read in it what a token is narrowed to.
    """

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica of one ModelDeployment."""

    subject: bytes


@dataclass(frozen=True, slots=True)
class Anybody:
    """Whoever asks, where the service was told to check nothing."""


Caller = User | Replica | Anybody


def replica_of(headers: Mapping[str, str], purpose: bytes, body: bytes, key_of: KeyOf, now_ms: int) -> Replica | None:
    """Return the replica that has signed a request, None where none says so; raises Denied for a bad signature."""
    if receipts.SIGNATURE_HEADER not in headers:
        return None
    moment = headers.get(receipts.TIME_HEADER, "")
    try:
        subject = receipts.subject_of(headers.get(receipts.SUBJECT_HEADER, ""))
        key = key_of(int(headers.get(receipts.KEY_ID_HEADER, "")), subject)
        skew_s = (int(moment) - now_ms) / 1000
    except (ValueError, OverflowError):
        raise Denied(401, "BadSignature", "the headers of the signature are incomplete") from None
    want = "" if key is None else receipts.signature(key, purpose, moment.encode(), body)
    # Whatever bytes a header has: aiohttp reads those that are no UTF-8 as surrogates.
    if not hmac.compare_digest(want.encode(), headers[receipts.SIGNATURE_HEADER].encode(errors="surrogateescape")):
        raise Denied(401, "BadSignature", "the signature is not that of a replica")
    if abs(skew_s) > SKEW_S:
        raise Denied(401, "ClockSkew", f"the replica's clock is {skew_s:+.0f} s off this service's")
    return Replica(subject)


class Kubernetes:
    """Asks the API server, and remembers its answers for a while."""

    def __init__(self, connection: Connection, namespaces: Sequence[str]) -> None:
        self._connection = connection
        self._namespaces = tuple(namespaces)
        self._users: dict[bytes, tuple[float, User]] = {}
        self._allowed: dict[tuple[User, str, str, str, str], tuple[float, bool]] = {}
        self._places: dict[bytes, tuple[str, str]] = {}
        self._unstored: set[tuple[bytes, str, str]] = set()
        self._present: dict[tuple[str, str], bytes] = {}
        self._listed_at = float("-inf")
        self._lists = asyncio.Lock()

    async def user(self, authorization: str) -> User:
        """Return whose bearer token this is; raises Denied."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Denied(401, "NoToken", "send a token of the cluster: Authorization: Bearer TOKEN")
        if not token.isascii():  # RFC 6750, section 2.1
            raise Denied(401, "BadToken", "a token has ASCII characters only")
        key = hashlib.sha256(token.encode()).digest()
        now = time.monotonic()
        if (known := self._users.get(key)) is not None and now - known[0] < REMEMBERED_S:
            return known[1]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = (await self._ask(TOKEN_REVIEWS, body)).get("status") or {}
        if not status.get("authenticated"):
            raise Denied(401, "BadToken", "the cluster does not know this token")
        found = status.get("user") or {}
        user = User(
            found.get("username", ""),
            found.get("uid", ""),
            tuple(found.get("groups") or ()),
            tuple((key, tuple(values or ())) for key, values in sorted((found.get("extra") or {}).items())),
        )
        _bounded(self._users)[key] = (now, user)
        return user

    async def may(self, user: User, verb: str, subresource: str, namespace: str, name: str) -> bool:
        """Return whether a user may do this with a ModelDeployment; raises Denied where nobody could be asked."""
        key = (user, verb, subresource, namespace, name)
        now = time.monotonic()
        if (known := self._allowed.get(key)) is not None and now - known[0] < REMEMBERED_S:
            return known[1]
        attributes = {
            "verb": verb,
            "group": GROUP,
            "resource": PLURAL,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {key: list(values) for key, values in user.extra},
                "resourceAttributes": attributes,
            },
        }
        status = (await self._ask(ACCESS_REVIEWS, body)).get("status") or {}
        is_allowed = status.get("allowed") is True
        _bounded(self._allowed)[key] = (now, is_allowed)
        return is_allowed

    def recall(self, models: Sequence[tuple[bytes, str, str]]) -> None:
        """Take what the store remembers."""
        for subject, namespace, name in models:
            self._places.setdefault(subject, (namespace, name))

    async def place(self, subject: bytes) -> tuple[str, str] | None:
        """Return namespace and name of an object, None for one that was never seen."""
        if subject not in self._places:
            await self._list()
        return self._places.get(subject)

    async def subject(self, namespace: str, name: str) -> bytes | None:
        """Return the object that has that name now."""
        await self._list()
        return self._present.get((namespace, name))

    async def present(self) -> dict[bytes, tuple[str, str]]:
        """Return namespace and name of every object that is there now, by subject; raises Denied."""
        await self._list(for_somebody=False)
        return {subject: place for place, subject in self._present.items()}

    @property
    def unstored(self) -> frozenset[tuple[bytes, str, str]]:
        """What has been seen and is not in the store yet: subject, namespace, name."""
        return frozenset(self._unstored)

    def stored(self, models: Iterable[tuple[bytes, str, str]]) -> None:
        """Take these for stored."""
        self._unstored.difference_update(models)

    async def _list(self, *, for_somebody: bool = True) -> None:
        """List what there is: for those who ask, once in LISTED_EVERY_S at most, whoever else has it listed.

        Counter-example if any list counted: a model that was created since would be nobody's for so long.
        """
        async with self._lists:
            if for_somebody and time.monotonic() - self._listed_at < LISTED_EVERY_S:
                return
            present: dict[tuple[str, str], bytes] = {}
            try:
                for namespace in self._namespaces or (None,):
                    async for page in self._connection.pages(kinds.MODELDEPLOYMENT, namespace):
                        for item in page.items:
                            metadata = item["metadata"]
                            subject = receipts.subject_of(metadata["uid"])
                            present[(metadata["namespace"], metadata["name"])] = subject
            except ApiError as e:
                raise _unreachable(e) from e
            self._present = present
            new = {subject: place for place, subject in present.items() if self._places.get(subject) != place}
            self._places |= new
            self._unstored |= {(subject, *place) for subject, place in new.items()}
            if for_somebody:
                self._listed_at = time.monotonic()

    async def _ask(self, path: str, body: Object) -> Object:
        try:
            return await self._connection.request("POST", path, body=body)
        except ApiError as e:
            raise _unreachable(e) from e


def _unreachable(error: ApiError) -> Denied:
    log.warning("the API server was not asked error=%s", error)
    return Denied(503, "Unavailable", "the API server could not be asked who may do this; try again")


def _bounded(remembered: dict) -> dict:  # type: ignore[type-arg]
    if len(remembered) >= _MOST_REMEMBERED:
        remembered.clear()
    return remembered
