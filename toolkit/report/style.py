"""The look of the report: light and dark, from a telephone to paper. System fonts only: a page that loads nothing."""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2128",
    "quiet": "#57606a",  # text that is not read first
    "line": "#d4dae0",
    "data": "#0b5cad",  # marks and bars
    "tint": "#c5ddf5",  # what was proved, and what is right
    "pale": "#e9f1fa",  # positive, but not right
    "bad": "#b3261e",
    "bad-tint": "#fbe4e2",
    "odd": "#8f6400",
    "odd-tint": "#f7dfb5",  # subnormal
    "good": "#1a7037",
    "good-tint": "#e3f4e7",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e7ebef",
    "quiet": "#a3adb8",
    "line": "#3a434d",
    "data": "#6cb1f5",
    "tint": "#1f4a75",
    "pale": "#22364a",
    "bad": "#ff8f85",
    "bad-tint": "#4a2321",
    "odd": "#d9ad4c",
    "odd-tint": "#57431a",
    "good": "#6fd08c",
    "good-tint": "#17351f",
}


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT)} }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }}
h1, h2, h3 {{ line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.75rem; margin: .25rem 0 .5rem; }}
h2 {{ font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 1.75rem 0 .5rem; }}
p, ul {{ max-width: 44rem; margin: .5rem 0; }}
ul {{ padding-left: 1.25rem; }}
li {{ margin: .25rem 0; overflow-wrap: anywhere; }}
a {{ color: var(--data); }}
.quiet, figcaption, caption {{ color: var(--quiet); }}
.verdict {{ padding: 1.25rem 1.25rem 1rem; border-left: .5rem solid; border-radius: .25rem; }}
.verdict.passed {{ background: var(--good-tint); border-color: var(--good); }}
.verdict.failed {{ background: var(--bad-tint); border-color: var(--bad); }}
.verdict p {{ margin: .25rem 0; }}
.word {{ font-weight: 700; white-space: nowrap; }}
.passed .word, .word.passed {{ color: var(--good); }}
.failed .word, .word.failed {{ color: var(--bad); }}
table {{ border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding: 0 0 .5rem; font-size: .875rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }}
th {{ font-weight: 600; }}
thead th {{ font-size: .875rem; color: var(--quiet); vertical-align: bottom; }}
td, tbody th {{ overflow-wrap: anywhere; }}
tbody th {{ min-width: 6.5rem; }}
code {{ font: .875em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
code, summary {{ overflow-wrap: anywhere; }}
details {{ font-size: .875rem; }}
summary {{ color: var(--data); cursor: pointer; width: fit-content; }}
figure {{ margin: 1rem 0 1.5rem; }}
figcaption {{ font-size: .875rem; max-width: 44rem; margin-top: .25rem; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 0 1rem; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1rem; }}
.chart {{ padding: 0 1rem 0 .5rem; overflow-x: auto; }}
svg {{ display: block; overflow: visible; }}
svg text {{ font-size: 12px; fill: var(--ink); }}
svg .strong {{ font-weight: 600; }}
svg .tick {{ fill: var(--quiet); }}
svg .grid {{ stroke: var(--line); stroke-width: 1; }}
svg .axis {{ stroke: var(--quiet); stroke-width: 1; }}
svg .limit {{ stroke: var(--bad); stroke-width: 1.5; }}
svg .dashed {{ stroke-dasharray: 4 3; }}
svg .limit-text, svg .bad-text {{ fill: var(--bad); }}
svg .danger-zone {{ fill: var(--bad-tint); }}
svg .interval {{ fill: var(--tint); }}
svg .ring {{ fill: var(--paper); stroke: var(--data); stroke-width: 2; }}
svg .dot {{ fill: var(--data); stroke: var(--data); stroke-width: 2; }}
svg .bad {{ stroke: var(--bad); }}
svg .dot.bad, svg .mark.bad {{ fill: var(--bad); }}
svg .bar {{ fill: var(--data); opacity: .55; }}
svg .statistic {{ stroke: var(--ink); stroke-width: 1.5; }}
svg .range {{ fill: var(--data); }}
svg .points {{ stroke: var(--data); stroke-width: 3px; stroke-linecap: round; stroke-opacity: .5; fill: none;
  vector-effect: non-scaling-stroke; }}
svg .points.bad {{ stroke: var(--bad); stroke-opacity: 1; }}
svg .identity {{ stroke: var(--ink); stroke-width: 1px; fill: none; vector-effect: non-scaling-stroke; }}
svg .on-plot {{ stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }}
.good {{ fill: var(--tint); background: var(--tint); }}
.inexact {{ fill: var(--pale); background: var(--pale); }}
.subnormal {{ fill: var(--odd-tint); background: var(--odd-tint); }}
.zero, .infinite, .negative, .nan {{ fill: var(--bad-tint); background: var(--bad-tint); }}
.interval, rect.good, rect.inexact, span.good, span.inexact {{ stroke: var(--data); border: 1px solid var(--data); }}
.subnormal {{ stroke: var(--odd); border: 1px solid var(--odd); }}
.zero, .infinite, .negative, .nan {{ stroke: var(--bad); border: 1px solid var(--bad); }}
svg .on-inexact {{ stroke: var(--pale); stroke-width: 4px; paint-order: stroke; }}
svg .on-zero, svg .on-infinite, svg .on-negative, svg .on-nan {{ fill: var(--bad); font-weight: 700; }}
.key {{ list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; }}
.key span {{ display: inline-block; width: 1.5em; height: .9em; margin-right: .4em; vertical-align: -.1em; }}
@media (max-width: 40rem) {{
  table, tbody, tr, td, tbody th, caption {{ display: block; width: 100%; }}
  thead {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }}
  tr {{ padding: .5rem 0; border-bottom: 1px solid var(--line); }}
  td, tbody th {{ border: 0; padding: .1rem 0; }}
  td[data-label]::before {{ content: attr(data-label) ": "; color: var(--quiet); }}
}}
@media print {{
  body {{ max-width: none; padding: 0; font-size: 10pt; }}
  svg, .verdict, .key span {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
  h2, h3, caption {{ break-after: avoid; }}
  figure, tr, .verdict {{ break-inside: avoid; }}
  a {{ color: inherit; text-decoration: none; }}
  table {{ font-size: .85em; }}
  details {{ display: none; }}
}}
"""
