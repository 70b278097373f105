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
    """First statement of a kernel: wait for the kernel before, then let the kernel after be launched."""
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def launch_options(pdl: bool) -> dict[str, Any]:
    """Keywords for a launch; older Tritons know no `launch_pdl`, so it is named only when wanted."""
    return {"PDL": True, "launch_pdl": True} if pdl else {"PDL": False}
