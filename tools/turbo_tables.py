"""What `bench/results/turbo.json` says of the turbo engine, as heads, rows and notes; `results_tables` writes them."""

from __future__ import annotations

from typing import Any

from table_cells import Say, Table, case_name, few_runs, notes

CASES_NOTE = (
    "Host wall clock around `generate()`, warm medians with p5 to p95; base and turbo take turns in one process. *Of "
    "base*: median of the rounds' own ratios; *of its p5*: by base's fastest runs, the cautious figure. LM, codec and "
    "post-processing in calls of their own, the device synchronised around each."
)
FLOORS_NOTE = (
    "*GEMMs alone*: the step's matrix products by cuBLAS in a CUDA graph, measured in the same run; *of it* is how "
    "near a step comes. *Of the FLOP floor*: all operations at {peak} TFLOP/s, a measured 8192-cubed product."
)
THROUGHPUT_NOTE = "Seconds of audio for each second of work: texts of one length in one call, 32 steps."
LENGTHS_NOTE = (
    "Distinct lengths in random order after `warmup()`. *Slowest*: p99 by the median of its bucket, the worst "
    "bucket's. Memory: growth of what the device holds."
)
STARTUP_NOTE = (
    "Seconds from process start to the first 5 s utterance, kernels compiled before; the median start of {n}. Of the "
    "modules imported, {modules} had no bytecode in this machine's installation, which pip would have put there; *with "
    "bytecode* is with `PYTHONPYCACHEPREFIX` set to a folder."
)
MEMORY_NOTE = (
    "MiB that torch has allocated at the peak, and that the device holds after it, one 5 s utterance; the CUDA context "
    "comes on top."
)

OPTIONS_NOTE = "Options that change what is computed, in turns with exact turbo in one process; warm medians."

KOREAN = {
    OPTIONS_NOTE: "계산 결과를 바꾸는 옵션들. 정확한 turbo와 한 프로세스에서 번갈아 잰 예열 후 중앙값이다.",
    "of exact": "정확한 것 대비",
    "exact": "정확",
    "INT8 attention": "INT8 어텐션",
    "FP8": "FP8",
    "FP8, INT8 attention": "FP8, INT8 어텐션",
    "bf16 codec": "bf16 코덱",
    CASES_NOTE: (
        "`generate()` 전체의 실제 경과 시간, 예열 후 중앙값과 p5–p95이며 base와 turbo를 한 프로세스에서 번갈아 "
        "실행한다. *base 대비*는 회차별 비율의 중앙값이고, *base p5 대비*는 base의 가장 빠른 실행들과 견준 보수적인 "
        "값이다. LM, 코덱, 후처리는 부분마다 장치를 동기화하며 따로 잰 "
        "호출의 값이다."
    ),
    FLOORS_NOTE: (
        "*행렬곱만*은 한 스텝의 행렬곱만 cuBLAS로 CUDA 그래프에서 같은 실행에 잰 것이고, *그 대비*는 스텝이 거기에 "
        "얼마나 가까운지다. *FLOP 한계 대비*는 모든 연산을 {peak} TFLOP/s(8192³ 곱의 측정값)로 했을 때에 대한 "
        "것이다."
    ),
    THROUGHPUT_NOTE: "작업 1초당 만든 오디오의 초. 같은 길이의 문장들을 한 번에 호출, 32스텝.",
    LENGTHS_NOTE: (
        "`warmup()` 뒤 서로 다른 길이를 무작위 순서로. *가장 느린 것*은 버킷별 p99를 그 중앙값으로 나눈 값 중 가장 큰 "
        "것이다. 메모리는 장치가 가진 양의 증가다."
    ),
    STARTUP_NOTE: "프로세스 시작부터 첫 5초 발화까지의 초. 커널은 미리 컴파일되어 있다. {n}회 중 중앙값. 이 컴퓨터의 "
    "설치본에는 가져온 모듈 가운데 {modules}개의 바이트코드가 없었다(보통은 pip이 만든다). *바이트코드 있음*은 "
    "`PYTHONPYCACHEPREFIX`를 폴더로 지정한 경우.",
    "as installed": "설치된 대로",
    "with bytecode": "바이트코드 있음",
    "context": "컨텍스트",
    MEMORY_NOTE: "torch가 할당한 최대 MiB와 그 뒤 장치가 가진 MiB, 5초 발화 하나. CUDA 컨텍스트는 따로.",
    "tokens/s": "토큰/초",
    "rows": "행",
    "step": "스텝",
    "GEMMs alone": "행렬곱만",
    "of it": "그 대비",
    "of the FLOP floor": "FLOP 한계 대비",
    "captures": "캡처",
    "slowest": "가장 느린 것",
    "memory": "메모리",
    "lengths": "길이 수",
    "in all": "전체",
    "python": "파이썬",
    "imports": "임포트",
    "load": "적재",
    "engine": "엔진",
    "step graphs": "스텝 그래프",
    "codec graphs": "코덱 그래프",
    "first audio": "첫 오디오",
    "variant": "변형",
    "allocated": "할당",
    "on the device": "장치",
    "wanted": "목표",
    "default": "기본",
    "no reference encoder": "참조 인코더 없음",
    "text embedding on the GPU": "텍스트 임베딩을 GPU에",
    "the same, no reference encoder": "같음, 참조 인코더 없음",
}


