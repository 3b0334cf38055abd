"""How does a test look at a page? In a real Chromium without a window, over its DevTools protocol.

The protocol tells what the flags of the command line do not: what was logged, what was asked for, and how wide the page
is in a window of a given width, light or dark.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster import packages

PATIENCE_S = 120.0
_PORT = "DevToolsActivePort"


@dataclass
class Seen:
    """What a tab has done since it was opened. What the page's own policy forbids is asked of nobody."""

    by_number: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[str]:
        """The URLs that were asked for."""
        return list(self.by_number.values())


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._is_loaded = False
        self.seen = Seen()

    async def open(self, url: str, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a page into a window of that size, for a person who prefers that scheme."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._ask(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self._ask("Emulation.setDeviceMetricsOverride", **size)
        await self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._is_loaded = False
        await self._ask("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_loaded:
                self._note(await self._socket.receive_json())

    async def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is worth in the page."""
        answer = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def screenshot(self) -> bytes:
        """Return the whole page as it looks, a PNG."""
        answer = await self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await self._socket.receive_json()
                if message.get("id") == number:
                    assert "error" not in message, (method, message)
                    return message["result"]
                self._note(message)

    def _note(self, message: Any) -> None:
        match message.get("method"):
            case "Page.loadEventFired":
                self._is_loaded = True
            case "Network.requestWillBeSent":
                found = message["params"]
                self.seen.by_number[found["requestId"]] = found["request"]["url"]
            case "Network.loadingFailed" if message["params"].get("blockedReason") == "csp":
                self.seen.by_number.pop(message["params"]["requestId"])
            case "Log.entryAdded":
                self.seen.complaints.append(message["params"]["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.seen.complaints.append(str(message["params"]))


class Browser:
    """The process, of which each test opens tabs of its own."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """Open a tab, closed in the end."""
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{self._url}/json/new") as response:
                found = await response.json(content_type=None)
            async with session.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
            async with session.get(f"{self._url}/json/close/{found['id']}"):
                pass


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """Run Chromium with a profile of its own in `folder`."""
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        *(packages.chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (profile / _PORT).exists() or "\n" not in (profile / _PORT).read_text():
                assert process.returncode is None, f"Chromium ended with {process.returncode}"
                await asyncio.sleep(0.05)
        yield Browser(int((profile / _PORT).read_text().split("\n")[0]))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)
