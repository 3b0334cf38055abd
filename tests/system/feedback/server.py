"""How does a test run the feedback service? As the real process, over real HTTP, with receipts as replicas write them.

It needs no API server where it is told to ask nobody.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenkeel_runtime import config, contract, receipts
from evenkeel_runtime.receipts import Assignment, Issuer, Origin

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0
NOBODY = "http://127.0.0.1:9"
"""A feedback service that is not there: receipts are given all the same."""
MASTER, KEY_ID = b"0123456789abcdef0123456789abcdef", 1


class Deployment:
    """A ModelDeployment as its replicas and the service know it: a uid and the key that follows from it."""

    def __init__(
        self, revision: str = "digits-0123abcd", classes: int = 10, is_named: bool = False, uid: str = ""
    ) -> None:
        self.uid = uid or str(uuid.uuid4())
        self.subject = receipts.subject_of(self.uid)
        self.key = receipts.derived_key(MASTER, KEY_ID, self.subject)
        self.revision = revision
        self.issuer = Issuer(self.key, Origin(KEY_ID, self.subject, revision, classes, is_named))
        self._issuers = [self.issuer.assigned(assignment) for assignment in Assignment]

    def told(self, folder: Path, url: str = NOBODY, revision: str = "") -> dict[str, str]:
        """Return what the operator tells a replica that is to give receipts, whose key it puts into `folder`."""
        folder.mkdir(exist_ok=True)
        (folder / contract.RECEIPT_KEY_FILE).write_text(self.key.hex())
        return {
            contract.Env.MODEL_VERSION: revision or self.revision,
            contract.Env.UID: self.uid,
            contract.Env.RECEIPT_KEY_ID: str(KEY_ID),
            config.RECEIPT_KEY_DIR_ENV: str(folder),
            contract.Env.FEEDBACK_URL: url,
        }

    def receipt(self, class_: int = 3, *, after_s: float = 0.0, assignment: Assignment = Assignment.UNASSIGNED) -> str:
        """Return a receipt of one row, from a clock that is `after_s` ahead."""
        return self._issuers[assignment].one(int((time.time() + after_s) * 1000), class_, 60000).decode()

    def signed(self, purpose: bytes, body: bytes, *, after_s: float = 0.0) -> dict[str, str]:
        """Return the headers by which a replica says who it is."""
        moment = str(int((time.time() + after_s) * 1000))
        return {
            receipts.SUBJECT_HEADER: self.uid,
            receipts.KEY_ID_HEADER: str(KEY_ID),
            receipts.TIME_HEADER: moment,
            receipts.SIGNATURE_HEADER: receipts.signature(self.key, purpose, moment.encode(), body),
        }


class Service:
    """The process. `wrapper` is a command that runs it, strace for one."""

    def __init__(self, folder: Path, *flags: str, wrapper: Sequence[str] = (), is_open: bool = True) -> None:
        keys = folder / "keys"
        keys.mkdir(exist_ok=True)
        (keys / str(KEY_ID)).write_bytes(MASTER)
        self._log = folder / "feedback.log"
        self._command = [
            *wrapper,
            *(sys.executable, "-m", "evenkeel_runtime.commands", "feedback"),
            *("--keys-dir", str(keys), "--host", "127.0.0.1", *flags),
            *(("--open",) if is_open else ()),
        ]
        self.port = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, again after it was killed on the same port, and wait until it listens."""
        at = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*self._command, f"--port={self.port}"], stderr=log, cwd=ROOT)
        until = time.monotonic() + PATIENCE_S
        while not (found := re.findall(r"http_port=(\d+)", self._log.read_text()[at:])):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        self.port = int(found[-1])
        return self.process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return status and answer: JSON as its value, other text as it is."""
        status, kind, text = self.answer(method, path, body, headers)
        return status, json.loads(text) if kind.startswith("application/json") else text.decode()

    def answer(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.getheader("content-type", ""), response.read()
        finally:
            connection.close()

    def post(self, items: Any, **headers: str) -> Any:
        """Post items and return the answer, which has to be one."""
        status, answer = self.ask("POST", "/v1/feedback", items, headers)
        assert status == 200, (status, answer)
        return answer

    def quality(self, deployment: Deployment) -> list[Any]:
        """Return what the service tells of each revision; nobody is asked what the ModelDeployment is called."""
        status, answer = self.ask("GET", f"/v1/quality/-/{deployment.uid}")
        assert status == 200, (status, answer)
        revisions: list[Any] = answer["revisions"]
        return revisions

    def labels(self, deployment: Deployment) -> int:
        """Return how many labels are counted."""
        return sum(revision["labels"] for revision in self.quality(deployment))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)
