"""How many more replicas could get their GPUs, on which nodes?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenkeel_operator.api.modeldeployment import Gpu, Object
from evenkeel_operator.decide.gpus import Promised, Supply, fits, mebibytes, supply
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NodeGpus
from tests.builders import node

H100 = node("h", product="NVIDIA-H100-80GB-HBM3", memory=81559, gpus=8, used=5)
L4 = node("l", gpus=4, used=1)
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("gpu", "nodes", "want"),
    [
        pytest.param(Gpu(), (H100, L4), Supply(6, 6, 12), id="any product: all free GPUs"),
        pytest.param(
            Gpu(count=2), (H100, L4), Supply(2, 6, 12), id="two a replica: what is left on each node by itself"
        ),
        pytest.param(Gpu(products=("NVIDIA-L4",)), (H100, L4), Supply(3, 3, 4), id="one product"),
        pytest.param(Gpu(min_memory="40Gi"), (H100, L4), Supply(3, 3, 8), id="enough memory"),
        pytest.param(Gpu(min_memory="81559Mi"), (H100,), Supply(3, 3, 8), id="exactly as much memory as there is"),
        pytest.param(Gpu(min_memory="81560Mi"), (H100,), Supply(0, 0, 0), id="one MiB too much"),
        pytest.param(Gpu(resource_name="amd.com/gpu"), (H100,), Supply(0, 0, 0), id="another resource"),
        pytest.param(Gpu(), (replace(H100, schedulable=False), L4), Supply(3, 3, 4), id="a cordoned node has none"),
        pytest.param(Gpu(), (node(gpus=1, used=2),), Supply(0, 0, 1), id="over-committed is not negative"),
        pytest.param(Gpu(), (), Supply(0, 0, 0), id="no nodes"),
    ],
)
def test_supply(gpu: Gpu, nodes: tuple[NodeGpus, ...], want: Supply) -> None:
    assert supply(gpu, {}, nodes) == want


def test_nodes_that_may_not_be_read_are_no_signal_and_not_zero() -> None:
    assert supply(Gpu(), {}, NO_SIGNAL) is NO_SIGNAL


@pytest.mark.parametrize(
    ("promised", "want"),
    [
        pytest.param(Promised(Gpu(), {}, 2), Supply(3, 3, 4), id="to who may be placed elsewhere: nothing is withheld"),
        pytest.param(Promised(Gpu(), {}, 4), Supply(2, 2, 4), id="what does not fit elsewhere"),
        pytest.param(Promised(Gpu(products=("NVIDIA-L4",)), {}, 2), Supply(1, 1, 4), id="to who wants the same nodes"),
        pytest.param(Promised(Gpu(count=2), {}, 9), Supply(1, 1, 4), id="two a replica: the third is of no use to it"),
        pytest.param(Promised(Gpu(min_memory="40Gi"), {}, 9), Supply(3, 3, 4), id="to who wants other nodes"),
        pytest.param(Promised(Gpu(), {"nodeSelector": {"zone": "a"}}, 9), Supply(3, 3, 4), id="to who fits nowhere"),
        pytest.param(Promised(Gpu(resource_name="amd.com/gpu"), {}, 9), Supply(3, 3, 4), id="of another resource"),
    ],
)
def test_what_is_promised_to_others_is_not_left(promised: Promised, want: Supply) -> None:
    assert supply(Gpu(products=("NVIDIA-L4",)), {}, (L4, H100), [promised]) == want


def test_promises_add_up() -> None:
    promised = [Promised(Gpu(), {}, 4), Promised(Gpu(count=2), {}, 1)]
    assert supply(Gpu(), {}, (L4, H100), promised) == Supply(0, 0, 12)


@pytest.mark.parametrize(
    ("pod_spec", "want"),
    [
        pytest.param({}, False, id="a taint keeps pods away"),
        pytest.param({"tolerations": [{"operator": "Exists"}]}, True, id="everything tolerated"),
        pytest.param({"tolerations": [{"key": TAINT["key"], "value": "fake"}]}, True, id="key and value"),
        pytest.param({"tolerations": [{"key": TAINT["key"], "value": "real"}]}, False, id="another value"),
        pytest.param(
            {"tolerations": [{"key": TAINT["key"], "operator": "Exists", "effect": "NoExecute"}]},
            False,
            id="another effect",
        ),
        pytest.param(
            {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"zone": "a"}},
            False,
            id="a selector that no label meets",
        ),
    ],
)
def test_a_node_fits_as_the_scheduler_sees_it(pod_spec: Object, want: bool) -> None:
    assert fits(replace(H100, taints=(TAINT,)), Gpu(), pod_spec) == want


@pytest.mark.parametrize(
    ("quantity", "want"),
    [("40Gi", 40960), ("1Mi", 1), ("1k", 1), (2**21, 2), ("1.5Gi", 1536), ("80G", 76294), ("1Ti", 2**20)],
)
def test_mebibytes_round_up(quantity: str | int, want: int) -> None:
    assert mebibytes(quantity) == want


def test_what_is_no_quantity_is_named() -> None:
    with pytest.raises(ValueError, match="'40 gigs' is not a quantity"):
        mebibytes("40 gigs")
