"""Serve a fake API server with its actors until killed: `python -m tests.system.operator.fakeapi [COUNT]`.

Prints its address, then whenever a line comes on standard input a line of JSON: what was asked so far.
COUNT ModelDeployments stand ready.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi


async def serve(count: int) -> None:
    """Serve with `count` ModelDeployments."""
    async with FakeApi(bookmark_s=20) as api:
        Actors(api.store)
        for number in range(count):
            api.store.create(
                {
                    "apiVersion": "evenkeel.dev/v1alpha1",
                    "kind": "ModelDeployment",
                    "metadata": {"name": f"digits-{number}", "namespace": f"team-{number % 20}"},
                    "spec": {"model": {"uri": "pvc://models/digits.pt2"}, "replicas": 1},
                }
            )
        print(api.url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            counted = collections.Counter(f"{r.method} {r.user_agent.split('/')[0]}" for r in api.requests)
            ready = sum(
                any(
                    c["type"] == "Ready" and c["status"] == "True"
                    for c in (o.get("status") or {}).get("conditions", ())
                )
                for o in api.store.list("modeldeployments")
            )
            print(json.dumps({"requests": counted, "ready": ready}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
