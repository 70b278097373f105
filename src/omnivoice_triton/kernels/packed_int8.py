"""Packed bidirectional attention with INT8 query-key products, in the manner of SageAttention: lossy, opt-in.

    K'    = K - mean(K over its segment)                changes no softmax: q . mean is one constant per query
    K8    = rint(K' / sk), sk = max|K'| / 127           per block of keys and key head
    Q8    = rint(Q / sq),  sq = max|Q| / 127            per query row and head
    P     = softmax(scale * sq * sk * (Q8 K8ᵀ))         INT8 x INT8 -> INT32, then fp32, online over key blocks
    O     = round(P) V                                  16-bit operands, fp32 accumulation (fp32 inputs: all fp32)

Shapes: qkv [R, (Hq + 2 Hkv) * D] with columns q | k | v, tiles [G, 4] int32 (see `tables`) -> out [R, Hq * D]; keys as
`Int8Keys` has them. The caller's K is not changed. Source: Zhang et al., SageAttention, arXiv 2410.02367; the mean on a
fixed-point grid as in `attention`, so that its bits depend on nothing but the segment.
Three launches on one grid of (tiles, key heads): mean (the first tile of a segment), quantisation (each tile the key
blocks that begin in it), attention. Lengths and offsets come from the table on the device. Bytes moved beside those of
`varlen_attention`: K twice more, K8 once written and once read for every query tile in place of K.
What is given up: logits come from operands of 8 bits. On random Q and K with channels far off zero the result is 1.1 %
(norm) off float64; the exact kernel's is 0.03 % off in fp16 and 0.2 % in bf16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch, tables
from omnivoice_triton.kernels.counter import LaunchCounter
from omnivoice_triton.kernels.int8_keys import MEAN_ROWS, Int8Keys, padded_width
from omnivoice_triton.kernels.launch import INTERPRETED, loop_bound, round_to
from omnivoice_triton.kernels.pdl import launch_options, wait_for_inputs
from omnivoice_triton.kernels.quantise_keys import int8_step, to_int8
from omnivoice_triton.kernels.tiles import VarlenTile

_WIDTH = tl.constexpr(tables.TILE_WIDTH)
_START = tl.constexpr(tables.TILE_START)
_LENGTH = tl.constexpr(tables.TILE_LENGTH)
_OFFSET = tl.constexpr(tables.TILE_OFFSET)
_LOG2_E = tl.constexpr(1.4426950408889634)

_launches = LaunchCounter()


def launch_count() -> int:
    """How often `triton_packed_int8_attention` launched since the last reset (a graph's replays don't count)."""
    return _launches.read()


def reset_launch_count() -> None:
    """Start `launch_count` again at 0."""
    _launches.reset()


@triton.jit
def _packed_key_mean_kernel(
    qkv_ptr,
    tiles_ptr,
    means_ptr,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Mean of one key head over one segment, by the program of the segment's first tile."""
    wait_for_inputs(PDL)
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    length = tl.load(tiles_ptr + tile * _WIDTH + _LENGTH)
    offset = tl.load(tiles_ptr + tile * _WIDTH + _OFFSET)
    if (length <= 0) | (offset > 0):
        return
    start = tl.load(tiles_ptr + tile * _WIDTH + _START).to(tl.int64)
    STRIDE: tl.constexpr = (HQ + 2 * HKV) * D
    r = tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK_D)
    inside = (d < D)[None, :]
    at = qkv_ptr + start * STRIDE + (HQ + kv_head) * D + r.to(tl.int64)[:, None] * STRIDE + d[None, :]

    # The grid of each channel: p <= max|k| < 2 p with p a power of two (its exponent bits), step 2^-12 p.
    first = tl.load(at, mask=(r < length)[:, None] & inside, other=0.0).to(tl.float32)
    largest = tl.minimum(tl.maximum(tl.max(tl.abs(first), axis=0), 2.0**-100), 2.0**100)
    power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    to_grid = tl.math.div_rn(4096.0, power)
    total = tl.zeros((BLOCK_D,), tl.int32)
    for begin in range(0, loop_bound(length), ROWS):
        k = tl.load(at, mask=(begin + r < length)[:, None] & inside, other=0.0).to(tl.float32)
        k = tl.minimum(tl.maximum(k * to_grid[None, :], -32768.0), 32768.0)
        total += tl.sum(tl.floor(k + 0.5).to(tl.int32), axis=0)
        at += ROWS * STRIDE
    mean = tl.math.div_rn(total.to(tl.float32), length.to(tl.float32)) * (power * (1.0 / 4096.0))
    tl.store(means_ptr + (start * HKV + kv_head) * BLOCK_D + d, mean)


