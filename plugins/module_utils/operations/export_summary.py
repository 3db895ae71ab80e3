# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of an evidence bundle that people read and print, and its README.

Private to the collection: use the modules, not this file.

One page without scripts and without anything from elsewhere; whatever comes from records is escaped.
"""

from __future__ import annotations

import html
import typing as t

from .export_findings import EXPORTED
from .export_statement import COLUMNS

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --back: #fff; --line: #ccc; --good: #17692e; --bad: #a81520;
  --soft: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --back: #16181b; --line: #444; --good: #6fcf87;
  --bad: #ff8a8f; --soft: #23262b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.short td { color: var(--bad); font-weight: bold; } tfoot td { font-weight: bold; }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; background: var(--soft); font-weight: bold; }
.good { border-color: var(--good); color: var(--good); } .bad { border-color: var(--bad); color: var(--bad); }
code, pre { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.wide { overflow-x: auto; }
@media print { :root { --text: #000; --back: #fff; --line: #999; --good: #000; --bad: #000; --soft: #fff; }
  body { margin: 0; max-width: none; font-size: 10pt; } h2, tr { break-inside: avoid; break-after: auto; }
  thead { display: table-header-group; } .bad::before { content: "! "; } }
"""
_EXPLAINED = {
    "written": "by the numbers that the gateway gave out: what was found, and what is known to be missing",
    "live": "still in the live logs",
    "archived": "in snapshots, by their indexes",
    "restorable": "fetched from a snapshot in this run, decrypted, and proven",
    "exported": "in this bundle",
    "missing": "of what was written; in the hour of the record before them",
}
_CHECK = "python3 -I check.py"
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""
_TAIL = """<p>This page is a summary. The evidence is the records, and the signed statement that lists every file of
this folder with its SHA-256, and every object that the records came from. In this folder, with Python 3.6 or newer and,
for the signature, gpg:</p>
<pre>{command}</pre>
<p>Compare the fingerprint with one that you were given by another way than this folder.</p>
</body>
</html>
"""


def page(statement: dict[str, t.Any]) -> str:
    """The whole page."""
    window, records = statement["window"], statement["records"]
    title = f"Audit records of {statement['instance']}"
    verdict = _verdict(statement)
    parts = [
        _HEAD.format(title=_e(title), style=_STYLE),
        f'<p class="verdict {"good" if statement["ok"] else "bad"}">{_e(verdict)}</p>\n',
        _table(
            ("", ""),
            [
                ("Window", f"{window['start']} up to, and not with, {window['end']}"),
                ("Records", f"{records['count']}, of which {records['unchained']} have no chain"),
                ("Repository", statement["repository"]),
                ("Made", f"{statement['created']} on {statement['host']}"),
                ("Signed by", statement["signed_by"] or "nobody"),
            ],
        ),
        "<h2>What is proven</h2>\n", _list(statement["proven"]),
        "<h2>What is not proven</h2>\n", _list(statement["not_proven"]),
        "<h2>Findings</h2>\n", _findings(statement),
        "<h2>Records by hour (UTC)</h2>\n", _hours(statement),
        "<h2>Chains</h2>\n<p>Each writer numbers its records and names in each the hash of the one before.</p>\n",
        _table(
            ("Chain", "First", "Last", "Records", "From", "To", "Missing numbers"),
            [
                (
                    c["chain"], c["first"], c["last"], c["count"], c["since"], c["until"],
                    ", ".join(f"{first} to {last}" for first, last in c["gaps"]) or "none",
                )
                for c in statement["chains"]
            ],
        ),
        "<h2>Where the records come from</h2>\n",
        _table(
            ("Snapshot", "Type", "Made", "Objects read"),
            [(s["snapshot"], s["type"], s["created"], len(s["objects"])) for s in statement["sources"]["snapshots"]],
        ),
        f"<p>Live logs: {_e(', '.join(statement['sources']['live_logs']) or 'none')}.</p>\n",
        "<h2>How to check this</h2>\n",
        _TAIL.format(command=_CHECK + _e(_signer_option(statement))),
    ]  # fmt: skip
    return "".join(parts)


