"""The report as one HTML file that opens alone: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from omnivoice_triton.verify.report import Table, headline, tables, threshold_lines, verdict

_STYLE = """
:root { color-scheme: light dark; --good: #17803d; --bad: #c02626; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 .good, h1 .bad { padding: 0 .6rem; border-radius: .4rem; color: #fff; }
h1 .good { background: var(--good); } h1 .bad { background: var(--bad); }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: .87rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
tr.bad td { color: var(--bad); font-weight: 600; } li.bad { color: var(--bad); }
pre { overflow-x: auto; font-size: .8rem; border: 1px solid var(--line); padding: .6rem; }
"""


def render(document: dict[str, Any]) -> str:
    """The page."""
    passed = document["passed"]
    badge = f'<span class="{"good" if passed else "bad"}">{verdict(passed)}</span>'
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>omnivoice-triton verify: {verdict(passed)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>omnivoice-triton verify {badge}</h1><p>{escape(headline(document))}</p>",
        *(_table(table) for table in tables(document)),
    ]
    for tier in document["results"]:
        lines = [f"<li>{escape(note)}</li>" for note in tier["notes"]]
        lines += [f'<li class="bad">{escape(problem)}</li>' for problem in tier["problems"]]
        parts.append(f"<h2>Tier {tier['tier']}: notes and failures</h2><ul>{''.join(lines) or '<li>none</li>'}</ul>")
        thresholds = escape("\n".join(threshold_lines(tier)))
        parts.append(f"<details open><summary>thresholds</summary><pre>{thresholds}</pre></details>")
    machine = escape(json.dumps(document["environment"], indent=1, ensure_ascii=False))
    parts.append(f"<details><summary>machine and versions</summary><pre>{machine}</pre></details></body></html>\n")
    return "\n".join(parts)


def write(document: dict[str, Any], path: Path) -> None:
    """Write the page to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(document), encoding="utf-8")


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    body = "".join(
        f'<tr class="bad">{cells}</tr>' if bad else f"<tr>{cells}</tr>"
        for row, bad in zip(table.rows, table.bad, strict=True)
        for cells in ["".join(f"<td>{escape(cell)}</td>" for cell in row)]
    )
    return f'<h2>{escape(table.title)}</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'
