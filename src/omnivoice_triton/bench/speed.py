"""End-to-end time of every mode beside base, in one process: `python -m omnivoice_triton.bench.speed --json OUT`.

Host wall clock around generate(), the device synchronised on both sides; 32 steps, guidance 2. The eager modes are
bound by the host, whose speed drifts by tens of percent, so all modes are loaded at once and take turns (`turns`). A
mode's first call on a case (kernels compiled, a graph captured) is reported as cold. Memory is measured apart, a mode
at a time. `--batch 1 8 32` gives the same text as a list of so many; what each figure means is said in the JSON.

`--budget-s` bounds the seconds of a dtype: rounds are cut first, then whole cells are left out, the least important
first, and each that was left out stands in the JSON under `not_measured` with the reason.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omnivoice_triton.bench.harness import arguments, reference_voice
from omnivoice_triton.bench.nvml import LEAST_S, Joules, device_energy, joules_meanwhile, joules_per_utterance
from omnivoice_triton.bench.result_rows import few_runs
from omnivoice_triton.bench.speed_cases import FIVE_SECONDS, STEPS, Budget, Case, Cell, cases, cells
from omnivoice_triton.bench.speed_journal import Journal, LeftOut, left_out
from omnivoice_triton.bench.splits import split_of
from omnivoice_triton.bench.turns import OutOfTime, Row, speak, take_turns
from omnivoice_triton.commands import command, whole
from omnivoice_triton.config import DEFAULT_GRAPH_BUDGET_MB, MODES
from omnivoice_triton.evidence import check_outputs, default_model, need_gpu
from omnivoice_triton.models.runner import BaseRunner
from omnivoice_triton.speech import InputError

BATCH_BUDGET_MB = 8192
"""What the graphs of a mode may hold when batches are measured: a bucket of 64 rows does not fit the default."""

Keep = Callable[[list[Row], list[LeftOut]], None]


def extras(
    runner: Any,
    cell: Cell,
    keywords: Case,
    synchronize: Callable[[], None],
    counter: Joules | None,
) -> Row:
    """What needs calls of its own: the split, and the energy, of these calls where they take long enough."""
    figures: Row = {}
    calls = 3 if cell.batch == 1 else 1

    def split() -> None:
        figures.update(split_of(runner, keywords, STEPS, calls, synchronize))

    def call() -> None:
        speak(runner, 1, keywords)

    if counter is None:
        split()
        return figures
    energy = joules_meanwhile(split, calls, cell.batch, counter, time.monotonic)
    return figures | (
        energy or joules_per_utterance(call, cell.batch, counter, time.monotonic, synchronize=synchronize)
    )


def measure_cells(
    runners: dict[str, Any],
    wanted: Sequence[Cell],
    dtype: str,
    runs: int,
    warm: int,
    budget: Budget,
    keep: Keep,
    more: Callable[[Any, Cell, Case], Row] | None = None,
    allocated_mb: Callable[[], float] | None = None,
    voice: Any = None,
    reference: str = "base",
) -> None:
    """Every mode on every cell, as far as the budget goes; `keep` gets the rows of each, and what was left out.

    Args:
        more: further figures of a mode on a cell, taken if a round's time is left for them; rounds leave time for
            those of all cells, each as long as the last one's.
    """
    round_s: dict[str, float] = {}
    more_s = len(runners) * LEAST_S if more is not None else 0.0
    for number, cell in enumerate(wanted):
        least_s = 2 * round_s.get(cell.case, 0.0)  # first calls and one round, if a larger batch takes no longer
        if budget.left <= least_s:
            needed = f", this needs {least_s:.0f} s or more" if least_s else ""
            keep([], [left_out(cell, dtype, f"no time was left: {max(budget.left, 0):.0f} s{needed}")])
            continue
        keywords = cell.request(voice)
        extra = runs if cell.name == FIVE_SECONDS else 0  # the case that everything is compared on
        share_s = budget.share(wanted[number:], apart_s=more_s)
        try:
            turns = take_turns(runners, keywords, runs + extra, warm, budget, share_s, allocated_mb, reference)
        except OutOfTime as error:
            keep([], [left_out(cell, dtype, str(error))])
            continue
        except InputError as error:  # such as of the mode that ratios are to
            keep([], [{**left_out(cell, dtype, str(error)), "failed": True}])
            continue
        round_s[cell.case] = turns.round_s
        rows: list[Row] = []
        missing = [{**left_out(cell, dtype, why, mode), "failed": True} for mode, why in turns.failed.items()]
        began = budget.clock()
        for mode, figures in turns.rows.items():
            row = {"mode": mode, "case": cell.name, "dtype": dtype, "batch": cell.batch, **figures}
            if more is not None and budget.left > turns.round_s:
                try:
                    row |= more(runners[mode], cell, keywords)
                except InputError as error:  # its times stand
                    missing.append(left_out(cell, dtype, f"split and energy: {error}", mode))
            elif more is not None:
                missing.append(left_out(cell, dtype, "no time was left for split and energy", mode))
            rows.append(row)
            print(f"{dtype} {mode:>12} {cell.name:>16}: {figures['median_ms']:8.1f} ms", file=sys.stderr, flush=True)
        more_s = budget.clock() - began
        keep(rows, missing)


def speed(
    path: Path,
    dtype: str,
    modes: Sequence[str],
    wanted: Sequence[Cell],
    options: argparse.Namespace,
    budget: Budget,
    keep: Keep,
) -> None:
    """Load every mode and measure the cells in one dtype."""
    import torch

    counter = device_energy()

    def more(runner: Any, cell: Cell, keywords: Case) -> Row:
        return extras(runner, cell, keywords, torch.cuda.synchronize, counter)

    def allocated_mb() -> float:
        return torch.cuda.memory_allocated() / 2**20

    with ExitStack() as stack:
        runners: dict[str, Any] = {}
        for mode in modes:
            held = {"graph_budget_mb": options.graph_budget_mb} if MODES[mode].graph else {}
            runner = BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode, **held)
            runners[mode] = stack.enter_context(runner)
        voice = reference_voice(runners["base"]) if any("voice" in cell.keywords for cell in wanted) else None
        further = None if options.no_extras else more
        measure_cells(runners, wanted, dtype, options.runs, options.warm, budget, keep, further, allocated_mb, voice)


def memory(path: Path, dtype: str, mode: str) -> Row:
    """What one mode alone takes for the 5 s utterance, one bucket captured."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free_before = torch.cuda.mem_get_info()[0]
    with BaseRunner(device="cuda", model_id=path, dtype=dtype, mode=mode) as runner:
        torch.cuda.reset_peak_memory_stats()
        peak_gb = runner.generate(seed=0, **cases(False)[FIVE_SECONDS]).peak_vram_gb
        return {
            "peak_vram_mb": peak_gb * 1024,
            "peak_reserved_mb": torch.cuda.max_memory_reserved() / 2**20,
            "device_used_mb": (free_before - torch.cuda.mem_get_info()[0]) / 2**20,
            **graph_figures(runner),
        }


