"""How does a test run Prometheus? The distribution's, as its own process, on loopback, told what to scrape."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.cluster import packages
from tests.system.runtime.replica import free_ports

PATIENCE_S = 120.0


class Prometheus:
    """Scrapes every second and judges its rules as often. `jobs` are scrape configs, `flags` more of its flags."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]], rules: Path, *flags: str) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self._flags = flags
        self._folder = folder
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._process: asyncio.subprocess.Process | None = None
        self._session = aiohttp.ClientSession(self.url)

    async def __aenter__(self) -> Prometheus:
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                packages.program("prometheus"),
                f"--config.file={self._folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                *self._flags,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + PATIENCE_S
        while not await self._is_ready():
            assert self._process.returncode is None, self.log
            assert time.monotonic() < until, self.log
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        assert self._process is not None, "entered"
        self._process.kill()
        await self._process.wait()

    @property
    def log(self) -> str:
        return (self._folder / "prometheus.log").read_text()

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the API, which has to be one without error or warning."""
        async with self._session.get(f"/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", (parameters, answer)
        assert not answer.get("warnings"), (parameters, answer)
        return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant vector."""
        data = await self.ask("query", query=expression)
        assert data["resultType"] == "vector", expression
        found: list[dict[str, Any]] = data["result"]
        return found

    async def awaited(self, expression: str, is_there: bool = True) -> list[dict[str, Any]]:
        """Return the samples as soon as there are any, or when there are none any more."""
        until = time.monotonic() + PATIENCE_S
        while bool(found := await self.query(expression)) != is_there:
            assert time.monotonic() < until, f"{expression}: {found}"
            await asyncio.sleep(0.2)
        return found

    async def _is_ready(self) -> bool:
        try:
            async with self._session.get("/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False
