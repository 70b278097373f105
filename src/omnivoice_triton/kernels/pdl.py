"""Programmatic dependent launch: a kernel may be launched while the one before it still runs.

Its programs then wait, already resident, until that one is complete and its writes are visible; what is saved is the
gap between two kernels of a graph. Needs compute capability 9.0 and a Triton with `launch_pdl` (3.3 or later, seen in
3.6). Every kernel that is launched this way must wait before it touches memory, else it would race with its inputs.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from omnivoice_triton.kernels.launch import device_function


@device_function
def wait_for_inputs(PDL: tl.constexpr):
    """First statement of a kernel: let the kernel after be launched, then wait for the kernel before.

    In this order the kernel after may start while the one before still runs, and ask for its weights. It waits for
    this one itself, and this one ends after the one before, so nothing is read too early.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


def launch_options(pdl: bool) -> dict[str, Any]:
    """Keywords for a launch; older Tritons know no `launch_pdl`, so it is named only when wanted."""
    return {"PDL": True, "launch_pdl": True} if pdl else {"PDL": False}
