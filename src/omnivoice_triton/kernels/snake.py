"""Snake, the periodic activation of the codec's decoder, with what surrounds it folded in.

    s = x + bias[c] + residual                    fp32; bias and residual are optional
    y = s + sin(alpha[c] s)^2 / (alpha[c] + 1e-9)
    y = 0 from sample lengths[b] * rate on        lengths is optional

Shapes: x and residual (B, C, T), bias and alpha (C,), lengths (B,) -> y and, if wanted, s (B, C, T).
Source: Ziyin et al., arXiv 2006.08195; the 1e-9 is DAC's. The bias is that of the convolution before, which would
cost a pass of its own. Zeros beyond an item's length are what a convolution's zero padding looks like at the true end,
so that items of unequal length can share a padded batch and still come out as if alone.

Bytes moved for n = B C T: 2 n elements, 3 n with residual, 4 n with residual and sum; apart, the bias (2 n), the
residual (3 n) and Snake as eager PyTorch ops (about 10 n) move 15 n.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.launch import device_function, round_to

_BLOCK_T = 1024  # 8 samples a thread of 4 warps
_VECTOR = 8  # samples: 16 bytes of 16-bit values, twice that of fp32


@device_function
def sin_squared(x):
    """sin(x)^2 of fp32 `x`, within 3e-7 up to |x| = 1e5, and in [0, 1] for any x.

    sin^2 has period pi, so x is reduced to r = x - n pi with |r| <= pi / 2: pi in three parts, the first two of 8 and 9
    bits, so that n times them is exact (Cody and Waite). Then an odd polynomial of degree 9, fitted for the smallest
    error (6e-9). No branch and no table, unlike sinf, whose path for large arguments goes through local memory.
    """
    n = tl.floor(x * 0.3183098861837907 + 0.5)
    r = x - n * 3.140625
    r = r - n * 9.670257568359375e-4
    r = r - n * 6.278329573010128e-7
    # The polynomial is fitted to 1.6: n may be off by one near a half. Far out the reduction loses its digits.
    r = tl.minimum(tl.maximum(r, -1.6), 1.6)
    square = r * r
    tail = -1.980401575565338e-4 + square * 2.5943759283109102e-6
    tail = -0.16666655242443085 + square * (8.332980796694756e-3 + square * tail)
    sine = r + r * (square * tail)
    return sine * sine


@triton.jit(
    do_not_specialize=[
        "C",
        "t_units",
        "x_batch_units",
        "x_row_units",
        "residual_batch_units",
        "residual_row_units",
        "rate",
    ]
)
def _snake_kernel(
    x_ptr,
    bias_ptr,
    residual_ptr,
    alpha_ptr,
    lengths_ptr,
    sum_ptr,
    y_ptr,
    C,
    t_units,
    x_batch_units,
    x_row_units,
    residual_batch_units,
    residual_row_units,
    rate,
    UNIT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    STORE_SUM: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    # Length and strides come in units and are multiplied here: the compiler then sees that rows start at a vector.
    T = t_units * UNIT
    blocks = tl.cdiv(T, BLOCK_T)
    pid = tl.program_id(0)
    row = pid // blocks
    t = (pid - row * blocks) * BLOCK_T + tl.arange(0, BLOCK_T)
    mask = t < T
    batch = row // C
    channel = row - batch * C
    wide_batch, wide_channel, wide_row = batch.to(tl.int64), channel.to(tl.int64), row.to(tl.int64)

    x_at = (wide_batch * x_batch_units + wide_channel * x_row_units) * UNIT
    x = tl.load(x_ptr + x_at + t, mask=mask, other=0.0)
    total = x.to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias_ptr + channel)
    if HAS_RESIDUAL:
        residual_at = (wide_batch * residual_batch_units + wide_channel * residual_row_units) * UNIT
        total += tl.load(residual_ptr + residual_at + t, mask=mask, other=0.0).to(tl.float32)

    y_at = wide_row * t_units * UNIT
    if STORE_SUM:
        tl.store(sum_ptr + y_at + t, round_to(total, sum_ptr.dtype.element_ty), mask=mask)

    alpha = tl.load(alpha_ptr + channel)
    scale = tl.math.div_rn(1.0, alpha + 1e-9)
    y = total + scale * sin_squared(alpha * total)
    if HAS_LENGTHS:
        y = tl.where(t < tl.load(lengths_ptr + batch) * rate, y, 0.0)
    tl.store(y_ptr + y_at + t, round_to(y, y_ptr.dtype.element_ty), mask=mask)


def triton_snake(
    x: torch.Tensor,
    alpha: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    rate: int = 1,
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Snake of `x` (plus bias, plus residual) in one launch (forward only: no gradient).

    Args:
        x: (B, C, T), neighbours in time side by side, other strides free.
        alpha: (C,) float32.
        bias: (C,) float32, or None.
        residual: like `x` in shape, dtype and device; None for none.
        lengths: (B,) int32, or None: y is 0 from sample lengths[b] * rate on.
        rate: samples per unit of `lengths`.
        dtype: of y: that of `x` (None), or float32.
        out: contiguous (B, C, T) in that dtype to write to; may be `x` or `residual` itself.

    Returns:
        y (B, C, T): `out`, or a new tensor like `x`.

    Raises:
        ValueError: a shape, dtype, device or stride that doesn't fit.
    """
    if out is None and dtype is not None:
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
    elif out is not None and dtype not in (None, out.dtype):
        raise ValueError(f"out is {launch.describe(out)}: wanted {dtype}")
    return _launch(x, alpha, bias, residual, lengths, rate, out=out, total=None)


