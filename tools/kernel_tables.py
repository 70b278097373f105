"""What `bench/results/kernels.json` says, as head, rows and note; `results_tables` writes it."""

from __future__ import annotations

import math
from typing import Any

from table_cells import LEFT_OUT, Say, Table, figure, notes

KERNELS_NOTE = (
    "*torch.compile* and *Liger*: their time over ours, in a graph, L2 cold. Copy and matmul: percent of ceilings "
    "measured in the same run, {copy} GB/s and {matmul} TFLOP/s. What moves too little to leave the L2 cache has no "
    "cold time. Three numbers of rows a kernel at most; others and other data types are in the JSON."
)

KOREAN = {
    KERNELS_NOTE: (
        "*torch.compile*과 *Liger*는 L2를 비운 그래프에서 우리 커널 대비 걸린 시간의 배수다. 복사와 행렬곱은 "
        "같은 실행에서 잰 한계 {copy} GB/s, {matmul} TFLOP/s에 대한 백분율이다. 옮기는 양이 적어 L2를 벗어나지 "
        "않는 커널에는 L2를 비운 시간이 없다. 커널마다 행 수는 셋까지 보이며, 나머지와 다른 자료형은 JSON에 있다."
    ),
    "torch.compile": "torch.compile",
    "Liger": "Liger",
    "of copy": "복사 대비",
    "of matmul": "행렬곱 대비",
    "shape": "형태",
    "eager / Triton, µs": "eager / Triton, µs",
    "eager / ours, µs": "eager / 자체 커널, µs",
    "do_bench": "do_bench",
    "in a graph": "그래프 안",
    "in a graph, L2 cold": "그래프 안, L2 비움",
    "{q}/{kv} heads of {d}": "헤드 {q}/{kv}개, 크기 {d}",
}

LONG_TABLE = 30
"""Kernel rows beyond which only fp16 is shown."""
TELLING_ROWS = (64, 290, 4096)
"""Of a word, a 5 s utterance and a batch: of each kernel the nearest to these are shown."""


def kernels(document: dict[str, Any], say: Say) -> Table:
    """Kernels beside PyTorch eager, and what else was timed."""
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
            *(figure(r["speedup"], clock, "{:.2f}x") for clock in ("do_bench", "graph", "graph_cold")),
            *(figure(r.get("speedup_over", {}).get(name, {}), "graph_cold", "{:.2f}x") for name in others),
            *(figure(r.get(f"percent_of_{name}", {}), "graph_cold", "{:.1f} %") for name in ceilings),
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
        note = say(KERNELS_NOTE).format(
            copy=f"{reached['copy_gb_per_s']:.0f}", matmul=f"{reached['matmul_tflops'].get('float16', 0):.0f}"
        )
    measured = {r["kernel"] for r in document["results"]}
    entries = document.get("not_measured", [])
    names = dict.fromkeys(f"`{e['kernel']}`" for e in entries if e.get("kernel", next(iter(measured))) not in measured)
    left_out = say(LEFT_OUT).format(names=", ".join(names)) if names else ""
    return [say(title) for title in head], rows, notes(note, left_out)


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
