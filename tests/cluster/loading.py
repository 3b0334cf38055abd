"""How do the product's images get onto the nodes of a running cluster?"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.engine import Engine
from tests.cluster.processes import run
from tests.cluster.product import Product, ProductImages
from tests.cluster.state import Cluster
from tests.cluster.steps import Steps
from tests.cluster.stores import CTR, Stores


@dataclass(frozen=True)
class Loader:
    engine: Engine
    steps: Steps
    images: ProductImages
    kind: Path

    def load(
        self, cluster: Cluster, products: Iterable[Product], stores: Stores | None, golden: Path | None
    ) -> Cluster:
        """The cluster with the references of its images. Nodes of a golden store get the top layer only."""
        with ThreadPoolExecutor() as pool:
            built = list(pool.map(self.images.build, products))
            references = {one.product.side: one.tag for one in built}
            if all(cluster.images.get(side) == tag for side, tag in references.items()):
                return cluster
            tags = list(references.values())
            if stores and golden:
                archives = [self.images.archive(one, stores, golden) for one in built]
                with self.steps.step(f"load {' '.join(tags)}") as log:
                    jobs = [
                        pool.submit(self._import, node, archive, log)
                        for node in cluster.schedulable
                        for archive in archives
                    ]
                    for job in jobs:
                        job.result()
            else:
                with self.steps.step(f"load {' '.join(tags)}") as log:
                    self._load_whole(cluster, tags, log)
        return cluster.with_(images={**cluster.images, **references})

    def _import(self, node: str, archive: Path, log: Path) -> None:
        words = ("exec", "--interactive", node, *CTR, "images", "import", "-")
        self.engine.run(*words, log=log, stdin=archive)

    def _load_whole(self, cluster: Cluster, tags: list[str], log: Path) -> None:
        nodes = ",".join(cluster.schedulable)
        command: list[str | Path] = [
            self.kind,
            "load",
            "docker-image",
            f"--name={cluster.name}",
            f"--nodes={nodes}",
            *tags,
        ]
        run(command, env=self.engine.env, log=log)
