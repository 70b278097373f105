"""Per-head RMSNorm of queries and keys, then rotate-half RoPE, in one launch.

    n       = round(weight * round(x * rstd)),  rstd = 1 / sqrt(mean(x^2) + eps) over one head, fp32
    y[:h]   = round(round(n[:h] * cos[:h]) + round(-n[h:] * sin[:h]))          h = D / 2
    y[h:]   = round(round(n[h:] * cos[h:]) + round( n[:h] * sin[h:]))          round: to the dtype of x

Shapes: q (B, S, Hq, D), k (B, S, Hkv, D), weights (D,), cos and sin (1 or B, S, D)
-> (B, Hq, S, D) and (B, Hkv, S, D). Source: Su et al., arXiv 2104.09864; the rounding points are those of transformers'
Qwen3 (kept because values that stay in fp32 between norm and rotation drift visibly from it).
Bytes moved for R = B S rows: 2 R (Hq + Hkv) D + 2 R D elements, against about five times that in a dozen PyTorch ops.

Strides are free on both sides, so q and k may be slices of one packed (R, (Hq + 2 Hkv) D) matrix, and the outputs may
go into a packed buffer.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.cached import Cached
from omnivoice_triton.kernels.launch import device_function, round_to


@device_function
def _as_rounded(x, dtype: tl.constexpr):
    """fp32 `x` rounded to `dtype`, as fp32."""
    return round_to(x, dtype).to(tl.float32)


# Strides come in units of UNIT elements and, like S, are not specialised: a new length compiles nothing.
@triton.jit(
    do_not_specialize=[
        "S",
        "q_stride_b",
        "q_stride_s",
        "q_stride_h",
        "k_stride_b",
        "k_stride_s",
        "k_stride_h",
        "cos_stride_b",
        "cos_stride_s",
        "sin_stride_b",
        "sin_stride_s",
        "q_out_stride_b",
        "q_out_stride_h",
        "q_out_stride_s",
        "k_out_stride_b",
        "k_out_stride_h",
        "k_out_stride_s",
    ]
)
def _qk_norm_rope_kernel(
    q_ptr,
    k_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_out_ptr,
    k_out_ptr,
    S,
    q_stride_b,
    q_stride_s,
    q_stride_h,
    k_stride_b,
    k_stride_s,
    k_stride_h,
    cos_stride_b,
    cos_stride_s,
    sin_stride_b,
    sin_stride_s,
    q_out_stride_b,
    q_out_stride_h,
    q_out_stride_s,
    k_out_stride_b,
    k_out_stride_h,
    k_out_stride_s,
    eps,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
):
    """One program: one token, BLOCK_H of its query heads or BLOCK_H of its key heads."""
    HALF: tl.constexpr = D // 2
    Q_BLOCKS: tl.constexpr = (HQ + BLOCK_H - 1) // BLOCK_H
    token = tl.program_id(0)
    b = (token // S).to(tl.int64)
    s = (token % S).to(tl.int64)
    group = tl.program_id(1)
    is_q = group < Q_BLOCKS

    x_ptr = tl.where(is_q, q_ptr, k_ptr)
    weight_ptr = tl.where(is_q, q_weight_ptr, k_weight_ptr)
    out_ptr = tl.where(is_q, q_out_ptr, k_out_ptr)
    x_row = tl.where(is_q, b * q_stride_b + s * q_stride_s, b * k_stride_b + s * k_stride_s) * UNIT
    out_row = tl.where(is_q, b * q_out_stride_b + s * q_out_stride_s, b * k_out_stride_b + s * k_out_stride_s) * UNIT
    x_stride_h = tl.where(is_q, q_stride_h, k_stride_h).to(tl.int64)
    out_stride_h = tl.where(is_q, q_out_stride_h, k_out_stride_h).to(tl.int64)
    n_heads = tl.where(is_q, HQ, HKV)

    heads = tl.where(is_q, group, group - Q_BLOCKS) * BLOCK_H + tl.arange(0, BLOCK_H)
    cols = tl.arange(0, BLOCK_HALF)
    mask = (heads < n_heads)[:, None] & (cols < HALF)[None, :]

    x_offsets = x_row + (heads * x_stride_h * UNIT)[:, None] + cols[None, :]
    low = tl.load(x_ptr + x_offsets, mask=mask, other=0.0)
    high = tl.load(x_ptr + x_offsets + HALF, mask=mask, other=0.0)
    # Read in the shape of the tile: each thread gets the values of its own elements, no exchange between threads.
    tile = tl.zeros((BLOCK_H, 1), tl.int32) + cols[None, :]
    weight_low = tl.load(weight_ptr + tile, mask=mask, other=0.0).to(tl.float32)
    weight_high = tl.load(weight_ptr + HALF + tile, mask=mask, other=0.0).to(tl.float32)
    cos_row = cos_ptr + (b * cos_stride_b + s * cos_stride_s) * UNIT
    sin_row = sin_ptr + (b * sin_stride_b + s * sin_stride_s) * UNIT
    cos_low = tl.load(cos_row + tile, mask=mask, other=0.0).to(tl.float32)
    cos_high = tl.load(cos_row + HALF + tile, mask=mask, other=0.0).to(tl.float32)
    sin_low = tl.load(sin_row + tile, mask=mask, other=0.0).to(tl.float32)
    sin_high = tl.load(sin_row + HALF + tile, mask=mask, other=0.0).to(tl.float32)

    dtype = low.dtype
    low = low.to(tl.float32)
    high = high.to(tl.float32)
    mean_square = (tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)) * (1.0 / D)
    rstd = tl.math.rsqrt(mean_square + eps)[:, None]
    low = _as_rounded(_as_rounded(low * rstd, dtype) * weight_low, dtype)
    high = _as_rounded(_as_rounded(high * rstd, dtype) * weight_high, dtype)

    out_low = round_to(_as_rounded(low * cos_low, dtype) - _as_rounded(high * sin_low, dtype), dtype)
    out_high = round_to(_as_rounded(high * cos_high, dtype) + _as_rounded(low * sin_high, dtype), dtype)
    out_offsets = out_row + (heads * out_stride_h * UNIT)[:, None] + cols[None, :]
    tl.store(out_ptr + out_offsets, out_low, mask=mask)
    tl.store(out_ptr + out_offsets + HALF, out_high, mask=mask)


_qk_norm_rope_launch = Cached(_qk_norm_rope_kernel)


@lru_cache(maxsize=64)
def _tile(head_dim: int, heads: int) -> tuple[int, int, int]:
    """(BLOCK_H, BLOCK_HALF, num_warps): about 512 elements of each half, 8 a thread."""
    block_half = max(8, triton.next_power_of_2(head_dim // 2))
    block_h = max(1, min(512 // block_half, triton.next_power_of_2(heads), 16))
    return block_h, block_half, min(8, max(1, block_h * block_half // 256))


def triton_qk_norm_rope(
    q: torch.Tensor,
    k: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    eps: float = 1e-6,
    *,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """RMSNorm of every head of q and k, then RoPE (forward only: no gradient).

    Args:
        q: (B, S, Hq, D), D even and at most 1,024, unit stride in D, any other strides.
        k: (B, S, Hkv, D), likewise.
        q_weight: (D,), norm weight of the query heads; dtype and device of q, as everything else.
        k_weight: (D,), norm weight of the key heads.
        cos: (1 or B, S, D), unit stride in D.
        sin: shape of cos.
        eps: added to the mean square.
        out: where to write, (B, Hq, S, D) and (B, Hkv, S, D), unit stride in D, any other strides; must not
            overlap q or k.

    Returns:
        Rotated q (B, Hq, S, D) and k (B, Hkv, S, D): `out`, or new contiguous tensors.

    Raises:
        ValueError: a shape, stride, dtype, device or eps that doesn't fit.
    """
    launch.check_input("q", q)
    if q.dim() != 4 or q.shape[-1] % 2 or not 2 <= q.shape[-1] <= 1024 or q.shape[2] == 0:
        raise ValueError(f"q is {launch.describe(q)}: wanted (B, S, Hq, D) with D even, 2 to 1024")
    batch, length, q_heads, head_dim = q.shape
    k_heads = k.shape[2] if isinstance(k, torch.Tensor) and k.dim() == 4 else 0
    launch.check_like("k", k, q, (batch, length, max(k_heads, 1), head_dim))
    launch.check_like("q_weight", q_weight, q, (head_dim,))
    launch.check_like("k_weight", k_weight, q, (head_dim,))
    rows = 1 if isinstance(cos, torch.Tensor) and cos.dim() == 3 and cos.shape[0] == 1 else batch
    launch.check_like("cos", cos, q, (rows, length, head_dim))
    launch.check_like("sin", sin, q, (rows, length, head_dim))
    for name, x in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
        launch.check_unit_stride(name, x)
    eps = launch.check_eps(eps)
    q_shape, k_shape = (batch, q_heads, length, head_dim), (batch, k_heads, length, head_dim)
    if out is None:
        q_out = torch.empty(q_shape, dtype=q.dtype, device=q.device)
        k_out = torch.empty(k_shape, dtype=q.dtype, device=q.device)
    else:
        q_out, k_out = out
        for name, x, shape in (("out[0]", q_out, q_shape), ("out[1]", k_out, k_shape)):
            launch.check_like(name, x, q, shape)
            launch.check_unit_stride(name, x)
    if q.numel() == 0:
        return q_out, k_out

    cos_strides = (0 if rows == 1 else cos.stride(0), cos.stride(1))
    sin_strides = (0 if rows == 1 else sin.stride(0), sin.stride(1))
    strides = (
        *q.stride()[:3],
        *k.stride()[:3],
        *cos_strides,
        *sin_strides,
        *q_out.stride()[:3],
        *k_out.stride()[:3],
    )
    unit = launch.stride_unit(*strides)
    (qb, qs, qh, kb, ks, kh, cb, cs, sb, ss, qob, qoh, qos, kob, koh, kos) = (stride // unit for stride in strides)
    block_h, block_half, num_warps = _tile(head_dim, max(q_heads, k_heads))
    with launch.on_device_of(q):
        _qk_norm_rope_launch(
            (batch * length, launch.cdiv(q_heads, block_h) + launch.cdiv(k_heads, block_h)),
            q_ptr=q,
            k_ptr=k,
            q_weight_ptr=q_weight if q_weight.is_contiguous() else q_weight.contiguous(),
            k_weight_ptr=k_weight if k_weight.is_contiguous() else k_weight.contiguous(),
            cos_ptr=cos,
            sin_ptr=sin,
            q_out_ptr=q_out,
            k_out_ptr=k_out,
            S=length,
            q_stride_b=qb,
            q_stride_s=qs,
            q_stride_h=qh,
            k_stride_b=kb,
            k_stride_s=ks,
            k_stride_h=kh,
            cos_stride_b=cb,
            cos_stride_s=cs,
            sin_stride_b=sb,
            sin_stride_s=ss,
            q_out_stride_b=qob,
            q_out_stride_h=qoh,
            q_out_stride_s=qos,
            k_out_stride_b=kob,
            k_out_stride_h=koh,
            k_out_stride_s=kos,
            eps=eps,
            HQ=q_heads,
            HKV=k_heads,
            D=head_dim,
            UNIT=unit,
            BLOCK_H=block_h,
            BLOCK_HALF=block_half,
            num_warps=num_warps,
            **launch.ROUNDED,  # q * cos and rotate_half(q) * sin, before they are added
        )
    return q_out, k_out
