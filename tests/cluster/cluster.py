"""In which order does a cluster come up, go down, and get images?"""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import addons, binaries, engine, packages, s3, state, topology, versions
from tests.cluster.binaries import Binaries
from tests.cluster.engine import Engine, OwnEngine
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.loading import Loader
from tests.cluster.nodeimage import Images, addons_image, services_image
from tests.cluster.processes import CommandFailed, run
from tests.cluster.product import OPERATOR, RUNTIME, Product, ProductImages
from tests.cluster.state import Cache, Cluster
from tests.cluster.steps import StepFailed, Steps
from tests.cluster.stores import Stores
from tests.cluster.topology import Topology

PYTHON_IMAGE = f"docker.io/library/python:{versions.PYTHON}-slim-{versions.DEBIAN}"


@dataclass(frozen=True)
class Wish:
    """What `up` was asked for."""

    name: str
    workers: int = 2
    runtime: bool = True
    services: bool = True  # KWOK, the S3 server, the metrics server
    load: bool = True
    kwok_stages: tuple[Path, ...] = ()
    build: bool = False  # even where the published images could be had

    @property
    def products(self) -> tuple[Product, ...]:
        return (OPERATOR, RUNTIME) if self.runtime else (OPERATOR,)

    @property
    def programs(self) -> tuple[str, ...]:
        return ("kind", "helm", *binaries.ADDONS, *(binaries.SERVICES if self.services else ()))


@dataclass(frozen=True)
class Workshop:
    """An engine, and what is made with it."""

    cache: Cache
    steps: Steps
    engine: Engine
    binaries: Binaries
    images: Images
    product: ProductImages

    @classmethod
    def on(cls, cache: Cache, steps: Steps, engine: Engine, binaries: Binaries) -> Workshop:
        images = Images(cache, engine, steps, binaries)
        base = images.python if engine.ours else lambda: PYTHON_IMAGE
        return cls(cache, steps, engine, binaries, images, ProductImages(cache, engine, steps, base))

    @property
    def loader(self) -> Loader:
        return Loader(self.engine, self.steps, self.product, self.binaries.path("kind"))

    def kind(self, *words: str, log: Path) -> None:
        run([self.binaries.path("kind"), *words], env=self.engine.env, log=log)


def up(wish: Wish, cache: Cache, steps: Steps) -> Cluster:
    """Idempotent: what is whole is kept, what is missing made, a cluster that does not answer replaced."""
    built = Binaries(cache, steps)
    try:
        shop = _open(wish, cache, steps, built)
        images = node_images(shop, wish) if shop.engine.ours else None
        stages = addons.kwok_stages(cache, built) if wish.services else None
        with built.forgetting_intermediates():
            cluster = _running(shop, wish, images)
            if cluster is None:
                cluster = _create(shop, wish, images)
            cluster = _equip(shop, wish, cluster, images, stages)
            if wish.load:
                cluster = _load(shop, cluster, wish.products, images)
        state.write(cluster, cache)
        return cluster
    finally:
        built.close()


def load(name: str, cache: Cache, steps: Steps) -> Cluster:
    """Builds the product's images from the checkout as it is, and puts them where pods run."""
    cluster = state.read(name, cache)
    built = Binaries(cache, steps)
    try:
        own = cluster.origin == "built"
        client = OwnEngine(cache).client if own else engine.of_environment()
        shop = Workshop.on(cache, steps, client, built)
        wish = Wish(name, workers=len(cluster.workers), runtime=cluster.runtime)
        images = node_images(shop, wish) if own else None
        cluster = _load(shop, cluster, wish.products, images)
        state.write(cluster, cache)
        return cluster
    finally:
        built.close()


def down(name: str, cache: Cache, steps: Steps) -> None:
    """Ends the cluster and, with the last one, the engine. Succeeds when there is nothing to end."""
    own = OwnEngine(cache)
    folder = cache.root / "clusters" / name
    try:
        origin = state.read(name, cache).origin
    except state.NotUp:
        origin = "built"  # half-created, or not at all
    if origin == "given":
        state.forget(name, cache)
        return
    client = own.client if origin == "built" else engine.of_environment()
    if origin == "published" or own.is_up():
        with steps.step(f"delete cluster {name}") as log:
            _delete(client, name, log)
    if origin == "built" and not [other for other in state.known(cache) if other != name]:
        with steps.step("stop the engine"):
            own.stop()
    if folder.exists():
        with steps.step(f"remove the files of {name}") as log:
            run(["rm", "-rf", folder], log=log)


def left_behind(cache: Cache) -> list[str]:
    """What the ended clusters have left on this machine, a line per thing; raises StepFailed while one is up."""
    if others := state.known(cache):
        raise StepFailed(f"still up: {' '.join(others)}")
    found: list[list[str]] = [[]]

    def is_as_before() -> bool:
        found[0] = OwnEngine(cache).left_behind()
        return not found[0]

    with contextlib.suppress(CommandFailed):
        wait_until("the machine is as before", is_as_before, timeout_s=15)
    return found[0]


