"""How does a changed program get into a node in a second, past 5 GB of dependencies that have not changed?

An image archive that carries its top layer only: the layers below are named by digest, and the node's
containerd has them unpacked. An ordinary `docker save` would write and a `kind load` read all of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


def thin_archive(
    *,
    name: str,
    inspected: dict[str, Any],
    below: dict[str, Any],
    below_diffs: list[str],
    top: bytes,
    target: Path,
) -> None:
    """`inspected` is Docker's description of the image, `below` the stored manifest of what it stands on."""
    config = {
        "architecture": inspected["Architecture"],
        "os": inspected["Os"],
        "created": inspected["Created"],
        "config": inspected["Config"],
        "rootfs": {"type": "layers", "diff_ids": [*below_diffs, _digest(top)]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, config_blob),
        "layers": [*below["layers"], _descriptor(LAYER, top)],
    }
    manifest_blob = json.dumps(manifest).encode()
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [{**_descriptor(MANIFEST, manifest_blob), "annotations": annotations}],
    }
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    for blob in (top, config_blob, manifest_blob):
        files[f"blobs/{_digest(blob).replace(':', '/')}"] = blob
    beside = target.with_name(f".{target.name}")
    with tarfile.open(beside, "w") as archive:
        for path, content in files.items():
            _add(archive, path, content)
    beside.replace(target)


def layer(copied: bytes, parent: str) -> bytes:
    """What `docker cp IMAGE:/parent/folder -` wrote, as a layer: rooted at /, owned by root."""
    result = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(copied)) as source, tarfile.open(fileobj=result, mode="w") as target:
        for member in sorted(source.getmembers(), key=lambda one: one.name):
            content = source.extractfile(member) if member.isfile() else None
            member.name = f"{parent}/{member.name}"
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            target.addfile(member, content)
    return result.getvalue()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
