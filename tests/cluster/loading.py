"""How do images get onto the nodes of a running cluster?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.engine import Engine
from tests.cluster.processes import run
from tests.cluster.product import Product, ProductImages
from tests.cluster.state import Cluster
from tests.cluster.steps import Steps
from tests.cluster.stores import Stores


@dataclass(frozen=True)
class Loader:
    engine: Engine
    steps: Steps
    images: ProductImages
    kind: Path

    def load(self, cluster: Cluster, products: Sequence[Product], stores: Stores | None) -> Cluster:
        """Returns the cluster with the references of its images, which all nodes that run ordinary pods then have."""
        with ThreadPoolExecutor() as pool:
            tags = list(pool.map(self.images.build, products))
        references = {product.side: tag for product, tag in zip(products, tags, strict=True)}
        return self.put(cluster, references, stores, cluster.schedulable)

    def put(
        self, cluster: Cluster, references: Mapping[str, str], stores: Stores | None, nodes: Sequence[str]
    ) -> Cluster:
        """The same for images that are built, by what they are for. Those that are there already cost nothing."""
        tags = [tag for side, tag in references.items() if cluster.images.get(side) != tag]
        if not tags:
            return cluster
        with self.steps.step(f"load {' '.join(tags)}") as log:
            if stores:
                self._link(cluster, tags, stores, nodes, log)
            else:
                self._copy(cluster, tags, nodes, log)
        return cluster.with_(images={**cluster.images, **references})

    def _link(self, cluster: Cluster, tags: list[str], stores: Stores, nodes: Sequence[str], log: Path) -> None:
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(stores.add, tags, node, stores.of_node(cluster.name, node), log) for node in nodes]
        for job in jobs:
            job.result()

    def _copy(self, cluster: Cluster, tags: list[str], nodes: Sequence[str], log: Path) -> None:
        options = (f"--name={cluster.name}", f"--nodes={','.join(nodes)}")
        run([self.kind, "load", "docker-image", *options, *tags], env=self.engine.env, log=log)
