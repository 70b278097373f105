"""Packed attention for `bench kernels`: the Triton kernel, the CUDA C++ one, the one with INT8 keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omnivoice_triton.bench.kernel_case import TOLERANCE, Case, Tensors, Unmeasured
from omnivoice_triton.bench.kernel_packed import HEAD_SHAPE, HEADS, SHAPE, Batch, Draw, capability, tiles_of
from omnivoice_triton.kernels import engine_reference, int8_reference
from omnivoice_triton.kernels.int8_keys import Int8Keys
from omnivoice_triton.kernels.tiles import HopperAttentionTile, varlen_tile

DIM = SHAPE.head_dim

Function = Callable[..., Any]


def masked_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """What upstream runs: keys and values repeated per group, SDPA with a mask, heads brought back beside rows."""
    group = q.shape[1] // k.shape[1]
    k, v = (x[:, :, None].expand(-1, -1, group, -1, -1).reshape(q.shape) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).contiguous()


def _attention(kernel: str, rows: int, draw: Draw, launcher: Function, twin: Function, tile: Any) -> Case:
    """Packed attention; PyTorch gets its padded batch ready-made, and only valid rows are compared."""
    batch = Batch(rows, draw.device, tile.rows)
    int8 = kernel == "packed_int8_attention"
    slack = 8 if int8 else 4

    def make(seed: int) -> Tensors:
        qkv = draw.normal(seed, rows, HEADS * DIM)
        spare = tuple(Int8Keys.allocate(rows, SHAPE.kv_heads, DIM, torch.device(draw.device))) if int8 else ()
        return qkv, batch["tiles"], draw.empty(rows, SHAPE.q_heads * DIM), *batch.padded(qkv), *spare

    def attend(function: Function) -> Function:
        def run(qkv: Tensor, tiles: Tensor, out: Tensor, *rest: Tensor) -> Tensor:
            keys = {"keys": Int8Keys(*rest[4:])} if int8 else {}
            function(qkv, tiles, **HEAD_SHAPE, scale=DIM**-0.5, tile=tile, out=out, **keys)
            return out

        return run

    return Case(
        kernel=kernel,
        shape={"rows": rows, "items": len(batch.segments), **HEAD_SHAPE, "head_dim": DIM},
        dtype=draw.dtype,
        make=make,
        triton=attend(launcher),
        twin=attend(twin),
        pytorch=lambda qkv, tiles, out, q, k, v, mask, *_: masked_sdpa(q, k, v, mask),
        counted=0,
        # q, k and v once, the output once.
        moved=lambda inputs: (inputs[0].numel() + inputs[2].numel()) * inputs[0].element_size(),
        # Of each segment of n rows and query head: two products of n x D x n.
        flop=sum(4.0 * n * n * DIM * SHAPE.q_heads for n in batch.segments),
        values=batch.unpadded,
        # Sums in another order; with INT8 a score on the edge between two steps may fall either way, too.
        tolerance=(slack * TOLERANCE[draw.dtype], 2 * slack * TOLERANCE[draw.dtype]),
    )


def packed_attention(rows: int, draw: Draw) -> Case:
    """The Triton kernel."""
    from omnivoice_triton.kernels.varlen_attention import triton_varlen_attention

    group = SHAPE.q_heads // SHAPE.kv_heads
    tile = varlen_tile(DIM, group, draw.dtype.itemsize, capability(draw.device) or 80)
    twin = engine_reference.varlen_attention
    return _attention("packed_attention", rows, draw, triton_varlen_attention, twin, tile)


def hopper_attention(rows: int, draw: Draw) -> Case:
    """The CUDA C++ kernel, where the tile table takes it."""
    tile = tiles_of(draw.dtype, draw.device).for_attention(rows)
    if not isinstance(tile, HopperAttentionTile):
        raise Unmeasured("the tile table of this GPU and dtype gives these rows to the Triton kernel")
    from omnivoice_triton.kernels.hopper_attention import hopper_attention as launcher

    return _attention("hopper_attention", rows, draw, launcher, engine_reference.varlen_attention, tile)


def packed_int8_attention(rows: int, draw: Draw) -> Case:
    """The kernels of `attention="int8"`: three launches."""
    from omnivoice_triton.kernels.packed_int8 import triton_packed_int8_attention

    if draw.dtype is torch.float32:
        raise Unmeasured("it is for 16 bit")
    tile = varlen_tile(DIM, SHAPE.q_heads // SHAPE.kv_heads, draw.dtype.itemsize, capability(draw.device) or 80)
    twin = int8_reference.packed_int8_attention
    return _attention("packed_int8_attention", rows, draw, triton_packed_int8_attention, twin, tile)
