"""What the files of `bench speed` and `bench peers` say, as heads, rows and notes; `results_tables` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from table_cells import LEFT_OUT, Say, Table, case_name, device, few_runs, figure, notes

FIVE_SECONDS = "en 5 s"

MODES_NOTE = (
    "A 5 s utterance, 32 steps, guidance 2, batch 1: wall clock around `generate()`, warm medians. All modes "
    "take turns in one process. *Of base*: median of the rounds' own ratios. The eager modes are bound by the "
    "host, whose speed drifts, so *of its p5* sets the median against base's fastest runs: the cautious figure. "
    "First call and memory: fp16; memory of each mode alone, from a run of its own."
)
CASES_NOTE = (
    "Warm medians; in brackets the median of the rounds' own ratios to base, which is not the ratio of the medians."
)
BATCH_NOTE = (
    "The 5 s utterance as a list of so many texts, fp16. *Times real time*: seconds of audio per second of work, of "
    "all texts together; RTF is its inverse. LM, codec and post-processing in calls of their own, the device "
    "synchronised around each. Energy by NVML, whole board, idle power included."
)
PEERS_NOTE = "A path that is not there has no number; not available here (reasons in the JSON): {names}."

KOREAN = {
    MODES_NOTE: (
        "5초 발화, 32스텝, 가이던스 2, 배치 1. `generate()` 전체의 실제 경과 시간이며 예열 후 중앙값이다. "
        "모든 모드를 한 프로세스에서 번갈아 실행한다. *base 대비*는 회차별 비율의 중앙값이다. "
        "그래프를 쓰지 않는 모드는 호스트 속도에 묶이고 그 속도는 흔들리므로, *base p5 대비*는 중앙값을 "
        "base의 가장 빠른 실행들과 견준 보수적인 값이다. 첫 호출과 메모리는 fp16 기준이고, 메모리는 모드 하나만 올린 "
        "별도 실행의 값이다."
    ),
    CASES_NOTE: "예열 후 중앙값. 괄호 안은 회차별 base 대비 비율의 중앙값이며, 두 중앙값의 비율과는 다르다.",
    BATCH_NOTE: (
        "5초 발화를 그 개수만큼 목록으로 준 것, fp16. *실시간 대비*는 작업 1초당 만든 오디오의 초이며 모든 "
        "문장을 합한 값이다. RTF는 그 역수다. LM, 코덱, 후처리는 부분마다 장치를 동기화하며 따로 잰 호출의 "
        "값이다. 에너지는 NVML이 잰 보드 전체의 값이고 유휴 전력을 포함한다."
    ),
    PEERS_NOTE: "없는 경로에는 수치가 없다. 여기서 쓸 수 없던 것(이유는 JSON에 있다): {names}.",
    "steps/s": "스텝/초",
    "working memory": "작업 메모리",
    "energy each": "발화당 에너지",
    "path": "경로",
    "of upstream's": "업스트림 대비",
    "of its p5": "base p5 대비",
    "peak memory": "최대 메모리",
    "fp16 ms (of base)": "fp16 ms (base 대비)",
}


def modes(document: dict[str, Any], say: Say) -> Table:
    """The 5 s utterance by mode, fp16 and bf16."""
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
                figure(half, "peak_vram_mb", "{:.2f} GiB", 1 / 1024),
            ]
        )
    ratios = [say("of base"), say("of its p5")]
    head = [say("mode"), "fp16", *ratios, "bf16", *ratios]
    head += [say("first call"), say("times real time"), say("peak memory")]
    return head, rows, notes(say(MODES_NOTE), few_runs(list(by.values()), say))


def with_memory(document: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """A run of many cases with the peak memory that another has of the 5 s utterance, each mode alone."""
    _one_device([document, alone])
    peaks = {(r["mode"], r["dtype"]): r["peak_vram_mb"] for r in alone["results"] if "peak_vram_mb" in r}

    def more(row: dict[str, Any]) -> dict[str, Any]:
        known = peaks.get((row["mode"], row["dtype"])) if row["case"] == FIVE_SECONDS else None
        return row if known is None else {**row, "peak_vram_mb": known}

    return {**document, "results": [more(row) for row in document["results"]]}


def cases(document: dict[str, Any], say: Say) -> Table:
    """Every case of the speed benchmark, fp16 milliseconds."""
    found = [r for r in document["results"] if r["dtype"] == "fp16" and r.get("batch", 1) == 1]
    modes, cases = (list(dict.fromkeys(r[key] for r in found)) for key in ("mode", "case"))
    at = {(r["mode"], r["case"]): r for r in found}
    rows = [
        [
            case_name(case, say),
            *(
                f"{at[m, case]['median_ms']:.0f} ({at[m, case]['ratio_to_base']:.2f})" if (m, case) in at else "–"
                for m in modes
            ),
        ]
        for case in cases
    ]
    return [say("fp16 ms (of base)"), *modes], rows, notes(say(CASES_NOTE), few_runs(found, say))


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


def batch(document: dict[str, Any], say: Say) -> Table:
    """The 5 s utterance by mode and batch: time, RTF, split, memory, energy."""
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
            *(figure(r, key, form, factor) for _, key, form, factor in columns),
        ]
        for r in found
    ]
    head = [say(title) for title in ("batch", "mode", "ms", "of base", "times real time")]
    head += ["RTF", *(say(column[0]) for column in columns)]
    entries = [e for e in document.get("not_measured", []) if e["dtype"] == "fp16" and _alone(e) == FIVE_SECONDS]
    return head, rows, notes(say(BATCH_NOTE), few_runs(found, say), _left_out(entries, say))


def _alone(row: dict[str, Any]) -> str:
    """The case without the batch: `en 5 s` of `en 5 s x 8`."""
    return str(row["case"]).split(" x ")[0]


def grid(document: dict[str, Any], say: Say, dtype: str = "fp16") -> Table:
    """Every case in batches: how many times real time."""
    found = [r for r in document["results"] if r["dtype"] == dtype]
    modes = list(dict.fromkeys(r["mode"] for r in found))
    cases = list(dict.fromkeys(_alone(r) for r in found))
    sizes = sorted({r.get("batch", 1) for r in found})
    at = {(r["mode"], _alone(r), r.get("batch", 1)): r for r in found}
    rows = [
        [case_name(case, say), str(size), *(figure(at.get((m, case, size), {}), "speed_x", "{:.1f}x") for m in modes)]
        for case in cases
        for size in sizes
        if any((m, case, size) in at for m in modes)
    ]
    head = [f"{say('times real time')}, {dtype}", say("batch"), *modes]
    entries = [e for e in document.get("not_measured", []) if e["dtype"] == dtype]
    # Without a mode it is the whole cell; with one, and a time all the same, its split that was left out.
    entries = [e for e in entries if (e.get("mode"), _alone(e), e.get("batch", 1)) not in at]
    return head, rows, notes(few_runs(found, say), _left_out(entries, say))


def joined(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several runs of one benchmark as one document; each ratio is of one run still.

    A cell that several have measured is taken from where it has the most runs, of equals from the first. Left out is
    what none has measured, and what is missing of a cell where it was taken from.
    """

    def cell(entry: dict[str, Any]) -> tuple[Any, ...]:
        return entry["dtype"], entry["case"]

    _one_device(documents)
    best: dict[tuple[Any, ...], tuple[int, int]] = {}
    for number, document in enumerate(documents):
        for row in document["results"]:
            rank = (row.get("runs", 0), -number)
            best[cell(row)] = max(best.get(cell(row), rank), rank)
    source = {where: -rank[1] for where, rank in best.items()}
    rows: list[dict[str, Any]] = []
    missing: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, document in enumerate(documents):
        rows += [row for row in document["results"] if source[cell(row)] == number]
        for entry in document.get("not_measured", []):
            if source.get(cell(entry), number) == number:
                missing.setdefault((*cell(entry), entry.get("mode")), entry)
    whole = {where[:-1] for where in missing if where[-1] is None}
    left = [entry for where, entry in missing.items() if where[-1] is None or where[:-1] not in whole]
    return {**documents[0], "results": rows, "not_measured": left}


def _one_device(documents: Sequence[dict[str, Any]]) -> None:
    """One table is of one kind of device: SystemExit otherwise."""
    devices = dict.fromkeys(device(document, str) for document in documents)
    if len(devices) > 1:
        raise SystemExit(f"files of one table are of several devices: {', '.join(devices)}")


def _left_out(entries: list[dict[str, Any]], say: Say) -> str:
    """Their names, or nothing."""
    names = dict.fromkeys(" ".join(str(e[k]) for k in ("dtype", "case", "mode") if k in e) for e in entries)
    return say(LEFT_OUT).format(names="; ".join(names)) if names else ""


def peers(document: dict[str, Any], say: Say) -> Table:
    """Third-party paths beside turbo."""
    rows = [
        [
            f"`{r['mode']}`",
            r["dtype"],
            case_name(_alone(r), say) + (f" x {r['batch']}" if r.get("batch", 1) > 1 else ""),
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
    return [say(title) for title in titles], rows, notes(note, few_runs(document["results"], say))