def triton_add_snake(
    x: torch.Tensor,
    alpha: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
    rate: int = 1,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `triton_snake`, but the sum is kept too: it is the residual of the next unit.

    `out` is (sum, y), each contiguous and like `x`; the sum may be `x` or `residual` itself. The sum is not zeroed
    beyond `lengths`.

    Returns:
        (sum, y), each (B, C, T).

    Raises:
        ValueError: a shape, dtype, device or stride that doesn't fit.
    """
    total, y = (None, None) if out is None else out
    if total is None:
        total = torch.empty_like(x, memory_format=torch.contiguous_format)
    else:
        launch.check_like("out[0]", total, x, x.shape)
    return total, _launch(x, alpha, bias, residual, lengths, rate, out=y, total=total)


def _launch(
    x: torch.Tensor,
    alpha: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    lengths: torch.Tensor | None,
    rate: int,
    *,
    out: torch.Tensor | None,
    total: torch.Tensor | None,
) -> torch.Tensor:
    launch.check_input("x", x)
    if x.dim() != 3:
        raise ValueError(f"x is {launch.describe(x)}: wanted shape (B, C, T)")
    batch, channels, samples = x.shape
    _check_vector("alpha", alpha, x, channels, torch.float32)
    if bias is not None:
        _check_vector("bias", bias, x, channels, torch.float32)
    if lengths is not None:
        _check_vector("lengths", lengths, x, batch, torch.int32)
        if rate < 1 or samples > 2**31 - 1 - _BLOCK_T:
            raise ValueError(f"rate is {rate} over {samples} samples: wanted at least 1, and fewer than 2^31 samples")
    launch.check_unit_stride("x", x)
    if residual is not None:
        launch.check_like("residual", residual, x, x.shape)
        launch.check_unit_stride("residual", residual)
    if out is None:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
    elif out.shape != x.shape or out.dtype not in (x.dtype, torch.float32) or out.device != x.device:
        raise ValueError(f"out is {launch.describe(out)}: wanted {x.dtype} or float32 {tuple(x.shape)} on {x.device}")
    for name, written in (("out", out), ("the sum", total)):
        if written is not None and not written.is_contiguous():
            raise ValueError(f"{name} has strides {written.stride()}: wanted a contiguous tensor")
    if x.numel() == 0:
        return out

    other = x if residual is None else residual
    unit = launch.stride_unit(samples, x.stride(0), x.stride(1), other.stride(0), other.stride(1))
    unit = _VECTOR if unit >= _VECTOR else 1  # two compilations at most, whatever lengths come
    with launch.on_device_of(x):
        _snake_kernel[(batch * channels * triton.cdiv(samples, _BLOCK_T),)](
            x_ptr=x,
            bias_ptr=alpha if bias is None else bias,
            residual_ptr=other,
            alpha_ptr=alpha,
            lengths_ptr=alpha if lengths is None else lengths,
            sum_ptr=out if total is None else total,
            y_ptr=out,
            C=channels,
            t_units=samples // unit,
            x_batch_units=x.stride(0) // unit,
            x_row_units=x.stride(1) // unit,
            residual_batch_units=other.stride(0) // unit,
            residual_row_units=other.stride(1) // unit,
            rate=rate,
            UNIT=unit,
            HAS_BIAS=bias is not None,
            HAS_RESIDUAL=residual is not None,
            HAS_LENGTHS=lengths is not None,
            STORE_SUM=total is not None,
            BLOCK_T=_BLOCK_T,
            num_warps=4,
        )
    return out


def _check_vector(name: str, x: torch.Tensor, like: torch.Tensor, size: int, dtype: torch.dtype) -> None:
    if (
        not isinstance(x, torch.Tensor)
        or x.shape != (size,)
        or x.dtype is not dtype
        or x.device != like.device
        or not x.is_contiguous()
    ):
        raise ValueError(f"{name} is {launch.describe(x)}: wanted a contiguous {dtype} ({size},) on {like.device}")
