"""Where do the programs come from where only source modules can be had?

Each is kept under a key of its version and sources, written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import toolchain, versions
from tests.cluster.processes import ask, run
from tests.cluster.state import HERE, Cache, content_key
from tests.cluster.steps import Steps

SOURCES = HERE / "go"
STRIPPED = "-s -w"
_KUBERNETES_STAMP = " ".join(
    f"-X {package}.gitVersion={versions.KUBERNETES}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)


@dataclass(frozen=True)
class Program:
    """A package of one of the modules below go/, or, without a module, one that is published as installable."""

    name: str
    package: str
    module: str = ""
    linking: str = STRIPPED

    @property
    def key(self) -> str:
        return content_key(self.package, self.linking, SOURCES / self.module if self.module else "")


# What fits this version of Kubernetes is built from one module, so that its libraries are compiled once: that is most
# of the work. The longest first; what shares most with it comes late, when that has been compiled.
PROGRAMS = {
    program.name: program
    for program in (
        Program("kubernetes", "./kubernetes", "node", f"{STRIPPED} {_KUBERNETES_STAMP}"),
        Program("kind", f"sigs.k8s.io/kind@{versions.KIND}"),
        Program("pause", "./pause", "addons"),
        Program("deviceplugin", "./deviceplugin", "addons"),
        Program("provisioner", "./provisioner", "addons"),
        Program("etcd", "./etcd", "node"),
        Program("coredns", "./coredns", "node"),
        Program("helm", "helm.sh/helm/v3/cmd/helm", "node"),
        Program("kwok", f"sigs.k8s.io/kwok/cmd/kwok@{versions.KWOK}"),
        Program("versitygw", f"github.com/versity/versitygw/cmd/versitygw@{versions.VERSITYGW}"),
        Program("metrics-server", f"sigs.k8s.io/metrics-server/cmd/metrics-server@{versions.METRICS_SERVER}"),
    )
}
ADDONS = ("pause", "deviceplugin", "provisioner")
SERVICES = ("kwok", "versitygw", "metrics-server")
NODE = ("kubernetes", "etcd", "coredns")


class Binaries:
    """Builds programs in the background; `path` waits for one of them."""

    def __init__(self, cache: Cache, steps: Steps) -> None:
        self._cache = cache
        self._steps = steps
        # Two at once: one alone leaves a core idle while it loads and links.
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._building: dict[str, Future[Path]] = {}

    def start(self, names: tuple[str, ...]) -> None:
        ordered = [name for name in PROGRAMS if name in names and name not in self._building]
        for name in ordered:
            self._building[name] = self._pool.submit(self._build, PROGRAMS[name])

    def has(self, name: str) -> bool:
        return self._place(PROGRAMS[name]).exists()

    def path(self, name: str) -> Path:
        self.start((name,))
        return self._building[name].result()

    @contextmanager
    def forgetting_intermediates(self) -> Iterator[None]:
        """Removes, meanwhile, the compiler's caches: 9 GB that only a change of versions would use again.

        What is built must have been started, and no module may be asked for inside.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            removed = pool.submit(self._remove_caches)
            yield
            removed.result()

    def _remove_caches(self) -> None:
        for future in self._building.values():
            future.result()
        folders = [self._cache.root / "go" / name for name in ("build", "mod")]
        if any(folder.exists() for folder in folders):
            with self._steps.step("remove the compiler's caches") as log:
                run(["nice", "rm", "-rf", *folders], log=log)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def module(self, module: str) -> Path:
        """The folder of a downloaded source module."""
        with self._steps.step(f"module {module}") as log:
            go = toolchain.go(self._cache, log)
            answer = ask(
                [go, "mod", "download", "-json", module],
                env=toolchain.environment(self._cache),
                cwd=SOURCES / "addons",
            )
        return Path(json.loads(answer)["Dir"])

    def _build(self, program: Program) -> Path:
        final = self._place(program)
        if final.exists():
            return final
        with self._steps.step(f"build {program.name}") as log:
            go = toolchain.go(self._cache, log)
            beside = self._cache.root / "binaries" / f".{final.name}.{os.getpid()}"
            flags = ["-trimpath", "-ldflags", program.linking]
            env = toolchain.environment(self._cache)
            if program.module:
                # Everything waits for Kubernetes: the others take what it leaves.
                first: list[str] = [] if program.name == "kubernetes" else ["nice"]
                command: list[str | Path] = [*first, go, "build", *flags, "-o", beside, program.package]
                run(command, log=log, env=env, cwd=SOURCES / program.module)
            else:
                folder = self._cache.folder("binaries", f".install-{program.name}")
                run(
                    ["nice", go, "install", *flags, program.package],
                    log=log,
                    env={**env, "GOBIN": str(folder)},
                )
                (folder / program.name).replace(beside)
                shutil.rmtree(folder)
            beside.replace(final)
        self._forget_older(program, final)
        return final

    def _place(self, program: Program) -> Path:
        return self._cache.folder("binaries") / f"{program.name}-{program.key}"

    def _forget_older(self, program: Program, final: Path) -> None:
        for other in final.parent.glob(f"{program.name}-*"):
            if other != final and len(other.name) == len(final.name):
                other.unlink()


def tool(name: str) -> str:
    """A program by itself, for tests without a cluster: as `up` linked it, or built now."""
    cache = Cache.of_environment()
    if (linked := cache.bin / name).exists():
        return str(linked)
    with cache.locked():
        built = Binaries(cache, Steps(cache.folder("logs"), quiet=True))
        try:
            return str(built.path(name))
        finally:
            built.close()


def link(cache: Cache, name: str, target: Path) -> Path:
    """Puts a program on the PATH that `shell` and `env` give."""
    place = cache.bin / name
    beside = cache.bin / f".{name}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(place)
    return place
