"""Write the tables and charts of the README and docs/results, in English and Korean, from the JSON under bench/results.

    python tools/results_tables.py           rewrite
    python tools/results_tables.py --check   exit code 1 if a file differs from what its JSON says

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. A page whose name ends in `_ko` or `.ko` gets Korean
words; a text that has no translation is an error, never left in English.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # as it is when this runs as a script
import turbo_tables
import verify_tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = ("README.md", "README_ko.md", "docs/results.md", "docs/results.ko.md")
CHARTS = {"docs/charts/modes.svg": "en", "docs/charts/modes.ko.svg": "ko"}
BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.S)
FIVE_SECONDS = "en 5 s"

Rows = list[list[str]]
Say = Callable[[str], str]

MODES_NOTE = (
    "A 5 s utterance, 32 steps, guidance 2, batch 1: wall clock around `generate()`, warm medians. All modes "
    "take turns in one process. *Of base*: median of the rounds' own ratios. The eager modes are bound by the "
    "host, whose speed drifts, so *of its p5* sets the median against base's fastest runs: the cautious figure. "
    "First call and memory: fp16."
)
NOT_YET = "Not measured yet."
BATCH_NOTE = (
    "The 5 s utterance as a list of so many texts, fp16. *Times real time*: seconds of audio per second of work, of "
    "all texts together; RTF is its inverse. LM, codec and post-processing in calls of their own, the device "
    "synchronised around each. Energy by NVML, whole board, idle power included."
)
LEFT_OUT = "Left out, with the reason in the JSON: {names}."
KERNELS_NOTE = (
    "*torch.compile* and *Liger*: their time over ours, in a graph, L2 cold. Copy and matmul: percent of ceilings "
    "measured in the same run, {copy} GB/s and {matmul} TFLOP/s. What moves too little to leave the L2 cache has no "
    "cold time. Three numbers of rows a kernel at most; others and other data types are in the JSON."
)
PEERS_NOTE = "A path that is not there has no number; not available here (reasons in the JSON): {names}."
CHART_NOTE = "Warm medians, fp16, batch 1; the line goes from p5 to p95. Shorter is better."

KOREAN = {
    MODES_NOTE: (
        "5초 발화, 32스텝, 가이던스 2, 배치 1. `generate()` 전체의 실제 경과 시간이며 예열 후 중앙값이다. "
        "모든 모드를 한 프로세스에서 번갈아 실행한다. *base 대비*는 회차별 비율의 중앙값이다. "
        "그래프를 쓰지 않는 모드는 호스트 속도에 묶이고 그 속도는 흔들리므로, *base p5 대비*는 중앙값을 "
        "base의 가장 빠른 실행들과 견준 보수적인 값이다. 첫 호출과 메모리는 fp16 기준이다."
    ),
    CHART_NOTE: "예열 후 중앙값, fp16, 배치 1. 가는 선은 p5에서 p95까지. 짧을수록 좋다.",
    NOT_YET: "아직 측정하지 않았다.",
    BATCH_NOTE: (
        "5초 발화를 그 개수만큼 목록으로 준 것, fp16. *실시간 대비*는 작업 1초당 만든 오디오의 초이며 모든 "
        "문장을 합한 값이다. RTF는 그 역수다. LM, 코덱, 후처리는 부분마다 장치를 동기화하며 따로 잰 호출의 "
        "값이다. 에너지는 NVML이 잰 보드 전체의 값이고 유휴 전력을 포함한다."
    ),
    LEFT_OUT: "재지 않은 것(이유는 JSON에 있다): {names}.",
    KERNELS_NOTE: (
        "*torch.compile*과 *Liger*는 L2를 비운 그래프에서 우리 커널 대비 걸린 시간의 배수다. 복사와 행렬곱은 "
        "같은 실행에서 잰 한계 {copy} GB/s, {matmul} TFLOP/s에 대한 백분율이다. 옮기는 양이 적어 L2를 벗어나지 "
        "않는 커널에는 L2를 비운 시간이 없다. 커널마다 행 수는 셋까지 보이며, 나머지와 다른 자료형은 JSON에 있다."
    ),
    PEERS_NOTE: "없는 경로에는 수치가 없다. 여기서 쓸 수 없던 것(이유는 JSON에 있다): {names}.",
    "none": "없음",
    "batch": "배치",
    "ms": "ms",
    "LM": "LM",
    "codec": "코덱",
    "post": "후처리",
    "host": "호스트",
    "steps/s": "스텝/초",
    "working memory": "작업 메모리",
    "energy each": "발화당 에너지",
    "path": "경로",
    "of upstream's": "업스트림 대비",
    "case": "사례",
    "torch.compile": "torch.compile",
    "Liger": "Liger",
    "of copy": "복사 대비",
    "of matmul": "행렬곱 대비",
    "mode": "모드",
    "of base": "base 대비",
    "of its p5": "base p5 대비",
    "first call": "첫 호출",
    "times real time": "실시간 대비",
    "peak memory": "최대 메모리",
    "fp16 ms (of base)": "fp16 ms (base 대비)",
    "kernel": "커널",
    "dtype": "자료형",
    "shape": "형태",
    "eager / Triton, µs": "eager / Triton, µs",
    "eager / ours, µs": "eager / 자체 커널, µs",
    "do_bench": "do_bench",
    "in a graph": "그래프 안",
    "in a graph, L2 cold": "그래프 안, L2 비움",
    "{q}/{kv} heads of {d}": "헤드 {q}/{kv}개, 크기 {d}",
    "layer {n}": "{n}층",
    "logit error of base's": "base 대비 로짓 오차",
    "screened argmax": "선별 argmax",
    "pass": "통과",
    "FAIL": "실패",
    "weights": "가중치",
    "Figures": "수치",
    "no GPU": "GPU 없음",
    "en": "영어",
    "ko": "한국어",
    "zh": "중국어",
    "clone": "복제",
    "design": "설계",
    "short": "짧은 문장",
    "{n} s": "{n}초",
    "Time of a 5 s utterance": "5초 발화에 걸리는 시간",
    **turbo_tables.KOREAN,
    **verify_tables.KOREAN,
}


def in_english(text: str) -> str:
    return text


def in_korean(text: str) -> str:
    if text not in KOREAN:
        raise SystemExit(f"no Korean for {text!r}: add it to KOREAN in tools/results_tables.py")
    return KOREAN[text]


SAY: dict[str, Say] = {"en": in_english, "ko": in_korean}


def language_of(page: str) -> str:
    """`ko` for README_ko.md and docs/results.ko.md."""
    return "ko" if Path(page).stem.endswith(("_ko", ".ko")) else "en"


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if not document.get("results"):
        raise SystemExit(f"bench/results/{name}.json holds no results")
    return document


def there_is(name: str) -> bool:
    """Whether that result is committed; tables of others say that nothing was measured yet."""
    return (RESULTS / f"{name}.json").is_file()


def markdown(head: list[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def source(document: dict[str, Any]) -> str:
    """Device, date and versions, the same in every language."""
    env = document["environment"]
    versions = ", ".join(f"{p} {env['versions'][p]}" for p in ("torch", "triton", "transformers", "omnivoice"))
    return f"{env['date_utc'][:10]}, {versions}"


def device(document: dict[str, Any], say: Say) -> str:
    gpus = document["environment"].get("gpus")
    return str(gpus[0]["name"]) if gpus else say("no GPU")


def stamp(document: dict[str, Any], name: str, say: Say) -> str:
    weights = f"; {document['checkpoint']} {say('weights')}" if "checkpoint" in document else ""
    origin = f"`bench/results/{name}.json`"
    return f"\n{device(document, say)}, {source(document)}{weights}. {say('Figures')}: {origin}.\n"


def modes_table(say: Say = in_english) -> str:
    """The 5 s utterance by mode, fp16 and bf16."""
    document = load("speed")
    by = {
        (r["mode"], r["dtype"]): r for r in document["results"] if r["case"] == FIVE_SECONDS and r.get("batch", 1) == 1
    }
    rows = []
    for mode in dict.fromkeys(mode for mode, _ in by):
        row = [f"`{mode}`"]
        for dtype in ("fp16", "bf16"):
            r, base = by[mode, dtype], by["base", dtype]
            fastest = f"{r['median_ms'] / base['p5_ms']:.2f}" if mode != "base" else "1"
            row += [f"{r['median_ms']:.0f} ms", f"{r['ratio_to_base']:.2f}", fastest]
        half = by[mode, "fp16"]
        rows.append(
            [
                *row,
                f"{half['cold_ms'] / 1000:.1f} s",
                f"{half['speed_x']:.0f}x",
                _figure(half, "peak_vram_mb", "{:.2f} GiB", 1 / 1024),
            ]
        )
    ratios = [say("of base"), say("of its p5")]
    head = [say("mode"), "fp16", *ratios, "bf16", *ratios]
    head += [say("first call"), say("times real time"), say("peak memory")]
    return markdown(head, rows) + f"\n{say(MODES_NOTE)}\n" + stamp(document, "speed", say)


def cases_table(say: Say = in_english) -> str:
    """Every case of the speed benchmark, fp16 milliseconds."""
    if not there_is("speed-cases"):
        return f"{say(NOT_YET)}\n"
    document = load("speed-cases")
    found = [r for r in document["results"] if r["dtype"] == "fp16" and r.get("batch", 1) == 1]
    modes, cases = (list(dict.fromkeys(r[key] for r in found)) for key in ("mode", "case"))
    at = {(r["mode"], r["case"]): r for r in found}
    rows = [
        [
            _case(case, say),
            *(
                f"{at[m, case]['median_ms']:.0f} ({at[m, case]['ratio_to_base']:.2f})" if (m, case) in at else "–"
                for m in modes
            ),
        ]
        for case in cases
    ]
    return markdown([say("fp16 ms (of base)"), *modes], rows) + stamp(document, "speed-cases", say)


def _case(case: str, say: Say) -> str:
    """`en 15 s`, or `ko short`, in words of the language."""
    if say is in_english:
        return case
    what, length = case.split(" ", 1)
    if many := re.fullmatch(r"(\d+) x ([\d.]+) s", length):
        return f"{say(what)} {many[1]} x {say('{n} s').format(n=many[2])}"
    seconds = re.fullmatch(r"([\d.]+) s", length)
    return f"{say(what)} {say('{n} s').format(n=seconds[1]) if seconds else say(length)}"


def _figure(row: dict[str, Any], key: str, form: str, factor: float = 1.0) -> str:
    """A figure of a row, or a dash if it was not measured."""
    return form.format(row[key] * factor) if key in row else "–"


BATCH_COLUMNS = (
    ("LM", "lm_ms", "{:.1f}", 1.0),
    ("codec", "codec_ms", "{:.1f}", 1.0),
    ("post", "post_ms", "{:.1f}", 1.0),
    ("host", "host_ms", "{:.1f}", 1.0),
    ("steps/s", "steps_per_s", "{:.0f}", 1.0),
    ("working memory", "call_peak_mb", "{:.2f} GiB", 1 / 1024),
    ("energy each", "joules_per_utterance", "{:.1f} J", 1.0),
)
"""Title, key, form and factor of what only newer files have; a column that no row has is left out."""


def batch_table(say: Say = in_english) -> str:
    """The 5 s utterance by mode and batch: time, RTF, split, memory, energy."""
    if not there_is("speed-batch"):
        return f"{say(NOT_YET)}\n"
    document = load("speed-batch")
    found = [r for r in document["results"] if r["dtype"] == "fp16" and _alone(r) == FIVE_SECONDS]
    columns = [column for column in BATCH_COLUMNS if any(column[1] in r for r in found)]
    rows = [
        [
            str(r.get("batch", 1)),
            f"`{r['mode']}`",
            f"{r['median_ms']:.0f}",
            f"{r['ratio_to_base']:.2f}",
            f"{r['speed_x']:.0f}x",
            f"{1 / r['speed_x']:.4f}",
            *(_figure(r, key, form, factor) for _, key, form, factor in columns),
        ]
        for r in found
    ]
    head = [say(title) for title in ("batch", "mode", "ms", "of base", "times real time")]
    head += ["RTF", *(say(column[0]) for column in columns)]
    return (
        markdown(head, rows) + f"\n{say(BATCH_NOTE)}\n" + _left_out(document, say) + stamp(document, "speed-batch", say)
    )


def _alone(row: dict[str, Any]) -> str:
    """The case without the batch: `en 5 s` of `en 5 s x 8`."""
    return str(row["case"]).split(" x ")[0]


def grid_table(say: Say = in_english) -> str:
    """Every case in batches: how many times real time."""
    if not there_is("speed-batch"):
        return f"{say(NOT_YET)}\n"
    document = load("speed-batch")
    found = [r for r in document["results"] if r["dtype"] == "fp16"]
    modes = list(dict.fromkeys(r["mode"] for r in found))
    cases = list(dict.fromkeys(_alone(r) for r in found))
    sizes = sorted({r.get("batch", 1) for r in found})
    at = {(r["mode"], _alone(r), r.get("batch", 1)): r for r in found}
    rows = [
        [_case(case, say), str(size), *(_figure(at.get((m, case, size), {}), "speed_x", "{:.1f}x") for m in modes)]
        for case in cases
        for size in sizes
        if any((m, case, size) in at for m in modes)
    ]
    head = [f"{say('times real time')}, fp16", say("batch"), *modes]
    return markdown(head, rows) + _left_out(document, say) + stamp(document, "speed-batch", say)


def _left_out(document: dict[str, Any], say: Say) -> str:
    """What was not measured, by name; a line of its own, or nothing."""
    entries = document.get("not_measured", [])
    names = dict.fromkeys(" ".join(str(e[k]) for k in ("dtype", "case", "mode") if k in e) for e in entries)
    return f"\n{say(LEFT_OUT).format(names='; '.join(names))}\n" if names else ""


def peers_table(say: Say = in_english) -> str:
    """Third-party paths beside turbo."""
    if not there_is("peers"):
        return f"{say(NOT_YET)}\n"
    document = load("peers")
    rows = [
        [
            f"`{r['mode']}`",
            r["dtype"],
            _case(_alone(r), say) + (f" x {r['batch']}" if r.get("batch", 1) > 1 else ""),
            f"{r['median_ms']:.1f} ms",
            f"{r['ratio_to_base']:.3f}",
            f"{r['cold_ms'] / 1000:.1f} s",
            f"{r['speed_x']:.0f}x",
        ]
        for r in document["results"]
    ]
    missing = dict.fromkeys(f"`{e['path']}` ({e['dtype']})" for e in document["not_available"])
    note = say(PEERS_NOTE).format(names=", ".join(missing) or say("none"))
    titles = ("path", "dtype", "case", "ms", "of upstream's", "first call", "times real time")
    return markdown([say(title) for title in titles], rows) + f"\n{note}\n" + stamp(document, "peers", say)


LONG_TABLE = 30
"""Kernel rows beyond which only fp16 is shown."""
TELLING_ROWS = (64, 290, 4096)
"""Of a word, a 5 s utterance and a batch: of each kernel the nearest to these are shown."""


def kernels_table(say: Say = in_english) -> str:
    """Kernels beside PyTorch eager, and what else was timed."""
    document = load("kernels")
    found = document["results"]
    if len(found) > LONG_TABLE:
        found = [r for r in found if r["dtype"] == "float16"]
    found = telling(found)
    others = [n for n in ("torch_compile", "liger") if any(n in r.get("speedup_over", {}) for r in found)]
    ceilings = [n for n in ("copy", "matmul") if any(f"percent_of_{n}" in r for r in found)]
    rows = [
        [
            r["kernel"],
            r["dtype"],
            _shape(r["shape"], say),
            f"{r['pytorch_us']['do_bench']['median']:.1f} / {r['triton_us']['do_bench']['median']:.1f}",
            *(_figure(r["speedup"], clock, "{:.2f}x") for clock in ("do_bench", "graph", "graph_cold")),
            *(_figure(r.get("speedup_over", {}).get(name, {}), "graph_cold", "{:.2f}x") for name in others),
            *(_figure(r.get(f"percent_of_{name}", {}), "graph_cold", "{:.1f} %") for name in ceilings),
        ]
        for r in found
    ]
    sides = "eager / ours, µs" if any(r["kernel"].startswith("hopper") for r in found) else "eager / Triton, µs"
    head = ["kernel", "dtype", "shape", sides, "do_bench", "in a graph", "in a graph, L2 cold"]
    head += [{"torch_compile": "torch.compile", "liger": "Liger"}[name] for name in others]
    head += [f"of {name}" for name in ceilings]
    note = ""
    if "ceilings" in document:
        reached = document["ceilings"]
        words = say(KERNELS_NOTE).format(
            copy=f"{reached['copy_gb_per_s']:.0f}", matmul=f"{reached['matmul_tflops'].get('float16', 0):.0f}"
        )
        note = f"\n{words}\n"
    measured = {r["kernel"] for r in document["results"]}
    entries = document.get("not_measured", [])
    names = dict.fromkeys(f"`{e['kernel']}`" for e in entries if e.get("kernel", next(iter(measured))) not in measured)
    note += f"\n{say(LEFT_OUT).format(names=', '.join(names))}\n" if names else ""
    return markdown([say(title) for title in head], rows) + note + stamp(document, "kernels", say)


def telling(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each kernel, width and dtype the results whose rows are nearest to the telling ones."""

    def of(result: dict[str, Any]) -> tuple[Any, ...]:
        shape = result["shape"]
        return result["kernel"], result["dtype"], shape.get("columns"), shape.get("depth")

    def rows_of(result: dict[str, Any]) -> int:
        shape = result["shape"]
        return int(result.get("rows") or sum(shape.get("lengths", ())) or shape["rows"] * shape.get("batch", 1))

    groups: dict[tuple[Any, ...], list[int]] = {}
    for result in found:
        groups.setdefault(of(result), []).append(rows_of(result))
    shown = {
        key: {min(rows, key=lambda n: abs(math.log(n / wanted))) for wanted in TELLING_ROWS}
        for key, rows in groups.items()
    }
    return [result for result in found if rows_of(result) in shown[of(result)]]


