"""Rows quantised to FP8 where they are made anyway: a row as it is, an add + norm's, a SwiGLU's.

    scale[r] = max|y[r, :]| / 448
    y8[r, :] = e4m3(y[r, :] * (448 / max|y[r, :]|))                         y: what the 16-bit path would store

`triton_quantise_rows`      y = x [R, N]                                attention's output; 3 R N bytes
`triton_add_norm_quantise`  y = RMSNorm(residual += delta) [R, N]       rounded as `packed_norm`; 7 R N bytes
`triton_swiglu_quantise`    y = silu(gate) * up of gate_up [R, 2 N]     rounded as `swiglu`; 5 R N bytes

Shapes: y8 [R, N] float8_e4m3fn, scale [R, 1] fp32. A program holds a whole row, so its largest magnitude costs no
second pass. Needs compute capability 8.9; twins and sources in `fp8_reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.fp8_reference import FP8, FP8_MAX, SMALLEST_AMAX
from omnivoice_triton.kernels.launch import INTERPRETED, device_function, round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.swiglu import _gated

_MAX = tl.constexpr(FP8_MAX)
_SMALLEST = tl.constexpr(SMALLEST_AMAX)


@device_function
def _to_fp8(x):
    """fp32 `x` of magnitude 448 or less as e4m3, rounded to nearest, ties to even.

    At 8.9 Triton cuts to fp16 first: what is less than 2^-11 above a midpoint counts as a tie.
    The interpreter's own cast loses the carry out of the mantissa, so there the value is rounded before: normal numbers
    on their bits, smaller ones to multiples of 2^-9.
    """
    if INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000
        low = (x + 24576.0) - 24576.0  # fp32 has no bits below 2^-9 there
        x = tl.where(tl.abs(x) < 2.0**-6, low, bits.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@device_function
def _store_quantised(y, out_ptr, scale_ptr, row, cols, mask, N: tl.constexpr):
    """Quantise a row of fp32 values (0 where masked out) and store it with its scale."""
    amax = tl.maximum(tl.max(tl.abs(y), axis=0), _SMALLEST)
    tl.store(out_ptr + row * N + cols, _to_fp8(y * tl.math.div_rn(_MAX, amax)), mask=mask)
    tl.store(scale_ptr + row, tl.math.div_rn(amax, _MAX))


@triton.jit
def _quantise_rows_kernel(x_ptr, out_ptr, scale_ptr, N: tl.constexpr, BLOCK_N: tl.constexpr, PDL: tl.constexpr):
    wait_for_inputs(PDL)
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK_N)
    mask = cols < N
    x = tl.load(x_ptr + row * N + cols, mask=mask, other=0.0).to(tl.float32)
    _store_quantised(x, out_ptr, scale_ptr, row, cols, mask, N)


@triton.jit
def _add_norm_quantise_kernel(
    delta_ptr,
    residual_ptr,
    weight_ptr,
    out_ptr,
    scale_ptr,
    eps,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK_N)
    mask = cols < N
    dtype = residual_ptr.dtype.element_ty
    residual = tl.load(residual_ptr + row * N + cols, mask=mask, other=0.0).to(tl.float32)
    delta = tl.load(delta_ptr + row * N + cols, mask=mask, other=0.0).to(tl.float32)
    total = round_to(residual + delta, dtype)
    tl.store(residual_ptr + row * N + cols, total, mask=mask)
    total = total.to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    rstd = tl.math.rsqrt(tl.sum(total * total, axis=0) * (1.0 / N) + eps)
    y = round_to(round_to(total * rstd, dtype).to(tl.float32) * weight, dtype)
    _store_quantised(y.to(tl.float32), out_ptr, scale_ptr, row, cols, mask, N)


@triton.jit
def _swiglu_quantise_kernel(gate_up_ptr, out_ptr, scale_ptr, N: tl.constexpr, BLOCK_N: tl.constexpr, PDL: tl.constexpr):
    wait_for_inputs(PDL)
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK_N)
    mask = cols < N
    gate = tl.load(gate_up_ptr + row * (2 * N) + cols, mask=mask, other=0.0)
    up = tl.load(gate_up_ptr + row * (2 * N) + N + cols, mask=mask, other=0.0)
    y = _gated(gate, up, gate_up_ptr.dtype.element_ty)
    _store_quantised(y.to(tl.float32), out_ptr, scale_ptr, row, cols, mask, N)


def triton_quantise_rows(x: torch.Tensor, *, out: torch.Tensor, scale: torch.Tensor, pdl: bool = False) -> None:
    """Quantise each row of `x`.

    Args:
        x: [R, N], contiguous.
        out: [R, N] float8_e4m3fn, written.
        scale: [R, 1] fp32, written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("x", x)
    launch.check_width("x", x)
    n_rows, width = x.shape
    _check_outputs(out, scale, x, n_rows, width)
    launch.check_contiguous(x=x)
    tile = launch.row_tile(width)
    with launch.on_device_of(x):
        _quantise_rows_kernel[(n_rows,)](
            x_ptr=x,
            out_ptr=out,
            scale_ptr=scale,
            N=width,
            BLOCK_N=tile.block,
            num_warps=tile.num_warps,
            **launch_options(pdl),
        )


