"""Does a real browser show the page of a simulation as it is meant: both autoscalers beside each other where it can?"""

from __future__ import annotations

from pathlib import Path

import pytest

from evenkeel_operator.simulate.command import simulate
from tests.system.report.browser import Browser
from tests.system.report.looks import DESK, PHONE, looked

SPEC = """
spec:
  model: {uri: "pvc://models/digits.pt2"}
  objectives: {latency: [{quantile: 0.95, target: 200ms}]}
  scaling: {minReplicas: 1, maxReplicas: 8}
"""
TRACE = "minute,shop\n" + "".join(
    f"{minute},{count}\n" for minute, count in enumerate([600] * 3 + [9000] * 8 + [600] * 9)
)
BATCHES = ("--batch", "1=20ms", "--batch", "8=60ms", "--cold-start", "20s")
BOTH = """[...document.querySelectorAll(".beside")].map((e) => {
  const [a, b] = [...e.children].map((child) => child.getBoundingClientRect());
  return a.top === b.top && a.right <= b.left;
})"""


@pytest.fixture
def where(tmp_path: Path) -> Path:
    found = tmp_path / "shop.html"
    (tmp_path / "shop.csv").write_text(TRACE)
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert simulate([str(tmp_path / "shop.csv"), str(tmp_path / "spec.yaml"), *BATCHES, "--page", str(found)]) == 0
    return found


async def test_a_simulation_in_every_window(chromium: Browser, where: Path) -> None:
    for width in (PHONE, DESK):
        for scheme in ("light", "dark"):
            got = await looked(chromium, where, width, scheme)
            here = f"{width} {scheme}"
            assert got["overflow"] == 0, here
            assert got["headings"] == [
                "What would have happened", "Replicas", "Demand and late requests", "Latency against the target",
                "Cost and late requests", "Decisions", "What is assumed",
            ], here  # fmt: skip
            assert got["plots"] == ["plot narrow"] * 6 + [f"plot {'narrow' if width == PHONE else 'wide'}"], here
            assert got["lines"] == [2, 2, 2, 2, 1, 1, 0], f"{here}: wanted and ready, demand and late, latency, dots"
            assert (got["outside"], got["small"]) == ([], 0), f"{here}: every word of a plot can be read"
            assert got["pale"] == [], f"{here}: contrast as WCAG 2.2 AA asks for"
            assert got["tables"] == 0, f"{here}: every table has a caption and a head"
            assert got["dark"] == (scheme == "dark"), here


async def test_both_lie_beside_each_other_where_there_is_room(chromium: Browser, where: Path) -> None:
    for width, want in ((PHONE, [False] * 3), (DESK, [True] * 3)):
        async with chromium.tab() as tab:
            await tab.open(where.as_uri(), width=width)
            assert await tab.value(BOTH) == want
