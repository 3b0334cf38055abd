"""How does a node get 5 GB of images at no cost?

Layers are hard-linked, never copied: Docker's overlay2 and containerd's overlayfs keep a layer in the same
form, and neither writes to it once it is there. All that is imported is an image's description. Saving,
loading and unpacking would write 5 GB three times, on every node.

A *golden store* is a containerd data folder in the cache, filled once per set of images in a throw-away
container. A node starts with a copy of it, by hard links again, mounted at /var/lib/containerd; only its
databases are copied for real. A golden store may be deleted at any time, nodes keep their links."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import oci
from tests.cluster.engine import Engine
from tests.cluster.processes import CommandFailed, ask, run
from tests.cluster.state import Cache, content_key
from tests.cluster.steps import Steps

_CTR = ("ctr", "--namespace=k8s.io")
_SNAPSHOTS = Path("io.containerd.snapshotter.v1.overlayfs", "snapshots")
# Docker mounts its data folder onto itself, and no link leads out of a mount, even to the same disk. So it is
# unmounted for this one copy, in a mount namespace that ends with it.
_LINK_WITHOUT_MOUNT = (
    *("unshare", "--mount", "--propagation=private", "sh", "-c"),
    'umount --lazy "$1"; exec cp --archive --link "$2" "$3"',
    "link-layer",
)


@dataclass(frozen=True)
class Layer:
    """A layer of an image in Docker's store, and the name that containerd gives to it with all below it."""

    folder: Path
    diff: str
    chain: str
    parent: str


@dataclass(frozen=True)
class Stores:
    cache: Cache
    engine: Engine
    steps: Steps
    node_image: str

    def golden(self, kind: str, images: tuple[str, ...]) -> Path:
        identities = [f"{image}={_inspect(self.engine, image)['Id']}" for image in images]
        final = self.cache.folder("stores") / f"{kind}-{content_key(*identities)}"
        if final.exists():
            return final
        for older in final.parent.glob(f"*{kind}-*"):
            shutil.rmtree(older)
        with self.steps.step(f"golden store: {kind}") as log:
            beside = final.with_name(f".{final.name}")
            beside.mkdir()
            with self._containerd(beside, log) as container:
                self.add(images, container, beside, log)
            beside.replace(final)
        return final

    def of_node(self, cluster: str, node: str) -> Path:
        return self.cache.cluster(cluster) / "stores" / node

    def copy(self, golden: Path, target: Path, log: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "--archive", "--link", golden, target], log=log)
        for database in ask(["find", target, "-name", "*.db", "-type", "f"]).split():
            linked = Path(database)
            own = linked.with_name(f".{linked.name}")
            shutil.copy2(linked, own)
            own.replace(linked)

    def add(self, images: Iterable[str], container: str, data: Path, log: Path) -> None:
        """Gives the images to the containerd that runs in the container over the data folder."""
        described = {image: _inspect(self.engine, image) for image in images}
        listing = self.engine.ask("exec", container, *_CTR, "snapshots", "ls").splitlines()[1:]
        present = {line.split()[0] for line in listing if line.strip()}
        for layer in (layer for one in described.values() for layer in _layers(one)):
            if layer.chain not in present:
                self._link(layer, container, data, present, log)
                present.add(layer.chain)
        description = data / ".description.tar"
        oci.write(described, description)
        importing = ("exec", "--interactive", container, *_CTR, "images", "import", "-")
        self.engine.run(*importing, log=log, stdin=description)
        description.unlink()

    def _link(self, layer: Layer, container: str, data: Path, present: set[str], log: Path) -> None:
        snapshots = ("exec", container, *_CTR, "snapshots")
        key = f"linking-{layer.chain}"
        if key in present:  # an earlier attempt was interrupted
            self.engine.run(*snapshots, "rm", key, log=log)
        mounts = json.loads(self.engine.ask(*snapshots, "prepare", "--mounts", key, layer.parent))
        folder = data / _SNAPSHOTS / _number(mounts[0]) / "fs"
        run([*_LINK_WITHOUT_MOUNT, layer.folder.parents[2], f"{layer.folder}/.", folder], log=log)
        self.engine.run(*snapshots, "commit", layer.chain, key, log=log)

    @contextmanager
    def _containerd(self, data: Path, log: Path) -> Iterator[str]:
        container = f"evenkeel-store-{os.getpid()}"
        options = ("--privileged", "--network=none", f"--volume={data}:/var/lib/containerd", "--entrypoint=sleep")
        self.engine.run("run", "--detach", "--rm", f"--name={container}", *options, self.node_image, "7200", log=log)
        try:
            self.engine.run("exec", "--detach", container, "containerd", log=log)
            self._wait(container, ("ctr", "version"), until=True)
            yield container
            self.engine.run("exec", container, "pkill", "-x", "containerd", log=log)
            # Its databases are whole only when it has ended.
            self._wait(container, ("pgrep", "-x", "containerd"), until=False)
        finally:
            self.engine.succeeds("rm", "--force", container)

    def _wait(self, container: str, command: tuple[str, ...], *, until: bool) -> None:
        deadline = time.monotonic() + 30
        while self.engine.succeeds("exec", container, *command) is not until:
            if time.monotonic() > deadline:
                raise CommandFailed(command, 1, "the containerd of the golden store neither answers nor ends")
            time.sleep(0.2)


def _inspect(engine: Engine, image: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(engine.ask("image", "inspect", image))
    return found[0]


def _layers(described: dict[str, Any]) -> list[Layer]:
    """From the bottom up, as Docker describes them."""
    places = described["GraphDriver"]["Data"]
    below = [folder for folder in places.get("LowerDir", "").split(":") if folder]
    folders = [*reversed(below), places["UpperDir"]]
    result: list[Layer] = []
    parent = ""
    for folder, diff in zip(folders, described["RootFS"]["Layers"], strict=True):
        chain = "sha256:" + hashlib.sha256(f"{parent} {diff}".encode()).hexdigest() if parent else diff
        result.append(Layer(Path(folder), diff, chain, parent))
        parent = chain
    return result


def _number(mount: dict[str, Any]) -> str:
    """Of the snapshot: the folder that a first layer binds, or the upper one of an overlay."""
    upper = [option.removeprefix("upperdir=") for option in mount["Options"] if option.startswith("upperdir=")]
    return Path(upper[0] if upper else mount["Source"]).parent.name
