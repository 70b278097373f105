"""GEMMs of the backbone with what surrounds them folded in: Triton's answer where cuBLAS leaves a kernel to launch.

`triton_split_k`: partial sums over K in fp32, to be added up inside the norm that follows (`packed_norm`):

    partials[p, m, n] = sum over k of chunk p of x[m, k] * w[n, k]

At few rows o (1024 x 2048) and down (1024 x 3072) have too few output tiles for the GPU: 40 of 64 x 128 for 132 SMs at
290 rows. Cutting K makes more, and the extra pass over the sums costs nothing where add + norm reads its input anyway.
Deterministic: each sum has one owner, and they are added in order. With `swiglu` x is the packed gate and up [M, 2 K],
and silu(gate) * up is taken on the way in.

`triton_qkv_rope`: the QKV GEMM with QK-norm and RoPE in its epilogue. A tile is as wide as a head, so that a row of it
is all that a norm needs. Stands in for cuBLAS and `qkv`.

`triton_gate_up`: the gate and up GEMMs side by side with silu(gate) * up in the epilogue; only [M, I] is written.

Roundings are those of the kernels they replace: a product is rounded to the storage dtype before anything follows.
Measured on one H200 at 290 rows: split-K with 2 sums beats cuBLAS by 0.7 us of 6.9 (o) and ties it (down); a plain
Triton GEMM loses 1.2 us of 7.3 (qkv) and 2.1 us of 8.9 (gate_up), which the folded kernels have to win back.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import device_function, round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.qkv import multiply_rounded
from omnivoice_triton.kernels.swiglu import silu, silu_16bit
from omnivoice_triton.kernels.tiles import GemmTile

_ROW_WIDTH = tl.constexpr(tables.ROW_WIDTH)
_ROW_POSITION = tl.constexpr(tables.ROW_POSITION)


@device_function
def _gated(gate, up, dtype: tl.constexpr):
    """silu(gate) * up of values of `dtype`, rounded as two PyTorch ops would."""
    gate = gate.to(tl.float32)
    gated = silu(gate) if dtype == tl.float32 else silu_16bit(gate)
    return round_to(round_to(gated, dtype).to(tl.float32) * up.to(tl.float32), dtype)


@triton.jit(do_not_specialize=["m_rows"])
def _split_k_kernel(
    x_ptr,
    w_ptr,
    partials_ptr,
    m_rows,
    N: tl.constexpr,
    K: tl.constexpr,
    CHUNK: tl.constexpr,
    SWIGLU: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    k = split * CHUNK + tl.arange(0, BLOCK_K)
    m_mask = (m < m_rows)[:, None]
    n_mask = (n < N)[:, None]
    X_STRIDE: tl.constexpr = 2 * K if SWIGLU else K
    x_at = x_ptr + m.to(tl.int64)[:, None] * X_STRIDE + k[None, :]
    w_at = w_ptr + n.to(tl.int64)[:, None] * K + k[None, :]
    dtype = x_ptr.dtype.element_ty

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, CHUNK, BLOCK_K):
        x_mask = m_mask
        w_mask = n_mask
        if CHUNK % BLOCK_K != 0 or K % CHUNK != 0:
            inside = ((first + tl.arange(0, BLOCK_K) < CHUNK) & (first + k < K))[None, :]
            x_mask = m_mask & inside
            w_mask = n_mask & inside
        x = tl.load(x_at, mask=x_mask, other=0.0)
        if SWIGLU:
            x = _gated(x, tl.load(x_at + K, mask=x_mask, other=0.0), dtype)
        w = tl.load(w_at, mask=w_mask, other=0.0)
        acc = tl.dot(x, tl.trans(w), acc, input_precision="ieee")
        x_at += BLOCK_K
        w_at += BLOCK_K

    to = partials_ptr + (split.to(tl.int64) * m_rows + m.to(tl.int64)[:, None]) * N + n[None, :]
    tl.store(to, acc, mask=m_mask & (n < N)[None, :])


def triton_split_k(
    x: torch.Tensor,
    weight: torch.Tensor,
    tile: GemmTile,
    *,
    partials: torch.Tensor,
    swiglu: bool = False,
    pdl: bool = False,
) -> None:
    """Partial products of `x` and `weight`ᵀ; their sum over the first dimension is the product.

    Args:
        x: [M, K], or with `swiglu` [M, 2 K] gate and up side by side; contiguous.
        weight: [N, K], contiguous, in x's dtype.
        tile: how to cut; `tile.splits` partial sums.
        partials: [splits, M, N] fp32, written.
        swiglu: take silu(gate) * up on the way in.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("x", x)
    m_rows, (width, depth) = x.shape[0], weight.shape
    launch.check_like("x", x, x, (m_rows, 2 * depth if swiglu else depth))
    launch.check_like("weight", weight, x, (width, depth))
    wanted = (tile.splits, m_rows, width)
    if partials.dtype is not torch.float32 or tuple(partials.shape) != wanted or partials.device != x.device:
        raise ValueError(f"partials is {launch.describe(partials)}: wanted float32 {wanted} on {x.device}")
    _check_contiguous(x=x, weight=weight, partials=partials)
    grid = (triton.cdiv(m_rows, tile.block_m), triton.cdiv(width, tile.block_n), tile.splits)
    with launch.on_device_of(x):
        _split_k_kernel[grid](
            x_ptr=x,
            w_ptr=weight,
            partials_ptr=partials,
            m_rows=m_rows,
            N=width,
            K=depth,
            CHUNK=triton.cdiv(depth, tile.splits),
            SWIGLU=swiglu,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **launch_options(pdl),
        )


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
    _check_contiguous(x=x, weight=weight, qkv=qkv, cos=cos, sin=sin)
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
            **launch_options(pdl),
        )


