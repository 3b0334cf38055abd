"""How does an image get into a node past 5 GB that are there already?

By an archive without the layers that the node's containerd has unpacked: they are named by digest, and that
is enough. Only a top layer that is new travels along. An ordinary `docker save` would write all of it, a
`kind load` read it again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


@dataclass(frozen=True)
class Image:
    """An image as Docker describes it; with a top layer, that stands for all above the layers of `below`."""

    name: str
    described: Mapping[str, Any]
    below: Mapping[str, Any] | None = None
    top: bytes = b""

    @property
    def diffs(self) -> list[str]:
        return list((self.below or self.described)["RootFS"]["Layers"])


def write(images: Sequence[Image], sizes: Mapping[str, int], target: Path) -> None:
    """`sizes` is of the layers that stay out: nobody reads them, but the kubelet reports the sum."""
    blobs: dict[str, bytes] = {}
    manifests = []
    for image in images:
        present = [{"mediaType": LAYER, "digest": diff, "size": sizes[diff]} for diff in image.diffs]
        new = [_keep(blobs, LAYER, image.top)] if image.top else []
        config = {
            "architecture": image.described["Architecture"],
            "os": image.described["Os"],
            "created": image.described["Created"],
            "config": image.described["Config"],
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in (*present, *new)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _keep(blobs, CONFIG, json.dumps(config).encode()),
            "layers": [*present, *new],
        }
        name = full_name(image.name)
        annotations = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        entry = _keep(blobs, MANIFEST, json.dumps(manifest).encode())
        manifests.append({**entry, "annotations": annotations})
    beside = target.with_name(f".{target.name}")
    with tarfile.open(beside, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
        for digest, blob in blobs.items():
            _add(archive, f"blobs/{digest.replace(':', '/')}", blob)
    beside.replace(target)


def layer(copied: bytes, parent: str) -> bytes:
    """What `docker cp CONTAINER:/parent/folder -` wrote, as a layer: rooted at /, owned by root."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(copied)) as source, tarfile.open(fileobj=result, mode="w") as target:
        for member in sorted(source.getmembers(), key=lambda one: one.name):
            content = source.extractfile(member) if member.isfile() else None
            member.name = f"{parent}/{member.name}"
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            target.addfile(member, content)
    return result.getvalue()


def full_name(image: str) -> str:
    """`a/b:c` as containerd spells it."""
    registry = image.split("/")[0]
    return image if "." in registry or ":" in registry else f"docker.io/{image}"


def _keep(blobs: dict[str, bytes], media_type: str, blob: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    blobs[digest] = blob
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
