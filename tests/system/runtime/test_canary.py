"""Does the canary get its share, and does no user of a stable replica ever see one that fails?"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from evenkeel_runtime import contract, receipts
from tests.system.feedback.server import Deployment
from tests.system.runtime.replica import Answer, Replica, read_answer, request_bytes
from tests.system.runtime.rollout import (
    CALM_S,
    FAR,
    HEADER,
    IMAGE,
    INFER,
    Rollout,
    await_that,
    go_on,
    signed,
    stop,
    told,
    versions,
)

Fleet = tuple[Rollout, ...]
V1 = {"instances": IMAGE.tolist()}


@pytest.fixture(scope="module")
def model() -> Deployment:
    return Deployment(classes=3)


@pytest.fixture(scope="module")
def pair(model: Deployment, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """A stable replica and two of the canary, shared by the module's tests: each leaves them serving."""
    folder = tmp_path_factory.mktemp("rollout")
    with ExitStack() as ends:
        found = []
        for number, version in enumerate(("stable", "canary", "canary")):
            key = model.told(folder / "key", revision=version)
            found.append(
                Replica(model_dir / "perceptron.pt2", folder / f"termination-{number}", key, speaks_grpc=not number)
            )
            ends.callback(found[-1].kill)
        for replica in found:
            replica.await_ready()
        yield Rollout(model, found[0], tuple(found[1:]))


@pytest.fixture
def rollout(pair: Rollout) -> Iterator[Rollout]:
    """The shared replicas, with nothing told and nothing counted of another test."""
    yield pair
    pair.tell(pair.plan(0.0, revision="between"), CALM_S)
    pair.tell(None)


@pytest.fixture
def begin(model: Deployment, tmp_path: Path, start: Callable[..., Replica]) -> Callable[..., Rollout]:
    """Start replicas of a test's own, which it may end."""

    def begun(stable: str = "perceptron.pt2", canary: str = "perceptron.pt2", **more: str) -> Rollout:
        of_stable, of_canary = (model.told(tmp_path / "key", revision=version) for version in ("stable", "canary"))
        found = Rollout(model, start(stable, **of_stable, **more), (start(canary, **of_canary),))
        found.stable.await_ready()
        found.canary.await_ready()
        return found

    return begun


@pytest.mark.parametrize(("share", "count"), [(0.01, 3000), (0.1, 1500), (0.5, 600)])
def test_the_canary_gets_its_share(rollout: Rollout, share: float, count: int) -> None:
    rollout.tell(rollout.plan(share), CALM_S)
    got = versions(rollout.stable, [""] * count)
    assert abs(got["canary"] - share * count) <= FAR * math.sqrt(share * (1 - share) * count)
    arm = rollout.arm()
    assert (arm["sent"], arm["answered"]) == (got["canary"], got["canary"])
    assert sum(arm["latency"]["counts"]) == got["canary"]


