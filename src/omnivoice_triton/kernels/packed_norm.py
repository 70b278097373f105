"""Residual add and RMSNorm on packed rows, in place, that can also finish a split GEMM and pick rows.

    delta = round(sum over p of partials[p])            of a split-K GEMM, in order, fp32; or a GEMM's own output
    s     = round(residual + delta)                     the new residual
    y     = round(weight * round(s * rstd))             rstd of the rounded sum, fp32

Shapes: delta [R, H], or partials [P, R, H] fp32; residual [R, H] -> y [R, H], and residual becomes s.
With `pick` [Q] int32 the kernel computes y[i] from row pick[i] and leaves the residual alone: the last norm of the
backbone, on the rows whose logits are wanted.
Rounding as `fused_norm_residual`: the sum of partials rounds once, as the GEMM's own output would.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.launch import round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs


@triton.jit(do_not_specialize=["partial_stride"])
def _packed_add_norm_kernel(
    delta_ptr,
    residual_ptr,
    pick_ptr,
    weight_ptr,
    y_ptr,
    partial_stride,
    eps,
    H: tl.constexpr,
    PARTIALS: tl.constexpr,
    PICK: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    to = tl.program_id(0).to(tl.int64)
    row = to
    if PICK:
        row = tl.load(pick_ptr + to).to(tl.int64)
    cols = tl.arange(0, BLOCK_H)
    mask = cols < H
    dtype = residual_ptr.dtype.element_ty

    residual = tl.load(residual_ptr + row * H + cols, mask=mask, other=0.0).to(tl.float32)
    delta = tl.load(delta_ptr + row * H + cols, mask=mask, other=0.0).to(tl.float32)
    for p in tl.static_range(1, PARTIALS):
        delta += tl.load(delta_ptr + p * partial_stride.to(tl.int64) + row * H + cols, mask=mask, other=0.0)
    total = round_to(residual + round_to(delta, dtype).to(tl.float32), dtype)
    if not PICK:
        tl.store(residual_ptr + row * H + cols, total, mask=mask)

    total = total.to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    rstd = tl.math.rsqrt(tl.sum(total * total, axis=0) * (1.0 / H) + eps)
    y = round_to(round_to(total * rstd, dtype).to(tl.float32) * weight, dtype)
    tl.store(y_ptr + to * H + cols, y, mask=mask)


def triton_packed_add_norm(
    delta: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    *,
    y: torch.Tensor,
    pick: torch.Tensor | None = None,
    pdl: bool = False,
) -> None:
    """Add `delta` to `residual` in place and write the RMSNorm of the sum; see the module.

    Args:
        delta: [R, H] in residual's dtype, or partial sums [P, R, H] in fp32; contiguous.
        residual: [R, H], contiguous; left alone when `pick` is given.
        weight: [H]
        eps: added to the mean square.
        y: [R, H], or [Q, H] with `pick`; written.
        pick: [Q] int32 rows, or None for all.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("residual", residual)
    launch.check_width("residual", residual)
    n_rows, width = residual.shape
    partials = delta.shape[0] if delta.dim() == 3 else 1
    if delta.dim() == 3:
        fits = delta.dtype is torch.float32 and delta.device == residual.device
        if not fits or tuple(delta.shape) != (partials, n_rows, width) or partials < 1:
            raise ValueError(f"delta is {launch.describe(delta)}: wanted float32 (P, {n_rows}, {width})")
    else:
        launch.check_like("delta", delta, residual, (n_rows, width))
    launch.check_like("weight", weight, residual, (width,))
    out_rows = n_rows if pick is None else pick.shape[0]
    launch.check_like("y", y, residual, (out_rows, width))
    if not (delta.is_contiguous() and residual.is_contiguous() and y.is_contiguous()):
        raise ValueError("delta, residual and y must be contiguous")
    if pick is not None and pick.dtype is not torch.int32:
        raise ValueError(f"pick is {launch.describe(pick)}: wanted int32 (Q,)")
    tile = launch.row_tile(width)
    with launch.on_device_of(residual):
        _packed_add_norm_kernel[(out_rows,)](
            delta_ptr=delta,
            residual_ptr=residual,
            pick_ptr=pick if pick is not None else residual,
            weight_ptr=weight,
            y_ptr=y,
            partial_stride=delta.stride(0) if delta.dim() == 3 else 0,
            eps=launch.check_eps(eps),
            H=width,
            PARTIALS=partials,
            PICK=pick is not None,
            BLOCK_H=tile.block,
            num_warps=2 * tile.num_warps if partials > 1 else tile.num_warps,  # so much more to read in a row
            **launch_options(pdl),
        )