def _verdict(statement: dict[str, t.Any]) -> str:
    if statement["ok"]:
        if statement["records"]["chained"] or not statement["records"]["count"]:
            return "Nothing was found to be missing, changed or out of order."
        return "Nothing was found to be wrong; these records have no chain, so that completeness cannot be proven."
    wrong = sum(1 for f in statement["findings"] if f["scope"] == EXPORTED and not f["innocent"])
    return f"Not all is right: {wrong} finding(s) that everyday operation does not explain. See below."


def _signer_option(statement: dict[str, t.Any]) -> str:
    return f" --signer {statement['signed_by']}" if statement["signed_by"] else ""


def _findings(statement: dict[str, t.Any]) -> str:
    if not statement["findings"]:
        return "<p>None.</p>\n"
    rows = [
        (
            "innocent" if f["innocent"] else "WRONG", f["kind"].replace("_", " "), f["scope"], f["chain"] or "-",
            "-" if not f["first"] else str(f["first"]) if f["first"] == f["last"] else f"{f['first']} to {f['last']}",
            f["since"] if f["since"] == f["until"] else f"{f['since']} to {f['until'] or '?'}",
            f"{f['where']}: {f['why']}" if f["where"] else f["why"],
        )
        for f in statement["findings"]
    ]  # fmt: skip
    return _table(("", "What", "In", "Chain", "Numbers", "Time", "Where and why"), rows)


def _hours(statement: dict[str, t.Any]) -> str:
    table = statement["conservation"]
    head = "".join(f'<th class="n" scope="col">{name}</th>' for name in COLUMNS)
    rows = []
    for hour, row in table["hours"].items():
        short = ' class="short"' if row["missing"] or row["exported"] < row["written"] else ""
        cells = "".join(f'<td class="n">{row[name]}</td>' for name in COLUMNS)
        rows.append(f"<tr{short}><td>{_e(hour.replace('T', ' ') or 'unknown')}</td>{cells}</tr>\n")
    total = "".join(f'<td class="n">{table["total"][name]}</td>' for name in COLUMNS)
    told = "".join(f"<li>{name}: {_e(_EXPLAINED[name])}</li>\n" for name in COLUMNS)
    return (
        f'<div class="wide"><table>\n<thead><tr><th scope="col">Hour</th>{head}</tr></thead>\n<tbody>\n{"".join(rows)}'
        f"</tbody>\n<tfoot><tr><td>All</td>{total}</tr></tfoot>\n</table></div>\n<ul>\n{told}</ul>\n"
    )


def _table(head: t.Sequence[str], rows: t.Sequence[t.Sequence[t.Any]]) -> str:
    if not rows:
        return "<p>None.</p>\n"
    titles = "".join(f'<th scope="col">{_e(cell)}</th>' for cell in head) if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{_e(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    thead = f"<thead><tr>{titles}</tr></thead>\n" if titles else ""
    return f'<div class="wide"><table>\n{thead}<tbody>\n{body}</tbody>\n</table></div>\n'


def _list(items: t.Sequence[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{_e(item)}</li>\n" for item in items) + "</ul>\n" if items else "<p>Nothing.</p>\n"


def _e(value: t.Any) -> str:
    return html.escape(str(value).encode("utf-8", "replace").decode())


def readme(statement: dict[str, t.Any]) -> str:
    """What is what in the bundle."""
    window = statement["window"]
    return f"""Audit records of {statement["instance"]}
from {window["start"]} up to, and not with, {window["end"]}
{_verdict(statement)}

summary.html        what was found, to read and to print
statement.json      the same for programs, with the SHA-256 of every other file here
statement.json.asc  its signature (OpenPGP)
signer.asc          the public key that belongs to it
records/            the records: JSON lines, gzip, each exactly as the gateway wrote it; all chains merged by time
check.py            checks all of it; needs Python 3.6 or newer, and gpg for the signature

  {_CHECK}{_signer_option(statement)}

Compare the fingerprint with one that you were given by another way than this folder.
Take check.py from elsewhere if you do not trust this copy: it is part of the Ansible collection guardops.qwen3guard.
"""
