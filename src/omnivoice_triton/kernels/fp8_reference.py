"""FP8 (e4m3) by rows, in plain PyTorch: the numbers that `fp8`'s kernels put out, and products of them on any device.

    scale[r] = max|x[r, :]| / 448         448: the largest e4m3 value
    x8[r, :] = e4m3(x[r, :] * (448 / max|x[r, :]|))        rounded to nearest, ties to even

Shapes: x [R, N] -> x8 [R, N] float8_e4m3fn, scale [R, 1] fp32. Of a weight [out, in] a row is an output channel.
Source: vector-wise scales as in Dettmers et al., LLM.int8(), arXiv 2208.07339; e4m3 of Micikevicius et al., arXiv
2209.05433.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from omnivoice_triton.kernels.engine_reference import packed_add_norm

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
SMALLEST_AMAX = 1e-12
"""What a row of zeros is scaled by: anything but 0."""


def quantise_rows(x: torch.Tensor, *, out: torch.Tensor, scale: torch.Tensor) -> None:
    """Twin of `fp8.triton_quantise_rows`."""
    wide = x.to(torch.float32)
    amax = wide.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_AMAX)
    most = torch.full_like(amax, FP8_MAX)  # a tensor: PyTorch divides by (or into) a number through a reciprocal
    scale.copy_(amax / most)
    out.copy_((wide * (most / amax)).to(FP8))


def add_norm_quantise(
    delta: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    out: torch.Tensor,
    scale: torch.Tensor,
) -> None:
    """Twin of `fp8.triton_add_norm_quantise`."""
    y = torch.empty_like(residual)
    packed_add_norm(delta, residual, weight, eps, y=y)
    quantise_rows(y, out=out, scale=scale)


def swiglu_quantise(gate_up: torch.Tensor, *, out: torch.Tensor, scale: torch.Tensor) -> None:
    """Twin of `fp8.triton_swiglu_quantise`."""
    gate, up = gate_up.chunk(2, dim=-1)
    quantise_rows(F.silu(gate) * up, out=out, scale=scale)


def scaled_mm(
    x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor, *, out: torch.Tensor
) -> None:
    """Twin of `scaled_mm.scaled_mm`: dequantises, multiplies in fp32 (fp64 for fp64 results) and rounds once."""
    wide = torch.promote_types(out.dtype, torch.float32)
    out.copy_((x.to(wide) * x_scale) @ (weight.to(wide) * weight_scale.reshape(-1, 1)).t())
