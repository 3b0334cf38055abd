"""How does a node start with 5 GB of images at no cost?

A *golden store* is a containerd data folder in the cache with every image unpacked, made once per set of
images in a throw-away container. A node gets a copy of it by hard links, mounted at /var/lib/containerd. That
is safe: containerd never writes to a layer or a blob once it is there, it only adds and removes files. The
exception are its databases, which are copied for real. A golden store may be deleted at any time, nodes keep
their links.

The layers enter by hard links, too: Docker's overlay2 and containerd's overlayfs keep a layer in the same
form. Saving and importing would write 5 GB three times. All that is imported is each image's description."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import oci
from tests.cluster.engine import Engine
from tests.cluster.processes import CommandFailed, ask, run
from tests.cluster.state import Cache, content_key, write_atomically
from tests.cluster.steps import Steps

CTR = ("ctr", "--namespace=k8s.io")
# Docker mounts its data folder onto itself, and no link leads out of a mount, even to the same disk.
# So it is unmounted for this one copy, in a mount namespace that ends with it.
_WITHOUT_MOUNT = (
    *("unshare", "--mount", "--propagation=private", "sh", "-c"),
    'umount --lazy "$1"; exec cp --archive --link "$2" "$3"',
    "link-layer",
)
_SNAPSHOTS = Path("io.containerd.snapshotter.v1.overlayfs", "snapshots")


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
        described = {image: inspect(self.engine, image) for image in images}
        identities = [f"{image}={content['Id']}" for image, content in described.items()]
        final = self.cache.folder("stores") / f"{kind}-{content_key(*identities)}"
        if final.exists():
            return final
        for older in final.parent.glob(f"*{kind}-*"):
            shutil.rmtree(older)
        with self.steps.step(f"golden store: {kind}") as log:
            beside = final.with_name(f".{final.name}")
            (beside / "containerd").mkdir(parents=True)
            self._fill(beside, described, log)
            beside.replace(final)
        return final

    def copy(self, golden: Path, target: Path, log: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "--archive", "--link", golden / "containerd", target], log=log)
        for database in ask(["find", target, "-name", "*.db", "-type", "f"]).split():
            linked = Path(database)
            own = linked.with_name(f".{linked.name}")
            shutil.copy2(linked, own)
            own.replace(linked)

    def sizes(self, golden: Path) -> dict[str, int]:
        """Of the layers that the store has unpacked, by digest."""
        content: dict[str, int] = json.loads((golden / "sizes.json").read_text())
        return content

    def _fill(self, store: Path, images: dict[str, dict[str, Any]], log: Path) -> None:
        sizes: dict[str, int] = {}
        descriptions = store / "images.tar"
        with self._containerd(store / "containerd", log) as container:
            for described in images.values():
                for layer in layers(described):
                    if layer.diff not in sizes:
                        sizes[layer.diff] = int(ask(["du", "--bytes", "--summarize", layer.folder]).split()[0])
                    self._link(layer, container, store / "containerd", log)
            oci.write([oci.Image(name, described) for name, described in images.items()], sizes, descriptions)
            importing = ("exec", "--interactive", container, *CTR, "images", "import", "-")
            self.engine.run(*importing, log=log, stdin=descriptions)
        descriptions.unlink()
        write_atomically(store / "sizes.json", json.dumps(sizes))

    def _link(self, layer: Layer, container: str, data: Path, log: Path) -> None:
        snapshots = (*CTR, "snapshots")
        if self.engine.succeeds("exec", container, *snapshots, "info", layer.chain):
            return
        key = f"filling-{layer.chain}"
        answer = self.engine.ask("exec", container, *snapshots, "prepare", "--mounts", key, layer.parent)
        folder = data / _SNAPSHOTS / _number(json.loads(answer)[0]) / "fs"
        run([*_WITHOUT_MOUNT, layer.folder.parents[2], f"{layer.folder}/.", folder], log=log)
        self.engine.run("exec", container, *snapshots, "commit", layer.chain, key, log=log)

    @contextmanager
    def _containerd(self, data: Path, log: Path) -> Iterator[str]:
        container = f"evenkeel-store-{os.getpid()}"
        options = (
            "--privileged",
            "--network=none",
            f"--volume={data}:/var/lib/containerd",
            "--entrypoint=sleep",
        )
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


def inspect(engine: Engine, image: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(engine.ask("image", "inspect", image))
    return found[0]


def layers(described: dict[str, Any]) -> list[Layer]:
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
