"""What does the operator say when it cannot work?"""

from __future__ import annotations

from pathlib import Path

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment


async def test_without_the_crd_it_ends_and_says_how_to_install_it(tmp_path: Path) -> None:
    async with FakeApi(without=("modeldeployments",)) as api, Operator(api, tmp_path) as operator:
        assert await operator.exit_code() == 1
        assert "modeldeployments.evenkeel.dev is not installed" in operator.log
        assert "kubectl apply" in operator.log


async def test_without_a_cluster_it_ends(api: FakeApi, tmp_path: Path) -> None:
    async with Operator(api, tmp_path, "--kubeconfig=nowhere") as operator:
        assert await operator.exit_code() == 1
        assert "no cluster" in operator.log


async def test_a_flag_that_makes_no_sense_is_refused(api: FakeApi, tmp_path: Path) -> None:
    async with Operator(api, tmp_path, "--workers=0") as operator:
        assert await operator.exit_code() == 2
        assert "--workers" in operator.log


async def test_it_serves_the_namespaces_it_is_told_to(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    for namespace in ("team-a", "team-b", "team-c"):
        api.store.create(modeldeployment(namespace=namespace))
    async with Operator(api, tmp_path, "--namespaces=team-a, team-b"):
        await eventually(lambda: is_serving(api) and is_serving(api, namespace="team-b"))
        api.store.create(modeldeployment("later", "team-b"))
        await eventually(lambda: is_serving(api, "later", "team-b"))
        assert api.store.list("services", "team-c") == []
        assert not [r for r in api.requests if r.path.startswith("/apis/evenkeel.dev/v1alpha1/modeldeployments")]
