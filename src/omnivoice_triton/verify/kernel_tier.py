"""Tier 1: every kernel against its twin and a float64 reference.

A kernel passes where nothing is left unwritten, no element is further from the twin than a few roundings of the dtype,
and the whole is no further from float64 than the twin is, times 1.25. Whole numbers (tokens, tables) must be equal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.speech import ModeUnavailable
from omnivoice_triton.verify.outcome import Progress, Tier, quiet, raised

MAX_ERROR_RATIO = 1.25
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Against the twin: norm of the difference over norm of the twin, and largest difference over largest value.

Two ulps in 16 bits; in fp32 what a sum in another order may add up to."""
FLOOR = {torch.float32: 1e-6, torch.float16: 2e-4, torch.bfloat16: 1.5e-3}
"""Below this distance from float64 no ratio is taken: half an ulp in 16 bits, as the rounding of the result alone makes
it; in fp32 a few, since a sum's order is the library's business. Kernels with `slack` get as many times that."""


def interpret_on_cpu(device: str) -> None:
    """Switch Triton's interpreter on for a CPU; has to come before anything imports triton.

    Raises:
        ModeUnavailable: triton was imported before with the interpreter off.
    """
    if torch.device(device).type == "cuda":
        return
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise ModeUnavailable("Triton is loaded without its interpreter: set TRITON_INTERPRET=1, or use a GPU")
    os.environ["TRITON_INTERPRET"] = "1"


def compare(
    out: Tensor, twin: Tensor, exact: Tensor, dtype: torch.dtype, slack: float = 1.0, approximation: float = 0.0
) -> tuple[dict[str, Any], str]:
    """Figures of one output, and what is wrong with it in words (empty if nothing)."""
    figures: dict[str, Any]
    if not out.is_floating_point():
        off = int((out.long() != twin.long()).sum())
        figures = {"elements": out.numel(), "unequal": off, "unequal_to_float64": int((out.long() != exact).sum())}
        if off:
            return figures, f"{off} of {out.numel()} whole numbers differ from the twin's"
        # A tie within fp32's own rounding may fall to another id in float64.
        if figures["unequal_to_float64"] > 0.01 * out.numel():
            return figures, f"{figures['unequal_to_float64']} of {out.numel()} differ from float64's"
        return figures, ""
    got, want, true = (value.double() for value in (out, twin, exact))
    same_marks = (got == want) & ~want.isfinite()  # -inf marks decided cells in both
    unwritten = int((~(got.isfinite() & want.isfinite()) & ~same_marks).sum())
    if unwritten:
        wrong_marks = f"{unwritten} of {out.numel()} elements not finite, or finite where the twin's are not"
        return {"elements": out.numel(), "unwritten": unwritten}, wrong_marks
    kept = want.isfinite()
    got, want, true = got[kept], want[kept], true[kept]
    difference, largest = (got - want).abs(), want.abs().amax().clamp_min(1e-30)
    scale, true_scale = want.norm().clamp_min(1e-30), true.norm().clamp_min(1e-30)
    figures = {
        "elements": out.numel(),
        "error_to_twin": float((got - want).norm() / scale),
        "largest_difference": float(difference.amax() / largest),
        "error_to_float64": float((got - true).norm() / true_scale),
        "twin_error_to_float64": float((want - true).norm() / true_scale),
    }
    allowed = TOLERANCE[dtype] * slack
    limit = MAX_ERROR_RATIO * max(figures["twin_error_to_float64"], FLOOR[dtype] * slack)
    wrong = []
    if not figures["error_to_twin"] <= allowed:
        wrong.append(f"{figures['error_to_twin']:.2g} from the twin, wanted at most {allowed:.2g}")
    if not figures["largest_difference"] <= 4 * allowed:
        wrong.append(f"an element is {figures['largest_difference']:.2g} off, wanted at most {4 * allowed:.2g}")
    if not figures["error_to_float64"] <= limit:
        wrong.append(f"{figures['error_to_float64']:.2g} from float64, wanted at most {limit:.2g}")
    if not figures["twin_error_to_float64"] <= max(allowed, approximation):
        wrong.append(f"the twin itself is {figures['twin_error_to_float64']:.2g} from float64")
    return figures, "; ".join(wrong)


