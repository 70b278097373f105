"""The order of `bench kernels`, and what a kernel that fails, is wrong or finds no time leaves behind: a line, no gap.

Every kernel is measured at the rows of a 5 s utterance before any is measured at others, so a short budget leaves
numbers of rows out, not kernels.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from omnivoice_triton.bench.kernel_case import DTYPES, Case, Unmeasured, WrongResult
from omnivoice_triton.bench.kernel_cases import Plan, plans
from omnivoice_triton.bench.speed_cases import Budget
from omnivoice_triton.commands import in_words

TELLING_ROWS = (290, 4096, 64)
"""Of a 5 s utterance, of a batch, and of a word; the nearest of those asked for come first."""
COMPILE_S = 15.0
"""torch.compile is left out where a case's share of the time that is left is shorter."""

Result = dict[str, Any]
Keep = Callable[..., None]
"""Takes results and what is not measured (yet); that of `run` also the ceilings."""


def in_order(rows: Sequence[int]) -> list[int]:
    """The rows nearest to the telling ones first, then the rest as given."""
    nearest = [min(rows, key=lambda n: abs(math.log(n / telling))) for telling in TELLING_ROWS]
    return list(dict.fromkeys([*nearest, *rows]))


def device_lost() -> str | None:
    """Why nothing more can run on the GPU after an error, or None; frees what the error left."""
    if not torch.cuda.is_available():
        return None
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception as error:
        return f"the GPU had failed before it ({in_words(error)})"
    return None


def sweep(
    rows: Sequence[int],
    dtypes: Sequence[str],
    measured: Callable[[Case], Result],
    budget_s: float | None,
    keep: Keep,
    plans_of: Callable[[int, torch.dtype], list[Plan]] = plans,
    clock: Callable[[], float] = time.monotonic,
    lost: Callable[[], str | None] = device_lost,
    line: Callable[[Result], str] = str,
) -> tuple[list[Result], list[Result]]:
    """Every kernel in turn, as far as the budget of its dtype goes.

    Args:
        measured: gives a case's figures, or raises; an error ends that case alone.
        keep: gets everything so far, and what is not measured (yet), after each number of rows.
        lost: asked after an error whether the device still works.

    Returns:
        Results, each with its `rows`, and what was not measured with the reason; a wrong kernel's entry has `wrong`,
        that of one which raised has `failed`.
    """
    results: list[Result] = []
    missing: list[Result] = []
    waiting = [{"rows": n, "dtype": name, "reason": "the run ended before it"} for name in dtypes for n in rows]
    gone: str | None = None
    for name in dtypes:
        budget = Budget(budget_s, clock)
        for n in rows:
            del waiting[0]
            first = n == rows[0]
            wanted = [plan for plan in plans_of(n, DTYPES[name]) if first or not plan.once]
            for number, plan in enumerate(wanted):
                where: Result = {"kernel": plan.kernel, "rows": n, "dtype": name}
                reason = gone or ("" if budget.left > 0 else "no time was left")
                if reason:
                    missing.append({**where, "reason": reason})
                    continue
                try:
                    case = plan.build()
                    where |= {"kernel": case.kernel, "shape": case.shape}
                    share = budget.left / (len(wanted) - number)
                    case = dataclasses.replace(case, no_compile=_no_compile(plan, share, rows[0], first))
                    results.append({**measured(case), "rows": n})
                except Unmeasured as error:
                    missing.append({**where, "reason": str(error)})
                except WrongResult as error:
                    missing.append({**where, "reason": str(error), "wrong": True})
                    print(f"WRONG: {error}", file=sys.stderr, flush=True)
                except Exception as error:  # of one kernel on a GPU that nobody has tried it on: the rest goes on
                    missing.append({**where, "reason": in_words(error), "failed": True})
                    print(f"{plan.kernel} {n} rows {name}: {in_words(error)}", file=sys.stderr, flush=True)
                    gone = lost()
                else:
                    print(line(results[-1]), file=sys.stderr, flush=True)
            keep(results, [*missing, *waiting])
    return results, missing


def _no_compile(plan: Plan, share_s: float, first_rows: int, first: bool) -> str:
    """Why torch.compile is left out of a case, or nothing."""
    if plan.compile_once and not first:
        return f"timed at {first_rows} rows alone"
    return "" if share_s >= COMPILE_S else "no time was left for it"