def triton_add_norm_quantise(
    delta: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    out: torch.Tensor,
    scale: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Add `delta` to `residual` in place and quantise the RMSNorm of the sum.

    Args:
        delta: [R, N], contiguous, in residual's dtype.
        residual: [R, N], contiguous.
        weight: [N]
        eps: added to the mean square.
        out: [R, N] float8_e4m3fn, written.
        scale: [R, 1] fp32, written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("residual", residual)
    launch.check_width("residual", residual)
    n_rows, width = residual.shape
    launch.check_like("delta", delta, residual, (n_rows, width))
    launch.check_like("weight", weight, residual, (width,))
    _check_outputs(out, scale, residual, n_rows, width)
    launch.check_contiguous(delta=delta, residual=residual)
    tile = launch.row_tile(width)
    with launch.on_device_of(residual):
        _add_norm_quantise_kernel[(n_rows,)](
            delta_ptr=delta,
            residual_ptr=residual,
            weight_ptr=weight,
            out_ptr=out,
            scale_ptr=scale,
            eps=launch.check_eps(eps),
            N=width,
            BLOCK_N=tile.block,
            num_warps=tile.num_warps,
            **launch_options(pdl),
        )


def triton_swiglu_quantise(gate_up: torch.Tensor, *, out: torch.Tensor, scale: torch.Tensor, pdl: bool = False) -> None:
    """Quantise each row of silu(gate) * up.

    Args:
        gate_up: [R, 2 N], gate and up side by side, contiguous.
        out: [R, N] float8_e4m3fn, written.
        scale: [R, 1] fp32, written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("gate_up", gate_up)
    launch.check_width("gate_up", gate_up)
    n_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    launch.check_like("gate_up", gate_up, gate_up, (n_rows, 2 * width))
    _check_outputs(out, scale, gate_up, n_rows, width)
    launch.check_contiguous(gate_up=gate_up)
    tile = launch.row_tile(width)
    with launch.on_device_of(gate_up):
        _swiglu_quantise_kernel[(n_rows,)](
            gate_up_ptr=gate_up,
            out_ptr=out,
            scale_ptr=scale,
            N=width,
            BLOCK_N=tile.block,
            num_warps=tile.num_warps,
            **launch_options(pdl),
        )


def _check_outputs(out: torch.Tensor, scale: torch.Tensor, like: torch.Tensor, n_rows: int, width: int) -> None:
    for name, x, dtype, shape in (("out", out, FP8, (n_rows, width)), ("scale", scale, torch.float32, (n_rows, 1))):
        if x.dtype is not dtype or tuple(x.shape) != shape or x.device != like.device or not x.is_contiguous():
            raise ValueError(f"{name} is {launch.describe(x)}: wanted contiguous {dtype} {shape} on {like.device}")
