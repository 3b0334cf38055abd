"""What is a node made of where kind's published node image cannot be pulled?

Debian by debootstrap, kind's entrypoint and units from kind's source module, our one Kubernetes binary, etcd,
CoreDNS. Every image is tagged with the content that enters it, so an unchanged one is found again."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import binaries, versions
from tests.cluster.binaries import PROGRAMS, Binaries
from tests.cluster.engine import Engine
from tests.cluster.processes import run
from tests.cluster.state import HERE, Cache, content_key
from tests.cluster.steps import Steps

NODE = HERE / "node"
REPOSITORY = "evenkeel-test"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
COMPONENT = f"docker.io/{REPOSITORY}/component:current"  # as default-cni.yaml names it


@dataclass(frozen=True)
class Images:
    """Builds images in one engine, each at most once per content."""

    cache: Cache
    engine: Engine
    steps: Steps
    binaries: Binaries
    _bases: threading.RLock = field(default_factory=threading.RLock)

    def debian(self) -> str:
        tag = f"{REPOSITORY}/debian:{versions.DEBIAN}"
        with self._bases:  # several images start from it, at the same time
            if not self.engine.has_image(tag):
                self._debootstrap(tag)
        return tag

    def _debootstrap(self, tag: str) -> None:
        with self.steps.step("Debian by debootstrap") as log, self._scratch() as folder:
            root = folder / "root"
            run(
                ["debootstrap", "--variant=minbase", "--include=ca-certificates", versions.DEBIAN, root],
                log=log,
            )
            for rubbish in root.glob("var/cache/apt/archives/*.deb"):
                rubbish.unlink()
            run(["tar", "-C", root, "-cf", folder / "root.tar", "."], log=log)
            self.engine.run("import", folder / "root.tar", tag, log=log)

    def python(self) -> str:
        """The base of the product images, where the published one cannot be pulled."""
        dockerfile = NODE / "python.Dockerfile"
        tag = f"{REPOSITORY}/python:{versions.PYTHON}-{content_key(dockerfile, CA_BUNDLE)}"
        with self._bases:
            bundle = {CA_BUNDLE.name: CA_BUNDLE}
            self._build("base of the product images", tag, dockerfile, {"BASE": self.debian}, bundle)
        return tag

    def node(self) -> str:
        parts = [NODE / name for name in ("base.Dockerfile", "node.Dockerfile", "pod-network.sh")]
        manifests = [NODE / "default-cni.yaml", NODE / "default-storage.yaml"]
        programs = [PROGRAMS[name].key for name in binaries.NODE]
        key = content_key(versions.KIND, *programs, *parts, *manifests)
        tag = f"{REPOSITORY}/node:{versions.KUBERNETES}-{key}"
        if self.engine.has_image(tag):
            return tag
        base = self._node_base()
        files = {name: self.binaries.path(name) for name in binaries.NODE}
        files["pod-network.sh"] = NODE / "pod-network.sh"
        for manifest in manifests:
            files[f"kind/manifests/{manifest.name}"] = manifest
        with self._scratch() as folder:
            (folder / "version").write_text(versions.KUBERNETES)
            files["kind/version"] = folder / "version"
            self._build("node image", tag, NODE / "node.Dockerfile", {"BASE": base}, files)
        return tag

    def components(self) -> tuple[str, ...]:
        """The images that kubeadm asks for, under the names by which it asks."""
        node = self.node()
        key = content_key(node, NODE / "component.Dockerfile", NODE / "coredns.Dockerfile")
        component, dns = f"{REPOSITORY}/component:{key}", f"{REPOSITORY}/coredns:{key}"
        self._build("component image", component, NODE / "component.Dockerfile", {"NODE": node}, {})
        self._build("CoreDNS image", dns, NODE / "coredns.Dockerfile", {"COMPONENT": component}, {})
        coredns = f"registry.k8s.io/coredns/coredns:{versions.COREDNS_TAG}"
        names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        tags = [f"registry.k8s.io/{name}:{versions.KUBERNETES}" for name in names]
        tags += [COMPONENT, f"registry.k8s.io/etcd:{versions.ETCD_TAG}"]
        self.engine.ask("tag", dns, coredns)
        for tag in tags:
            self.engine.ask("tag", component, tag)
        addons = self.addons()
        pauses = [f"registry.k8s.io/pause:{tag}" for tag in versions.PAUSE_TAGS]
        for tag in pauses:
            self.engine.ask("tag", addons, tag)
        return (coredns, *tags, *pauses, addons)

    def addons(self) -> str:
        dockerfile = NODE / "addons.Dockerfile"
        tag = addons_image()
        if not self.engine.has_image(tag):
            files = {name: self.binaries.path(name) for name in binaries.ADDONS}
            self._build("image of the add-ons", tag, dockerfile, {}, files)
        return tag

    def services(self) -> str:
        dockerfile = NODE / "services.Dockerfile"
        tag = services_image()
        if not self.engine.has_image(tag):
            files = {name: self.binaries.path(name) for name in binaries.SERVICES}
            self._build("image of KWOK, the S3 server and the metrics server", tag, dockerfile, {}, files)
        return tag

    def _node_base(self) -> str:
        dockerfile = NODE / "base.Dockerfile"
        tag = f"{REPOSITORY}/node-base:{versions.DEBIAN}-{content_key(versions.KIND, dockerfile)}"
        if not self.engine.has_image(tag):
            kind = self.binaries.module(f"sigs.k8s.io/kind@{versions.KIND}")
            files = {"files": kind / "images" / "base" / "files"}
            self._build("base of the node image", tag, dockerfile, {"BASE": self.debian()}, files)
        return tag

    def _build(
        self,
        title: str,
        tag: str,
        dockerfile: Path,
        arguments: Mapping[str, object],
        files: Mapping[str, Path],
    ) -> None:
        """Callables among the arguments are asked only when the image has to be built."""
        if self.engine.has_image(tag):
            return
        given = [f"--build-arg={key}={value() if callable(value) else value}" for key, value in arguments.items()]
        with self.steps.step(title) as log, self._scratch() as folder:
            for name, source in files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, target)
            build: list[str | Path] = [
                "build",
                "--network=host",
                "--force-rm",
                *given,
                f"--tag={tag}",
                f"--file={dockerfile}",
                folder,
            ]
            self.engine.run(*build, log=log)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.cache.folder("scratch")) as folder:
            yield Path(folder)


def addons_image() -> str:
    """Named by content: the manifests refer to it, whoever built it."""
    return _of_programs("addons", binaries.ADDONS)


def services_image() -> str:
    """Named by content, as that of the add-ons."""
    return _of_programs("services", binaries.SERVICES)


def _of_programs(name: str, programs: tuple[str, ...]) -> str:
    keys = [PROGRAMS[program].key for program in programs]
    return f"docker.io/{REPOSITORY}/{name}:{content_key(*keys, NODE / f'{name}.Dockerfile')}"
