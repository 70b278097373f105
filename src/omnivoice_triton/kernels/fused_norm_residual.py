"""Residual add and RMSNorm in one pass.

    s    = round(x + residual)                         the new residual; round: to the dtype of x
    rstd = 1 / sqrt(mean(s^2) + eps)                   fp32, of the rounded sum
    y    = round(weight * round(s * rstd))

Shapes: x and residual (..., N), weight (N,) -> y and s (..., N).
The sum is rounded before its statistics are taken, as two separate PyTorch ops would: the result is then that of the
unfused layer. Bytes moved for R rows: 4 R N + N elements, against 6 R N + N for an add and a norm apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.cached import Cached
from omnivoice_triton.kernels.launch import round_to


@triton.jit(do_not_specialize=["n_rows"])
def _add_rms_norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    sum_ptr,
    n_rows,
    x_row_stride,
    x_col_stride,
    residual_row_stride,
    residual_col_stride,
    y_row_stride,
    y_col_stride,
    sum_row_stride,
    sum_col_stride,
    eps,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK_N)
    wide_cols = cols.to(tl.int64)
    mask = (rows < n_rows)[:, None] & (cols < N)[None, :]

    # Read in the shape of the tile: each thread gets the weights of its own elements, no exchange between threads.
    weight_ptrs = tl.broadcast_to((weight_ptr + cols)[None, :], (ROWS, BLOCK_N))
    weight = tl.load(weight_ptrs, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + rows[:, None] * x_row_stride + wide_cols[None, :] * x_col_stride, mask=mask, other=0.0)
    residual = tl.load(
        residual_ptr + rows[:, None] * residual_row_stride + wide_cols[None, :] * residual_col_stride,
        mask=mask,
        other=0.0,
    )
    dtype = x.dtype
    total = round_to(x.to(tl.float32) + residual.to(tl.float32), dtype)
    tl.store(sum_ptr + rows[:, None] * sum_row_stride + wide_cols[None, :] * sum_col_stride, total, mask=mask)

    total = total.to(tl.float32)
    rstd = tl.math.rsqrt(tl.sum(total * total, axis=1) * (1.0 / N) + eps)
    normed = round_to(total * rstd[:, None], dtype).to(tl.float32)
    y = round_to(normed * weight, dtype)
    tl.store(y_ptr + rows[:, None] * y_row_stride + wide_cols[None, :] * y_col_stride, y, mask=mask)


_add_rms_norm_launch = Cached(_add_rms_norm_kernel)


def triton_fused_add_rms_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    *,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`s = x + residual` and the RMSNorm of `s` in one launch (forward only: no gradient).

    Args:
        x: (..., N) with N from 1 to 65,536, any strides.
        residual: shape, dtype and device of `x`, any strides.
        weight: (N,), dtype and device of `x`.
        eps: added to the mean square.
        out: (normed, sum) to write to, each like `x`; the sum may go to `x` or `residual` itself.

    Returns:
        (RMSNorm of the sum, the sum), `out` or new contiguous tensors.

    Raises:
        ValueError: a shape, dtype, device or eps that doesn't fit.
    """
    launch.check_input("x", x)
    launch.check_width("x", x)
    width = x.shape[-1]
    launch.check_like("residual", residual, x, x.shape)
    launch.check_like("weight", weight, x, (width,))
    eps = launch.check_eps(eps)
    normed_out, sum_out = (None, None) if out is None else out
    y, y_row_stride, y_col_stride = launch.output_for(normed_out, x, "out[0]")
    total, sum_row_stride, sum_col_stride = launch.output_for(sum_out, x, "out[1]")
    if x.numel() == 0:
        return y, total
    source, n_rows, x_row_stride, x_col_stride = launch.as_rows(x)
    other, _, residual_row_stride, residual_col_stride = launch.as_rows(residual)
    tile = launch.row_tile(width)
    with launch.on_device_of(x):
        _add_rms_norm_launch(
            (launch.cdiv(n_rows, tile.rows),),
            x_ptr=source,
            residual_ptr=other,
            weight_ptr=weight if weight.is_contiguous() else weight.contiguous(),
            y_ptr=y,
            sum_ptr=total,
            n_rows=n_rows,
            x_row_stride=x_row_stride,
            x_col_stride=x_col_stride,
            residual_row_stride=residual_row_stride,
            residual_col_stride=residual_col_stride,
            y_row_stride=y_row_stride,
            y_col_stride=y_col_stride,
            sum_row_stride=sum_row_stride,
            sum_col_stride=sum_col_stride,
            eps=eps,
            N=width,
            ROWS=tile.rows,
            BLOCK_N=tile.block,
            num_warps=tile.num_warps,
        )
    return y, total


class TritonFusedAddRMSNorm(torch.nn.Module):
    """Module form of `triton_fused_add_rms_norm`.

    Args:
        hidden_size: N.
        eps: added to the mean square.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(normed, new residual) of x and residual (..., hidden_size)."""
        return triton_fused_add_rms_norm(x, residual, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Width and eps, for `print(model)`."""
        return f"hidden_size={self.hidden_size}, eps={self.eps}"
