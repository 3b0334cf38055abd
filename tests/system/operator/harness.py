"""How does a test run the operator? As the real process, with the fake API server in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.system.operator.fakeapi.server import FakeApi

ROOT = Path(__file__).resolve().parents[3]
RUNTIME_IMAGE = "evenkeel/runtime:1"
PATIENCE_S = 60.0

Object = dict[str, Any]


async def eventually(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Return what `holds` returns as soon as that is true; a KeyError, IndexError or LookupError counts as false."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while True:
        try:
            if found := holds():
                return found
        except LookupError:
            pass
        assert loop.time() < until, f"not within {within_s} s"
        await asyncio.sleep(0.02)


async def quiet(api: FakeApi, for_s: float = 1.0) -> int:
    """Return how many requests there were when the operator had written nothing for `for_s`."""
    loop = asyncio.get_running_loop()
    count, since = len(api.writes()), loop.time()
    until = since + PATIENCE_S
    while loop.time() - since < for_s:
        assert loop.time() < until, "the operator goes on writing"
        if (now := len(api.writes())) != count:
            count, since = now, loop.time()
        await asyncio.sleep(0.05)
    return len(api.requests)


def modeldeployment(name: str = "digits", namespace: str = "team-a", **spec: Any) -> Object:
    """Return a ModelDeployment as a user writes it."""
    return {
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "pvc://models/digits.pt2"}, "replicas": 1, **spec},
    }


def ready(api: FakeApi, name: str = "digits", namespace: str = "team-a") -> tuple[str, str]:
    """Return status and reason of the Ready condition."""
    found = api.store.get("modeldeployments", namespace, name)
    for condition in found["status"]["conditions"]:
        if condition["type"] == "Ready":
            return condition["status"], condition["reason"]
    raise KeyError("Ready")


def is_serving(api: FakeApi, name: str = "digits", namespace: str = "team-a") -> bool:
    """Return whether a deployment is as its present spec asks for."""
    found = api.store.get("modeldeployments", namespace, name)
    is_present = found["status"]["observedGeneration"] == found["metadata"]["generation"]
    return is_present and ready(api, name, namespace) == ("True", "Serving")


def kubeconfig(folder: Path, url: str) -> Path:
    """Write a kubeconfig for the server at `url`."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": "team-a"}}],
                "clusters": [{"name": "fake", "cluster": {"server": url}}],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    return path


class Operator:
    """The operator's process."""

    def __init__(self, api: FakeApi, folder: Path, *flags: str, name: str = "operator") -> None:
        self._command = [
            *(sys.executable, "-m", "evenkeel_operator"),
            f"--runtime-image={RUNTIME_IMAGE}",
            f"--kubeconfig={kubeconfig(folder, api.url)}",
            "--http-port=0",
            *flags,
        ]
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Operator:
        paths = os.pathsep.join(str(ROOT / part) for part in ("operator", "runtime"))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": paths, "POD_NAMESPACE": "evenkeel"},
            )
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if kind is not None:
            sys.stderr.write(self.log)

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process."""
        assert self._process is not None, "entered"
        return self._process

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    async def leads(self) -> None:
        """Return when it holds the Lease and has listed everything."""
        await eventually(lambda: "resync listed" in self.log or self._has_ended())
        assert self.process.returncode is None, self.log

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process; return its exit code."""
        self.process.send_signal(number)
        return await self.exit_code()

    async def exit_code(self, within_s: float = PATIENCE_S) -> int:
        """Return its exit code once it has ended."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server."""
        port = (await eventually(lambda: re.findall(r"http_port=(\d+)", self.log)))[-1]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()

    def _has_ended(self) -> bool:
        return self.process.returncode is not None