@pytest.fixture(scope="module")
def more(
    pair: Rollout, model: Deployment, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Four more stable replicas beside the shared one, each with a choice of its own."""
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as ends:
        found = []
        for number in range(4):
            key = model.told(folder / "key", revision="stable")
            found.append(Replica(model_dir / "perceptron.pt2", folder / f"termination-{number}", key))
            ends.callback(found[-1].kill)
        for replica in found:
            replica.await_ready()
        yield tuple(Rollout(model, one, pair.canaries) for one in found)


@pytest.mark.parametrize(("share", "count"), [(0.01, 3000), (0.1, 1500), (0.5, 600)])
def test_five_stable_replicas_together_give_the_canary_its_share(
    rollout: Rollout, more: Fleet, share: float, count: int
) -> None:
    total: Counter[str] = Counter()
    for one in (rollout, *more):
        one.tell(one.plan(share), CALM_S)
        total += versions(one.stable, [""] * (count // 5))
    assert total.total() == count
    assert abs(total["canary"] - share * count) <= FAR * math.sqrt(share * (1 - share) * count)


def test_every_replica_of_the_canary_has_its_part(rollout: Rollout) -> None:
    before = [found.metric("inference_rows_total") for found in rollout.canaries]
    rollout.tell(rollout.plan(), CALM_S)
    versions(rollout.stable, [""] * 200)
    after = [found.metric("inference_rows_total") for found in rollout.canaries]
    got = [late - early for early, late in zip(before, after, strict=True)]
    assert sum(got) == 200
    assert min(got) > 0


def test_a_user_stays_with_the_canary_while_its_share_grows(rollout: Rollout) -> None:
    users = [f"x-user: {number}\r\n" for number in range(60)]
    went: list[set[str]] = []
    for share in (0.2, 0.2, 0.6):
        rollout.tell(rollout.plan(share, affinity_header="x-user"), CALM_S)
        went.append({user for user in users if versions(rollout.stable, [user])["canary"]})
    assert went[0] == went[1] < went[2]


@pytest.mark.parametrize("form", ["json", "binary", "v1"])
def test_the_canary_s_answer_reaches_the_client_as_it_is(rollout: Rollout, form: str) -> None:
    def ask(who: Replica) -> Answer:
        if form == "json":
            return who.infer(HEADER, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        if form == "binary":
            return who.rows(IMAGE)
        return who.ask("POST", "/v1/models/m:predict", json.dumps(V1).encode())

    rollout.tell(rollout.plan(), CALM_S)
    through, straight = ask(rollout.stable), ask(rollout.canary)
    assert rollout.arm()["answered"] == 1
    one, other = (found.headers.pop(receipts.HEADER) for found in (through, straight))
    assert through.headers == straight.headers
    assert through.body.replace(one.encode(), other.encode()) == straight.body
    origin = receipts.opened(one, lambda key_id, subject: rollout.model.key).origin
    assert origin.revision == "canary"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param("/v2/models/m/versions/stable/infer", {}, id="that names stable's version"),
        pytest.param(INFER, {receipts.ONWARD_HEADER: "split"}, id="that was passed on before"),
    ],
)
def test_a_request_is_stable_s(rollout: Rollout, path: str, headers: dict[str, str]) -> None:
    rollout.tell(rollout.plan(), CALM_S)
    answer = rollout.stable.ask("POST", path, json.dumps(HEADER).encode(), headers)
    assert (answer.status, answer.json["model_version"]) == (200, "stable")
    assert rollout.signals()["canary"]["split"] is None


def test_grpc_is_served_by_stable(rollout: Rollout) -> None:
    from tritonclient import grpc

    rollout.tell(rollout.plan(), CALM_S)
    tensor = grpc.InferInput("image", list(IMAGE.shape), "FP32")
    tensor.set_data_from_numpy(IMAGE)
    with grpc.InferenceServerClient(f"127.0.0.1:{rollout.stable.grpc_port}") as client:
        assert client.infer("m", [tensor]).get_response().model_version == "stable"
    assert rollout.signals()["canary"]["split"] is None
    assert rollout.signals()["canary"]["beside"]["ended"] == 0


def test_two_that_take_each_other_for_the_canary_pass_a_request_on_once(rollout: Rollout) -> None:
    back = rollout.plan(addresses=(f"127.0.0.1:{rollout.stable.port}",))
    rollout.tell(back, CALM_S, rollout.canary)
    rollout.tell(rollout.plan(addresses=(f"127.0.0.1:{rollout.canary.port}",)), CALM_S)
    assert versions(rollout.stable, [""] * 20) == {"canary": 20}
    assert versions(rollout.canary, [""] * 20) == {"stable": 20}
    rollout.tell(None, who=rollout.canary)


def test_a_request_that_both_refuse_is_no_failure_of_the_canary(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(), CALM_S)
    answer = rollout.stable.infer(b'{"inputs": []}')
    assert answer.status == 400
    assert answer.body == rollout.canary.infer(b'{"inputs": []}').body
    arm = rollout.arm()
    assert (arm["invalid"], arm["failed"]) == (1, {})


def test_stable_s_own_are_counted_beside_the_canary_s_where_they_were_in_the_draw(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(0.5), CALM_S)
    got = versions(rollout.stable, [""] * 40)
    pinned = "/v2/models/m/versions/stable/infer"
    for _ in range(5):
        assert rollout.stable.ask("POST", pinned, json.dumps(HEADER).encode()).status == 200
    assert rollout.arm()["answered"] == got["canary"]
    assert rollout.signals()["canary"]["beside"] == {"ended": got["stable"], "late": 0, "failed": 0}


def test_a_slow_canary_is_not_waited_for(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(), 0.4)
    for found in rollout.canaries:
        stop(found)
    try:
        assert versions(rollout.stable, [""] * 4) == {"stable": 4}
    finally:
        for found in rollout.canaries:
            go_on(found)
    arm = rollout.arm()
    assert arm["failed"] == {"late": 4}
    assert arm["lostSeconds"] >= 4 * 0.199  # the loop's timers count in milliseconds, and may be one early


def test_a_client_that_is_in_a_hurry_gets_stable_s_answer_in_time(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(), CALM_S)
    for found in rollout.canaries:
        stop(found)
    try:
        answer = rollout.stable.infer(HEADER, **{"x-request-timeout-ms": "60000"})
    finally:
        for found in rollout.canaries:
            go_on(found)
    assert (answer.status, answer.json["model_version"]) == (200, "stable")


def test_a_client_that_leaves_takes_its_request_from_the_canary(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(), CALM_S)
    for found in rollout.canaries:
        stop(found)
    try:
        with rollout.stable.connect() as stream:
            stream.sendall(request_bytes("POST", INFER, json.dumps(HEADER).encode()))
            await_that(lambda: rollout.signals()["canary"]["split"] is not None)
        await_that(lambda: rollout.signals()["canary"]["split"]["abandoned"] == 1)
    finally:
        for found in rollout.canaries:
            go_on(found)
    arm = rollout.arm()
    assert (arm["sent"], arm["abandoned"], arm["failed"]) == (1, 1, {})


def test_a_canary_that_is_killed_with_requests_in_hand(begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    rollout.tell(rollout.plan(), CALM_S)
    assert versions(rollout.stable, [""] * 10) == {"canary": 10}  # connections are open by now
    stop(rollout.canary)
    body = json.dumps(HEADER).encode()
    with rollout.stable.connect() as stream:
        stream.sendall(request_bytes("POST", INFER, body) * 20)
        await_that(lambda: rollout.signals()["canary"]["split"]["underWay"] == 20)
        rollout.canary.kill()
        answers = [read_answer(stream) for _ in range(20)]
    assert [status for status, _, _ in answers] == [200] * 20
    assert all(b'"model_version":"stable"' in answer for _, _, answer in answers)
    assert versions(rollout.stable, [""] * 50) == {"stable": 50}
    arm = rollout.arm()
    assert arm["failed"] == {"unreachable": 70}
    assert rollout.stable.metric("inference_rows_total") == 70


def test_a_canary_that_fails(begin: Callable[..., Rollout], model_dir: Path) -> None:
    """The canary has fewer words than the stable model: it fails where it does not find one."""
    rollout = begin("found-100.pt2", "found-3.pt2")
    rollout.tell(rollout.plan(), CALM_S)

    def ask(word: int) -> Answer:
        entry = {"name": "word", "datatype": "INT64", "shape": [1], "data": [word]}
        return rollout.stable.infer({"inputs": [entry]})

    assert ask(2).json["model_version"] == "canary"
    answer = ask(50)
    assert (answer.status, answer.json["model_version"]) == (200, "stable")
    arm = rollout.arm()
    assert (arm["answered"], arm["failed"]) == (1, {"error": 1})


def test_a_canary_that_refuses_what_stable_takes(begin: Callable[..., Rollout]) -> None:
    rollout = begin("perceptron.pt2", "words-3.pt2")
    rollout.tell(rollout.plan(), CALM_S)
    answer = rollout.stable.infer(HEADER)
    assert (answer.status, answer.json["model_version"]) == (200, "stable")
    arm = rollout.arm()
    assert (arm["invalid"], arm["failed"]) == (0, {"refused": 1})


def test_a_drain_answers_what_the_canary_has_in_hand(begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    rollout.tell(rollout.plan(), CALM_S)
    stop(rollout.canary)
    body = json.dumps(HEADER).encode()
    with rollout.stable.connect() as stream:
        stream.sendall(request_bytes("POST", INFER, body) * 10)
        await_that(lambda: rollout.signals()["canary"]["split"]["underWay"] == 10)
        rollout.stable.terminate()
        await_that(lambda: rollout.stable.admin("GET", contract.SIGNALS_PATH).json["ready"] is False)
        go_on(rollout.canary)
        status, head, answer = read_answer(stream)
    assert (status, b'"model_version":"canary"' in answer) == (200, True)
    assert b"connection: close" in head
    assert rollout.stable.wait() == 0


def test_a_canary_that_drains_loses_nothing(begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    rollout.tell(rollout.plan(), CALM_S)
    done = threading.Event()
    got: list[int] = []

    def ask() -> None:
        while not done.is_set():
            got.append(rollout.stable.infer(HEADER).status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        await_that(lambda: len(got) > 20)
        rollout.canary.terminate()
        assert rollout.canary.wait() == 0
        until = len(got) + 20
        await_that(lambda: len(got) > until)
    finally:
        done.set()
        asking.join()
    assert set(got) == {200}


def test_without_a_new_directive_stable_serves_all_again(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(expires_s=1.0), CALM_S)
    assert rollout.signals()["canary"]["expiresSeconds"] > 0
    await_that(lambda: rollout.signals()["canary"]["expiresSeconds"] == 0)
    before = rollout.arm()
    assert versions(rollout.stable, [""] * 20) == {"stable": 20}
    assert rollout.arm() == before


def test_who_is_not_the_operator_moves_nobody(rollout: Rollout) -> None:
    stable, key = rollout.stable, rollout.model.key
    process = rollout.signals()["bootId"]
    rollout.tell(rollout.plan(0.0), CALM_S)
    moment = rollout.signals()["canary"]["momentMillis"]
    body = contract.directive(0, None, process, rollout.plan())
    for status, headers in (
        (403, {}),
        (403, signed(b"k" * 32, body)),
        (403, signed(rollout.model.key, body + b" ")),
        (409, signed(key, body, moment)),
        (409, signed(key, body, moment - 1)),
    ):
        assert told(stable, body, headers).status == status
    other = contract.directive(0, None, rollout.signals(rollout.canary)["bootId"], rollout.plan())
    assert told(stable, other, signed(key, other)).status == 409
    assert versions(stable, [""] * 20) == {"stable": 20}


def test_a_replica_without_a_key_follows_nobody(start: Callable[..., Replica], model: Deployment) -> None:
    replica = start("perceptron.pt2")
    replica.await_ready()
    process = replica.admin("GET", contract.SIGNALS_PATH).json["bootId"]
    body = contract.directive(0, None, process)
    answer = told(replica, body, signed(model.key, body))
    assert (answer.status, "has no key" in answer.json["error"]) == (403, True)


def test_the_counts_are_in_the_metrics_too(rollout: Rollout) -> None:
    rollout.tell(rollout.plan(revision="counted"), CALM_S)
    versions(rollout.stable, [""] * 30)
    page = rollout.stable.ask("GET", "/metrics").body.decode()
    labels = 'model_name="m",model_version="stable",canary="counted",mode="split"'
    assert f'inference_canary_requests_total{{{labels},outcome="answered"}} 30' in page
    assert f"inference_canary_duration_seconds_count{{{labels}}} 30" in page
    assert f"inference_canary_requests_in_flight{{{labels}}} 0" in page
