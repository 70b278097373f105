"""Packed bidirectional attention for compute capability 9.0, in CUDA C++ (`cuda/hopper_attention.cu`).

    o = softmax(q kᵀ · scale) v        as `varlen_attention`, whose twin is this one's too

Shapes: qkv [R, (Hq + 2 Hkv) * 128], Hq = 2 Hkv, tiles [G, 4] int32 -> out [R, Hq * 128]. At batch 1 a layer's attention
is 0.35 GFLOP and all latency: Q and every block of K and V that fits in shared memory are requested at once by TMA, and
the CTA is resident before the QKV GEMM ends (programmatic dependent launch).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch

from omnivoice_triton.kernels import launch, nvrtc, tables
from omnivoice_triton.kernels.tiles import HopperAttentionTile

_LOG2_E = 1.4426950408889634


def variant_source(tile: HopperAttentionTile, bf16: bool, pdl: bool) -> tuple[dict[str, int], str]:
    """Macros and prologue that make the kernel's source complete."""
    kind = "bf16" if bf16 else "f16"
    registers = ", ".join(f"%{i}" for i in range(32))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(32))
    product = f"wgmma.mma_async.sync.aligned.m64n64k16.f32.{kind}.{kind} {{{registers}}}"
    scores, values = (f"__device__ __forceinline__ void wgmma_{name}(float (&d)[32], " for name in ("scores", "values"))
    prologue = (
        f"{scores}unsigned long long a, unsigned long long b, int add) {{\n"
        f'    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %34, 0;\\n{product}, %32, %33, p, 1, 1, 0, 0;\\n}}"\n'
        f'        : {operands} : "l"(a), "l"(b), "r"(add));\n}}\n'
        f"{values}unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long b) {{\n"
        f'    asm volatile("{product}, {{%32, %33, %34, %35}}, %36, 1, 1, 1, 1;"\n'
        f'        : {operands} : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));\n}}\n'
    )
    defines = {"WARPGROUPS": tile.warpgroups, "STAGES": tile.stages, "BF16": int(bf16), "PDL": int(pdl)}
    return defines, prologue


def compile_variant(tile: HopperAttentionTile, bf16: bool, pdl: bool) -> None:
    """Put a variant's machine code into the cache; needs no GPU."""
    defines, prologue = variant_source(tile, bf16, pdl)
    nvrtc.cubin("hopper_attention", defines, prologue, "sm_90a")


@lru_cache(maxsize=64)
def _kernel(device: int, tile: HopperAttentionTile, bf16: bool, pdl: bool) -> nvrtc.CudaKernel:
    if (reason := nvrtc.problem()) is not None:
        raise RuntimeError(reason)
    if torch.cuda.get_device_capability(device) != (9, 0):
        raise ValueError(f"this attention needs compute capability 9.0, not {torch.cuda.get_device_capability(device)}")
    if (fault := tile.problem()) is not None:
        raise ValueError(f"{tile}: {fault}")
    defines, prologue = variant_source(tile, bf16, pdl)
    return nvrtc.CudaKernel("hopper_attention", defines, prologue, "sm_90a", tile.shared_bytes)


def hopper_attention(
    qkv: torch.Tensor,
    tiles: torch.Tensor,
    *,
    q_heads: int,
    kv_heads: int,
    scale: float,
    tile: HopperAttentionTile,
    out: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Attend within segments; rows that no tile covers keep what `out` held.

    Args:
        qkv: [R, (q_heads + 2 kv_heads) * 128], 16 bit, contiguous, q and k normed and rotated.
        tiles: [G, 4] int32, made for `tile.rows` query rows a tile.
        q_heads: query heads, twice kv_heads.
        kv_heads: key and value heads.
        scale: of the scores before the softmax, positive.
        tile: how to cut.
        out: [R, q_heads * 128], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype or device that doesn't fit.
    """
    launch.check_input("qkv", qkv)
    n_rows, columns = qkv.shape
    if not qkv.is_cuda or qkv.dtype is torch.float32:
        raise ValueError(f"qkv is {launch.describe(qkv)}: wanted 16 bit on a CUDA device")
    if q_heads != 2 * kv_heads or columns != (q_heads + 2 * kv_heads) * 128:
        raise ValueError(f"qkv has {columns} columns, {q_heads} and {kv_heads} heads: wanted 2 to 1, of 128")
    launch.check_like("out", out, qkv, (n_rows, q_heads * 128))
    tables.check("tiles", tiles, (tiles.shape[0], tables.TILE_WIDTH), qkv.device)
    if not (qkv.is_contiguous() and out.is_contiguous()):
        raise ValueError("qkv and out must be contiguous")
    if n_rows == 0 or tiles.shape[0] == 0:
        return
    bf16 = qkv.dtype is torch.bfloat16
    with launch.on_device_of(qkv):
        kernel = _kernel(qkv.device.index, tile, bf16, pdl)
        stream = torch.cuda.current_stream(qkv.device).cuda_stream
        config = kernel.config(tiles.shape[0], tile.threads, cluster=1, pdl=pdl, stream=stream, height=kv_heads)
        number = ctypes.c_int
        kernel.launch(
            config,
            [
                nvrtc.tensor_map(qkv.data_ptr(), bf16, n_rows, columns, 32),
                nvrtc.tensor_map(qkv.data_ptr(), bf16, n_rows, columns, 64),
                ctypes.c_void_p(out.data_ptr()),
                ctypes.c_void_p(tiles.data_ptr()),
                number(tables.TILE_WIDTH),
                number(tables.TILE_START),
                number(tables.TILE_LENGTH),
                number(tables.TILE_OFFSET),
                number(q_heads),
                number(kv_heads),
                ctypes.c_float(scale * _LOG2_E),
            ],
        )
