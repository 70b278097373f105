"""Bidirectional attention over packed segments of any length, with no mask and no padding.

    o = softmax(q kᵀ · scale) v        every query sees every key of its own segment, and no other

Shapes: qkv [R, (Hq + 2 Hkv) * D] with columns q | k | v, tiles [G, 4] int32 (see `kernels.tables`) -> out [R, Hq * D].
Flash attention (Dao, arXiv 2205.14135): fp32 scores, running maximum and accumulator; probabilities are rounded to the
storage dtype for the second product. Query heads that share a key head are stacked in the tile, so K and V are read
once for all of them, and a tile of 64 rows fills a Hopper matrix instruction with 32 positions of two heads. At batch 1
the kernel is all latency: small query tiles spread 290 rows over 80 programs.
The grid is fixed by the table's length; unused entries return at once. Rows of no tile are not written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.launch import loop_bound, round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.tiles import VarlenTile

_WIDTH = tl.constexpr(tables.TILE_WIDTH)
_START = tl.constexpr(tables.TILE_START)
_LENGTH = tl.constexpr(tables.TILE_LENGTH)
_OFFSET = tl.constexpr(tables.TILE_OFFSET)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _varlen_attention_kernel(
    qkv_ptr,
    tiles_ptr,
    out_ptr,
    scale,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    wait_for_inputs(PDL)
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    length = tl.load(tiles_ptr + tile * _WIDTH + _LENGTH)
    if length <= 0:
        return
    start = tl.load(tiles_ptr + tile * _WIDTH + _START).to(tl.int64)
    offset = tl.load(tiles_ptr + tile * _WIDTH + _OFFSET)
    GROUP: tl.constexpr = HQ // HKV
    STRIDE: tl.constexpr = (HQ + 2 * HKV) * D

    m = tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    query = offset + m // GROUP  # row within the segment
    head = kv_head * GROUP + m % GROUP
    q_mask = ((m < TILE_ROWS * GROUP) & (query < length))[:, None] & (d < D)[None, :]
    q_at = (start + query) * STRIDE + head * D
    q = tl.load(qkv_ptr + q_at[:, None] + d[None, :], mask=q_mask, other=0.0)

    k_base = qkv_ptr + start * STRIDE + (HQ + kv_head) * D
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    factor = scale * _LOG2_E
    for first in range(0, loop_bound(length), BLOCK_N):
        key = first + n
        kv_mask = (key < length)[:, None] & (d < D)[None, :]
        at = k_base + key.to(tl.int64)[:, None] * STRIDE + d[None, :]
        k = tl.load(at, mask=kv_mask, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * factor
        s = tl.where((key < length)[None, :], s, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(s, axis=1))  # finite: each block holds a key
        p = tl.exp2(s - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(p, axis=1)
        v = tl.load(at + HKV * D, mask=kv_mask, other=0.0)
        acc = acc * shrink[:, None] + tl.dot(round_to(p, v.dtype), v, input_precision="ieee")
        peak = new_peak

    out_at = (start + query) * (HQ * D) + head * D
    out = round_to(acc / total[:, None], out_ptr.dtype.element_ty)
    tl.store(out_ptr + out_at[:, None] + d[None, :], out, mask=q_mask)


def triton_varlen_attention(
    qkv: torch.Tensor,
    tiles: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    scale: float,
    tile: VarlenTile,
    out: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Attend within segments; rows that no tile covers keep what `out` held.

    Args:
        qkv: [R, (q_heads + 2 kv_heads) * D], contiguous, q and k normed and rotated.
        tiles: [G, 4] int32, made for `tile.rows` query rows a tile.
        q_heads: query heads, a multiple of kv_heads.
        kv_heads: key and value heads.
        scale: of the scores before the softmax.
        tile: how to cut.
        out: [R, q_heads * D], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("qkv", qkv)
    n_rows, columns = qkv.shape
    if q_heads % kv_heads or columns % (q_heads + 2 * kv_heads):
        raise ValueError(f"qkv has {columns} columns: wanted {q_heads} + 2 x {kv_heads} heads, {q_heads} a multiple")
    head_dim, group = columns // (q_heads + 2 * kv_heads), q_heads // kv_heads
    launch.check_like("out", out, qkv, (n_rows, q_heads * head_dim))
    tables.check("tiles", tiles, (tiles.shape[0], tables.TILE_WIDTH), qkv.device)
    if not (qkv.is_contiguous() and out.is_contiguous()):
        raise ValueError("qkv and out must be contiguous")
    with launch.on_device_of(qkv):
        _varlen_attention_kernel[(tiles.shape[0], kv_heads)](
            qkv_ptr=qkv,
            tiles_ptr=tiles,
            out_ptr=out,
            scale=float(scale),
            HQ=q_heads,
            HKV=kv_heads,
            D=head_dim,
            TILE_ROWS=tile.rows,
            BLOCK_M=max(16, triton.next_power_of_2(tile.rows * group)),
            BLOCK_N=tile.block_n,
            BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **launch_options(pdl),
        )
