"""How does a command that a person types reach a ModelDeployment, and how is it told what went wrong?

With the caller's own rights, by their kubeconfig. What cannot be done is one line on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from evenkeel_operator.api.modeldeployment import GROUP, KIND, PLURAL, Object
from evenkeel_operator.world import kinds
from evenkeel_operator.world.connection import ApiError, Connection, LoginError

PREFIXES = frozenset({"mdep", KIND.lower(), PLURAL, f"{PLURAL}.{GROUP}"})
"""What may stand before a name, as for kubectl."""


class Refusal(Exception):
    """What was asked for cannot be done; the message says why."""


def parser(command: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every such command has."""
    found = argparse.ArgumentParser(prog=f"evenkeel {command}", description=description, epilog=epilog)
    found.add_argument("name", type=_name, help="name of the ModelDeployment, or mdep/NAME")
    found.add_argument("-n", "--namespace", help="its namespace; without: that of the kubeconfig's context")
    found.add_argument("--kubeconfig", help="path of a kubeconfig; without: $KUBECONFIG")
    return found


def run(args: argparse.Namespace, command: Callable[[Connection, argparse.Namespace], Awaitable[None]]) -> int:
    """Log in, run the command and return the exit code; `args.namespace` is known to it."""

    async def connected() -> None:
        connection = await Connection.open(args.kubeconfig)
        args.namespace = args.namespace or connection.namespace
        try:
            await command(connection, args)
        finally:
            await connection.close()

    try:
        asyncio.run(connected())
    except (LoginError, Refusal) as e:
        print(f"error: {e}", file=sys.stderr)
    except ApiError as e:
        print(f"error: {_explained(e)}", file=sys.stderr)
    else:
        return 0
    return 1


async def deployment(connection: Connection, args: argparse.Namespace) -> Object:
    """Return the ModelDeployment that is meant; raises Refusal where there is none."""
    try:
        return await connection.request("GET", kinds.MODELDEPLOYMENT.path(args.namespace, args.name))
    except ApiError as e:
        if e.status == 404 and e.message == "the server could not find the requested resource":
            raise Refusal(f"the cluster has no {PLURAL}.{GROUP}: Evenkeel is not installed there") from e
        if e.status == 404:
            raise Refusal(f"there is no ModelDeployment {args.name} in namespace {args.namespace}") from e
        raise


def _name(text: str) -> str:
    kind, is_named, name = text.partition("/")
    if not is_named:
        return text
    if kind.lower() not in PREFIXES or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is no ModelDeployment: say NAME or mdep/NAME")
    return name


def _explained(error: ApiError) -> str:
    if error.status == 0:
        return f"the cluster does not answer: {error.message}"
    if error.status in (401, 403):
        return f"the cluster does not allow it: {error.message}"
    return str(error)