def equip_given(kubeconfig: Path, wish: Wish, registry: str, cache: Cache, steps: Steps) -> Cluster:
    """Only the add-ons, into somebody else's cluster. Its nodes pull their images from `registry`."""
    built = Binaries(cache, steps)
    try:
        shop = Workshop.on(cache, steps, engine.of_environment(), built)
        _link_tools(shop, wish)
        kubectl = Kubectl(str(cache.bin / "kubectl"), str(kubeconfig))
        nodes = kubectl.get("nodes")["items"]
        workers = [item["metadata"]["name"] for item in nodes if _is_worker(item)]
        cluster = Cluster(
            wish.name,
            str(kubeconfig),
            "given",
            workers=tuple(workers),
            runtime=wish.runtime,
            s3=s3.endpoints({}),
        )
        references = {}
        if registry:
            with steps.step(f"push images to {registry}") as log:
                tags = {product.side: shop.product.build(product) for product in wish.products}
                references = {side: _push(shop.engine, tag, registry, log) for side, tag in tags.items()}
                image = _push(shop.engine, shop.images.addons(), registry, log)
                services = _push(shop.engine, shop.images.services(), registry, log) if wish.services else ""
        else:
            image, services = addons_image(), services_image()
        with steps.step("add-ons") as log:
            addons.install(kubectl, cluster, image)
            if wish.services:
                addons.install_services(kubectl, services, addons.kwok_stages(cache, built), wish.kwok_stages)
            addons.wait(kubectl, cluster, services=wish.services)
        cluster = cluster.with_(images=references, tools=_tools(cache, wish))
        state.write(cluster, cache)
        return cluster
    finally:
        built.close()


def _open(wish: Wish, cache: Cache, steps: Steps, built: Binaries) -> Workshop:
    """Chooses the engine, starts ours if it has to be ours, starts the long builds."""
    if not wish.build and not OwnEngine(cache).is_up():
        with steps.step("look for an engine that can run kind's published image") as log:
            users = engine.users(log)
        if users:
            built.start(wish.programs)
            shop = Workshop.on(cache, steps, users, built)
            _link_tools(shop, wish)
            return shop
    if os.geteuid() != 0:
        raise StepFailed("no Docker engine that can run privileged containers, and one of our own needs root")
    built.start((*binaries.NODE, *wish.programs))
    if missing := packages.missing():
        with steps.step(f"install {' '.join(missing)}") as log:
            packages.install(missing, log)
    binaries.link(cache, "docker", Path("/usr/bin/docker"))
    own = OwnEngine(cache)
    with steps.step("start the engine") as log:
        own.start(log)
    shop = Workshop.on(cache, steps, own.client, built)
    return shop


@dataclass(frozen=True)
class NodeImages:
    """The node image, and the store that every node starts with."""

    node: str
    stores: Stores
    golden: Path


def node_images(shop: Workshop, wish: Wish) -> NodeImages:
    def built(product: Product) -> str:
        dependencies = shop.product.build_dependencies(product)
        if wish.load:
            shop.product.build(product)
        return dependencies

    with ThreadPoolExecutor() as pool:
        # Mostly waiting for downloads, while the programs of the node image compile.
        dependencies = [pool.submit(built, product) for product in wish.products]
        node = shop.images.node()
        stores = Stores(shop.cache, shop.engine, shop.steps, node)
        components = shop.images.components()
        names = tuple(job.result() for job in dependencies)
    golden = stores.golden("with-runtime" if wish.runtime else "without-runtime", (*components, *names))
    return NodeImages(node, stores, golden)


def _running(shop: Workshop, wish: Wish, images: NodeImages | None) -> Cluster | None:
    """The cluster as it is, if it is what was wished for and answers."""
    try:
        cluster = state.read(wish.name, shop.cache)
    except state.NotUp:
        return None
    if len(cluster.workers) != wish.workers or (wish.runtime and not cluster.runtime):
        return None
    for node in (cluster.control_plane, *cluster.workers):
        running = "{{.State.Running}} {{.Config.Image}}"
        try:
            answer = shop.engine.ask("container", "inspect", f"--format={running}", node).split()
        except CommandFailed:
            return None
        if answer[0] != "true" or (images and answer[1] != images.node):
            return None
    if not Kubectl(str(shop.cache.bin / "kubectl"), cluster.kubeconfig).answers():
        return None
    shop.steps.say(f"cluster {wish.name} is up")
    return cluster


