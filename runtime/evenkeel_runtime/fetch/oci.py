"""Which layers of an OCI artifact are the model, and how are they read?

By their digests: a tag that moves changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import web
from evenkeel_runtime.fetch.credentials import authorization
from evenkeel_runtime.fetch.registry import Registry
from evenkeel_runtime.fetch.source import Entry, NoFile, Opened, damaged, not_found

TITLE = "org.opencontainers.image.title"
TAG = "latest"

_OCI, _DOCKER = "application/vnd.oci.image", "application/vnd.docker.distribution.manifest"
_MANIFESTS = (f"{_OCI}.manifest.v1+json", f"{_DOCKER}.v2+json")
_INDEXES = (f"{_OCI}.index.v1+json", f"{_DOCKER}.list.v2+json")
_MANIFEST_BYTES = 4 << 20  # what the distribution specification asks registries to take
_UNPACK = "io.deis.oras.content.unpack"  # set by oras on a folder, which it pushes as an archive

_NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_ADDRESS = re.compile(
    r"(?P<host>(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][-A-Za-z0-9.]*)(?::[0-9]{1,5})?)"
    rf"/(?P<repository>{_NAME}(?:/{_NAME})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][-A-Za-z0-9._]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
    r"(?:#(?P<title>.+))?"
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of an artifact: the only one, or the one of the name `title`, or the one of the digest `pinned`."""

    uri: str
    registry: Registry
    repository: str
    reference: str
    title: str
    pinned: str

    @property
    def file(self) -> str:
        """The file's name, by the address alone: a tag that moves must not move the file."""
        return (self.title or self.repository).rpartition("/")[2]

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        digest = version or self.pinned or self._layer()
        response = self.registry.ask(f"blobs/{digest}", start, stop)
        return replace(web.opened(response, start, stop, digest), sha256=digest.removeprefix("sha256:"))

    def _layer(self) -> str:
        """Return the digest of the layer that is the model."""
        layers = self.layers()
        titles = [_title(layer) for layer in layers]
        found = [layer for layer, title in zip(layers, titles, strict=True) if self.title in ("", title)]
        named = ", ".join(title or "(without a title)" for title in titles[:20]) or "no files at all"
        if self.title and not found:
            if any(title.startswith(f"{self.title}/") for title in titles if title):
                raise NoFile(self.uri)
            raise not_found(self.uri, f"the artifact holds {named}")
        if not self.title and len(found) > 1 and all(titles):
            raise NoFile(self.uri)
        if len(found) != 1:
            base = self.uri.partition("#")[0]
            example = next(filter(None, titles), "FILE")
            raise self._invalid(f"the artifact holds {named}; name one of its files, as in {base}#{example}")
        return self.digest(found[0])

    def digest(self, layer: Json) -> str:
        """Return a layer's digest. A folder that was packed into one layer has none that is of use."""
        if (layer.get("annotations") or {}).get(_UNPACK) == "true":
            title = _title(layer)
            raise self._invalid(
                f"{title} is a folder that was pushed as one archive; push its files by themselves (oras push "
                f"REPOSITORY {title}/*)"
            )
        return self._digest(layer)

    def layers(self) -> list[Json]:
        """Return the artifact's layers as its manifest lists them."""
        return _listed(self._manifest().get("layers"))

    def _manifest(self) -> Json:
        manifest = self._read_manifest(self.reference)
        if not _is_index(manifest):
            return manifest
        manifests = [m for m in _listed(manifest.get("manifests")) if m.get("mediaType", _MANIFESTS[0]) in _MANIFESTS]
        if len(manifests) != 1:
            digests = ", ".join(str(m.get("digest")) for m in manifests[:5])
            raise self._invalid(f"it is an index of {len(manifests)} manifests; name one of them by @DIGEST: {digests}")
        manifest = self._read_manifest(self._digest(manifests[0]))
        if _is_index(manifest):
            raise self._invalid("it is an index of an index; name the manifest by @DIGEST")
        return manifest

    def _read_manifest(self, reference: str) -> Json:
        response = self.registry.ask(f"manifests/{reference}", accept=", ".join((*_MANIFESTS, *_INDEXES)))
        body = web.small_body(self.uri, response, _MANIFEST_BYTES)
        found = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.startswith("sha256:") and found != reference:
            raise damaged(self.uri, reference, found)
        try:
            manifest = json.loads(body)
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict):
            raise ModelError(Reason.SOURCE_UNAVAILABLE, f"{self.uri}: the registry's answer is no manifest")
        return manifest

    def _digest(self, descriptor: Json) -> str:
        digest = descriptor.get("digest")
        if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise self._invalid(f"its digest {digest!r} is no sha256; push it again with sha256 digests")
        return digest

    def _invalid(self, why: str) -> ModelError:
        return ModelError(Reason.INVALID, f"{self.uri} is not one model file: {why}")


@dataclass(frozen=True, slots=True)
class ArtifactFolder:
    """The files of an artifact whose names begin with `prefix`; `whole` is the artifact."""

    uri: str
    prefix: str
    whole: Artifact

    @property
    def file(self) -> str:
        return self.prefix.rstrip("/").rpartition("/")[2] or self.whole.repository.rpartition("/")[2]

    def entries(self) -> list[Entry]:
        base = self.uri.partition("#")[0]
        return [
            Entry(
                title.removeprefix(self.prefix),
                replace(self.whole, uri=f"{base}#{title}", title=title, pinned=self.whole.digest(layer)),
            )
            for layer in self.whole.layers()
            if (title := _title(layer)).startswith(self.prefix) and title
        ]


def artifact(uri: str, rest: str, environ: Mapping[str, str], pinned: str = "") -> Artifact | None:
    """Return the file at `REGISTRY/REPOSITORY[:TAG][@DIGEST][#FILE]`, or None where this is none.

    A layer's digest is the sha256 of its bytes: where that is pinned, no tag is asked.
    """
    found = _ADDRESS.fullmatch(rest)
    if found is None:
        return None
    host, repository = found["host"], found["repository"]
    return Artifact(
        uri,
        Registry(uri, host, repository, authorization(uri, host, repository, environ), environ),
        repository,
        found["digest"] or found["tag"] or TAG,
        found["title"] or "",
        f"sha256:{pinned}" if pinned else "",
    )


def _title(layer: Json) -> str:
    annotations = layer.get("annotations")
    return str(annotations.get(TITLE, "")) if isinstance(annotations, dict) else ""


def _is_index(manifest: Json) -> bool:
    return manifest.get("mediaType") in _INDEXES or ("manifests" in manifest and "layers" not in manifest)


def _listed(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
