"""`evenkeel report mdep/NAME`: read what is known with the caller's own rights, write one page.

The counts of labels are told by the feedback service, to a user of the cluster who may get modeldeployments/quality and
shows a token. The API server's proxy to Services is no way there: it takes the token off. So the caller makes the
service reachable and names it; without it the page has all the rest, and says what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import sys
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import names
from evenkeel_operator.decide.quality.counted import Counted
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.report.facts import SINCE, facts
from evenkeel_operator.report.page import page
from evenkeel_operator.world import feedback, kinds, terminal
from evenkeel_operator.world.connection import ApiError, Connection
from evenkeel_operator.world.terminal import Refusal

TOKEN = "EVENKEEL_TOKEN"
MOST_DAYS = 366

HOW = """\
The counts of labels come from the feedback service, which wants the token of a user of the cluster who may get
modeldeployments/quality, as the role view allows; the API server's proxy would take the token off. So make the service
reachable, with the names of your installation:

  kubectl port-forward -n evenkeel-system service/evenkeel-feedback 8080:80

and, while that runs:

  evenkeel report mdep/NAME --feedback-url http://127.0.0.1:8080

The token of your kubeconfig is sent, where it has one and the URL is https or of this machine. A kubeconfig with a
client certificate has none; lend that of a ServiceAccount that may get modeldeployments/quality:

  export EVENKEEL_TOKEN=$(kubectl create token ACCOUNT -n NAMESPACE)
"""


def report(argv: Sequence[str]) -> int:
    """Write the page; return the exit code, 1 also where the counts were asked for and not told."""
    parser = terminal.parser(
        "report",
        "Write one HTML page about a ModelDeployment: quality over time, the canary's test, decisions.",
        epilog=HOW,
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it, - for stdout; without: NAME.html")
    parser.add_argument("--feedback-url", metavar="URL", help="where the feedback service answers; see below")
    parser.add_argument(
        "--days", type=_days, default=SINCE / timedelta(days=1), help="how far back labels are looked at (14)"
    )
    return terminal.run(parser.parse_args(argv), _report)


async def _report(connection: Connection, args: argparse.Namespace) -> None:
    deployment = await terminal.deployment(connection, args)
    now = datetime.now(UTC)
    since = now - timedelta(days=args.days)
    counted, problem = await _counted(connection, args, since)
    samples, missing = await _samples(connection, args, deployment)
    told = tuple(text for text in (problem, missing) if text is not None)
    try:
        known = facts(deployment, counted, samples, now, since=since, missing=told)
    except ValidationError as e:
        odd = "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in e.errors())
        raise Refusal(f"{args.namespace}/{args.name} is not as this version of evenkeel reads it: {odd}") from e
    text = await asyncio.to_thread(page, known)
    _write(args.output or f"{args.name}.html", text)
    if problem is not None and args.feedback_url:
        raise Refusal(problem)
    for line in told:
        print(f"note: {line}", file=sys.stderr)


async def _counted(
    connection: Connection, args: argparse.Namespace, since: datetime
) -> tuple[Counted | NoSignal, str | None]:
    """Return the counts, or why there are none."""
    if not args.feedback_url:
        return NO_SIGNAL, (
            "the page has no counts of labels, which the feedback service tells: make it reachable with kubectl "
            "port-forward and name it by --feedback-url; evenkeel report --help says how"
        )
    token, whose = os.environ.get(TOKEN), f"with the token in {TOKEN}"
    if not token:
        token, whose = None, f"without a token, as its URL is neither https nor of this machine; {TOKEN} may hold one"
        if _is_private(args.feedback_url):
            token = (await connection.credentials()).token
            whose = "with the kubeconfig's token"
            if token is None:
                whose = f"without a token, as the kubeconfig has none: put one into {TOKEN}, from kubectl create token"
    try:
        found = await feedback.counted(
            args.feedback_url, args.namespace, args.name, int(since.timestamp()), token or None
        )
    except feedback.Unanswered as e:
        return NO_SIGNAL, f"the feedback service at {args.feedback_url}, asked {whose}, did not tell its counts: {e}"
    return found, None


async def _samples(
    connection: Connection, args: argparse.Namespace, deployment: Object
) -> tuple[Object | None, str | None]:
    """Return the ConfigMap in which the operator keeps how a canary is answered, or why it could not be read."""
    if not (deployment.get("status") or {}).get("canary"):
        return None, None
    try:
        path = kinds.CONFIG_MAP.path(args.namespace, names.trial_name(args.name))
        return await connection.request("GET", path), None
    except ApiError as e:
        if e.status == 404:
            return None, None
        if e.status in (401, 403):
            return (
                None,
                f"how the canary's answers compare could not be read, that needs get on configmaps: {e.message}",
            )
        raise


def _write(where: str, text: str) -> None:
    if where == "-":
        sys.stdout.write(text)
        return
    try:
        Path(where).write_text(text, encoding="utf-8")
    except OSError as e:
        raise Refusal(f"--output {where}: cannot be written: {e.strerror}; name another file") from e
    print(where)


def _is_private(url: str) -> bool:
    """Return whether a token that goes there is read by nobody on the way."""
    found = urllib.parse.urlsplit(url)
    if found.scheme == "https" or found.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(found.hostname or "").is_loopback
    except ValueError:
        return False


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0.0 < days <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text}: must be more than 0 and at most {MOST_DAYS}, such as 14")
    return days
