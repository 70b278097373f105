"""Write the tables of README.md and docs/results.md from the JSON under bench/results.

    python tools/results_tables.py           rewrite
    python tools/results_tables.py --check   exit code 1 if a file differs from what its JSON says

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = ("README.md", "docs/results.md")
BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.S)

Rows = list[list[str]]


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    if not document.get("results"):
        raise SystemExit(f"bench/results/{name}.json holds no results")
    return document


def markdown(head: list[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def stamp(document: dict[str, Any], name: str) -> str:
    env = document["environment"]
    versions = ", ".join(f"{p} {env['versions'][p]}" for p in ("torch", "triton", "transformers", "omnivoice"))
    gpu = env["gpus"][0]["name"] if env.get("gpus") else "no GPU"
    weights = f"; {document['checkpoint']} weights" if "checkpoint" in document else ""
    return f"\n{gpu}, {env['date_utc'][:10]}, {versions}{weights}. Figures: `bench/results/{name}.json`.\n"


def modes_table() -> str:
    """The 5 s utterance by mode, fp16 and bf16."""
    document = load("speed")
    by = {(r["mode"], r["dtype"]): r for r in document["results"] if r["case"] == "en 5 s"}
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
                f"{half['peak_vram_mb'] / 1024:.2f} GiB",
            ]
        )
    head = ["mode", "fp16", "of base", "of its p5", "bf16", "of base", "of its p5"]
    head += ["first call", "times real time", "peak memory"]
    note = (
        "\nA 5 s utterance, 32 steps, guidance 2, batch 1: wall clock around `generate()`, warm medians. All modes "
        "take turns in one process. *Of base*: median of the rounds' own ratios. The eager modes are bound by the "
        "host, whose speed drifts, so *of its p5* sets the median against base's fastest runs: the cautious figure. "
        "First call and memory: fp16.\n"
    )
    return markdown(head, rows) + note + stamp(document, "speed")


def cases_table() -> str:
    """Every case of the speed benchmark, fp16 milliseconds."""
    document = load("speed-cases")
    found = [r for r in document["results"] if r["dtype"] == "fp16"]
    modes, cases = (list(dict.fromkeys(r[key] for r in found)) for key in ("mode", "case"))
    at = {(r["mode"], r["case"]): r for r in found}
    rows = [
        [case, *(f"{at[m, case]['median_ms']:.0f} ({at[m, case]['ratio_to_base']:.2f})" for m in modes)]
        for case in cases
    ]
    return markdown(["fp16 ms (of base)", *modes], rows) + stamp(document, "speed-cases")


def kernels_table() -> str:
    """Kernels beside PyTorch eager."""
    document = load("kernels")
    rows = [
        [
            r["kernel"],
            r["dtype"],
            _shape(r["shape"]),
            f"{r['pytorch_us']['do_bench']['median']:.1f} / {r['triton_us']['do_bench']['median']:.1f}",
            *(f"{r['speedup'][clock]:.2f}x" for clock in ("do_bench", "graph", "graph_cold")),
        ]
        for r in document["results"]
    ]
    head = ["kernel", "dtype", "shape", "eager / Triton, µs", "do_bench", "in a graph", "in a graph, L2 cold"]
    return markdown(head, rows) + stamp(document, "kernels")


def _shape(shape: dict[str, Any]) -> str:
    if "columns" in shape:
        return f"{shape['rows']} x {shape['columns']}"
    heads = f"{shape['q_heads']}/{shape['kv_heads']} heads of {shape['head_dim']}"
    return f"{shape['batch']} x {shape['rows']}, {heads}"


def parity_table() -> str:
    """Hidden-state cosines and logit error of each mode."""
    document = load("parity")
    layers = list(document["results"][0]["layers"])
    rows = [
        [
            r["dtype"],
            f"`{r['mode']}`",
            *(f"{r['layers'][layer]['cosine']:.6f}" for layer in layers),
            f"{r['logit_error_ratio']:.2f}x",
            f"{100 * min(s['screened_argmax_agreement'] for s in r['steps']):.2f} %",
            "pass" if r["passed"] else "FAIL",
        ]
        for r in document["results"]
    ]
    head = ["dtype", "mode", *(f"layer {layer}" for layer in layers), "logit error of base's", "screened argmax", ""]
    return markdown(head, rows) + stamp(document, "parity")


TABLES: dict[str, Callable[[], str]] = {
    "modes": modes_table,
    "cases": cases_table,
    "kernels": kernels_table,
    "parity": parity_table,
}


def render(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m['name']]()}{m[3]}", text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    stale = []
    for page in PAGES:
        wanted = render(page)
        if wanted != (ROOT / page).read_text(encoding="utf-8"):
            stale.append(page)
            if not options.check:
                (ROOT / page).write_text(wanted, encoding="utf-8")
    if stale:
        print(("differs from its JSON: " if options.check else "rewrote ") + ", ".join(stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
