"""Where does the demand come from? A file of counts, or what Prometheus recorded of a service that runs already."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from evenkeel_operator.api.core import seconds
from evenkeel_operator.simulate import load
from evenkeel_operator.simulate.load import BadTrace, Trace
from evenkeel_operator.simulate.recorded import VALUES, trace
from evenkeel_operator.world import prometheus
from evenkeel_operator.world.prometheus import Access, Range

TOKEN = "EVENKEEL_PROMETHEUS_TOKEN"
LONGEST_STEP_S = 3600
_MOST_SHOWN = 60

HOW = f"""\
The demand of the last day, as a Prometheus recorded it that `kubectl port-forward` or a URL reaches:

  evenkeel simulate deployment.yaml --batch 1=20ms --batch 8=60ms --prometheus http://127.0.0.1:9090 \\
    --query 'sum(rate(inference_requests_total{{model_name="digits"}}[1m]))' --start 24h --step 60s

The query has to have one series. Its value of a moment is the rate (or with --values count the number) of requests of
the step before. A bearer token is read from --token-file or {TOKEN}.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what says where the demand comes from."""
    parser.add_argument(
        "trace",
        type=Path,
        nargs="?",
        help="CSV file: a first column `second` or `minute`, and columns of counts; or, instead, --prometheus",
    )
    group = parser.add_argument_group("demand from Prometheus")
    group.add_argument("--prometheus", metavar="URL", help="where it answers, with the path before /api if it has one")
    group.add_argument("--query", metavar="PROMQL", help="of one series, such as 'sum(rate(requests_total[1m]))'")
    group.add_argument("--values", choices=VALUES, default="rate", help="requests per second, or in each step (rate)")
    group.add_argument(
        "--start", default="24h", metavar="TIME", help="2026-11-20T08:00:00Z, Unix seconds, or so long ago (24h)"
    )
    group.add_argument("--end", default="now", metavar="TIME", help="likewise (now)")
    group.add_argument("--step", default="60s", help="from value to value, whole seconds (60s)")
    group.add_argument("--token-file", type=Path, metavar="FILE", help=f"of a bearer token; or the variable {TOKEN}")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM file of the authorities of its certificate")


def traces(asked: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> list[Trace]:
    """Return the traces that `asked` names. Raises BadTrace."""
    if asked.prometheus is None:
        if asked.query is not None:
            raise BadTrace("--query: name the Prometheus to ask as well, --prometheus http://127.0.0.1:9090")
        if asked.trace is None:
            raise BadTrace("there is no demand: name a CSV file before the spec, or --prometheus and --query")
        return load.read(asked.trace)
    if asked.trace is not None:
        raise BadTrace(f"{asked.trace} and --prometheus both are a demand: leave one out")
    if asked.query is None:
        raise BadTrace("--prometheus: say what to ask, such as --query 'sum(rate(requests_total[1m]))'")
    return [_queried(asked, environ)]


def _queried(asked: argparse.Namespace, environ: Mapping[str, str]) -> Trace:
    now = time.time()
    over = Range(moment(asked.start, "--start", now), moment(asked.end, "--end", now), _step_s(asked.step))
    if over.end <= over.start:
        raise BadTrace(f"--start {asked.start} is not before --end {asked.end}; both may be given")
    if over.points * over.step_s > load.LONGEST_S:
        raise BadTrace(
            f"--start {asked.start} to --end {asked.end} is more than {load.LONGEST_S:,} seconds: ask for less"
        )
    access = Access(_url(asked.prometheus), _token(asked.token_file, environ), asked.ca_file)
    try:
        found = asyncio.run(prometheus.recorded(access, asked.query, over))
    except prometheus.Unanswered as e:
        raise BadTrace(f"--prometheus: {e}") from e
    query = " ".join(asked.query.split())
    name = query if len(query) <= _MOST_SHOWN else f"{query[:_MOST_SHOWN]}…"
    return trace(name, found.values, over, asked.values, told=found.warnings)


def moment(text: str, flag: str, now: float) -> int:
    """Return the moment (Unix seconds) that `text` names. Raises BadTrace."""
    if text == "now":
        return int(now)
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]*)?", text):
        return int(float(text))
    try:
        return int(now - seconds(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadTrace(f"{flag} {text}: give a time such as 2026-11-20T08:00:00Z, or 24h for so long ago") from None
    if found.tzinfo is None:
        raise BadTrace(f"{flag} {text}: whose time? Add Z, or +01:00")
    return int(found.timestamp())


def _step_s(text: str) -> int:
    try:
        found = seconds(text)
    except ValueError as e:
        raise BadTrace(f"--step: {e}") from e
    if found != int(found) or not 1 <= found <= LONGEST_STEP_S:
        raise BadTrace(f"--step {text}: must be whole seconds, from 1s to 1h")
    return int(found)


def _url(text: str) -> str:
    try:
        found = urllib.parse.urlsplit(text)
        is_one = found.scheme in ("http", "https") and found.hostname and (found.port is None or found.port > 0)
    except ValueError:
        is_one = False
    if not is_one or found.query or found.fragment:
        raise BadTrace("--prometheus: give a URL such as http://127.0.0.1:9090 or https://prometheus.example/path")
    return text


def _token(path: Path | None, environ: Mapping[str, str]) -> str | None:
    if path is None:
        given, where = environ.get(TOKEN, ""), TOKEN
    else:
        try:
            given, where = path.read_text(encoding="ascii"), f"--token-file {path}"
        except (OSError, UnicodeDecodeError) as e:
            raise BadTrace(f"--token-file {path} cannot be read: {e}") from e
    found = given.strip()
    if path is not None and not found:
        raise BadTrace(f"{where} is empty")
    if not found.isascii() or not found.isprintable():
        raise BadTrace(f"{where} holds something else than one bearer token")
    return found or None
