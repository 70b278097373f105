"""The chart of `bench/results/speed-batch-1.json`, as an SVG; `results_tables` writes it."""

from __future__ import annotations

from html import escape
from typing import Any

from speed_tables import FIVE_SECONDS
from table_cells import Say, device, source

CHART_NOTE = "Warm medians, fp16, batch 1; the line goes from p5 to p95. Shorter is better."

KOREAN = {
    CHART_NOTE: "예열 후 중앙값, fp16, 배치 1. 가는 선은 p5에서 p95까지. 짧을수록 좋다.",
    "Time of a 5 s utterance": "5초 발화에 걸리는 시간",
}

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 760, 120, 110, 64, 34, 20
"""Of the chart, in pixels: margins beside the bars, the title's height, a row's, a bar's."""
_STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI','Noto Sans KR',sans-serif;fill:#1f2328}"
    ".title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}"
    ".bar{fill:#0969da}.base{fill:#8c959f}.range{stroke:#1f2328;stroke-width:1.5}.page{fill:#fff}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.bar{fill:#4493f8}"
    ".base{fill:#6e7681}.range{stroke:#e6edf3}.page{fill:#0d1117}}"
)


def chart(document: dict[str, Any], say: Say) -> str:
    """Milliseconds of the 5 s utterance by mode, fp16, as an SVG: a bar for the median, a line from p5 to p95.

    Raises:
        SystemExit: no row of it.
    """
    rows = [r for r in document["results"] if r["case"] == FIVE_SECONDS and r["dtype"] == "fp16"]
    rows = [r for r in rows if r.get("batch", 1) == 1]
    if not rows:
        raise SystemExit(f"bench/results/speed-batch-1.json holds no fp16 rows of {FIVE_SECONDS!r}")
    scale = (_WIDTH - _LEFT - _RIGHT) / max(r["p95_ms"] for r in rows)
    height = _TOP + len(rows) * _ROW + 34
    title = say("Time of a 5 s utterance")
    note = say(CHART_NOTE)
    figures = ", ".join(f"{r['mode']} {r['median_ms']:.0f} ms" for r in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(figures)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="small" x="16" y="46">{escape(note)}</text>',
    ]
    for index, r in enumerate(rows):
        y = _TOP + index * _ROW
        middle = y + _BAR / 2
        low, median, high = (_LEFT + r[key] * scale for key in ("p5_ms", "median_ms", "p95_ms"))
        kind = "base" if r["mode"] == "base" else "bar"
        lines += [
            f'<text x="{_LEFT - 10}" y="{middle + 4.5:.1f}" text-anchor="end">{escape(r["mode"])}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{median - _LEFT:.1f}" height="{_BAR}" rx="2"/>',
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
            f'<text x="{max(median, high) + 8:.1f}" y="{middle + 4.5:.1f}">{r["median_ms"]:.0f} ms</text>',
        ]
    caption = f"{device(document, say)}, {source(document)}"
    lines += [f'<text class="small" x="16" y="{height - 12}">{escape(caption)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"
