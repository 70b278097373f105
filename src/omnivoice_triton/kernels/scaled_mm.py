"""The FP8 product with a scale for each row of both operands, by PyTorch (cuBLAS or CUTLASS below it).

    out[m, n] = round(x_scale[m] * w_scale[n] * sum over k of x8[m, k] * w8[n, k])

Shapes: x8 [M, K], w8 [N, K] float8_e4m3fn, x_scale [M, 1], w_scale [1, N] fp32 -> out [M, N]; K and N multiples of 16.
Needs compute capability 8.9. Which result dtypes PyTorch writes depends on its version and the library below it (bf16
always; fp16 on 9.0 with CUDA 12.9 or later), and a build has been seen to write one 16-bit format into a tensor of the
other: so `problem` multiplies and looks, once.
H200, four products of a layer x 28 in a graph, against cuBLAS in bf16: 1.25x at 790 rows, 1.7x at 3,712, slower at 384.
"""

from __future__ import annotations

import torch

from omnivoice_triton.kernels import fp8_reference

MIN_CAPABILITY = (8, 9)
FAST_ACCUMULATION = True
"""Hopper's FP8 accumulator as it is, with about 14 bits: at K of 3,072 or less that errs far less than operands of
3 bits of mantissa do, and to add up in fp32 in between takes time."""


def scaled_mm(
    x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor, *, out: torch.Tensor
) -> None:
    """x weightᵀ of quantised matrices, into `out`.

    Args:
        x: [M, K] float8_e4m3fn, contiguous.
        x_scale: [M, 1] fp32.
        weight: [N, K] float8_e4m3fn, contiguous.
        weight_scale: [1, N] fp32.
        out: [M, N], written. On a CPU, where PyTorch has no such product, the twin's.
    """
    if x.device.type != "cuda":
        fp8_reference.scaled_mm(x, x_scale, weight, weight_scale, out=out)
        return
    torch._scaled_mm(
        x,
        weight.t(),
        scale_a=x_scale,
        scale_b=weight_scale,
        out_dtype=out.dtype,
        use_fast_accum=FAST_ACCUMULATION,
        out=out,
    )


def problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why products with results of `dtype` can't be had on that CUDA device (of 8.9 or later), or None: tries one."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 64, generator=generator).to(device) for n in (64, 32))
    x8, w8 = torch.empty_like(x, dtype=fp8_reference.FP8), torch.empty_like(w, dtype=fp8_reference.FP8)
    x_scale, w_scale = (torch.empty(n, 1, dtype=torch.float32, device=device) for n in (64, 32))
    fp8_reference.quantise_rows(x, out=x8, scale=x_scale)
    fp8_reference.quantise_rows(w, out=w8, scale=w_scale)
    want, got = torch.empty(64, 32, device=device), torch.empty(64, 32, dtype=dtype, device=device)
    fp8_reference.scaled_mm(x8, x_scale, w8, w_scale, out=want)
    try:
        scaled_mm(x8, x_scale, w8, w_scale.t().contiguous(), out=got)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    error_norm, norm = (got.float() - want).norm().item(), want.norm().item()
    if not error_norm <= 0.02 * norm:
        return f"a product in {dtype} came out wrong by {error_norm / norm:.0%}"
    return None
