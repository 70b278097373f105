"""Fast OmniVoice text-to-speech on one GPU.

    from omnivoice_triton import create_runner

    with create_runner("hybrid") as runner:
        speech = runner.generate("Hello, world!", seed=7)
        speech.save("hello.wav")

Importing this package is cheap: torch, Triton and omnivoice are imported when a name that needs them is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnivoice_triton.config import MODES, GenerationOptions, Mode
from omnivoice_triton.imports import quick_imports
from omnivoice_triton.speech import (
    CheckpointError,
    DownloadError,
    InputError,
    ModeUnavailable,
    NotEnoughMemory,
    NotLoaded,
    OmniVoiceTritonError,
    Speech,
    UnknownMode,
    UpstreamChanged,
)

if TYPE_CHECKING:
    from omnivoice_triton.kernels import (
        TritonFusedAddRMSNorm,
        TritonRMSNorm,
        TritonSwiGLU,
        triton_fused_add_rms_norm,
        triton_rms_norm,
        triton_swiglu_forward,
    )
    from omnivoice_triton.models import (
        ALL_RUNNER_NAMES,
        BaseRunner,
        FasterRunner,
        TritonFasterRunner,
        TritonRunner,
        accelerate,
        apply_triton_kernels,
        capture_cuda_graph,
        create_runner,
        get_runner_class,
    )

__version__ = "0.2.0.dev0"

_KERNELS = (
    "TritonFusedAddRMSNorm",
    "TritonRMSNorm",
    "TritonSwiGLU",
    "triton_fused_add_rms_norm",
    "triton_rms_norm",
    "triton_swiglu_forward",
)
_MODELS = (
    "ALL_RUNNER_NAMES",
    "BaseRunner",
    "FasterRunner",
    "TritonFasterRunner",
    "TritonRunner",
    "accelerate",
    "apply_triton_kernels",
    "capture_cuda_graph",
    "create_runner",
    "get_runner_class",
)
_LAZY = {
    **dict.fromkeys(_KERNELS, "omnivoice_triton.kernels"),
    **dict.fromkeys(_MODELS, "omnivoice_triton.models"),
}

__all__ = [
    "ALL_RUNNER_NAMES",
    "MODES",
    "BaseRunner",
    "CheckpointError",
    "DownloadError",
    "FasterRunner",
    "GenerationOptions",
    "InputError",
    "Mode",
    "ModeUnavailable",
    "NotEnoughMemory",
    "NotLoaded",
    "OmniVoiceTritonError",
    "Speech",
    "TritonFasterRunner",
    "TritonFusedAddRMSNorm",
    "TritonRMSNorm",
    "TritonRunner",
    "TritonSwiGLU",
    "UnknownMode",
    "UpstreamChanged",
    "__version__",
    "accelerate",
    "apply_triton_kernels",
    "capture_cuda_graph",
    "create_runner",
    "get_runner_class",
    "triton_fused_add_rms_norm",
    "triton_rms_norm",
    "triton_swiglu_forward",
]


def __getattr__(name: str) -> Any:
    """Import what a public name needs, on first use."""
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with quick_imports():
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names."""
    return sorted(__all__)