def check(case: Any) -> dict[str, Any]:
    """Figures and verdict of one case; the worst of its outputs stands for it."""
    dtype = str(case.dtype).removeprefix("torch.")
    outputs: dict[str, dict[str, Any]] = {}
    problems = []
    try:
        out, twin, exact = case.run(case.launcher()), case.run(case.twin), case.exact()
        for name, wanted in twin.items():
            slack, approximation = (1.0, 0.0) if name in case.strict else (case.slack, case.approximation)
            outputs[name], wrong = compare(out[name], wanted, exact[name], case.dtype, slack, approximation)
            if wrong:
                problems.append(f"{name}: {wrong}")
    except Exception as error:
        problems.append(raised(error))
    worst = {
        key: max((o[key] for o in outputs.values() if key in o), default=None)
        for key in ("error_to_twin", "largest_difference", "error_to_float64", "twin_error_to_float64", "unequal")
    }
    return {
        "name": f"{case.kernel} {case.shape} {dtype}",
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": dtype,
        **worst,
        "allowed_to_twin": TOLERANCE[case.dtype] * case.slack,
        "slack": case.slack,
        "approximation": case.approximation,
        "strict": sorted(case.strict),
        "outputs": outputs,
        "passed": bool(outputs) and not problems,
        "problems": problems,
    }


def run(device: str, *, cases: Iterable[Any] | None = None, progress: Progress = quiet) -> Tier:
    """Check the whole grid on `device` (`cuda…` compiled, `cpu` in Triton's interpreter)."""
    tier = Tier(
        1,
        "kernels",
        "every kernel against its plain PyTorch twin and a float64 reference",
        {
            "error_to_twin": {str(k).removeprefix("torch."): v for k, v in TOLERANCE.items()},
            "error_to_float64_of_twins": MAX_ERROR_RATIO,
            "float64_floor": {str(k).removeprefix("torch."): v for k, v in FLOOR.items()},
            "whole_numbers": "equal",
            "slack": "a factor on these, stated with each case",
        },
    )
    start = time.perf_counter()
    try:
        interpret_on_cpu(device)
        from omnivoice_triton.kernels import interpreting
        from omnivoice_triton.verify import hopper_grid, kernel_case, kernel_cases
    except (ModeUnavailable, ImportError) as error:
        tier.problems.append(f"kernels can't run here: {error}")
        return tier
    compiled = torch.device(device).type == "cuda"
    tier.notes.append("compiled for this GPU" if compiled else "in Triton's interpreter on the CPU, at small sizes")
    if not compiled and not interpreting():
        tier.problems.append("kernels can't run on a CPU: Triton's interpreter is off (set TRITON_INTERPRET=1)")
        return tier
    whole_grid = cases is None
    elsewhere: tuple[str, ...] = ()
    if cases is None:
        sizes = kernel_case.GPU if compiled else kernel_case.CPU
        more = (
            case for dtype in kernel_case.DTYPES for case in hopper_grid.cases(sizes, kernel_case.Draw(device, dtype))
        )
        cases = chain(kernel_cases.cases(sizes, device), more)
        reason = hopper_grid.problem(device)
        if reason is not None:
            elsewhere = hopper_grid.KERNELS
            tier.notes.append(f"not checked here: {', '.join(elsewhere)}: {reason}")
    grid = list(cases)
    if not compiled:
        left = {case.kernel for case in grid if case.multiplies and case.dtype is torch.bfloat16}
        if left:
            tier.notes.append(f"not in bfloat16, whose products the interpreter can't form: {', '.join(sorted(left))}")
        grid = [case for case in grid if not (case.multiplies and case.dtype is torch.bfloat16)]
    for number, case in enumerate(grid):
        progress(1, f"{case.kernel} {case.shape}", number, len(grid))
        tier.rows.append(check(case))
    if whole_grid:
        missing = sorted(kernel_case.launchers() - {case.kernel for case in grid} - set(elsewhere))
        tier.problems += [f"kernel {name} has no case in the grid" for name in missing]
    tier.seconds = time.perf_counter() - start
    return tier
