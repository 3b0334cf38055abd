"""How does an operator run as a process that a test can measure and kill?"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.kubectl import wait_until

RUNTIME_IMAGE = "evenkeel/runtime:simulated"


@dataclass
class Operator:
    """An operator that serves one namespace, where its Lease is, too. Like a kubelet, `keep_up` starts it again."""

    kubeconfig: str
    namespace: str
    folder: Path
    lease_s: int = 15
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _log: Path = field(init=False)
    _port: int = 0

    def start(self) -> None:
        """Start it; return at once."""
        self.starts += 1
        self._log = self.folder / f"operator-{self.starts}.log"
        self._port = _free_port()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "evenkeel_operator", "--runtime-image", RUNTIME_IMAGE),
                    *("--kubeconfig", self.kubeconfig, "--namespaces", self.namespace),
                    *("--http-port", str(self._port)),
                    *("--lease-namespace", self.namespace, "--lease-name", "operator-of-a-test"),
                    *("--lease-duration-seconds", str(self.lease_s)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def keep_up(self) -> None:
        """Start it again if it has ended."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def wait_leading(self) -> None:
        """Wait until it has listed everything and works."""

        def leads() -> bool:
            self.keep_up()
            return self.answer("/readyz") == "ok leading\n"

        wait_until("the operator leads", leads, timeout_s=60 + self.lease_s, every_s=0.2)

    def kill(self) -> None:
        """End it as nothing can be ended more suddenly."""
        assert self._process is not None, "it was started"
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=10)

    def stop(self) -> None:
        """Ask it to stop, as a kubelet does."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()

    def answer(self, path: str) -> str:
        """Return what its HTTP port answers, blank where nothing does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        rows = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.answer("/metrics"), re.MULTILINE)
        return sum(map(float, rows))

    def log(self) -> str:
        """Return what it has said since its last start."""
        return self._log.read_text()

    def peak_rss_mib(self) -> float:
        """Return the most memory that it has held."""
        text = Path(f"/proc/{self._pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1]) / 1024

    def cpu_s(self) -> float:
        """Return the seconds of CPU that it has used."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def core_pct_over(self, seconds: float) -> float:
        """Return the share of a core that it uses in the next `seconds`."""
        before, started = self.cpu_s(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self.cpu_s() - before) / (time.monotonic() - started)

    @property
    def _pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid


@contextmanager
def running(kubeconfig: str, namespace: str, folder: Path, lease_s: int = 15) -> Iterator[Operator]:
    """An operator that leads; stopped when the block ends."""
    operator = Operator(kubeconfig, namespace, folder, lease_s)
    operator.start()
    try:
        operator.wait_leading()
        yield operator
    finally:
        operator.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
