"""What did Prometheus record? One range query over its HTTP API, asked in parts, for one series.

A range query answers MOST_POINTS points a series at most, so a longer one is asked for in parts, on one grid of
times. Whatever speaks the same API (Thanos, Mimir, VictoriaMetrics) can be asked. Redirects are not followed: they lead
to pages where people log in, and the token would go there.
"""

from __future__ import annotations

import json
import math
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

MOST_POINTS = 11_000
"""Of a series in one answer: Prometheus refuses to give more."""

TIMEOUT_S = 130.0
"""For one part. A query may run for two minutes where nobody has set --query.timeout."""

MOST_BYTES = 64 << 20

_PATH = "api/v1/query_range"
_MOST_SHOWN = 3


class Unanswered(Exception):
    """Prometheus does not answer, or not what was asked; the message names the way out."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where Prometheus answers (a path before /api is part of it), and what is shown there: a bearer token, if any.

    `ca_file` holds the authorities by which its certificate is judged instead of the machine's.
    """

    url: str
    token: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Every `step_s` seconds from `start` to `end` (Unix seconds), both included where the steps meet them."""

    start: int
    end: int
    step_s: int

    @property
    def points(self) -> int:
        """How many moments there are."""
        return (self.end - self.start) // self.step_s + 1

    def parts(self) -> list[Range]:
        """Return it in parts of MOST_POINTS points at most."""
        width = MOST_POINTS * self.step_s
        return [
            Range(begin, min(self.end, begin + width - self.step_s), self.step_s)
            for begin in range(self.start, self.end + 1, width)
        ]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The values of one series by their moments; a moment without one is missing, as is one whose value is NaN.

    `warnings` are Prometheus' own, about the query.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()


async def recorded(access: Access, query: str, over: Range, *, timeout_s: float = TIMEOUT_S) -> Recorded:
    """Return the one series that `query` (PromQL) has in `over`. Raises Unanswered."""
    series: dict[str, dict[int, float]] = {}
    warnings: dict[str, None] = {}
    try:
        async with _session(access, timeout_s) as session:
            for part in over.parts():
                told = await _asked(session, access, query, part)
                for text in (*told.get("warnings", ()), *told.get("infos", ())):
                    warnings[str(text)] = None
                for labels, values in _series(told, query):
                    series.setdefault(labels, {}).update(values)
    except TimeoutError as e:
        raise Unanswered(f"{_shown(access)} gave no whole answer within {timeout_s:g} s; ask for less at once") from e
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLError) as e:
        raise Unanswered(
            f"{_shown(access)}: its certificate is not trusted: {e}. Name the authority's by --ca-file"
        ) from e
    except (aiohttp.ClientError, OSError, ValueError) as e:
        raise Unanswered(f"{_shown(access)} cannot be asked: {type(e).__name__}: {e}"[:400]) from e
    if len(series) > 1:
        names = ", ".join(list(series)[:_MOST_SHOWN]) + (", …" if len(series) > _MOST_SHOWN else "")
        raise Unanswered(
            f"the query has {len(series)} series, and a trace is one: add them up, sum({query}), or choose one by its "
            f"labels: {names}"
        )
    return Recorded(next(iter(series.values()), {}), tuple(warnings))


def _session(access: Access, timeout_s: float) -> aiohttp.ClientSession:
    trusted: ssl.SSLContext | bool = True
    if access.ca_file is not None:
        try:
            trusted = ssl.create_default_context(cafile=access.ca_file)
        except (OSError, ssl.SSLError) as e:
            raise Unanswered(f"--ca-file {access.ca_file} holds no certificates in PEM: {e}") from e
    headers = {"User-Agent": "evenkeel"}
    if access.token is not None:
        headers["Authorization"] = f"Bearer {access.token}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trusted),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(10.0, timeout_s)),
        headers=headers,
    )


async def _asked(session: aiohttp.ClientSession, access: Access, query: str, over: Range) -> dict[str, Any]:
    """Return the whole answer to one part, which is one of success."""
    asked = {"query": query, "start": str(over.start), "end": str(over.end), "step": str(over.step_s)}
    url = f"{access.url.rstrip('/')}/{_PATH}"
    async with session.get(url, params=asked, allow_redirects=False) as response:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                response.close()
                raise Unanswered(f"{_shown(access)} answers more than {MOST_BYTES >> 20} MiB; is the query one series?")
        return _read(access, response.status, response.headers.get("Location"), bytes(body))


def _read(access: Access, status: int, location: str | None, body: bytes) -> dict[str, Any]:
    where = _shown(access)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and told.get("status") == "error":
        raise Unanswered(f"{where} answers {status}, {told.get('errorType')}: {str(told.get('error'))[:400]}")
    if status in (401, 403):
        raise Unanswered(f"{where} answers {status}: it wants another token, from --token-file or the environment")
    if status in range(300, 400):
        raise Unanswered(f"{where} answers {status} and points to {location}: name what answers by itself, or a token")
    if status != 200:
        raise Unanswered(f"{where} answers {status} to /{_PATH}: is that Prometheus, and is its path part of the URL?")
    if not isinstance(told, dict) or told.get("status") != "success":
        raise Unanswered(f"{where} answers something else than Prometheus' API would to /{_PATH}")
    return told


def _series(told: Mapping[str, Any], query: str) -> list[tuple[str, dict[int, float]]]:
    """Return the series of an answer, each with its labels as text."""
    given = told.get("data")
    data = given if isinstance(given, dict) else {}
    kind = data.get("resultType")
    if kind != "matrix":
        raise Unanswered(f"{query} has the type {kind} over time, and a trace is numbers: a matrix")
    found = []
    try:
        for each in data["result"]:
            if each.get("histograms"):
                raise Unanswered(f"{query} has histograms: ask how many requests they hold, histogram_count(rate(…))")
            values = {round(float(at)): float(value) for at, value in each["values"]}
            found.append((_labels(each["metric"]), {at: v for at, v in values.items() if not math.isnan(v)}))
    except (AttributeError, KeyError, TypeError) as e:
        raise Unanswered(f"an answer to {query} is none of Prometheus' API: {type(e).__name__}: {e}") from e
    return found


def _labels(metric: Mapping[str, str]) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in sorted(metric.items()) if name != "__name__")
    return f"{metric.get('__name__', '')}{{{labels}}}"


def _shown(access: Access) -> str:
    """Return the URL without what is secret in it."""
    found = urllib.parse.urlsplit(access.url)
    return found._replace(netloc=found.netloc.rpartition("@")[2]).geturl()
