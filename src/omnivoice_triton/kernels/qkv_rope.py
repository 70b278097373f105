"""The QKV GEMM with QK-norm and RoPE in its epilogue: stands in for cuBLAS and `qkv`.

    y = x wᵀ, then on the heads of q and k what `qkv` does; the product is rounded to the storage dtype before that

A tile is as wide as a head, so that a row of it is all that a norm needs.
A plain Triton GEMM loses 1.2 us of 7.3 to cuBLAS on one H200 at 290 rows, which folding has to win back.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.qkv import multiply_rounded
from omnivoice_triton.kernels.tiles import GemmTile

_ROW_WIDTH = tl.constexpr(tables.ROW_WIDTH)
_ROW_POSITION = tl.constexpr(tables.ROW_POSITION)


@triton.jit(do_not_specialize=["m_rows"])
def _qkv_rope_kernel(
    x_ptr,
    w_ptr,
    qkv_ptr,
    rows_ptr,
    cos_ptr,
    sin_ptr,
    q_weight_ptr,
    k_weight_ptr,
    m_rows,
    eps,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    HALF: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    D: tl.constexpr = 2 * HALF
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    head = tl.program_id(1)
    n = head * D + tl.arange(0, D)
    k = tl.arange(0, BLOCK_K)
    m_mask = (m < m_rows)[:, None]
    x_at = x_ptr + m.to(tl.int64)[:, None] * K + k[None, :]
    w_at = w_ptr + n.to(tl.int64)[:, None] * K + k[None, :]
    dtype = x_ptr.dtype.element_ty

    acc = tl.zeros((BLOCK_M, D), tl.float32)
    for first in range(0, K, BLOCK_K):
        x_mask = m_mask
        if K % BLOCK_K != 0:
            inside = (first + k < K)[None, :]
            x_mask = m_mask & inside
            w = tl.load(w_at, mask=inside, other=0.0)
        else:
            w = tl.load(w_at)
        x = tl.load(x_at, mask=x_mask, other=0.0)
        acc = tl.dot(x, tl.trans(w), acc, input_precision="ieee")
        x_at += BLOCK_K
        w_at += BLOCK_K

    to = qkv_ptr + m.to(tl.int64)[:, None] * ((HQ + 2 * HKV) * D) + head * D
    value = round_to(acc, dtype)
    if head >= HQ + HKV:
        tl.store(to + tl.arange(0, D)[None, :], value, mask=m_mask)
    else:
        wide = value.to(tl.float32)
        rstd = tl.math.rsqrt(tl.sum(wide * wide, axis=1) * (1.0 / D) + eps)
        d = tl.arange(0, D)
        q_weight = tl.load(q_weight_ptr + d).to(tl.float32)
        k_weight = tl.load(k_weight_ptr + d).to(tl.float32)
        weight = tl.where(head < HQ, q_weight, k_weight)
        normed = multiply_rounded(multiply_rounded(wide, rstd[:, None], dtype), weight[None, :], dtype)
        left, right = tl.split(tl.permute(tl.reshape(normed, (BLOCK_M, 2, HALF)), (0, 2, 1)))
        half = tl.arange(0, HALF)
        position = tl.load(rows_ptr + m.to(tl.int64) * _ROW_WIDTH + _ROW_POSITION, mask=m < m_rows, other=0)
        at = position.to(tl.int64)[:, None] * HALF + half[None, :]
        cos = tl.load(cos_ptr + at, mask=m_mask, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + at, mask=m_mask, other=0.0).to(tl.float32)
        turned = multiply_rounded(left, cos, dtype) - multiply_rounded(right, sin, dtype)
        tl.store(to + half[None, :], round_to(turned, dtype), mask=m_mask)
        turned = multiply_rounded(right, cos, dtype) + multiply_rounded(left, sin, dtype)
        tl.store(to + HALF + half[None, :], round_to(turned, dtype), mask=m_mask)


def triton_qkv_rope(
    x: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    eps: float,
    tile: GemmTile,
    *,
    q_heads: int,
    kv_heads: int,
    qkv: torch.Tensor,
    pdl: bool = False,
) -> None:
    """The QKV product with q and k normed and rotated.

    Args:
        x: [M, K], contiguous.
        weight: [(q_heads + 2 kv_heads) * D, K], contiguous; D a power of two of at least 32.
        rows: [M, 2] int32; the position column indexes cos and sin.
        cos: [P, D/2] in x's dtype.
        sin: [P, D/2] in x's dtype.
        q_weight: [D]
        k_weight: [D]
        eps: added to the mean square.
        tile: how to cut M and K; N is cut by heads.
        q_heads: query heads.
        kv_heads: key and value heads.
        qkv: [M, (q_heads + 2 kv_heads) * D], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("x", x)
    (m_rows, depth), head_dim, heads = x.shape, q_weight.shape[0], q_heads + 2 * kv_heads
    half = head_dim // 2
    if head_dim < 32 or head_dim & (head_dim - 1):
        raise ValueError(f"heads are {head_dim} wide: wanted a power of two of at least 32")
    launch.check_like("weight", weight, x, (heads * head_dim, depth))
    launch.check_like("qkv", qkv, x, (m_rows, heads * head_dim))
    launch.check_like("q_weight", q_weight, x, (head_dim,))
    launch.check_like("k_weight", k_weight, x, (head_dim,))
    launch.check_like("cos", cos, x, (cos.shape[0], half))
    launch.check_like("sin", sin, x, (cos.shape[0], half))
    tables.check("rows", rows, (m_rows, tables.ROW_WIDTH), x.device)
    launch.check_contiguous(x=x, weight=weight, qkv=qkv, cos=cos, sin=sin)
    with launch.on_device_of(x):
        _qkv_rope_kernel[(triton.cdiv(m_rows, tile.block_m), heads)](
            x_ptr=x,
            w_ptr=weight,
            qkv_ptr=qkv,
            rows_ptr=rows,
            cos_ptr=cos,
            sin_ptr=sin,
            q_weight_ptr=q_weight,
            k_weight_ptr=k_weight,
            m_rows=m_rows,
            eps=launch.check_eps(eps),
            HQ=q_heads,
            HKV=kv_heads,
            HALF=half,
            K=depth,
            BLOCK_M=tile.block_m,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **launch.ROUNDED,  # as in `qkv`
            **launch_options(pdl),
        )
