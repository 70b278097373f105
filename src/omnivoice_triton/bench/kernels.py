"""Each kernel beside PyTorch, torch.compile and Liger-Kernel: `python -m omnivoice_triton.bench.kernels --json OUT`.

Three clocks, since short kernels look different under each (medians, p5 and p95, microseconds a call):

- `do_bench`: `triton.testing.do_bench`, as 0.1.0 measured. The L2 cache is cleared before each call; host time counts
  as far as the GPU waits for it.
- `graph`: many calls in one CUDA graph over a few sets of inputs, so no host and a warm L2 cache: what a captured
  model sees of activations.
- `graph_cold`: the same over more than twice the L2 cache's size of inputs and outputs, each used in turn.

A kernel is timed only after its result was compared with its PyTorch twin; a wrong one is refused and makes the exit
code 1. One that can't run on this GPU or raises is listed under `not_measured` with the reason, and the rest goes on.
Other people's (`yardsticks`) are compared with float64, and a wrong one is named without a time. GB/s counts every
input and output byte once, whatever the implementation really moves; percentages are of ceilings measured in the same
run. In the JSON `triton` is ours, for the few kernels in CUDA C++ too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnivoice_triton.bench import ceilings as ceiling
from omnivoice_triton.bench import definitions, yardsticks
from omnivoice_triton.bench.kernel_case import DTYPES, TOLERANCE, Case, Tensors, WrongResult, check, error_to, exact
from omnivoice_triton.bench.kernel_cases import cases
from omnivoice_triton.bench.kernel_clocks import MOST_SETS, WARM_SETS, Clocks, summary_us, three_clocks
from omnivoice_triton.bench.kernel_packed import split_rows
from omnivoice_triton.bench.kernel_sweep import Keep, in_order, sweep
from omnivoice_triton.bench.speed_cases import Budget
from omnivoice_triton.commands import Parser, command, in_words, whole
from omnivoice_triton.evidence import check_outputs, need_gpu, write_json
from omnivoice_triton.speech import InputError

__all__ = ["Case", "WrongResult", "cases", "check", "main", "measure", "run", "split_rows", "summary_us", "sweep"]

ROWS = (64, 128, 290, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Others:
    """Which of other people's kernels are timed beside PyTorch's."""

    compile: bool = True
    liger: bool = True
    backend: str = "inductor"
    library: Any = None
    """Stand-in for Liger-Kernel, for tests."""

    def functions(self, case: Case) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
        """Name to function of each that there is, and why another is not."""
        found: dict[str, Callable[..., Any]] = {}
        missing: dict[str, str] = {}
        if case.no_compile:
            missing["torch_compile"] = case.no_compile
        elif self.compile:
            found["torch_compile"] = yardsticks.compiled(case.pytorch, self.backend)
        else:
            missing["torch_compile"] = "left out by --no-compile"
        reason = None if self.library is not None else yardsticks.liger_missing()
        if not self.liger:
            missing["liger"] = "left out by --no-liger"
        elif reason is not None:
            missing["liger"] = reason
        elif (function := yardsticks.liger_for(case.kernel, self.library)) is not None:
            found["liger"] = function
        else:
            missing["liger"] = "the installed Liger-Kernel has no such kernel"
        return found, missing


def right_ones(
    case: Case, inputs: Tensors, others: Others
) -> tuple[dict[str, Callable[..., Any]], dict[str, str], dict[str, Any]]:
    """Functions to time beside ours, why others are not timed, and errors to float64 of all (and seconds to compile).

    A yardstick must be within twice PyTorch's own error or the dtype's tolerance.
    """
    wanted = exact(case, inputs)
    errors = {
        name: error_to(wanted, case, inputs, fn) for name, fn in (("triton", case.triton), ("pytorch", case.pytorch))
    }
    functions, missing = others.functions(case)
    figures: dict[str, Any] = {"error_to_float64": errors}
    bound = max(2 * errors["pytorch"], TOLERANCE[case.dtype])
    good: dict[str, Callable[..., Any]] = {}
    for name, function in functions.items():
        try:
            seconds = yardsticks.first_call_s(function, inputs)
            errors[name] = error_to(wanted, case, inputs, function)
        except Exception as error:  # third parties': the reason is reported in place of a time
            missing[name] = in_words(error)
            continue
        if errors[name] <= bound:
            good[name] = function
            figures |= {"torch_compile_s": seconds} if name == "torch_compile" else {}
        else:
            missing[name] = (
                f"its result is wrong: error to float64 {errors.pop(name):.3g}, PyTorch's {bound:.3g} at most"
            )
    return good, missing, figures


def l2_cache_bytes() -> int:
    """Of the current GPU."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)


