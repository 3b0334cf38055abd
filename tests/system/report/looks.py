"""What does a page look like in a window? Its plots, their words, contrast and width, as the browser laid them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.system.report.browser import Browser

PHONE, DESK = 390, 1280

LOOK = """(() => {
  const seen = (e) => e.getClientRects().length > 0;
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const [r, g, b, a = 1] = parts(getComputedStyle(e).backgroundColor);
    if (a === 1) return [r, g, b];
    const under = behind(e.parentElement);
    return [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
  };
  const contrast = (e) => {
    const style = getComputedStyle(e);
    const colour = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(parts(colour)), luminance(behind(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const words = [...document.querySelectorAll("h1, h2, h3, p, li, th, td, caption, summary, .chip, svg text")];
  const drawn = [...document.querySelectorAll("svg.plot")].filter(seen);
  const texts = (e) => [...e.querySelectorAll("text")];
  const inside = (e, box) => {
    const r = e.getBoundingClientRect(), b = box.getBoundingClientRect();
    return r.left >= b.left - 1 && r.right <= b.right + 1 && r.top >= b.top - 1 && r.bottom <= b.bottom + 1;
  };
  return {
    overflow: document.documentElement.scrollWidth - innerWidth,
    headings: [...document.querySelectorAll("h1, h2")].map((e) => e.textContent),
    plots: drawn.map((e) => e.getAttribute("class")),
    names: drawn.map((e) => e.getAttribute("aria-label")),
    lines: drawn.map((e) => [...e.querySelectorAll(".line")].filter((l) => l.getTotalLength() > 50).length),
    outside: drawn.flatMap((e) => texts(e).filter((t) => !inside(t, e))).map((t) => t.textContent),
    small: drawn.flatMap(texts).filter((t) => t.getBoundingClientRect().height < 11).length,
    pale: words.filter(seen).filter((e) => contrast(e) < 4.5).map((e) => e.textContent.slice(0, 40)),
    tables: [...document.querySelectorAll("table")].filter((t) => !t.caption || !t.tHead).length,
    dark: luminance(behind(document.body)) < 0.1,
  };
})()"""


async def looked(chromium: Browser, where: Path, width: int, scheme: str) -> dict[str, Any]:
    """Return what a page looks like; it has to be quiet, and to ask for nothing but itself."""
    async with chromium.tab() as tab:
        await tab.open(where.as_uri(), width=width, scheme=scheme)
        found: dict[str, Any] = await tab.value(LOOK)
        assert tab.seen.complaints == []
        assert tab.seen.requests == [where.as_uri()]
        assert (await tab.screenshot())[:8] == b"\x89PNG\r\n\x1a\n"
        return found
