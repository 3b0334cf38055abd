"""What is a container registry to read from? The distribution's own docker-registry over a folder.

Beside it, just enough of its API to push artifacts as `oras push` does, by the standard library.
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import packages

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_TITLE = "org.opencontainers.image.title"

Json = dict[str, Any]


@dataclass(frozen=True)
class Registry:
    """A running registry: pushes go to one that asks nobody for a password."""

    port: int
    folder: Path

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def place(self, digest: str) -> Path:
        """Where a blob lies on disk."""
        hex_ = digest.removeprefix("sha256:")
        return self.folder / "docker" / "registry" / "v2" / "blobs" / "sha256" / hex_[:2] / hex_ / "data"

    def push(self, repository: str, tag: str, *layers: Json) -> str:
        """Push an artifact and return its manifest's digest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.unknown.artifact.v1",
            "config": self.layer(repository, b"{}", media_type="application/vnd.oci.empty.v1+json"),
            "layers": list(layers),
        }
        return self.push_manifest(repository, tag, manifest)

    def layer(self, repository: str, data: bytes, title: str = "", media_type: str = "", **annotations: str) -> Json:
        """Push a blob and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        began = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"")
        where = began.headers["Location"]
        self._send("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}", data)
        descriptor: Json = {
            "mediaType": media_type or "application/vnd.oci.image.layer.v1.tar",
            "digest": digest,
            "size": len(data),
        }
        if title:
            descriptor["annotations"] = {_TITLE: title, **annotations}
        return descriptor

    def push_manifest(self, repository: str, reference: str, manifest: Json) -> str:
        body = json.dumps(manifest).encode()
        path = f"/v2/{repository}/manifests/{reference}"
        answer = self._send("PUT", path, body, {"Content-Type": manifest["mediaType"]})
        return str(answer.headers["Docker-Content-Digest"])

    def push_index(self, repository: str, tag: str, *digests: str) -> str:
        manifests = [
            {"mediaType": MANIFEST, "digest": digest, "size": self.place(digest).stat().st_size} for digest in digests
        ]
        return self.push_manifest(repository, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})

    def _send(self, method: str, path: str, data: bytes, headers: dict[str, str] | None = None) -> Any:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        told = {"Content-Type": "application/octet-stream"} | (headers or {})
        with urllib.request.urlopen(urllib.request.Request(url, data, told, method=method), timeout=60) as answer:
            answer.read()
            return answer


@contextmanager
def docker_registry(folder: Path, work: Path, **options: object) -> Iterator[Registry]:
    """Run a registry over the blobs in `folder`; `options` are further sections of its configuration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    told: Json = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "maintenance": {"uploadpurging": {"enabled": False}}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **options,
    }
    configuration = work / f"registry-{port}.yml"
    configuration.write_text(json.dumps(told))  # JSON is YAML
    log = work / f"registry-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [packages.program("docker-registry"), "serve", str(configuration)], stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield Registry(port, folder)
    finally:
        process.terminate()
        process.wait(30)