def measure(case: Case, ceilings: ceiling.Ceilings | None = None, others: Others | None = None) -> dict[str, Any]:
    """Errors and every figure of one case.

    Raises:
        WrongResult: the kernel doesn't compute what its twin does.
    """
    errors = check(case)
    first = case.make(0)
    good, missing, figures = right_ones(case, first, Others() if others is None else others)
    n_bytes = case.bytes(first)
    l2_bytes = l2_cache_bytes()
    n_cold = max(2 * WARM_SETS, math.ceil(2.2 * l2_bytes / n_bytes))
    cold = n_cold <= MOST_SETS  # of what moves a few KB a call no graph holds enough sets
    sets = [case.make(10 * seed) for seed in range(n_cold if cold else WARM_SETS)]
    both = (("triton", case.triton), ("pytorch", case.pytorch))
    times = {name: three_clocks(fn, sets, cold) for name, fn in both}
    for name, function in good.items():
        try:
            times[name] = three_clocks(function, sets, cold)
        except Exception as error:  # third parties', for instance one that can't be captured
            missing[name] = in_words(error)
            torch.cuda.synchronize()
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
        "bytes": n_bytes,
        "l2_bytes": l2_bytes,
        "cold_sets": n_cold if cold else 0,
        **errors,
        **figures,
        **speeds(case, n_bytes, times, ceilings),
        "not_timed": missing,
    }


def speeds(
    case: Case, n_bytes: int, times: dict[str, Clocks], ceilings: ceiling.Ceilings | None = None
) -> dict[str, Any]:
    """Times, what they are of the others' and of the ceilings."""
    ours, dtype = times["triton"], str(case.dtype).removeprefix("torch.")

    def over(name: str) -> dict[str, float]:
        return {clock: times[name][clock]["median"] / ours[clock]["median"] for clock in ours}

    made: dict[str, Any] = {f"{name}_us": figures for name, figures in times.items()}
    made["speedup"] = over("pytorch")
    made["speedup_over"] = {name: over(name) for name in times if name not in ("triton", "pytorch")}
    made["triton_gb_per_s"] = {clock: n_bytes / ours[clock]["median"] / 1e3 for clock in ours}
    if ceilings is not None:
        made["percent_of_copy"] = {
            clock: ceiling.percent_of_copy(ceilings, n_bytes, ours[clock]["median"]) for clock in ours
        }
        if case.flop:
            made["percent_of_matmul"] = {
                clock: ceiling.percent_of_matmul(ceilings, case.flop, ours[clock]["median"], dtype) for clock in ours
            }
    return made


def run(
    rows: Sequence[int] = ROWS,
    dtypes: Sequence[str] = ("fp16", "bf16"),
    others: Others | None = None,
    budget_s: float | None = None,
    keep: Keep = lambda *found: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ceiling.Ceilings]:
    """Measure every kernel at each number of rows in each dtype (`fp32`, `fp16`, `bf16`).

    Args:
        budget_s: seconds a dtype, after which nothing further is begun.
        keep: gets everything so far, and what is not measured (yet), after each number of rows.

    Returns:
        Results, what was not measured and why, and the ceilings.

    Raises:
        InputError: rows or dtypes that can't be measured.
        ModeUnavailable: no GPU.
    """
    unknown = [name for name in dtypes if name not in DTYPES]
    if unknown or not dtypes:
        raise InputError(f"dtypes is {list(dtypes)}: choose from {', '.join(DTYPES)}")
    if not rows or min(rows) < 2:
        raise InputError(f"rows is {list(rows)}: wanted numbers of at least 2")
    Budget(budget_s)
    need_gpu()
    with torch.inference_mode():
        ceilings = ceiling.measure([DTYPES[name] for name in dtypes])
        print(f"copy {ceilings['copy_gb_per_s']:.0f} GB/s, matmul {ceilings['matmul_tflops']}", file=sys.stderr)

        def measured(case: Case) -> dict[str, Any]:
            return measure(case, ceilings, others)

        def keep_all(*found: Any) -> None:
            keep(*found, ceilings)

        return (*sweep(in_order(rows), dtypes, measured, budget_s, keep_all, line=_line), ceilings)


