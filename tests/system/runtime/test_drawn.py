"""Do receipts say what their requests have drawn, so that a split compares like with like?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tritonclient import grpc

from evenkeel_operator.decide.quality import counted
from evenkeel_operator.decide.quality.evidence import Trial, arms_of, drawn_of
from evenkeel_runtime import contract, receipts
from evenkeel_runtime.receipts import ONWARD_HEADER, Assignment
from tests.system.feedback.server import Deployment, Service
from tests.system.runtime.replica import Replica
from tests.system.runtime.rollout import CALM_S, FAR, HEADER, IMAGE, INFER, Rollout, go_on, stop

PINNED = "/v2/models/m/versions/stable/infer"
CLASSES = 3
Ask = Callable[[Rollout], str]


@pytest.fixture(scope="module")
def pair(service: Service, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """A stable replica and the canary's, which tell the feedback service."""
    folder, model = tmp_path_factory.mktemp("drawn"), Deployment(classes=CLASSES)
    with ExitStack() as ends:
        found = []
        for version in ("stable", "canary"):
            told = model.told(folder / "key", service.url, version)
            found.append(Replica(model_dir / "perceptron.pt2", folder / version, told, speaks_grpc=version == "stable"))
            ends.callback(found[-1].kill)
        for replica in found:
            replica.await_ready()
        yield Rollout(model, found[0], (found[1],))


@pytest.fixture
def rollout(pair: Rollout) -> Iterator[Rollout]:
    yield pair
    pair.tell(None)


def by_http(rollout: Rollout, path: str = INFER, **headers: str) -> str:
    answer = rollout.stable.ask("POST", path, json.dumps(HEADER).encode(), headers)
    assert answer.status == 200, answer.body
    return answer.headers[receipts.HEADER]


def by_grpc(rollout: Rollout) -> str:
    tensor = grpc.InferInput("image", list(IMAGE.shape), "FP32")
    tensor.set_data_from_numpy(IMAGE)
    with grpc.InferenceServerClient(f"127.0.0.1:{rollout.stable.grpc_port}") as client:
        response = client.infer("m", [tensor]).get_response()
    return str(response.parameters[receipts.HEADER].string_param)


def in_its_place(rollout: Rollout) -> str:
    """Ask while the canary does not answer."""
    stop(rollout.canary)
    try:
        return by_http(rollout)
    finally:
        go_on(rollout.canary)


def origin(rollout: Rollout, receipt: str) -> receipts.Origin:
    return receipts.opened(receipt, lambda key_id, subject: rollout.model.key).origin


@pytest.mark.parametrize(
    ("ask", "mode", "target_s", "want"),
    [
        pytest.param(by_http, contract.SPLIT, CALM_S, ("canary", Assignment.CANARY), id="any request"),
        pytest.param(in_its_place, contract.SPLIT, 0.4, ("stable", Assignment.CANARY), id="one that it is late with"),
        pytest.param(by_grpc, contract.SPLIT, CALM_S, ("stable", Assignment.UNASSIGNED), id="one by gRPC"),
        pytest.param(
            lambda r: by_http(r, PINNED), contract.SPLIT, CALM_S, ("stable", Assignment.UNASSIGNED), id="a pinned one"
        ),
        pytest.param(
            lambda r: by_http(r, **{"x-request-timeout-ms": "9000"}),
            contract.SPLIT,
            CALM_S,
            ("stable", Assignment.UNASSIGNED),
            id="one in a hurry",
        ),
        pytest.param(
            lambda r: by_http(r, **{ONWARD_HEADER: "split"}),
            contract.SPLIT,
            CALM_S,
            ("stable", Assignment.UNASSIGNED),
            id="one that says it was passed on",
        ),
        pytest.param(by_http, contract.MIRROR, CALM_S, ("stable", Assignment.UNASSIGNED), id="one that is mirrored"),
    ],
)
def test_a_receipt_says_what_was_drawn(
    rollout: Rollout, ask: Ask, mode: str, target_s: float, want: tuple[str, Assignment]
) -> None:
    """All requests are the canary's that may be."""
    rollout.tell(rollout.plan(mode=mode), target_s)
    found = origin(rollout, ask(rollout))
    assert (found.revision, found.assignment) == want


def test_nothing_is_drawn_without_a_canary(rollout: Rollout) -> None:
    rollout.tell(None)
    assert origin(rollout, by_http(rollout)).assignment == Assignment.UNASSIGNED


def test_easier_requests_that_were_in_no_draw_do_not_move_the_difference(rollout: Rollout, service: Service) -> None:
    """Canary and stable are the same model; what is pinned or comes by gRPC it gets right, of the rest a fifth."""
    rollout.tell(rollout.plan(0.5), CALM_S)
    drawn = [by_http(rollout) for _ in range(400)]
    others = [by_http(rollout, PINNED) for _ in range(200)] + [by_grpc(rollout) for _ in range(50)]
    items = []
    for number, receipt in enumerate((*drawn, *others)):
        found = receipts.opened(receipt, lambda key_id, subject: rollout.model.key)
        is_right = number % 5 == 0 or number >= len(drawn)
        items.append({"receipt": receipt, "label": (found.predicted(0)[0] + (not is_right)) % CLASSES})
    assert {one["outcome"] for one in service.post(items)["results"]} == {"accepted"}

    _, text = service.ask("GET", f"/v1/quality/-/{rollout.model.uid}")
    rows = counted.read(json.dumps(text).encode()).cohorts("stable", "canary")
    now = datetime.now(UTC)
    trial = Trial("stable", "canary", now - timedelta(hours=1), now + timedelta(hours=1), cohorts=rows)
    got = []
    for of in (drawn_of, arms_of):
        arms = of(trial, timedelta(seconds=1), CLASSES**2, now + timedelta(hours=1))
        shares = []
        for counts in ([a.stable for a in arms], [a.canary for a in arms]):
            right = sum(found[k * (CLASSES + 1)] for found in counts for k in range(CLASSES))
            shares.append(right / sum(map(sum, counts)))
        got.append(shares[1] - shares[0])
    assert abs(got[0]) < FAR * math.sqrt(0.16 / 200 * 2)
    assert got[1] < -0.3, "of all that each has answered"
