"""Who asked the API server for what? Read from its audit log, in the node, where root wrote it.

Our two clients tell themselves apart by their user agents: kopf calls itself `kopf/<version>`, everything else of the
operator is `evenkeel`. An apply that created something was answered with 201.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.cluster.kubectl import wait_until
from tests.cluster.processes import CommandFailed, ask
from tests.cluster.state import Cache, Cluster
from tests.cluster.topology import AUDIT_FOLDER

OURS = "evenkeel"
KOPF = "kopf/"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One line of the log. `is_denied` for want of a permission: a quota and a namespace that ends are 403, too."""

    user: str
    agent: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    code: int
    is_denied: bool
    at: str

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    @property
    def what(self) -> tuple[str, str, str]:
        """Verb, API group, and resource with its subresource."""
        return self.verb, self.group, self.resource


def now() -> str:
    """Return this moment as the log writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def docker(cluster: Cluster) -> tuple[list[str], dict[str, str]]:
    """Return the docker of the cluster's engine, and the environment that it needs."""
    own = str(Cache.of_environment().bin / "docker")
    program = own if cluster.docker_host and os.path.exists(own) else "docker"
    return [program], {"DOCKER_HOST": cluster.docker_host} if cluster.docker_host else {}


def requests(cluster: Cluster, needle: str, since: str = "") -> list[Request]:
    """Return the requests after `since` whose line holds `needle`: a namespace in quotes, a user, an agent."""
    words, env = docker(cluster)
    find = f'grep --no-filename --fixed-strings -- "$1" {AUDIT_FOLDER}/*.log || test $? = 1'
    text = ask([*words, "exec", cluster.control_plane, "sh", "-c", find, "sh", needle], env=env, timeout_s=120)
    return [request for request in map(_request, _whole(text)) if request.at > since]


def settled(cluster: Cluster, needle: str, since: str, timeout_s: float = 30) -> list[Request]:
    """Return the requests once no further one has appeared for two seconds; Leases, renewed for ever, left out."""
    found: list[list[Request]] = [[]]
    quiet_since = [time.monotonic()]

    def is_quiet() -> bool:
        read = [r for r in requests(cluster, needle, since) if r.resource != "leases"]
        if len(read) != len(found[-1]):
            quiet_since[0] = time.monotonic()
        found.append(read)
        return time.monotonic() - quiet_since[0] > 2

    try:
        wait_until("the audit log is quiet", is_quiet, timeout_s)
    except CommandFailed:
        raise AssertionError(f"still writing: {found[-1][-5:]}") from None
    return found[-1]


def _whole(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line, while it is being written


def _request(event: dict[str, Any]) -> Request:
    about = event.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    return Request(
        user=event["user"].get("username", ""),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        group=about.get("apiGroup", ""),
        resource=resource,
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=(event.get("responseStatus") or {}).get("code", 0),
        is_denied=(event.get("annotations") or {}).get("authorization.k8s.io/decision") == "forbid",
        at=event["requestReceivedTimestamp"],
    )
