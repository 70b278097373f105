"""Runners, patching and graphs over an upstream OmniVoice instance."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnivoice_triton.models.acceleration import accelerate
from omnivoice_triton.models.graphs import capture_cuda_graph
from omnivoice_triton.models.registry import (
    ALL_RUNNER_NAMES,
    FasterRunner,
    TritonFasterRunner,
    TritonRunner,
    create_runner,
    get_runner_class,
)
from omnivoice_triton.models.runner import BaseRunner

if TYPE_CHECKING:
    from omnivoice_triton.models.patching import apply_sage_attention, apply_triton_kernels

__all__ = [
    "ALL_RUNNER_NAMES",
    "BaseRunner",
    "FasterRunner",
    "TritonFasterRunner",
    "TritonRunner",
    "accelerate",
    "apply_sage_attention",
    "apply_triton_kernels",
    "capture_cuda_graph",
    "create_runner",
    "get_runner_class",
]


def __getattr__(name: str) -> Any:
    """Patching imports Triton, which is not everywhere: only on first use."""
    if name not in ("apply_sage_attention", "apply_triton_kernels"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("omnivoice_triton.models.patching"), name)
