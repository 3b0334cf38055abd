"""Does a real browser show the page as it is meant: whole, quiet, by itself, in every width and both schemes?"""

from __future__ import annotations

from pathlib import Path

from evenkeel_operator.decide.quality import counted
from evenkeel_operator.decide.snapshot import NO_SIGNAL
from evenkeel_operator.report.facts import facts
from evenkeel_operator.report.page import page
from tests.reports import NOW, Story, counts, deployment, samples
from tests.system.report.browser import Browser
from tests.system.report.looks import DESK, PHONE, looked

SHORT = Story(days=1.5, trial_hours=6.0, canary=0.8)


async def test_a_page_in_every_window(chromium: Browser, tmp_path: Path) -> None:
    where = tmp_path / "digits.html"
    where.write_text(page(facts(deployment(SHORT), counted.read(counts(SHORT)), samples(SHORT), NOW)))
    for width in (PHONE, DESK):
        for scheme in ("light", "dark"):
            got = await looked(chromium, where, width, scheme)
            here = f"{width} {scheme}"
            assert got["overflow"] == 0, here
            assert got["headings"] == [
                "digits", "Quality over time", "Canary", "Confusion matrix", "Revisions",
                "Decisions on the number of replicas", "Conditions",
            ], here  # fmt: skip
            assert got["plots"] == [f"plot {'narrow' if width == PHONE else 'wide'}"] * 2, here
            assert [name.split()[0] for name in got["names"]] == ["Accuracy", "Evidence"], here
            assert got["lines"] == [1, 2], f"{here}: the accuracy, the evidence against and for"
            assert (got["outside"], got["small"]) == ([], 0), f"{here}: every word of a plot can be read"
            assert got["pale"] == [], f"{here}: contrast as WCAG 2.2 AA asks for"
            assert got["tables"] == 0, f"{here}: every table has a caption and a head"
            assert got["dark"] == (scheme == "dark"), here


async def test_a_page_without_counts_is_whole(chromium: Browser, tmp_path: Path) -> None:
    where = tmp_path / "digits.html"
    where.write_text(page(facts(deployment(SHORT), NO_SIGNAL, None, NOW, missing=("the service was not asked",))))
    got = await looked(chromium, where, PHONE, "light")
    assert (got["overflow"], got["plots"], len(got["headings"]), got["pale"]) == (0, [], 7, [])


async def test_what_slips_through_the_escaping_neither_runs_nor_calls_out(chromium: Browser, tmp_path: Path) -> None:
    """The page's policy holds even for markup that somebody else wrote."""
    where = tmp_path / "digits.html"
    bad = '<script>document.title = "ran"</script><img src="http://127.0.0.1:9/x"><p style="color: red" id="p">x</p>'
    told = page(facts(deployment(SHORT), NO_SIGNAL, None, NOW))
    where.write_text(told.replace("</main>", f"{bad}</main>"))
    async with chromium.tab() as tab:
        await tab.open(where.as_uri(), width=DESK)
        assert await tab.value("document.title") == "digits in team-a: Evenkeel report"
        assert await tab.value("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
        assert len(tab.seen.complaints) == 3, "the browser says what it did not do"
        assert not any("127.0.0.1" in url for url in tab.seen.requests)