@triton.jit
def _packed_key_quantise_kernel(
    qkv_ptr,
    tiles_ptr,
    means_ptr,
    values_ptr,
    scales_ptr,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
):
    """The key blocks of one head that begin in one tile: blocks are counted from the segment's start."""
    wait_for_inputs(PDL)
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    length = tl.load(tiles_ptr + tile * _WIDTH + _LENGTH)
    if length <= 0:
        return
    start = tl.load(tiles_ptr + tile * _WIDTH + _START).to(tl.int64)
    offset = tl.load(tiles_ptr + tile * _WIDTH + _OFFSET)
    STRIDE: tl.constexpr = (HQ + 2 * HKV) * D
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    mean = tl.load(means_ptr + (start * HKV + kv_head) * BLOCK_D + d)
    end = tl.minimum(offset + TILE_ROWS, length)
    for block in range(loop_bound(tl.cdiv(offset, BLOCK_N)), loop_bound(tl.cdiv(end, BLOCK_N))):
        key = block * BLOCK_N + n
        row = start + key
        mask = (key < length)[:, None] & (d < D)[None, :]
        at = qkv_ptr + row[:, None] * STRIDE + (HQ + kv_head) * D + d[None, :]
        k = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        k = tl.where(mask, k - mean[None, :], 0.0)
        amax = tl.max(tl.max(tl.abs(k), axis=1), axis=0)
        to = values_ptr + (row * HKV + kv_head)[:, None] * BLOCK_D + d[None, :]
        tl.store(to, to_int8(k, amax), mask=(key < length)[:, None])
        tl.store(scales_ptr + (start + block * BLOCK_N) * HKV + kv_head, int8_step(amax))