def _line(result: dict[str, Any]) -> str:
    """One row of the table: shape, microseconds of the kernel and how many times PyTorch's those are, per clock."""
    cells = "".join(
        f"{result['triton_us'][clock]['median']:9.2f}{result['speedup'][clock]:7.2f}x" for clock in result["speedup"]
    )
    speeds = result["triton_gb_per_s"]
    gb = speeds.get("graph_cold", speeds["graph"])
    return f"{result['kernel']:22}{_size(result['shape']):22}{result['dtype']:9}{cells:48}{gb:8.0f}"


def _size(shape: dict[str, Any]) -> str:
    """A shape in few letters."""
    if "q_heads" in shape:
        first = f"{shape['batch']}x" if "batch" in shape else ""
        return f"{first}{shape['rows']}x{shape['q_heads']}/{shape['kv_heads']}x{shape['head_dim']}"
    return "x".join(str(size) for size in shape.values())


def _theirs(result: dict[str, Any]) -> str:
    """How many times ours the others take, in a graph, L2 cold where it can be."""
    clock = "graph_cold" if "graph_cold" in result["speedup"] else "graph"
    found = [f"{name} {over[clock]:.2f}x" for name, over in result.get("speedup_over", {}).items()]
    ceilings = [("copy", "percent_of_copy"), ("matmul", "percent_of_matmul")]
    found += [f"{result[key][clock]:.0f} % of {what}" for what, key in ceilings if key in result]
    return "  ".join(found)


@command("bench.kernels")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    about = "each kernel beside PyTorch, torch.compile and Liger-Kernel"
    parser = Parser(prog="omnivoice-triton bench kernels", description=about)
    parser.add_argument("--rows", nargs="+", type=whole(2), default=list(ROWS))
    parser.add_argument("--dtypes", nargs="+", default=["fp16", "bf16"], metavar="DTYPE", help=", ".join(DTYPES))
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes seconds a case")
    parser.add_argument("--no-liger", action="store_true", help="without Liger-Kernel, even if it is installed")
    parser.add_argument(
        "--budget-s", type=float, default=None, metavar="N", help="seconds a dtype; says what it left out"
    )
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file")
    options = parser.parse_args(argv)
    check_outputs(options.json)

    def keep(results: list[dict[str, Any]], missing: list[dict[str, Any]], found: ceiling.Ceilings) -> None:
        if results:
            document = {
                "definitions": definitions.KERNELS,
                "ceilings": found,
                "not_measured": missing,
                "results": results,
            }
            write_json(options.json, "kernels", None, document)

    others = Others(compile=not options.no_compile, liger=not options.no_liger)
    results, missing, _ = run(options.rows, options.dtypes, others, options.budget_s, keep)
    wrong = [entry for entry in missing if entry.get("wrong")]
    if not results and not wrong:
        raise InputError(f"nothing was measured: {missing[0]['reason']}")
    print(
        f"{'kernel':22}{'shape':22}{'dtype':9}{'do_bench us':>9}{'':6}{'graph us':>9}{'':8}{'cold us':>8}{'GB/s':>15}"
    )
    for result in results:
        print(f"{_line(result)}  {_theirs(result)}")
    for entry in missing:
        print(f"not measured: {entry['dtype']} {entry.get('kernel', '')} {entry['rows']} rows: {entry['reason']}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
