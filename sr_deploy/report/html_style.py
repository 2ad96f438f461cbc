"""The style sheet of the pages: light and dark, narrow and wide, on screen and on paper. System fonts only."""

STYLE = """\
:root { --text: #1b1f24; --soft: #57606a; --back: #ffffff; --card: #f5f7f9; --line: #d5dae0; --mark: #0b5cad;
  --warn: #8a4600; --warn-back: #fff4e0; --good: #0a6b45; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ed; --soft: #a3adb8; --back: #14171b; --card: #1e2329; --line: #39414a; --mark: #7db8f5;
    --warn: #f0b35c; --warn-back: #33260f; --good: #5fd3a2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.06rem; margin: 1.7rem 0 .4rem; overflow-wrap: anywhere; }
p, ul { margin: .4rem 0 .8rem; max-width: 46rem; }
ul { padding-left: 1.2rem; }
.small, figcaption, caption { color: var(--soft); font-size: .875rem; }
.warn { color: var(--warn); background: var(--warn-back); padding: .5rem .8rem; border-left: 3px solid var(--warn);
  list-style-position: inside; }
.note { background: var(--card); padding: .6rem .9rem; border-left: 3px solid var(--mark); }
.good { color: var(--good); }
a { color: var(--mark); }
pre { background: var(--card); padding: .6rem .9rem; overflow-x: auto; border-radius: 4px; max-width: 46rem; }
code { font: .875rem/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.wide { overflow-x: auto; margin: .6rem 0 1.2rem; }
.wide:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9375rem; min-width: min(100%, 34rem); }
caption { text-align: left; padding-bottom: .35rem; max-width: min(46rem, calc(100vw - 2rem)); }
th, td { padding: .3rem .8rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
th:first-child { padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: .875rem; vertical-align: bottom; }
tbody th, tfoot th { font-weight: 500; min-width: 6rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tfoot td, tfoot th { border-top: 2px solid var(--line); border-bottom: 0; }
thead tr:not(:last-child) td { border: 0; }
th[scope=colgroup] { text-align: center; color: var(--text); border-bottom: 0; padding-bottom: 0; }
.best { font-weight: 700; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .1rem 2rem;
  margin: .6rem 0 1rem; align-items: start; }
dl div { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--line);
  padding: .25rem 0; }
dt { color: var(--soft); flex: none; }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: .8rem 0 1.4rem; }
img { display: block; max-width: 100%; height: auto; }
.plot img { width: 100%; max-width: 48rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr)); gap: .9rem; }
.panels + .panels { margin-top: 1.3rem; }
.panels figure { margin: 0; }
@media (min-width: 62rem) { .errors::before { content: ""; } }
.panels img { width: 100%; }
.panels .detail { image-rendering: pixelated; margin-top: .3rem; aspect-ratio: 1; }
.panels figcaption { padding-top: .3rem; line-height: 1.35; }
.scale { max-width: 22rem; margin: .9rem 0; }
.scale img { width: 100%; height: .8rem; border-radius: 2px; }
.ends { display: flex; justify-content: space-between; font-size: .875rem; color: var(--soft); }
img.dark { display: none; }
@media screen and (prefers-color-scheme: dark) { .turned { filter: invert(.91) hue-rotate(180deg); }
  img.light { display: none; } img.dark { display: block; } }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--mark); overflow-wrap: anywhere; }
@media (max-width: 30rem) {
  .panels { grid-template-columns: repeat(2, 1fr); gap: .6rem; }
  h1 { font-size: 1.4rem; } th, td { padding: .3rem .5rem; } }
@media print {
  :root { --text: #000; --soft: #444; --back: #fff; --card: #f3f3f3; --line: #bbb; --mark: #000; --warn: #000;
    --warn-back: #fff; --good: #000; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  h2, h3, caption { break-after: avoid; } figure, tr, .panels { break-inside: avoid; }
  .panels { grid-template-columns: repeat(auto-fill, minmax(2.6cm, 1fr)); gap: .3cm; } .errors::before { content: ""; }
  .panels figcaption { font-size: 8pt; overflow-wrap: anywhere; } .scale { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: 9pt; } th, td { padding: .2rem .45rem; }
  .plot img { max-width: 14cm; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
