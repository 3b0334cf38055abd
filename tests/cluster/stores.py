"""How does a node start with 5 GB of images at no cost?

A *golden store* is a containerd data folder in the cache with every image imported and unpacked, made once
per set of images in a throw-away container. A node gets a copy of it by hard links, mounted at
/var/lib/containerd. That is safe: containerd never writes to a layer or a blob once it is there, it only
removes or adds files. The exception are its databases, which are copied for real. A golden store may be
deleted at any time, nodes keep their links."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.engine import Engine
from tests.cluster.processes import CommandFailed, ask, pipe, run
from tests.cluster.state import Cache, content_key, write_atomically
from tests.cluster.steps import Steps

CTR = ("ctr", "--namespace=k8s.io")
_LARGE = 64 << 20


@dataclass(frozen=True)
class Stores:
    cache: Cache
    engine: Engine
    steps: Steps
    node_image: str

    def golden(self, kind: str, images: tuple[str, ...], base: Path | None = None) -> Path:
        """The store that holds the images besides those of the base."""
        identities = [f"{image}={self._identity(image)}" for image in images]
        key = content_key(base.name if base else "", *identities)
        final = self.cache.folder("stores") / f"{kind}-{key}"
        if final.exists():
            return final
        for older in final.parent.glob(f"*{kind}-*"):
            shutil.rmtree(older)
        with self.steps.step(f"golden store: {kind}") as log:
            beside = final.with_name(f".{final.name}")
            if base:
                hard_link_copy(base, beside, log)
            else:
                beside.mkdir()
            self._import(images, beside, log)
            beside.replace(final)
        return final

    def copy(self, golden: Path, target: Path, log: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        hard_link_copy(golden / "containerd", target, log)

    def manifest(self, golden: Path, image: str) -> dict[str, object]:
        content: dict[str, object] = json.loads((golden / "manifests.json").read_text())[image]
        return content

    def _identity(self, image: str) -> str:
        return self.engine.ask("image", "inspect", "--format={{.Id}}", image).strip()

    def _import(self, images: tuple[str, ...], store: Path, log: Path) -> None:
        data = store / "containerd"
        data.mkdir(exist_ok=True)
        container = f"evenkeel-store-{os.getpid()}"
        options = [
            "--privileged",
            "--network=none",
            f"--volume={data}:/var/lib/containerd",
            "--entrypoint=sleep",
        ]
        self.engine.run(
            "run", "--detach", "--rm", f"--name={container}", *options, self.node_image, "7200", log=log
        )
        try:
            self.engine.run("exec", "--detach", container, "containerd", log=log)
            self._wait_for_containerd(container)
            docker = [self.engine.docker]
            pipe(
                [*docker, "save", *images],
                [*docker, "exec", "--interactive", container, *CTR, "images", "import", "-"],
                log=log,
                env=self.engine.env,
            )
            manifests = self._manifests(container, images, store)
            self._drop_large_blobs(container, manifests)
            self.engine.run("exec", container, "pkill", "-x", "containerd", log=log)
            self._wait_for_end(container)
        finally:
            self.engine.succeeds("rm", "--force", container)
        # Dropped from the database, but the files would go only at the next start of a containerd, on every
        # node.
        for manifest in manifests.values():
            for digest in _large_layers(manifest):
                (data / "io.containerd.content.v1.content" / "blobs" / digest.replace(":", "/")).unlink(
                    missing_ok=True
                )
        write_atomically(store / "manifests.json", json.dumps(manifests))

    def _manifests(
        self, container: str, images: tuple[str, ...], store: Path
    ) -> dict[str, dict[str, object]]:
        """What `oci` builds on: the manifest of each image, as containerd stored it."""
        earlier = store / "manifests.json"
        manifests = json.loads(earlier.read_text()) if earlier.exists() else {}
        listing = self.engine.ask("exec", container, *CTR, "images", "ls").splitlines()[1:]
        digests = {line.split()[0]: line.split()[2] for line in listing if line.strip()}
        for image in images:
            stored = self.engine.ask("exec", container, *CTR, "content", "get", digests[full_name(image)])
            manifests[image] = json.loads(stored)
        return dict(manifests)

    def _drop_large_blobs(self, container: str, manifests: dict[str, dict[str, object]]) -> None:
        """A layer that is unpacked is never read again: half of the store's size."""
        large = sorted({digest for manifest in manifests.values() for digest in _large_layers(manifest)})
        if large:
            self.engine.succeeds("exec", container, *CTR, "content", "rm", *large)

    def _wait_for_containerd(self, container: str) -> None:
        deadline = time.monotonic() + 30
        while not self.engine.succeeds("exec", container, "ctr", "version"):
            if time.monotonic() > deadline:
                raise CommandFailed(["containerd"], 1, "does not answer in the throw-away container")
            time.sleep(0.2)

    def _wait_for_end(self, container: str) -> None:
        deadline = time.monotonic() + 30
        while self.engine.succeeds("exec", container, "pgrep", "-x", "containerd"):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    ["containerd"], 1, "does not end: its database would be copied half-written"
                )
            time.sleep(0.2)


def full_name(image: str) -> str:
    """`a/b:c` as containerd spells it."""
    first = image.split("/")[0]
    return image if "." in first or ":" in first else f"docker.io/{image}"


def hard_link_copy(source: Path, target: Path, log: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    run(["cp", "--archive", "--link", source, target], log=log)
    for database in ask(["find", target, "-name", "*.db", "-type", "f"]).split():
        linked = Path(database)
        own = linked.with_name(f".{linked.name}")
        shutil.copy2(linked, own)
        own.replace(linked)


def _large_layers(manifest: dict[str, object]) -> list[str]:
    layers = manifest["layers"]
    assert isinstance(layers, list)
    return [layer["digest"] for layer in layers if layer["size"] > _LARGE]
