"""Other people's kernels for the same work: torch.compile of the eager operations, and Liger-Kernel where installed.

A yardstick is timed only if its result is as near to float64 as PyTorch's own, within a factor of two or the dtype's
tolerance; one that isn't is named with its error, without a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch

LIGER = "liger_kernel.transformers.functional"
EPS = 1e-6

Function = Callable[..., Any]


def compiled(function: Function, backend: str = "inductor") -> Function:
    """`torch.compile` in its default mode for the shapes of the first call only, nothing kept from other cases."""
    torch.compiler.reset()
    made: Function = torch.compile(function, dynamic=False, backend=backend)
    return made


def first_call_s(function: Function, inputs: tuple[Any, ...]) -> float:
    """Seconds of the call that compiles."""
    began = time.perf_counter()
    function(*inputs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def liger_missing() -> str | None:
    """Why Liger-Kernel can't be timed, or None."""
    if importlib.util.find_spec("liger_kernel") is None:
        return "Liger-Kernel is not installed (pip install liger-kernel)"
    return None


def liger_for(kernel: str, library: Any = None) -> Function | None:
    """Liger's functions for the work of a case; None if it has none.

    It has RMSNorm, SwiGLU and RoPE, so norm and RoPE of q and k are three launches. Its add + RMSNorm is taken where
    the installed version has one. Its rotation works in place, on the norms' fresh outputs.
    """
    functional = importlib.import_module(LIGER) if library is None else library
    rms, rope = functional.liger_rms_norm, functional.liger_rope

    def qk_norm_rope(q: Any, k: Any, q_weight: Any, k_weight: Any, cos: Any, sin: Any) -> Any:
        q, k = rms(q, q_weight, EPS).transpose(1, 2), rms(k, k_weight, EPS).transpose(1, 2)
        return rope(q, k, cos, sin)

    found: dict[str, Function | None] = {
        "rms_norm": lambda x, weight: rms(x, weight, EPS),
        "swiglu": functional.liger_swiglu,
        "rope": qk_norm_rope,
    }
    if hasattr(functional, "liger_fused_add_rms_norm"):
        found["fused_norm_residual"] = lambda x, residual, weight: functional.liger_fused_add_rms_norm(
            x, residual, weight, EPS
        )
        found["packed_add_norm"] = lambda delta, residual, weight, y: functional.liger_fused_add_rms_norm(
            delta, residual, weight, EPS
        )
    return found.get(kernel)
