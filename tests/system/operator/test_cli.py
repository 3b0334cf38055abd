"""Does `evenkeel history | rollback | restart` do to the spec what it says?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.cli import explain, history, restart, rollback
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, kubeconfig, modeldeployment, quiet

Run = Callable[..., Any]


@pytest.fixture
def run(api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its exit code, output and complaints."""
    config = kubeconfig(tmp_path, api.url)

    async def command(what: Callable[[Sequence[str]], int], *argv: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(what, [*argv, "--kubeconfig", str(config)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


def edit(api: FakeApi, **spec: Any) -> None:
    found = json.loads(json.dumps(api.store.get("modeldeployments", "team-a", "digits")))
    found["spec"] |= spec
    api.store.replace(found)


async def test_back_to_an_earlier_revision_and_forth(api: FakeApi, actors: Actors, tmp_path: Path, run: Run) -> None:
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path):
        await eventually(lambda: is_serving(api))
        first = api.store.get("modeldeployments", "team-a", "digits")["spec"]
        edit(api, model={"uri": "pvc://models/second.pt2"}, runtime={"env": [{"name": "A", "value": "b"}]}, replicas=2)
        await eventually(lambda: len(api.store.list("controllerrevisions")) == 2 and is_serving(api))
        await quiet(api)

        code, out, _ = await run(history, "digits")
        assert code == 0
        header, one, two = out.splitlines()
        assert header.split() == ["REVISION", "NAME", "MODEL", "DIGEST", "RUNTIME", "CREATED", "STATE"]
        assert one.split()[:1] == ["1"]
        assert "pvc://models/digits.pt2" in one
        assert two.endswith("stable, target")

        assert await run(rollback, "digits", "--revision", "9") == (
            1,
            "",
            "error: there is no revision 9; known: 1, 2\n",
        )
        code, out, _ = await run(rollback, "digits")
        assert (code, out.startswith("team-a/digits goes back to revision 1")) == (0, True)
        now = api.store.get("modeldeployments", "team-a", "digits")["spec"]
        assert now == {**first, "replicas": 2}, "what decides the pods is as it was; the size stays"
        await eventually(lambda: is_serving(api))

        code, out, _ = await run(restart, "digits", "-n", "team-a")
        assert code == 0
        await eventually(lambda: len(api.store.list("controllerrevisions")) == 3 and is_serving(api))


async def test_a_rollback_that_meets_another_change_starts_again(
    api: FakeApi, actors: Actors, tmp_path: Path, run: Run
) -> None:
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path) as operator:
        await eventually(lambda: is_serving(api))
        edit(api, model={"uri": "pvc://models/second.pt2"})
        await eventually(lambda: len(api.store.list("controllerrevisions")) == 2 and is_serving(api))
        await quiet(api)
        await operator.stop()
    fault = api.faults.add("PATCH", "/modeldeployments/digits", 422, delay_s=0.5, message="the test failed")
    task = asyncio.create_task(run(rollback, "digits"))
    await eventually(lambda: fault.times == 0)
    edit(api, replicas=3)
    assert (await task)[0] == 0
    spec = api.store.get("modeldeployments", "team-a", "digits")["spec"]
    assert (spec["model"]["uri"], spec["replicas"]) == ("pvc://models/digits.pt2", 3)


async def test_explain_tells_what_the_operator_found(api: FakeApi, actors: Actors, tmp_path: Path, run: Run) -> None:
    api.store.create(modeldeployment())
    assert await run(explain, "digits") == (
        0,
        "team-a/digits has no status yet: no operator has looked at it.\n"
        "Latency: spec.objectives.latency names none, so none is held.\n"
        "Size: spec.replicas says 1; without spec.scaling, kubectl scale or an autoscaler sets it.\n",
        "",
    )
    async with Operator(api, tmp_path):
        await eventually(lambda: is_serving(api))
    for name in ("digits", "mdep/digits", "modeldeployments.evenkeel.dev/digits", "ModelDeployment/digits"):
        code, out, _ = await run(explain, name, "-n", "team-a")
        assert code == 0
        first, *_, last = out.splitlines()
        assert "Serving: 1 of 1 replicas of revision digits-" in first
        assert last.startswith("  digits-")
        assert last.endswith("(stable): 1 of 1 replica ready, pvc://models/digits.pt2")
    with pytest.raises(SystemExit):
        explain(["pod/digits"])


@pytest.mark.parametrize("command", [explain, history, rollback, restart])
async def test_complaints_say_what_is_wrong(api: FakeApi, run: Run, command: Run) -> None:
    assert await run(command, "nobody") == (1, "", "error: there is no ModelDeployment nobody in namespace team-a\n")
    api.faults.add("GET", "/modeldeployments/", 403, message="you may not", reason="Forbidden")
    assert await run(command, "digits") == (1, "", "error: the cluster does not allow it: you may not\n")


async def test_a_cluster_without_evenkeel_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeApi(without=("modeldeployments",)) as api:
        config = str(kubeconfig(tmp_path, api.url))
        assert await asyncio.to_thread(history, ["digits", "--kubeconfig", config]) == 1
    assert "Evenkeel is not installed" in capsys.readouterr().err


async def test_a_cluster_that_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(kubeconfig(tmp_path, "http://127.0.0.1:9"))
    assert await asyncio.to_thread(history, ["digits", "--kubeconfig", config]) == 1
    assert "the cluster does not answer" in capsys.readouterr().err