@triton.jit(do_not_specialize=["m_rows"])
def _gate_up_kernel(
    x_ptr,
    w_ptr,
    out_ptr,
    m_rows,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    m_mask = (m < m_rows)[:, None]
    n_mask = (n < N)[:, None]
    x_at = x_ptr + m.to(tl.int64)[:, None] * K + k[None, :]
    gate_at = w_ptr + n.to(tl.int64)[:, None] * K + k[None, :]
    up_at = gate_at + N * K
    dtype = x_ptr.dtype.element_ty

    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, K, BLOCK_K):
        x_mask = m_mask
        w_mask = n_mask
        if K % BLOCK_K != 0:
            inside = (first + k < K)[None, :]
            x_mask = m_mask & inside
            w_mask = n_mask & inside
        x = tl.load(x_at, mask=x_mask, other=0.0)
        gate = tl.dot(x, tl.trans(tl.load(gate_at, mask=w_mask, other=0.0)), gate, input_precision="ieee")
        up = tl.dot(x, tl.trans(tl.load(up_at, mask=w_mask, other=0.0)), up, input_precision="ieee")
        x_at += BLOCK_K
        gate_at += BLOCK_K
        up_at += BLOCK_K

    out = _gated(round_to(gate, dtype), round_to(up, dtype), dtype)
    tl.store(out_ptr + m.to(tl.int64)[:, None] * N + n[None, :], out, mask=m_mask & (n < N)[None, :])


def triton_gate_up(
    x: torch.Tensor, weight: torch.Tensor, tile: GemmTile, *, out: torch.Tensor, pdl: bool = False
) -> None:
    """silu(x gateᵀ) * (x upᵀ).

    Args:
        x: [M, K], contiguous.
        weight: [2 I, K], gate over up, contiguous.
        tile: how to cut; `block_n` columns of each.
        out: [M, I], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("x", x)
    (m_rows, depth), width = x.shape, weight.shape[0] // 2
    launch.check_like("weight", weight, x, (2 * width, depth))
    launch.check_like("out", out, x, (m_rows, width))
    _check_contiguous(x=x, weight=weight, out=out)
    with launch.on_device_of(x):
        _gate_up_kernel[(triton.cdiv(m_rows, tile.block_m), triton.cdiv(width, tile.block_n))](
            x_ptr=x,
            w_ptr=weight,
            out_ptr=out,
            m_rows=m_rows,
            N=width,
            K=depth,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **launch_options(pdl),
        )


def _check_contiguous(**tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"{name} has strides {tensor.stride()}: wanted it contiguous")
