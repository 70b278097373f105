"""Turbo beside base, and turbo alone: `python -m omnivoice_triton.bench.turbo [PART ...] --json OUT`.

cases       the five cases of `turbo_cases`: times of base and turbo, split, floors, memory
lengths     hundreds of different lengths: no capture, no slow one, no growth, else exit code 1
throughput  audio seconds per second over batch sizes and lengths
startup     process start to first audio, by stages
memory      MB on the GPU, by options that save some
options     what FP8, INT8 attention and a bf16 codec bring, beside exact turbo
all         all of these, the default

JSON is written after each part and dtype, every row with its `part`, so an interrupted run keeps what it measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omnivoice_triton.bench import (
    definitions,
    turbo_cases,
    turbo_lengths,
    turbo_memory,
    turbo_options,
    turbo_startup,
    turbo_throughput,
)
from omnivoice_triton.bench.harness import arguments
from omnivoice_triton.bench.result_rows import few_runs
from omnivoice_triton.commands import command
from omnivoice_triton.config import MODES
from omnivoice_triton.evidence import check_outputs, default_model, need_gpu, write_json
from omnivoice_triton.speech import InputError

Row = dict[str, Any]

PARTS: dict[str, Callable[[list[Row]], list[str]]] = {
    "cases": turbo_cases.table,
    "lengths": turbo_lengths.table,
    "throughput": turbo_throughput.table,
    "startup": turbo_startup.table,
    "memory": turbo_memory.table,
    "options": turbo_options.table,
}
"""Name of each part, and how its rows are printed."""


def measure(part: str, path: Path, dtype: str, options: argparse.Namespace) -> list[Row]:
    """The rows of one part in one dtype."""
    quick: bool = options.quick
    if part == "cases":
        return turbo_cases.measure(path, dtype, options.modes, options.runs, quick)
    if part == "lengths":
        return turbo_lengths.measure(path, dtype, 40 if quick else 300)
    if part == "throughput":
        return turbo_throughput.measure(path, dtype, 1 if quick else 3, quick)
    if part == "memory":
        return turbo_memory.measure(path, dtype)
    if part == "options":
        return turbo_options.measure(path, dtype, 3 if quick else options.runs)
    return turbo_startup.measure(path, dtype, 1 if quick else 3)


def failures(rows: list[Row]) -> list[str]:
    """What makes the run's exit code 1."""
    found = []
    for row in rows:
        where = f"{row['part']} {row['dtype']}"
        found += [f"{where}: {problem}" for problem in row.get("problems", ())]
        if "error" in row:
            found.append(f"{where}: {row['error']}")
    return found


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: what can't be used.
    """
    about = "turbo beside base: times, floors, lengths, throughput, startup, memory, options"
    parser = arguments("turbo", about, runs=15)
    # No list: argparse looks for the default itself among the choices.
    parser.add_argument("parts", nargs="*", default="all", choices=[*PARTS, "all"], help="default: all")
    parser.add_argument("--modes", nargs="+", default=["turbo"], choices=list(MODES), help="beside base, in cases")
    parser.add_argument("--quick", action="store_true", help="fewer cases, lengths, cells and runs")
    options = parser.parse_args(argv)
    if options.quick:
        options.runs = min(options.runs, 3)
    return options


@command("bench.turbo")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables, write JSON; exit code 1 if a check failed, 2 if nothing could be measured."""
    options = parse_options(argv)
    check_outputs(options.json)
    rows: list[Row] = []
    need_gpu()
    path = default_model(options.model, "cuda")
    chosen = [part for part in PARTS if part in options.parts or "all" in options.parts]
    waiting = [(part, dtype) for part in chosen for dtype in options.dtypes]
    for part in chosen:
        mine: list[Row] = []
        for dtype in options.dtypes:
            made = measure(part, path, dtype, options)
            if not made:
                raise InputError(f"{part} {dtype}: nothing was measured")
            mine += made
            rows += made
            waiting.remove((part, dtype))
            figures = {
                "quick": options.quick,
                "definitions": definitions.TURBO,
                "not_measured": [{"part": p, "dtype": d, "reason": "the run ended before it"} for p, d in waiting],
                "results": rows,
            }
            write_json(options.json, "turbo", path, figures)  # what is measured is kept, whatever comes
        print("\n".join(["", f"{part}:", *PARTS[part](mine), *filter(None, [few_runs(mine)])]), flush=True)
    wrong = failures(rows)
    for line in wrong:
        print(f"FAIL {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
