"""How are replicas asked for their signals, and told directives? Plain HTTP to their admin port, trusting none of it.

A replica runs what its user brought. So an answer may have `MOST_BYTES` and take `TIMEOUT_S`, however it arrives; it is
neither inflated nor redirected nor allowed to set cookies; and what is wrong with it is a value, never an exception.

Nor may a replica that hangs hold up the others. Whoever is asked takes a place, for `PLACE_S` at most: an answer that
takes longer comes without one. And those that did not answer the last time wait for each other alone.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from evenkeel_operator.decide.readings import BadReading, Flaw, Reading, read
from evenkeel_operator.world import metrics
from evenkeel_runtime import contract, receipts

MOST_BYTES = 64 << 10
TIMEOUT_S = 2.0
AT_ONCE, SILENT_AT_ONCE = 64, 32
"""Places for replicas that answered the last time, and for those that did not."""
PLACE_S = 0.25
KEEP_ALIVE_S = 20.0


@dataclass(frozen=True, slots=True)
class Directive:
    """What a replica shall be told, as of the `generation` of its ModelDeployment."""

    generation: int
    target_s: float


@dataclass(frozen=True, slots=True)
class Command:
    """What a replica shall be told of the canary, as of a `generation`: that this is it, or that there is none.

    `process` is the replica's own, `key` its ModelDeployment's, `moment_ms` later than that of the last command.
    """

    generation: int
    process: str
    moment_ms: int
    canary: contract.Canary | None
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """One replica to ask: its pod's name and IP, and whether it gave no answer in time when it was last asked."""

    replica: str
    address: str
    was_silent: bool = False


Answers = dict[str, Reading | BadReading]
"""By replica."""


class Replicas:
    """The connections to every replica; `port` is that of their admin server."""

    def __init__(self, port: int = contract.ADMIN_PORT) -> None:
        self._port = port
        self._places = asyncio.Semaphore(AT_ONCE)
        self._silents_places = asyncio.Semaphore(SILENT_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, targets: Sequence[Target], directive: Directive | None = None) -> Answers:
        """Return what each replica answers; whoever does not follow `directive` yet is told it."""
        if len(targets) == 1:
            return {targets[0].replica: await self._ask(targets[0], directive)}
        # In any order: were there more silent ones than find a place in time, it would always be the same.
        mixed = random.sample(targets, len(targets))
        found = await asyncio.gather(*(self._ask(target, directive) for target in mixed))
        return {target.replica: answer for target, answer in zip(mixed, found, strict=True)}

    async def command(self, target: Target, command: Command) -> str:
        """Tell a command; return "ok", or why it was not followed."""
        body = contract.directive(command.generation, process=command.process, canary=command.canary)
        moment = str(command.moment_ms)
        signature = receipts.signature(command.key, receipts.DIRECTIVE, moment.encode(), body)
        headers = {receipts.TIME_HEADER: moment, receipts.SIGNATURE_HEADER: signature}
        return await self._post(target.address, body, headers)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, target: Target, directive: Directive | None) -> Reading | BadReading:
        answer: Reading | BadReading
        try:
            async with self._place(was_silent=target.was_silent):
                async with asyncio.timeout(TIMEOUT_S):
                    body = await self._get(target.address)
                answer = read(body)
                if directive is not None and answer.latencies.target_s != directive.target_s:
                    await self._tell(target.address, directive)
        except BadReading as e:
            answer = e
        except TimeoutError:
            answer = BadReading(Flaw.TOO_SLOW, f"no whole answer within {TIMEOUT_S:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as e:
            answer = BadReading(Flaw.UNREACHABLE, f"{type(e).__name__}: {e}"[:200])
        return answer

    def _place(self, *, was_silent: bool) -> _Place:
        return _Place(self._silents_places, TIMEOUT_S) if was_silent else _Place(self._places, None)

    async def _get(self, address: str) -> bytes:
        url = _url(address, self._port, contract.SIGNALS_PATH)
        async with self._opened().get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise BadReading(
                    Flaw.NO_ENDPOINT,
                    f"{contract.SIGNALS_PATH} on port {self._port} answers {response.status}; "
                    "Evenkeel's runtime answers it with 200, another image has to as well",
                )
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MOST_BYTES:
                    response.close()
                    raise BadReading(Flaw.TOO_LONG, f"the answer has more than {MOST_BYTES} bytes")
            return bytes(body)

    async def _tell(self, address: str, directive: Directive) -> None:
        """Tell a directive; one that does not arrive is told again with the next question."""
        await self._post(address, contract.directive(directive.generation, directive.target_s), {})

    async def _post(self, address: str, body: bytes, headers: dict[str, str]) -> str:
        url, result = _url(address, self._port, contract.DIRECTIVES_PATH), "failed"
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._opened().post(
                    url, data=body, headers={"Content-Type": "application/json", **headers}, allow_redirects=False
                ) as response,
            ):
                result = "ok" if response.status == 200 else str(response.status)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
            pass
        metrics.DIRECTIVES.labels(result=result).inc()
        return result

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=MOST_BYTES,
                headers={"Accept-Encoding": "identity", "User-Agent": "evenkeel"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S),
            )
        return self._session


class _Place:
    """A place, held for as long as a block runs, for PLACE_S at most.

    Entering raises TimeoutError where none is free within `patience_s`: whoever was silent is as silent as before.
    """

    __slots__ = ("_is_held", "_patience_s", "_places", "_timer")

    def __init__(self, places: asyncio.Semaphore, patience_s: float | None) -> None:
        self._places, self._patience_s = places, patience_s

    async def __aenter__(self) -> None:
        if self._places.locked():
            async with asyncio.timeout(self._patience_s):
                await self._places.acquire()
        else:
            await self._places.acquire()
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(PLACE_S, self._leave)

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._leave()

    def _leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.release()


@functools.lru_cache(maxsize=8192)
def _url(address: str, port: int, path: str) -> URL:
    """Return where to ask; taken apart and put together again for every question, it costs as much as the answer."""
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return URL(f"http://{host}:{port}{path}")
