"""How is an image described to a containerd that has its layers already?

By an archive without layers: the manifest names them by digest, and that is enough.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


def write(images: Mapping[str, Mapping[str, Any]], target: Path) -> None:
    """The images by name, each as `docker image inspect` describes it."""
    blobs: dict[str, bytes] = {}
    manifests = [_image(name, described, blobs) for name, described in images.items()]
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
        for digest, blob in blobs.items():
            _add(archive, f"blobs/{digest.replace(':', '/')}", blob)


def _image(name: str, described: Mapping[str, Any], blobs: dict[str, bytes]) -> dict[str, Any]:
    diffs = described["RootFS"]["Layers"]
    config = {
        "architecture": described["Architecture"],
        "os": described["Os"],
        "created": described["Created"],
        "config": described["Config"],
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    # Nobody reads a layer's size, but the kubelet reports the sum: all of it is put on the first.
    sizes = [described["Size"]] + [0] * (len(diffs) - 1)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _keep(blobs, CONFIG, config),
        "layers": [{"mediaType": LAYER, "digest": diff, "size": size} for diff, size in zip(diffs, sizes, strict=True)],
    }
    full = full_name(name)
    annotations = {"io.containerd.image.name": full, "org.opencontainers.image.ref.name": full.rpartition(":")[2]}
    return {**_keep(blobs, MANIFEST, manifest), "annotations": annotations}


def full_name(image: str) -> str:
    """`a/b:c` as containerd spells it."""
    registry = image.split("/")[0]
    return image if "." in registry or ":" in registry else f"docker.io/{image}"


def _keep(blobs: dict[str, bytes], media_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
    blob = json.dumps(content).encode()
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    blobs[digest] = blob
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
