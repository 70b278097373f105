"""Keys as INT8, less their mean: the first half of INT8-QK attention (`attention`).

    K'    = K - mean(K over the valid rows)            changes no softmax: q . mean is one constant per query
    K8    = rint(K' / sk), sk = max|K'| / 127          per block of keys

Shapes: k (B, Hkv, S, D), lengths (B,) -> K8 (B, Hkv, blocks * BLOCK_N, BLOCK_D), sk (B, Hkv, blocks). Rows behind an
item's length are never read. Bytes moved: K twice (and once more per key block, from the L2 cache, for the mean), K8
once. Source: Zhang et al., SageAttention, arXiv 2410.02367 (K smoothing, INT8 per block).

The mean is taken on a fixed-point grid, per channel: a power of two 2^-12 of the largest |K| in the first rows. Sums
of integers have no order, so every block subtracts the same bits, and so does the PyTorch twin on any device. How
exact the mean is matters little, since any constant is allowed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.cached import Cached
from omnivoice_triton.kernels.launch import SMOOTH_ROWS, AttentionTile, device_function, loop_bound


@device_function
def to_int8(x, amax):
    """INT8 of fp32 `x` whose largest magnitude is `amax` (a scalar), rounded to nearest."""
    inverse = tl.math.div_rn(127.0, tl.maximum(amax, 1e-30))
    return tl.floor(x * inverse + 0.5).to(tl.int8)


@device_function
def int8_step(amax):
    """What one step of the INT8 values of `to_int8` is worth."""
    return tl.math.div_rn(tl.maximum(amax, 1e-30), 127.0)


# Strides come in units of UNIT elements and, like S, are not specialised: a new length compiles nothing.
@triton.jit(do_not_specialize=["S", "n_blocks", "k_stride_b", "k_stride_h", "k_stride_s"])
def _quantise_keys_kernel(
    k_ptr,
    lengths_ptr,
    k8_ptr,
    k_scale_ptr,
    S,
    n_blocks,
    k_stride_b,
    k_stride_h,
    k_stride_s,
    HKV: tl.constexpr,
    D: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MEAN_ROWS: tl.constexpr,
):
    """One program: one block of keys of one head; k8 (B, HKV, n_blocks * BLOCK_N, BLOCK_D), k_scale (B, HKV, n_blocks).

    Every program takes the mean of the whole head again: the rows come from the L2 cache, and a third launch would
    cost more than that at the lengths of speech.
    """
    block = tl.program_id(0)
    head = tl.program_id(1)
    item = tl.program_id(2)
    length = tl.minimum(tl.maximum(tl.load(lengths_ptr + item), 0), S)
    if block * BLOCK_N >= length:
        return  # attention stops at the length: nothing reads this block

    cols = tl.arange(0, BLOCK_D)
    col_mask = (cols < D)[None, :]
    k_head = k_ptr + (item.to(tl.int64) * k_stride_b + head.to(tl.int64) * k_stride_h) * UNIT
    mean_rows = tl.arange(0, MEAN_ROWS)
    mean_offsets = (mean_rows.to(tl.int64) * k_stride_s * UNIT)[:, None] + cols[None, :]
    mean_step = tl.full((), MEAN_ROWS, tl.int64) * k_stride_s * UNIT

    # The grid: p <= max|k| < 2 p with p a power of two (its exponent bits), step 2^-12 p.
    first = tl.load(k_head + mean_offsets, mask=(mean_rows < length)[:, None] & col_mask, other=0.0).to(tl.float32)
    largest = tl.minimum(tl.maximum(tl.max(tl.abs(first), axis=0), 2.0**-100), 2.0**100)
    power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    to_grid = tl.math.div_rn(4096.0, power)
    total = tl.zeros((BLOCK_D,), tl.int32)
    for start in range(0, loop_bound(length), MEAN_ROWS):
        mask = (mean_rows < length - start)[:, None] & col_mask
        k = tl.load(k_head + (start // MEAN_ROWS) * mean_step + mean_offsets, mask=mask, other=0.0).to(tl.float32)
        k = tl.minimum(tl.maximum(k * to_grid[None, :], -32768.0), 32768.0)
        total += tl.sum(tl.floor(k + 0.5).to(tl.int32), axis=0)
    mean = tl.math.div_rn(total.to(tl.float32), length.to(tl.float32)) * (power * (1.0 / 4096.0))

    rows = block * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (rows < length)[:, None] & col_mask
    k = tl.load(k_head + (rows.to(tl.int64) * k_stride_s * UNIT)[:, None] + cols[None, :], mask=mask, other=0.0)
    k = tl.where(mask, k.to(tl.float32) - mean[None, :], 0.0)
    amax = tl.max(tl.max(tl.abs(k), axis=1), axis=0)
    slot = (item.to(tl.int64) * HKV + head) * n_blocks + block
    k8_offsets = slot * (BLOCK_N * BLOCK_D) + tl.arange(0, BLOCK_N)[:, None] * BLOCK_D + cols[None, :]
    tl.store(k8_ptr + k8_offsets, to_int8(k, amax))
    tl.store(k_scale_ptr + slot, int8_step(amax))


_quantise_keys_launch = Cached(_quantise_keys_kernel)


def quantise_keys(k: torch.Tensor, lengths: torch.Tensor, tile: AttentionTile) -> tuple[torch.Tensor, torch.Tensor]:
    """One launch on k's device, which must be the current one; arguments are taken as checked.

    Args:
        k: (B, Hkv, S, D), unit stride in D, any other strides; not changed.
        lengths: (B,) contiguous int32.
        tile: whose keys make a block.

    Returns:
        K8 (B, Hkv, blocks * tile.block_n, tile.block_d) int8, written where a length reaches, and its steps
        (B, Hkv, blocks) fp32.
    """
    batch, heads, length, head_dim = k.shape
    n_blocks = launch.cdiv(length, tile.block_n)
    k8 = torch.empty((batch, heads, n_blocks * tile.block_n, tile.block_d), dtype=torch.int8, device=k.device)
    k_scale = torch.empty((batch, heads, n_blocks), dtype=torch.float32, device=k.device)
    unit = launch.stride_unit(*k.stride()[:3])
    stride_b, stride_h, stride_s = (stride // unit for stride in k.stride()[:3])
    _quantise_keys_launch(
        (n_blocks, heads, batch),
        k_ptr=k,
        lengths_ptr=lengths,
        k8_ptr=k8,
        k_scale_ptr=k_scale,
        S=length,
        n_blocks=n_blocks,
        k_stride_b=stride_b,
        k_stride_h=stride_h,
        k_stride_s=stride_s,
        HKV=heads,
        D=head_dim,
        UNIT=unit,
        BLOCK_N=tile.block_n,
        BLOCK_D=tile.block_d,
        MEAN_ROWS=SMOOTH_ROWS,
        num_warps=8,
        enable_fp_fusion=False,  # contraction would round the INT8 values elsewhere than the twin does
    )
    return k8, k_scale