def part(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The rows of one part."""
    return [row for row in document["results"] if row["part"] == name]


def cases(document: dict[str, Any], say: Say) -> Table:
    """The five cases: base, turbo and turbo's split."""
    found = part(document, "cases")
    base = {(r["case"], r["dtype"]): r for r in found if r["mode"] == "base"}
    rows = [
        [
            case_name(r["case"], say),
            r["dtype"],
            _range(base[r["case"], r["dtype"]]),
            _range(r),
            f"{r['ratio_to_base']:.3f}",
            f"{r['ratio_to_base_p5']:.3f}",
            f"{r['cold_ms']:.0f} ms",
            *(f"{r[key]:.1f}" for key in ("lm_ms", "codec_ms", "post_ms", "host_ms")),
            f"{r['speed_x']:.0f}x",
            f"{r['tokens_per_s']:.0f}",
        ]
        for r in found
        if r["mode"] == "turbo"
    ]
    figures = ["of base", "of its p5", "first call", "LM", "codec", "post", "host", "times real time", "tokens/s"]
    head = [*_said(["case", "dtype"], say), "base", "turbo", *_said(figures, say)]
    return head, rows, notes(say(CASES_NOTE), few_runs(found, say))


def floors(document: dict[str, Any], say: Say) -> Table:
    """How near a step comes to its matrix products alone, and to the device's arithmetic."""
    rows = [
        [
            case_name(r["case"], say),
            r["dtype"],
            str(r["packed_rows"]),
            f"{r['step_ms']:.3f} ms",
            f"{r['gemm_floor_ms']:.3f} ms",
            f"{r['gemm_floor_percent']:.0f} %",
            f"{r['flop_floor_percent']:.0f} %",
        ]
        for r in part(document, "cases")
        if "step_ms" in r
    ]
    head = ["case", "dtype", "rows", "step", "GEMMs alone", "of it", "of the FLOP floor"]
    return _said(head, say), rows, say(FLOORS_NOTE).format(peak=_peak(document))


def _peak(document: dict[str, Any]) -> str:
    """The product's rate of each dtype; older files have one figure for all."""
    found = {r["dtype"]: f"{r['peak_tflops']:.0f}" for r in part(document, "cases") if "peak_tflops" in r}
    if not found:
        return f"{document['peak_tflops']:.0f}" if "peak_tflops" in document else "–"
    return ", ".join(f"{rate} ({dtype})" for dtype, rate in found.items())


def throughput(document: dict[str, Any], say: Say) -> Table:
    """Batch sizes down, lengths across."""
    found = part(document, "throughput")
    lengths = sorted({r["length_s"] for r in found})
    at = {(r["dtype"], r["batch"], r["length_s"]): r for r in found}
    rows = [
        [dtype, str(batch), *(_cell(at.get((dtype, batch, seconds), {})) for seconds in lengths)]
        for dtype, batch in dict.fromkeys((r["dtype"], r["batch"]) for r in found)
    ]
    head = [*_said(["dtype", "batch"], say), *(say("{n} s").format(n=f"{seconds:g}") for seconds in lengths)]
    return head, rows, notes(say(THROUGHPUT_NOTE), few_runs(found, say))


def lengths(document: dict[str, Any], say: Say) -> Table:
    """Hundreds of lengths after the warm-up."""
    rows = [
        [
            r["dtype"],
            str(r["distinct_lengths"]),
            str(r["captures"]),
            f"{r['p99_to_median']:.2f}x",
            f"{max(r['device_growth_mb'], r['allocator_growth_mb']):.0f} MB",
            say("FAIL" if r["problems"] else "pass"),
        ]
        for r in part(document, "lengths")
    ]
    return [*_said(["dtype", "lengths", "captures", "slowest", "memory"], say), ""], rows, say(LENGTHS_NOTE)


STAGES = ("python", "imports", "load", "step_graphs", "codec_graphs", "first_audio")


def startup(document: dict[str, Any], say: Say) -> Table:
    """Where the time from process start to the first sound goes."""
    found = part(document, "startup")
    rows = [
        [r["dtype"], say(r["variant"]), f"{r['total_s']:.1f}", *(f"{r[f'{stage}_s']:.2f}" for stage in STAGES)]
        for r in found
    ]
    head = ["dtype", "variant", "in all", *(stage.replace("_", " ") for stage in STAGES)]
    return _said(head, say), rows, say(STARTUP_NOTE).format(n=found[0]["runs"], modules=found[0]["without_bytecode"])


def memory(document: dict[str, Any], say: Say) -> Table:
    """Memory by options that save some."""
    found = part(document, "memory")
    columns = [("allocated", "peak_vram_mb"), ("on the device", "device_used_mb"), ("context", "cuda_context_mb")]
    columns = [(title, key) for title, key in [*columns, ("wanted", "target_mb")] if any(key in r for r in found)]
    rows = [
        [r["dtype"], say(r["variant"]), *(f"{r[key]:.0f}" if key in r else "–" for _, key in columns)] for r in found
    ]
    return _said(["dtype", "variant", *(title for title, _ in columns)], say), rows, say(MEMORY_NOTE)


def options(document: dict[str, Any], say: Say) -> Table:
    """The inexact options beside exact turbo."""
    found = [r for r in part(document, "options") if "unavailable" not in r]
    rows = [
        [
            r["dtype"],
            case_name(r["case"], say),
            say(r["variant"]),
            f"{r['median_ms']:.1f} ms",
            f"{r['ratio_to_exact']:.3f}",
        ]
        for r in found
    ]
    head = _said(["dtype", "case", "variant", "ms", "of exact"], say)
    return head, rows, notes(say(OPTIONS_NOTE), few_runs(found, say))


def _said(words: list[str], say: Say) -> list[str]:
    return [say(word) for word in words]


def _range(row: dict[str, Any]) -> str:
    return f"{row['median_ms']:.1f} ms ({row['p5_ms']:.1f}–{row['p95_ms']:.1f})"


def _cell(row: dict[str, Any]) -> str:
    return f"{row['audio_s_per_s']:.0f}" if "audio_s_per_s" in row else "–"
