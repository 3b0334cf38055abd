"""Which images does the checkout give, and what has to be built again after a change?

Both are tagged with a hash of the sources that enter them, so a tag says what is inside and an unchanged
image is never built twice. Their third-party layer is an image of its own, named by the pinned list."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.engine import Engine
from tests.cluster.nodeimage import CA_BUNDLE
from tests.cluster.state import CHECKOUT, Cache, content_key
from tests.cluster.steps import Steps

_COMMON = ("pyproject.toml", "README.md", "LICENSE", "operator/evenkeel_operator", "runtime/evenkeel_runtime")


@dataclass(frozen=True)
class Product:
    side: str  # "operator" or "runtime"

    @property
    def dockerfile(self) -> Path:
        return CHECKOUT / self.side / "Dockerfile"

    def dependencies(self, base: str) -> str:
        # Of the Dockerfile only the part that makes this layer, so that a change of the rest costs no
        # download.
        recipe = self.dockerfile.read_text().partition(" AS code")[0].rpartition("\n\n")[0]
        pinned = CHECKOUT / self.side / "requirements.txt"
        return f"evenkeel/{self.side}-dependencies:{content_key(base, recipe, pinned)}"

    def context(self) -> bytes:
        """Only what the Dockerfile copies: the checkout has environments and caches of any size."""

        def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            if "__pycache__" in member.name or member.name.endswith(".pyc"):
                return None
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = 1_000_000_000  # the hash of the whole is the image's tag
            return member

        result = io.BytesIO()
        # Docker looks at the first 512 bytes to see whether it is an archive: the default format does not
        # pass.
        with tarfile.open(fileobj=result, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in (*_COMMON, f"{self.side}/Dockerfile", f"{self.side}/requirements.txt"):
                archive.add(CHECKOUT / name, arcname=name, filter=wanted)
        return result.getvalue()


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
                self._build(product, tag, product.context(), log, "--target=dependencies")
            self._forget_others(tag, keep=1)
        return tag

    def build(self, product: Product) -> str:
        """The sources are read once: somebody may be editing them."""
        self.build_dependencies(product)
        context = product.context()
        tag = f"evenkeel/{product.side}:{content_key(self.base(), context)}"
        if not self.engine.has_image(tag):
            with self.steps.step(f"image of the {product.side}") as log:
                self._build(product, tag, context, log)
            self._forget_others(tag, keep=3)
        return tag

    def _build(self, product: Product, tag: str, context: bytes, log: Path, *options: str) -> None:
        arguments = [f"--build-arg=PYTHON_IMAGE={self.base()}"]
        if self.engine.ours:
            arguments += [f"--build-arg={name}={CA_BUNDLE}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
        place = self.cache.folder("scratch") / f"context-{product.side}.tar"
        place.write_bytes(context)
        words = ["build", "--network=host", *arguments, *options]
        words += [f"--tag={tag}", f"--file={product.side}/Dockerfile", "-"]
        self.engine.run(*words, log=log, stdin=place)
        place.unlink()

    def _forget_others(self, tag: str, keep: int) -> None:
        """The newest few stay: going back to yesterday's branch should cost nothing."""
        repository = tag.partition(":")[0]
        tags = self.engine.ask("image", "ls", "--format={{.Repository}}:{{.Tag}}", repository).split()
        for older in tags[keep:]:
            self.engine.succeeds("rmi", older)
