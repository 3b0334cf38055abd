"""Where do tests put models that pods fetch by s3://?

versitygw runs in the cluster over an emptyDir. Pods reach it as `http://s3.evenkeel-test.svc:7070`, tests on
this machine through loopback; `status --json` has both under `s3`, and the credentials, which guard nothing.
`Client.of(cluster)` puts and gets."""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.cluster.kubectl import Kubectl, manifest
from tests.cluster.state import Cluster

NODE_PORT = 30070
ACCESS_KEY = "evenkeel-test"
SECRET_KEY = "evenkeel-test-secret"
REGION = "us-east-1"
INSIDE = "http://s3.evenkeel-test.svc:7070"


def install(kubectl: Kubectl, image: str) -> None:
    values = {"IMAGE": image, "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
    kubectl.apply(manifest("s3.yaml", values))


def endpoints(node_ports: dict[str, int]) -> dict[str, str]:
    outside = node_ports.get(str(NODE_PORT))
    return {
        "endpoint_in_cluster": INSIDE,
        "endpoint": f"http://127.0.0.1:{outside}" if outside else "",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "region": REGION,
    }


@dataclass(frozen=True)
class Client:
    """Just enough of S3 for a test to put its files there, by the standard library."""

    endpoint: str

    @classmethod
    def of(cls, cluster: Cluster) -> Client:
        return cls(cluster.s3["endpoint"])

    def make_bucket(self, bucket: str) -> None:
        self._send("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._send("PUT", f"/{bucket}/{key}", content)

    def get(self, bucket: str, key: str) -> bytes:
        return self._send("GET", f"/{bucket}/{key}")

    def delete(self, bucket: str, key: str) -> None:
        self._send("DELETE", f"/{bucket}/{key}")

    def _send(self, method: str, path: str, content: bytes | None = None) -> bytes:
        path = urllib.parse.quote(path)
        headers = _signed(method, self.endpoint.partition("//")[2], path, content or b"", datetime.now(UTC))
        request = urllib.request.Request(self.endpoint + path, data=content, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: bytes = response.read()
        return answer


def _signed(method: str, host: str, path: str, content: bytes, now: datetime) -> dict[str, str]:
    """AWS Signature Version 4, for a request without a query."""
    time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": host, "x-amz-content-sha256": hashlib.sha256(content).hexdigest(), "x-amz-date": time}
    names = ";".join(headers)
    lines = "".join(f"{key}:{value}\n" for key, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{headers['x-amz-content-sha256']}"
    scope = f"{day}/{REGION}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