def _shape(shape: dict[str, Any], say: Say) -> str:
    if "q_heads" not in shape:
        names = ("rows", "columns", "depth")
        if "columns" not in shape:
            names = ("batch", "channels", "samples", "frames", "codebooks", "vocabulary")
        return " x ".join(str(shape[name]) for name in names if name in shape)
    heads = say("{q}/{kv} heads of {d}").format(q=shape["q_heads"], kv=shape["kv_heads"], d=shape["head_dim"])
    return f"{shape['batch']} x {shape['rows']}, {heads}" if "batch" in shape else f"{shape['rows']}, {heads}"


def verify_part(name: str) -> Callable[[Say], str]:
    """The table of one part of the verification."""

    def table(say: Say = in_english) -> str:
        if not there_is("verify"):
            return f"{say(NOT_YET)}\n"
        document = load("verify")
        head, rows, note = getattr(verify_tables, name)(document, say)
        return markdown(head, rows) + (f"\n{note}\n" if note else "") + stamp(document, "verify", say)

    return table


def turbo_part(name: str) -> Callable[[Say], str]:
    """The table of one part of the turbo benchmark."""

    def table(say: Say = in_english) -> str:
        if not there_is("turbo"):
            return f"{say(NOT_YET)}\n"
        document = load("turbo")
        if not turbo_tables.part(document, "cases" if name == "floors" else name):
            return f"{say(NOT_YET)}\n"
        naming = (_case,) if name in ("cases", "floors", "options") else ()
        head, rows, note = getattr(turbo_tables, name)(document, say, *naming)
        return markdown(head, rows) + f"\n{note}\n" + stamp(document, "turbo", say)

    return table


