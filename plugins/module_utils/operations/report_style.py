# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the report's page looks: light, dark, narrow, and on paper.

Private to the collection: use the modules, not this file.

The six colours of phases and layers have a contrast of 4.5 to the white numbers on them, and of 3 to both backgrounds.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --back: #fff; --line: #ccc; --quiet: #5c5f66; --soft: #f3f4f6;
  --good: #17692e; --warn: #7a4d00; --bad: #a81520; --link: #0b57b0; --made: #d6e6f7; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --back: #16181b; --line: #444; --quiet: #a7abb3;
  --soft: #23262b; --good: #6fcf87; --warn: #f0b350; --bad: #ff8a8f; --link: #8ab8f5; --made: #24405f; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 76rem;
  margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } p { margin: .4rem 0; } small, .legend, .quiet { color: var(--quiet); }
a { color: var(--link); } small, .legend { font-size: .85rem; }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; background: var(--soft); font-weight: bold; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
ol, ul { padding-left: 0; list-style: none; margin: .4rem 0; }
.open > li { border-left: .25rem solid var(--bad); background: var(--soft); padding: .5rem .8rem; margin: .5rem 0; }
.open > li.w { border-color: var(--warn); } .open p { margin: .1rem 0; }
section { border-top: 2px solid var(--line); margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .4rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.fleet { overflow-wrap: normal; } .fleet th[scope=row], .fleet td:nth-child(2) { overflow-wrap: anywhere; }
.points { max-width: 52rem; } .points th { overflow-wrap: normal; }
.calendars { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 1.5rem; }
.cal { table-layout: fixed; font-size: .8rem; } .cal caption { text-align: left; padding: .3rem 0; }
.cal th, .cal td { padding: .1rem 0; text-align: center; border: 1px solid var(--line); height: 1.6rem; }
.cal th { border-color: transparent; font-weight: normal; color: var(--quiet); overflow-wrap: normal; }
.cal th:first-child { text-align: left; width: 4.2em; white-space: nowrap; } .cal .o { border-color: transparent; }
.s { background: var(--made); } .key { display: inline-block; min-width: 1.6em; text-align: center; padding: 0 .3em;
  border: 1px solid var(--line); margin-left: .6em; color: var(--text); }
.p0 { --p: #2f6fb3; } .p1 { --p: #a8572a; } .p2 { --p: #0f7a74; } .p3 { --p: #8a55b5; } .p4 { --p: #4f7a28; }
.p5 { --p: #b0407a; }
svg { display: block; width: 100%; } svg rect { fill: var(--p); stroke: var(--back); stroke-width: 1; }
svg text { fill: #fff; font-size: 12px; text-anchor: middle; dominant-baseline: central; }
svg .after rect { fill-opacity: .25; stroke: var(--p); stroke-dasharray: 3 2; } svg .after text { fill: var(--text); }
.bar { height: 26px; background: var(--soft); } .bar line { stroke: var(--text); stroke-width: 2; }
.drills > li { margin: .9rem 0; }
.phases { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; } .after { color: var(--quiet); }
.p { display: inline-block; min-width: 1.5em; padding: 0 .25em; text-align: center; font-style: normal; color: #fff;
  background: var(--p); } .after .p { background: none; color: inherit; outline: 1px dashed var(--p); }
.sizes { max-width: 52rem; } .sizes .chart { width: 35%; } .sizes svg { height: 18px; }
.l0, .l1, .l2 { border-bottom: 4px solid var(--p); } .l0 { --p: #2f6fb3; } .l1 { --p: #a8572a; } .l2 { --p: #0f7a74; }
tfoot td, tfoot th { font-weight: bold; }
@media (max-width: 45rem) {
  .sizes .chart { display: none; } th, td { padding: .25rem .3rem; } .points, .sizes { font-size: .82rem; }
  .fleet, .fleet tbody, .fleet tr, .fleet td, .fleet th { display: block; border: 0; padding: 0; }
  .fleet thead { position: absolute; clip-path: inset(50%); height: 1px; width: 1px; overflow: hidden; }
  .fleet tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .fleet td { display: flex; gap: .5rem; } .fleet td::before { flex: 0 0 8.5rem; color: var(--quiet); }
}
@media print {
  :root { --text: #000; --back: #fff; --line: #888; --quiet: #333; --soft: #fff; --good: #000; --warn: #000;
    --bad: #000; --link: #000; --made: #e4e4e4; }
  body { margin: 0; padding: 0; max-width: none; font-size: 10pt; } a { text-decoration: none; }
  svg, .s, .p { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, .open > li, .drills > li, .cal { break-inside: avoid; } h2, h3 { break-after: avoid; }
  thead { display: table-header-group; } tfoot { display: table-row-group; }
}
"""