@triton.jit
def _packed_int8_attention_kernel(
    qkv_ptr,
    tiles_ptr,
    values_ptr,
    scales_ptr,
    out_ptr,
    scale,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INT8_DOT: tl.constexpr,
    PDL: tl.constexpr,
):
    """TILE_ROWS queries of the heads that share a key head, stacked as in `varlen_attention`."""
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
    q = tl.load(qkv_ptr + q_at[:, None] + d[None, :], mask=q_mask, other=0.0).to(tl.float32)
    amax = tl.max(tl.abs(q), axis=1)
    q8 = to_int8(q, amax[:, None])
    q_scale = int8_step(amax) * (scale * _LOG2_E)

    v_base = qkv_ptr + start * STRIDE + (HQ + HKV + kv_head) * D
    v_dtype = qkv_ptr.dtype.element_ty
    peak = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(0, loop_bound(length), BLOCK_N):
        key = first + n
        seen = key < length
        k_at = values_ptr + ((start + key) * HKV + kv_head)[:, None] * BLOCK_D + d[None, :]
        k8 = tl.load(k_at, mask=seen[:, None], other=0)
        k_scale = tl.load(scales_ptr + (start + first) * HKV + kv_head)
        if INT8_DOT:
            products = tl.dot(q8, tl.trans(k8), out_dtype=tl.int32).to(tl.float32)
        else:  # the same whole numbers: 127 is exact in fp16, 256 * 127^2 in fp32
            products = tl.dot(q8.to(tl.float16), tl.trans(k8.to(tl.float16)))
        logits = tl.where(seen[None, :], products * (q_scale * k_scale)[:, None], float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, axis=1))  # finite: each block holds a key
        p = tl.exp2(logits - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(p, axis=1)
        v_at = v_base + key.to(tl.int64)[:, None] * STRIDE + d[None, :]
        v = tl.load(v_at, mask=seen[:, None] & (d < D)[None, :], other=0.0)
        if INTERPRETED:  # the interpreter multiplies bfloat16 as integers
            acc = acc * shrink[:, None] + tl.dot(round_to(p, v_dtype).to(tl.float32), v.to(tl.float32))
        else:
            acc = tl.dot(p.to(v_dtype), v, acc * shrink[:, None], input_precision="ieee")
        peak = new_peak

    out_at = (start + query) * (HQ * D) + head * D
    tl.store(out_ptr + out_at[:, None] + d[None, :], round_to(acc / total[:, None], v_dtype), mask=q_mask)


def triton_packed_int8_attention(
    qkv: torch.Tensor,
    tiles: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    scale: float,
    tile: VarlenTile,
    keys: Int8Keys,
    out: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Attend within segments with INT8 query-key products; rows that no tile covers keep what `out` held.

    Args:
        qkv: [R, (q_heads + 2 kv_heads) * D], contiguous, q and k normed and rotated, values finite; D at most 256.
        tiles: [G, 4] int32, made for `tile.rows` query rows a tile.
        q_heads: query heads, a multiple of kv_heads.
        kv_heads: key and value heads.
        scale: of the scores before the softmax.
        tile: how to cut; a block of `tile.block_n` keys shares a scale.
        keys: buffers for at least R rows, overwritten.
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
    if head_dim > 256:
        raise ValueError(f"heads are {head_dim} wide: wanted at most 256")
    launch.check_like("out", out, qkv, (n_rows, q_heads * head_dim))
    tables.check("tiles", tiles, (tiles.shape[0], tables.TILE_WIDTH), qkv.device)
    if not (qkv.is_contiguous() and out.is_contiguous()):
        raise ValueError("qkv and out must be contiguous")
    block_d = padded_width(head_dim)
    for name, buffer, dtype, shape in (
        ("values", keys.values, torch.int8, (kv_heads, block_d)),
        ("scales", keys.scales, torch.float32, (kv_heads,)),
        ("means", keys.means, torch.float32, (kv_heads, block_d)),
    ):
        fits = buffer.dtype is dtype and tuple(buffer.shape[1:]) == shape and buffer.device == qkv.device
        if not fits or buffer.shape[0] < n_rows or not buffer.is_contiguous():
            raise ValueError(
                f"keys.{name} is {launch.describe(buffer)}: wanted contiguous {dtype} {(n_rows, *shape)} or longer"
            )
    cut = {"HQ": q_heads, "HKV": kv_heads, "D": head_dim, "BLOCK_D": block_d}
    # Contraction would round the INT8 values elsewhere than the twin does.
    options = {"enable_fp_fusion": False, **launch_options(pdl)}
    grid = (tiles.shape[0], kv_heads)
    with launch.on_device_of(qkv):
        _packed_key_mean_kernel[grid](
            qkv_ptr=qkv, tiles_ptr=tiles, means_ptr=keys.means, **cut, ROWS=MEAN_ROWS, num_warps=8, **options
        )
        _packed_key_quantise_kernel[grid](
            qkv_ptr=qkv,
            tiles_ptr=tiles,
            means_ptr=keys.means,
            values_ptr=keys.values,
            scales_ptr=keys.scales,
            **cut,
            TILE_ROWS=tile.rows,
            BLOCK_N=tile.block_n,
            num_warps=4,
            **options,
        )
        _packed_int8_attention_kernel[grid](
            qkv_ptr=qkv,
            tiles_ptr=tiles,
            values_ptr=keys.values,
            scales_ptr=keys.scales,
            out_ptr=out,
            scale=float(scale),
            **cut,
            TILE_ROWS=tile.rows,
            BLOCK_M=max(16, triton.next_power_of_2(tile.rows * group)),
            BLOCK_N=tile.block_n,
            INT8_DOT=launch.has_tensor_cores(qkv.device),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            **options,
        )
    _launches.add_one()