def graph_figures(runner: BaseRunner) -> dict[str, float]:
    """Memory and captures of the runner's graphs (no reference to them may outlive the runner)."""
    turbo = runner.acceleration.turbo if runner.acceleration is not None else None
    if turbo is not None:
        codec = turbo.codec  # graphs on the GPU that this needs; the engine's own hold buffers only
        steps = turbo.engine.runner.graphs.captures
        return {
            "graph_pool_mb": getattr(codec, "used_bytes", 0) / 2**20,
            "captures": steps + getattr(codec, "captures", 0),
        }
    graphs = runner.acceleration.graphs if runner.acceleration is not None else None
    return {} if graphs is None else {"graph_pool_mb": graphs.used_bytes / 2**20, "captures": graphs.captures}


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: what can't be used.
    """
    parser = arguments("speed", "end-to-end speed of every mode beside base", runs=7)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--batch", nargs="+", type=whole(1), default=[1], metavar="N", help="texts a call (default: 1)")
    parser.add_argument("--cases", nargs="+", default=None, metavar="CASE", help="such as 'en 15 s' (default: all)")
    parser.add_argument("--only-5s", action="store_true", help="the 5 s utterance alone")
    parser.add_argument("--warm", type=whole(0), default=1, help="unmeasured rounds a case")
    parser.add_argument(
        "--budget-s",
        type=float,
        default=None,
        metavar="N",
        help="seconds a dtype, loading included: cuts rounds, then leaves out cells and says which",
    )
    parser.add_argument(
        "--graph-budget-mb",
        type=whole(1),
        default=None,
        metavar="MB",
        help=f"what the graphs of a mode may hold (default: {DEFAULT_GRAPH_BUDGET_MB}, with --batch {BATCH_BUDGET_MB})",
    )
    parser.add_argument("--no-memory", action="store_true", help="don't load each mode alone for its peak memory")
    parser.add_argument("--no-extras", action="store_true", help="no split and no energy")
    options = parser.parse_args(argv)
    if options.graph_budget_mb is None:
        options.graph_budget_mb = DEFAULT_GRAPH_BUDGET_MB if max(options.batch) == 1 else BATCH_BUDGET_MB
    return options


@command("bench.speed")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    options = parse_options(argv)
    wanted = cells(not options.only_5s, options.batch, options.cases)
    Budget(options.budget_s)  # refused before anything is loaded
    check_outputs(options.json)
    need_gpu()
    path = default_model(options.model, "cuda")
    modes = ["base", *(m for m in options.modes if m != "base")]
    facts = {"graph_budget_mb": options.graph_budget_mb}
    facts |= {} if options.budget_s is None else {"budget_s_per_dtype": options.budget_s}
    journal = Journal(options.json, path, wanted, options.dtypes, facts)
    for dtype in options.dtypes:
        budget = Budget(options.budget_s)
        if not options.no_memory and any(cell.name == FIVE_SECONDS for cell in wanted):
            journal.taken |= {(mode, dtype): memory(path, dtype, mode) for mode in modes}
        speed(path, dtype, modes, wanted, options, budget, journal.keep)
    if not journal.rows:
        raise InputError(f"nothing was measured: {journal.document()['not_measured'][0]['reason']}")
    print("\n".join(table(journal.rows, journal.document()["not_measured"])))
    return 0


def table(rows: Sequence[Row], missing: Sequence[LeftOut]) -> list[str]:
    """Lines to print: one a row, then what was not measured."""
    lines = [
        f"{'dtype':6}{'case':16}{'mode':13}{'runs':>5}{'median ms':>10}{'p95':>9}{'cold':>9}{'x base':>8}{'rtf':>8}"
        f"{'speed x':>9}"
        f"{'LM ms':>9}{'codec':>8}{'post':>8}{'VRAM MB':>9}{'J each':>8}"
    ]
    for row in rows:
        cells_ = [("lm_ms", 9, 1), ("codec_ms", 8, 1), ("post_ms", 8, 1), ("peak_vram_mb", 9, 0)]
        cells_.append(("joules_per_utterance", 8, 2))
        tail = "".join(f"{row[key]:{w}.{d}f}" if key in row else f"{'–':>{w}}" for key, w, d in cells_)
        lines.append(
            f"{row['dtype']:6}{row['case']:16}{row['mode']:13}{row['runs']:5}{row['median_ms']:10.1f}{row['p95_ms']:9.1f}"
            f"{row['cold_ms']:9.0f}{row['ratio_to_base']:8.3f}{row['rtf']:8.4f}{row['speed_x']:9.1f}{tail}"
        )
    lines += filter(None, [few_runs(rows)])
    for entry in missing:
        where = " ".join(str(entry[key]) for key in ("dtype", "case", "mode") if key in entry)
        lines.append(f"not measured: {where}: {entry['reason']}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
