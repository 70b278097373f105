"""Split-K GEMM that leaves its partial sums in fp32, to be added up inside the norm that follows.

    partials[p, m, n] = sum over k of chunk p of x[m, k] * w[n, k]

Shapes: x [M, K], w [N, K] (a Linear's weight) -> partials [P, M, N] fp32.
At few rows a GEMM of this model has too few output tiles for the GPU: o (1024 x 2048) at 290 rows has 40 of 64 x 128
for 132 SMs. Cutting K makes more, and the extra pass over the partials costs nothing where add + norm reads its input
anyway (`packed_norm`). Deterministic: each partial has one owner, and they are added in order.
Measured on one H200: with P = 2 the best tile beats cuBLAS by 0.7 us of 6.9 (o) and ties it (down) at 290 rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.tiles import GemmTile


@triton.jit(do_not_specialize=["m_rows"])
def _split_k_kernel(
    x_ptr,
    w_ptr,
    partials_ptr,
    m_rows,
    N: tl.constexpr,
    K: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    k = split * CHUNK + tl.arange(0, BLOCK_K)
    m_mask = (m < m_rows)[:, None]
    n_mask = (n < N)[:, None]
    x_at = x_ptr + m.to(tl.int64)[:, None] * K + k[None, :]
    w_at = w_ptr + n.to(tl.int64)[:, None] * K + k[None, :]

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, CHUNK, BLOCK_K):
        if CHUNK % BLOCK_K == 0 and K % CHUNK == 0:
            x = tl.load(x_at, mask=m_mask, other=0.0)
            w = tl.load(w_at, mask=n_mask, other=0.0)
        else:
            inside = ((first + tl.arange(0, BLOCK_K) < CHUNK) & (first + k < K))[None, :]
            x = tl.load(x_at, mask=m_mask & inside, other=0.0)
            w = tl.load(w_at, mask=n_mask & inside, other=0.0)
        acc += tl.dot(x, tl.trans(w), input_precision="ieee")
        x_at += BLOCK_K
        w_at += BLOCK_K

    to = partials_ptr + (split.to(tl.int64) * m_rows + m.to(tl.int64)[:, None]) * N + n[None, :]
    tl.store(to, acc, mask=m_mask & (n < N)[None, :])


def triton_split_k(x: torch.Tensor, weight: torch.Tensor, tile: GemmTile, *, partials: torch.Tensor) -> None:
    """Partial products of `x` and `weight`ᵀ; their sum over the first dimension is the product.

    Args:
        x: [M, K], contiguous.
        weight: [N, K], contiguous, in x's dtype.
        tile: how to cut; `tile.splits` partial sums.
        partials: [splits, M, N] fp32, written.

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("x", x)
    (m_rows, depth), width = x.shape, weight.shape[0]
    launch.check_like("weight", weight, x, (width, depth))
    wanted = (tile.splits, m_rows, width)
    if partials.dtype is not torch.float32 or tuple(partials.shape) != wanted or partials.device != x.device:
        raise ValueError(f"partials is {launch.describe(partials)}: wanted float32 {wanted} on {x.device}")
    if not (x.is_contiguous() and weight.is_contiguous() and partials.is_contiguous()):
        raise ValueError("x, weight and partials must be contiguous")
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
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )
