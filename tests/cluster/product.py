"""Which images does the checkout give, and what has to be built again after a change?

Both are tagged with a hash of the sources that enter them, so a tag says what is inside and an unchanged
image is never built twice. Their third-party layer is an image of its own, named by the pinned list."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import oci
from tests.cluster.engine import Engine
from tests.cluster.nodeimage import CA_BUNDLE
from tests.cluster.processes import CommandFailed, run
from tests.cluster.state import CHECKOUT, Cache, content_key
from tests.cluster.steps import Steps
from tests.cluster.stores import Stores, full_name

CODE = "/opt/evenkeel"
_COMMON = ("pyproject.toml", "README.md", "LICENSE", "operator/evenkeel_operator", "runtime/evenkeel_runtime")


@dataclass(frozen=True)
class Product:
    side: str  # "operator" or "runtime"

    @property
    def dockerfile(self) -> Path:
        return CHECKOUT / self.side / "Dockerfile"

    @property
    def requirements(self) -> Path:
        return CHECKOUT / self.side / "requirements.txt"

    def dependencies(self, base: str) -> str:
        # Of the Dockerfile only the part that makes this layer, so that a change of the rest costs no
        # download.
        recipe = self.dockerfile.read_text().partition(" AS code")[0].rpartition("\n\n")[0]
        return f"evenkeel/{self.side}-dependencies:{content_key(base, recipe, self.requirements)}"

    def image(self, base: str) -> str:
        sources = [CHECKOUT / name for name in _COMMON]
        return f"evenkeel/{self.side}:{content_key(base, self.dockerfile, self.requirements, *sources)}"


OPERATOR = Product("operator")
RUNTIME = Product("runtime")


@dataclass(frozen=True)
class ProductImages:
    cache: Cache
    engine: Engine
    steps: Steps
    base: Callable[[], str]  # the Python image to start from; asked for only when something is built

    def build_dependencies(self, product: Product) -> str:
        tag = product.dependencies(self.base())
        if not self.engine.has_image(tag):
            with self.steps.step(f"dependencies of the {product.side}") as log:
                self._build(product, tag, log, "--target=dependencies")
            self._forget_others(tag, keep=1)
        return tag

    def build(self, product: Product) -> str:
        self.build_dependencies(product)
        tag = product.image(self.base())
        if not self.engine.has_image(tag):
            with self.steps.step(f"image of the {product.side}") as log:
                self._build(product, tag, log)
            self._forget_others(tag, keep=3)
        return tag

    def thin_archive(self, product: Product, stores: Stores, golden: Path) -> Path:
        """The image without the layers that the golden store has."""
        tag = self.build(product)
        dependencies = self.build_dependencies(product)
        target = (
            self.cache.folder("archives") / f"{tag.replace('/', '-').replace(':', '-')}-{golden.name}.tar"
        )
        if target.exists():
            return target
        for older in target.parent.glob(f"evenkeel-{product.side}-*.tar"):
            older.unlink()
        oci.thin_archive(
            name=full_name(tag),
            inspected=self._inspect(tag),
            below=dict(stores.manifest(golden, dependencies)),
            below_diffs=self._inspect(dependencies)["RootFS"]["Layers"],
            top=oci.layer(self._copy_out(tag, CODE), str(Path(CODE).parent).strip("/")),
            target=target,
        )
        return target

    def _build(self, product: Product, tag: str, log: Path, *options: str) -> None:
        arguments = [f"--build-arg=PYTHON_IMAGE={self.base()}"]
        if self.engine.ours:
            arguments += [f"--build-arg={name}={CA_BUNDLE}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        context = self.cache.folder("scratch") / f"context-{product.side}.tar"
        _write_context(product, context)
        words = [
            "build",
            "--network=host",
            *arguments,
            *options,
            f"--tag={tag}",
            f"--file={product.side}/Dockerfile",
        ]
        run([self.engine.docker, *words, "-"], env=self.engine.env, log=log, stdin=context)
        context.unlink()

    def _inspect(self, tag: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.engine.ask("image", "inspect", tag))
        return found[0]

    def _copy_out(self, tag: str, folder: str) -> bytes:
        container = self.engine.ask("create", "--network=none", tag).strip()
        try:
            command = [self.engine.docker, "cp", f"{container}:{folder}", "-"]
            done = subprocess.run(command, env=dict(self.engine.env), capture_output=True, check=False)
            if done.returncode:
                raise CommandFailed(command, done.returncode, done.stderr.decode(errors="replace"))
            return done.stdout
        finally:
            self.engine.succeeds("rm", container)

    def _forget_others(self, tag: str, keep: int) -> None:
        """The newest few stay: going back to yesterday's branch should cost nothing."""
        repository = tag.partition(":")[0]
        tags = self.engine.ask("image", "ls", "--format={{.Repository}}:{{.Tag}}", repository).split()
        for older in tags[keep:]:
            self.engine.succeeds("rmi", older)


def _write_context(product: Product, target: Path) -> None:
    """Only what the Dockerfile copies: the checkout has environments and caches of any size."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name or member.name.endswith(".pyc") else member

    # Docker looks at the first 512 bytes to see whether it is an archive, and does not know the default
    # format there.
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in (*_COMMON, f"{product.side}/Dockerfile", f"{product.side}/requirements.txt"):
            archive.add(CHECKOUT / name, arcname=name, filter=wanted)