TURBO_PARTS = ("cases", "floors", "throughput", "lengths", "startup", "memory", "options")

TABLES: dict[str, Callable[[Say], str]] = {
    "modes": modes_table,
    "cases": cases_table,
    "batch": batch_table,
    "grid": grid_table,
    "peers": peers_table,
    "kernels": kernels_table,
    "verify": verify_part("tiers"),
    "verify-kernels": verify_part("kernels"),
    "parity": verify_part("parity"),
    "speech": verify_part("speech"),
    **{f"turbo-{name}": turbo_part(name) for name in TURBO_PARTS},
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


def modes_chart(say: Say = in_english) -> str:
    """Milliseconds of the 5 s utterance by mode, fp16, as an SVG: a bar for the median, a line from p5 to p95."""
    document = load("speed")
    rows = [r for r in document["results"] if r["case"] == FIVE_SECONDS and r["dtype"] == "fp16"]
    rows = [r for r in rows if r.get("batch", 1) == 1]
    if not rows:
        raise SystemExit(f"bench/results/speed.json holds no fp16 rows of {FIVE_SECONDS!r}")
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


def render(page: str) -> str:
    """What a page or chart should hold."""
    if page in CHARTS:
        return modes_chart(SAY[CHARTS[page]])
    text = (ROOT / page).read_text(encoding="utf-8")
    say = SAY[language_of(page)]
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m['name']](say)}{m[3]}", text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    stale = []
    for page in (*PAGES, *CHARTS):
        wanted, path = render(page), ROOT / page
        if not path.exists() or wanted != path.read_text(encoding="utf-8"):
            stale.append(page)
            if not options.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(wanted, encoding="utf-8")
    if stale:
        print(("differs from its JSON: " if options.check else "rewrote ") + ", ".join(stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
