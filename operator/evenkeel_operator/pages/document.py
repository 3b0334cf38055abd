"""What frames a page? Its style, for light and dark and for every width, and a policy by which it may load nothing.

The policy names the style by its hash: what slipped through the escaping could neither run nor call out, nor look like
something else.
"""

from __future__ import annotations

import base64
import hashlib

from evenkeel_operator.pages.markup import Content, Markup, tag

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5a6675; --rule: #dfe3e8; --grid: #e9ecf0;
  --stable: #1f6fd6; --canary: #b85c00; --floor: #c2253c; --for: #1a7f45; --against: #c2253c;
  --good: #1a7f45; --bad: #c2253c; --unknown: #6b7683; --hit: 31 111 214; --miss: 194 37 60; }
@media (prefers-color-scheme: dark) { :root {
  --page: #11161d; --card: #1a212b; --ink: #e7ebf0; --soft: #9fabb9; --rule: #313b48; --grid: #283140;
  --stable: #6fa8f5; --canary: #f0a04b; --floor: #f27e8d; --for: #5cc98a; --against: #f27e8d;
  --good: #5cc98a; --bad: #f27e8d; --unknown: #9fabb9; --hit: 111 168 245; --miss: 242 126 141; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Liberation Sans", "Segoe UI", sans-serif; overflow-wrap: anywhere; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; } h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; } h3:first-of-type { margin-top: .5rem; }
p { margin: .35rem 0; } .soft, caption, figcaption { color: var(--soft); font-size: .87rem; }
header { margin-bottom: 1rem; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem; margin: 1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.2rem, 1fr)); gap: .75rem; padding: 0;
  margin: 1rem 0 0; list-style: none; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.chip { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 .6rem; font-weight: 600;
  font-size: .87rem; white-space: nowrap; } .good { color: var(--good); } .bad { color: var(--bad); }
.unknown { color: var(--unknown); } .going { color: var(--canary); }
.missing { border-left: 3px solid var(--canary); padding: .1rem .75rem; margin: .5rem 0; }
.story { padding-left: 1.2rem; margin: .5rem 0; } .story li { margin: .2rem 0; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .2rem 0; } caption span { display: block; max-width: calc(100vw - 3.5rem); }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-top: 1px solid var(--rule);
  overflow-wrap: normal; unicode-bidi: isolate; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 600; } .n { text-align: right; white-space: nowrap; } .keep { white-space: nowrap; }
.text { min-width: 18rem; overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
figure { margin: .5rem 0; } .plot { display: block; width: 100%; height: auto; } .narrow { display: none; }
@media (max-width: 40rem) { .wide { display: none; } .narrow { display: block; } main { padding: 1rem .6rem 2rem; }
  section { padding: .8rem .7rem; } }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 1.5rem; }
.beside > * { min-width: 0; } .beside h3:first-child { margin-top: .5rem; }
.beside .wide { display: none; } .beside .narrow { display: block; }
@media print { section, .tile { break-inside: avoid; } }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .3rem 0; padding: 0;
  font-size: .87rem; color: var(--soft); }
.swatch { display: inline-block; width: 1.1rem; height: .2rem; margin-right: .4rem; vertical-align: .25em;
  background: var(--mark); } .swatch.dot { width: .55rem; height: .55rem; border-radius: 50%; vertical-align: 0; }
.swatch.area { height: .8rem; opacity: .25; vertical-align: -.1em; }
.swatch.level { background: none; border-top: .15rem dashed var(--mark); height: 0; }
.stable { --mark: var(--stable); } .canary { --mark: var(--canary); } .floor { --mark: var(--floor); }
.for { --mark: var(--for); } .against { --mark: var(--against); } .other { --mark: var(--unknown); }
svg text { font-size: 12px; fill: var(--soft); paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
.grid { stroke: var(--grid); } .tick.y, .name { text-anchor: end; } .name.left { text-anchor: start; }
.tick.x { text-anchor: middle; } .line { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--mark); opacity: .2; } .dot circle { fill: var(--mark); }
.whisker { stroke: var(--mark); stroke-width: 1.5; opacity: .35; }
.level { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 6 4; } svg .name { fill: var(--mark); }
line.moment { stroke: var(--soft); stroke-dasharray: 2 3; }
.matrices { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; } .matrices > div { max-width: 100%; }
.matrix { width: auto; } .matrix td, .matrix th { padding: .25rem .45rem; text-align: right; border: 0; }
.matrix thead th { text-align: right; } .matrix .corner { text-align: left; font-weight: 400; }
""" + "".join(
    f".hit{n} {{ background: rgb(var(--hit) / {n * 5}%); }} .miss{n} {{ background: rgb(var(--miss) / {n * 5}%); }}\n"
    for n in range(1, 11)
)


def document(title: str, body: Content) -> str:
    """Return a whole page."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', body)), lang='en')}\n"
