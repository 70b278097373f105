"""Triton kernels, forward only: one op a file, each with its launcher.

`reference` holds their plain-PyTorch twins. Nothing here knows of OmniVoice, and nothing outside imports triton.
"""

from __future__ import annotations

from omnivoice_triton.kernels.attention import int8_qk_attention, launch_count, reset_launch_count
from omnivoice_triton.kernels.fused_norm_residual import TritonFusedAddRMSNorm, triton_fused_add_rms_norm
from omnivoice_triton.kernels.launch import interpreting
from omnivoice_triton.kernels.rms_norm import TritonRMSNorm, triton_rms_norm
from omnivoice_triton.kernels.rope import triton_qk_norm_rope
from omnivoice_triton.kernels.swiglu import TritonSwiGLU, triton_swiglu_forward

__all__ = [
    "TritonFusedAddRMSNorm",
    "TritonRMSNorm",
    "TritonSwiGLU",
    "int8_qk_attention",
    "interpreting",
    "launch_count",
    "reset_launch_count",
    "triton_fused_add_rms_norm",
    "triton_qk_norm_rope",
    "triton_rms_norm",
    "triton_swiglu_forward",
]
