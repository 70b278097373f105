"""Bidirectional grouped-query attention with INT8 query-key products, in the manner of SageAttention.

    K'    = K - mean(K over the valid rows)            changes no softmax: q . mean is one constant per query
    Q8    = rint(Q / sq), sq = max|Q| / 127            per block of queries;  K8, sk likewise per block of keys
    P     = softmax(scale * sq * sk * (Q8 K8^T))       INT8 x INT8 -> INT32, then fp32, online over key blocks
    O     = round(P) V                                 16-bit operands, fp32 accumulation (fp32 inputs: all fp32)

Shapes: q (B, Hq, S, D), k and v (B, Hkv, S, D), lengths (B,) -> O (B, S, Hq, D), ready for the output projection.
Query head h reads key/value head h // (Hq / Hkv). Item b attends over its first lengths[b] rows, in both directions;
rows behind are never read (they may hold NaN) and come out as zeros.
Source: Zhang et al., SageAttention, arXiv 2410.02367 (K smoothing, per-block INT8, 16-bit PV).

Two launches: `quantise_keys` writes K8 and sk, `_int8_attention_kernel` quantises its own block of Q and attends. No
length is read on the host, so both can be captured in a CUDA graph. Bytes moved by the second: K8 S / 64 times, Q and V
and O once each.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import launch
from omnivoice_triton.kernels.cached import Cached
from omnivoice_triton.kernels.counter import LaunchCounter
from omnivoice_triton.kernels.launch import INTERPRETED, loop_bound, round_to
from omnivoice_triton.kernels.quantise_keys import int8_step, quantise_keys, to_int8

MAX_HEAD_DIM = 256
_LOG2_E = 1.4426950408889634


_launches = LaunchCounter()


def launch_count() -> int:
    """How often `int8_qk_attention` launched its kernels since the last reset (a graph's replays don't count)."""
    return _launches.read()


def reset_launch_count() -> None:
    """Start `launch_count` again at 0."""
    _launches.reset()


@triton.jit(
    do_not_specialize=[
        "S",
        "n_blocks",
        "q_stride_b",
        "q_stride_h",
        "q_stride_s",
        "v_stride_b",
        "v_stride_h",
        "v_stride_s",
        "out_stride_b",
        "out_stride_s",
        "out_stride_h",
    ]
)
def _int8_attention_kernel(
    q_ptr,
    k8_ptr,
    k_scale_ptr,
    v_ptr,
    lengths_ptr,
    out_ptr,
    S,
    n_blocks,
    q_stride_b,
    q_stride_h,
    q_stride_s,
    v_stride_b,
    v_stride_h,
    v_stride_s,
    out_stride_b,
    out_stride_s,
    out_stride_h,
    scale_log2,
    HKV: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    INT8_DOT: tl.constexpr,
):
    """One program: BLOCK_M queries of one head. `scale_log2` is the softmax scale times log2(e)."""
    start_m = tl.program_id(0) * BLOCK_M
    head = tl.program_id(1)
    item = tl.program_id(2).to(tl.int64)
    kv_head = head // GROUP
    length = tl.minimum(tl.maximum(tl.load(lengths_ptr + item), 0), S)

    rows = start_m + tl.arange(0, BLOCK_M)
    cols = tl.arange(0, BLOCK_D)
    wide_rows = rows.to(tl.int64)
    out_head = out_ptr + (item * out_stride_b + head.to(tl.int64) * out_stride_h) * UNIT
    out_ptrs = out_head + (wide_rows * out_stride_s * UNIT)[:, None] + cols[None, :]
    out_mask = (rows < S)[:, None] & (cols < D)[None, :]
    if start_m >= length:
        tl.store(out_ptrs, tl.zeros((BLOCK_M, BLOCK_D), out_ptr.dtype.element_ty), mask=out_mask)
        return

    q_head = q_ptr + (item * q_stride_b + head.to(tl.int64) * q_stride_h) * UNIT
    q_mask = (rows < length)[:, None] & (cols < D)[None, :]
    q = tl.load(q_head + (wide_rows * q_stride_s * UNIT)[:, None] + cols[None, :], mask=q_mask, other=0.0)
    q = q.to(tl.float32)
    amax = tl.max(tl.max(tl.abs(q), axis=1), axis=0)
    q8 = to_int8(q, amax)
    q_scale = int8_step(amax) * scale_log2

    keys = tl.arange(0, BLOCK_N)
    first_block = (item * HKV + kv_head) * n_blocks
    k8_ptrs = k8_ptr + first_block * (BLOCK_N * BLOCK_D) + keys[None, :] * BLOCK_D + cols[:, None]
    v_head = v_ptr + (item * v_stride_b + kv_head.to(tl.int64) * v_stride_h) * UNIT
    v_ptrs = v_head + (keys.to(tl.int64) * v_stride_s * UNIT)[:, None] + cols[None, :]
    v_step = tl.full((), BLOCK_N, tl.int64) * v_stride_s * UNIT
    v_dtype = v_ptr.dtype.element_ty

    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for block in range(0, loop_bound(tl.cdiv(length, BLOCK_N))):
        left = length - block * BLOCK_N  # at least 1: no row of `logits` is all -inf
        k8 = tl.load(k8_ptrs)
        k_scale = tl.load(k_scale_ptr + first_block + block)
        if INT8_DOT:
            products = tl.dot(q8, k8, out_dtype=tl.int32).to(tl.float32)
        else:  # the same whole numbers: 127 is exact in fp16, 256 * 127^2 in fp32
            products = tl.dot(q8.to(tl.float16), k8.to(tl.float16))
        logits = products * (q_scale * k_scale)
        logits = tl.where((keys < left)[None, :], logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, axis=1))
        p = tl.exp2(logits - new_top[:, None])
        keep = tl.exp2(top - new_top)
        weight = weight * keep + tl.sum(p, axis=1)
        acc = acc * keep[:, None]
        v = tl.load(v_ptrs, mask=(keys < left)[:, None] & (cols < D)[None, :], other=0.0)
        if v_dtype == tl.float32:
            acc = tl.dot(p, v, acc, input_precision="ieee")
        elif INTERPRETED:  # the interpreter multiplies bfloat16 as integers
            acc += tl.dot(round_to(p, v_dtype).to(tl.float32), v.to(tl.float32))
        else:
            acc = tl.dot(p.to(v_dtype), v, acc)
        top = new_top
        k8_ptrs += BLOCK_N * BLOCK_D
        v_ptrs += v_step

    out = tl.where((rows < length)[:, None], acc / weight[:, None], 0.0)
    tl.store(out_ptrs, round_to(out, v_dtype), mask=out_mask)


_int8_attention_launch = Cached(_int8_attention_kernel)


def int8_qk_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of every item over its own valid rows, in both directions (forward only: no gradient).

    fp32 inputs keep INT8 query-key products, but multiply P and V in fp32 (no TF32). Values must be finite.

    Args:
        q: (B, Hq, S, D), D at most 256, unit stride in D, any other strides.
        k: (B, Hkv, S, D), Hq a multiple of Hkv, likewise; not changed.
        v: (B, Hkv, S, D), likewise.
        lengths: (B,) int32 on the device of q: valid rows of each item (clamped to 0 .. S).
        scale: of the softmax; None is 1 / sqrt(D).
        out: where to write, (B, S, Hq, D), unit stride in D; must not overlap k or v.

    Returns:
        `out`, or a new contiguous (B, S, Hq, D); rows from lengths[b] on are zeros.

    Raises:
        ValueError: a shape, stride, dtype, device or scale that doesn't fit.
    """
    launch.check_input("q", q)
    if q.dim() != 4 or q.shape[3] > MAX_HEAD_DIM or q.shape[1] == 0:
        raise ValueError(f"q is {launch.describe(q)}: wanted (B, Hq, S, D) with D of at most {MAX_HEAD_DIM}")
    batch, q_heads, length, head_dim = q.shape
    kv_heads = k.shape[1] if isinstance(k, torch.Tensor) and k.dim() == 4 else 1
    launch.check_like("k", k, q, (batch, kv_heads, length, head_dim))
    launch.check_like("v", v, q, (batch, kv_heads, length, head_dim))
    if kv_heads == 0 or q_heads % kv_heads:
        raise ValueError(f"q has {q_heads} heads and k has {kv_heads}: wanted a multiple")
    if (
        not isinstance(lengths, torch.Tensor)
        or lengths.dtype != torch.int32
        or lengths.shape != (batch,)
        or lengths.device != q.device
    ):
        raise ValueError(f"lengths is {launch.describe(lengths)}: wanted torch.int32 ({batch},) on {q.device}")
    for name, x in (("q", q), ("k", k), ("v", v)):
        launch.check_unit_stride(name, x)
    if scale is None:
        scale = head_dim**-0.5
    elif not isinstance(scale, float | int) or isinstance(scale, bool) or not math.isfinite(scale):
        raise ValueError(f"scale is {scale!r}: wanted a finite number or None")
    shape = (batch, length, q_heads, head_dim)
    if out is None:
        out = torch.empty(shape, dtype=q.dtype, device=q.device)
    else:
        launch.check_like("out", out, q, shape)
        launch.check_unit_stride("out", out)
    if q.numel() == 0:
        return out

    tensor_cores = launch.has_tensor_cores(q.device)
    tile = launch.attention_tile(head_dim, q.dtype, tensor_cores)
    strides = (*q.stride()[:3], *v.stride()[:3], *out.stride()[:3])
    unit = launch.stride_unit(*strides)
    qb, qh, qs, vb, vh, vs, ob, os, oh = (stride // unit for stride in strides)
    lengths = lengths.contiguous()
    with launch.on_device_of(q):
        k8, k_scale = quantise_keys(k, lengths, tile)
        _int8_attention_launch(
            (launch.cdiv(length, tile.block_m), q_heads, batch),
            q_ptr=q,
            k8_ptr=k8,
            k_scale_ptr=k_scale,
            v_ptr=v,
            lengths_ptr=lengths,
            out_ptr=out,
            S=length,
            n_blocks=k_scale.shape[2],
            q_stride_b=qb,
            q_stride_h=qh,
            q_stride_s=qs,
            v_stride_b=vb,
            v_stride_h=vh,
            v_stride_s=vs,
            out_stride_b=ob,
            out_stride_s=os,
            out_stride_h=oh,
            scale_log2=float(scale) * _LOG2_E,
            HKV=kv_heads,
            GROUP=q_heads // kv_heads,
            D=head_dim,
            UNIT=unit,
            BLOCK_M=tile.block_m,
            BLOCK_N=tile.block_n,
            BLOCK_D=tile.block_d,
            INT8_DOT=tensor_cores,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            enable_fp_fusion=False,  # as for the keys
        )
    _launches.add_one()
    return out