def _create(shop: Workshop, wish: Wish, images: NodeImages | None) -> Cluster:
    _link_tools(shop, wish)
    folder = shop.cache.cluster(wish.name)
    with shop.steps.step(f"clear what is left of {wish.name}") as log:
        _delete(shop.engine, wish.name, log)
        run(["rm", "-rf", folder], log=log)
        plan = _plan(shop, wish, images)
        for path in (plan.shared_folder, plan.audit_folder):
            path.mkdir(parents=True)
        plan.shared_folder.chmod(0o777)
        shutil.copy(topology.POLICY, plan.audit_folder)
        configuration = folder / "kind.json"
        configuration.write_text(plan.configuration())
    if images:
        with shop.steps.step("image stores of the nodes") as log, ThreadPoolExecutor() as pool:
            copies = [pool.submit(images.stores.copy, images.golden, to, log) for to in plan.stores.values()]
            for copy in copies:
                copy.result()
    kubeconfig = shop.cache.kubeconfig(wish.name)
    with shop.steps.step(f"create cluster {wish.name}") as log:
        shop.kind(
            *(
                "create",
                "cluster",
                f"--name={wish.name}",
                f"--config={configuration}",
                f"--kubeconfig={kubeconfig}",
            ),
            log=log,
        )
    return Cluster(
        name=wish.name,
        kubeconfig=str(kubeconfig),
        origin="built" if shop.engine.ours else "published",
        control_plane=plan.control_plane,
        workers=plan.worker_names,
        node_ports=plan.node_ports,
        shared_folder=str(plan.shared_folder),
        audit_log=str(plan.audit_folder / "audit.log"),
        runtime=wish.runtime,
        images={"addons": addons_image()} if images else {},
        s3=s3.endpoints(plan.node_ports),
        tools=_tools(shop.cache, wish),
        docker_host=shop.engine.env.get("DOCKER_HOST", ""),
    )


def _plan(shop: Workshop, wish: Wish, images: NodeImages | None) -> Topology:
    folder = shop.cache.cluster(wish.name)
    plan = Topology(
        name=wish.name,
        node_image=images.node if images else versions.PUBLISHED_NODE_IMAGE,
        workers=wish.workers,
        node_ports=topology.free_ports((*topology.NODE_PORTS, s3.NODE_PORT)),
        shared_folder=folder / "shared",
        audit_folder=folder / "audit",
        stores={},
    )
    if images:
        plan.stores.update(
            {name: images.stores.of_node(wish.name, name) for name in (plan.control_plane, *plan.worker_names)}
        )
    return plan


def _equip(shop: Workshop, wish: Wish, cluster: Cluster, images: NodeImages | None, stages: Path | None) -> Cluster:
    """The add-ons, the services, and the nodes' readiness, which kind does not wait for."""
    kubectl = Kubectl(str(shop.cache.bin / "kubectl"), cluster.kubeconfig)
    _link_tools(shop, wish)
    references = {"addons": shop.images.addons()}
    if wish.services:
        references["services"] = shop.images.services()
    cluster = shop.loader.put(cluster, references, images.stores if images else None, cluster.nodes)
    with shop.steps.step("add-ons"):
        addons.install(kubectl, cluster, references["addons"])
        if stages:
            addons.install_services(kubectl, references["services"], stages, wish.kwok_stages)
    with shop.steps.step("wait for nodes and add-ons"):
        nodes = set(cluster.nodes)
        wait_until("all nodes are Ready", lambda: nodes <= _ready_nodes(kubectl), 90)
        addons.wait(kubectl, cluster, services=wish.services)
    cluster = cluster.with_(tools={**cluster.tools, **_tools(shop.cache, wish)})
    state.write(cluster, shop.cache)  # from here on it is worth keeping, whatever happens to the images
    return cluster


def _load(shop: Workshop, cluster: Cluster, products: tuple[Product, ...], images: NodeImages | None) -> Cluster:
    return shop.loader.load(cluster, products, images.stores if images else None)


def _delete(client: Engine, name: str, log: Path) -> None:
    """By label rather than by kind: it also finds containers whose creation was interrupted."""
    found = client.ask("ps", "--all", "--quiet", f"--filter=label=io.x-k8s.kind.cluster={name}").split()
    if found:
        client.run("rm", "--force", "--volumes", *found, log=log)


def _ready_nodes(kubectl: Kubectl) -> set[str]:
    ready = set()
    for node in kubectl.get("nodes")["items"]:
        conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", [])}
        if conditions.get("Ready") == "True":
            ready.add(node["metadata"]["name"])
    return ready


def _is_worker(node: dict[str, dict[str, dict[str, str]]]) -> bool:
    return "nvidia.com/gpu.product" in node["metadata"]["labels"] and "type" not in node["metadata"]["labels"]


def _push(client: Engine, tag: str, registry: str, log: Path) -> str:
    pushed = f"{registry.rstrip('/')}/{tag.removeprefix('docker.io/')}"
    client.run("tag", tag, pushed, log=log)
    client.run("push", pushed, log=log)
    return pushed


def _link_tools(shop: Workshop, wish: Wish) -> None:
    """kubectl is the user's only where no other was built: building it means building all of Kubernetes."""
    found = None if shop.engine.ours or shop.binaries.has("kubernetes") else shutil.which("kubectl")
    binaries.link(shop.cache, "kubectl", Path(found) if found else shop.binaries.path("kubernetes"))
    for name in _installed(wish):
        binaries.link(shop.cache, name, shop.binaries.path(name))


def _tools(cache: Cache, wish: Wish) -> dict[str, str]:
    return {name: str(cache.bin / name) for name in ("kubectl", *_installed(wish))}


def _installed(wish: Wish) -> tuple[str, ...]:
    return tuple(name for name in wish.programs if name not in binaries.ADDONS)
