"""Compile the packed kernels for GPUs that need not be here, and print what each takes, as JSON.

Run as a program by `test_engine_compile`, like `compiled`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch

from omnivoice_triton.kernels import (
    embed,
    fp8,
    gate_up,
    launch,
    packed_int8,
    packed_norm,
    qkv,
    qkv_rope,
    score_cells,
    select_cells,
    split_k,
    varlen_attention,
)
from omnivoice_triton.kernels.int8_keys import MEAN_ROWS
from omnivoice_triton.kernels.tiles import GemmTile, varlen_tile

from .compiled import TYPES, compile_for, pointers, usage

H, INTERMEDIATE, HQ, HKV, D, C, VA = 1024, 3072, 16, 8, 128, 8, 1025
GEMM_TILE = {75: GemmTile(32, 32, 32, 2, 4, 1), 90: GemmTile(64, 128, 64, 2, 4, 3)}
FP8_TYPES = {"out_ptr": "*fp8e4nv", "scale_ptr": "*fp32"}
NO_FUSION = {"enable_fp_fusion": False}


def kernels(capability: int, dtype: torch.dtype, pdl: bool) -> Iterator[tuple[str, Any]]:
    """Every packed kernel at the sizes of the real model."""
    names = (
        "prompt",
        "table",
        "weight",
        "x",
        "y",
        "qkv",
        "cos",
        "sin",
        "q_weight",
        "k_weight",
        "out",
        "delta",
        "residual",
        "gate_up",
    )
    types = pointers(dtype, *names, "w", "logits")
    types |= {
        f"{name}_ptr": "*i32" for name in ("rows", "canvas", "tiles", "pick", "targets", "slots", "items", "tokens")
    }
    types |= {f"{name}_ptr": "*fp32" for name in ("position_u", "class_u", "scores", "partials", "means", "scales")}
    types |= {"values_ptr": "*i8"}
    types |= {"eps": "fp32", "scale": "fp32"}
    common = {"PDL": pdl}

    def compiled(
        kernel: Any, cut: dict[str, Any], more: dict[str, str] | None = None, **options: Any
    ) -> tuple[str, Any]:
        if pdl:
            options["launch_pdl"] = True
        return kernel.__name__, compile_for(capability, kernel, types | (more or {}), cut | common, **options)

    yield compiled(embed._embed_rows_kernel, {"V": VA, "C": C, "H": H, "BLOCK_H": H}, num_warps=4)
    heads = {"HQ": HQ, "HKV": HKV, "HALF": D // 2}
    yield compiled(
        qkv._qk_norm_rope_kernel, heads | {"BLOCK_HEADS": 8, "BLOCK_HALF": D // 2}, num_warps=2, **launch.ROUNDED
    )
    tile = varlen_tile(D, HQ // HKV, dtype.itemsize, capability)
    cut = {"HQ": HQ, "HKV": HKV, "D": D, "TILE_ROWS": tile.rows, "BLOCK_M": 2 * tile.rows, "BLOCK_N": tile.block_n}
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    yield compiled(varlen_attention._varlen_attention_kernel, cut | {"BLOCK_D": D}, **options)
    yield from _int8_kernels(capability, compiled, dtype)
    if capability >= 89:
        yield from _fp8_kernels(compiled)
    if capability == 89:
        return  # nothing else is another kernel there than at 9.0
    for pick in (False, True):
        cut = {"H": H, "PARTIALS": 1, "PICK": pick, "BLOCK_H": H}
        yield compiled(packed_norm._packed_add_norm_kernel, cut, num_warps=4)
    for buffered in (False, True):
        cut = {"C": C, "V": VA - 1, "W": 256, "KEEP": 103, "FROM_BUFFER": buffered, "BLOCK_V": 1024}
        yield compiled(score_cells._score_kernel, cut, num_warps=4)
    yield compiled(select_cells._select_kernel, {"C": C, "W": 256, "BLOCK": 1024}, num_warps=4)
    if dtype.itemsize == 2:
        gemm_tile = GEMM_TILE[capability]
        options = {"num_warps": gemm_tile.num_warps, "num_stages": gemm_tile.num_stages}
        block = {"BLOCK_M": gemm_tile.block_m, "BLOCK_N": gemm_tile.block_n, "BLOCK_K": gemm_tile.block_k}
        for swiglu in (False, True):
            cut = {"N": H, "K": INTERMEDIATE, "CHUNK": INTERMEDIATE // 2, "SWIGLU": swiglu}
            yield compiled(split_k._split_k_kernel, cut | block, **options)
        yield compiled(gate_up._gate_up_kernel, {"N": INTERMEDIATE, "K": H} | block | {"BLOCK_N": 64}, **options)
        if capability >= 80:  # below, a tile as wide as a head spills: it is never chosen there
            cut = heads | {"K": H, "BLOCK_M": gemm_tile.block_m, "BLOCK_K": gemm_tile.block_k}
            yield compiled(qkv_rope._qkv_rope_kernel, cut, **options, **launch.ROUNDED)


def _int8_kernels(capability: int, compiled: Any, dtype: torch.dtype) -> Iterator[tuple[str, Any]]:
    tile = varlen_tile(D, HQ // HKV, dtype.itemsize, capability)
    heads = {"HQ": HQ, "HKV": HKV, "D": D, "BLOCK_D": D}
    rows = {"TILE_ROWS": tile.rows, "BLOCK_N": tile.block_n}
    yield compiled(packed_int8._packed_key_mean_kernel, heads | {"ROWS": MEAN_ROWS}, num_warps=8, **NO_FUSION)
    yield compiled(packed_int8._packed_key_quantise_kernel, heads | rows, num_warps=4, **NO_FUSION)
    cut = heads | rows | {"BLOCK_M": max(16, 2 * tile.rows), "INT8_DOT": capability >= 80}
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    yield compiled(packed_int8._packed_int8_attention_kernel, cut, **options, **NO_FUSION)


def _fp8_kernels(compiled: Any) -> Iterator[tuple[str, Any]]:
    for kernel, width in (
        (fp8._quantise_rows_kernel, HQ * D),
        (fp8._add_norm_quantise_kernel, H),
        (fp8._swiglu_quantise_kernel, INTERMEDIATE),
    ):
        tile = launch.row_tile(width)
        yield compiled(kernel, {"N": width, "BLOCK_N": tile.block}, FP8_TYPES, num_warps=tile.num_warps)


def main() -> None:
    """Compile everything and print the list."""
    results = []
    for capability, dtype, pdl in (
        (75, torch.float16, False),
        (75, torch.float32, False),
        (89, torch.float16, False),
        (90, torch.bfloat16, True),
        (90, torch.float32, False),
    ):
        for name, kernel in kernels(capability, dtype, pdl):
            what = {"kernel": name, "capability": capability, "dtype": TYPES[dtype], "pdl": pdl}
            waits = "griddepcontrol.wait" in kernel.asm["ptx"]
            made = {"waits": waits, "products": _products(kernel.asm["ptx"]), "fp8": _fp8_from(kernel.asm["ptx"])}
            made["contracted"] = _contracted(kernel.asm["ptx"])
            results.append(what | usage(kernel) | made)
    json.dump(results, sys.stdout)


def _contracted(ptx: str) -> bool:
    """Whether a 16-bit product is added to without having been rounded."""
    return re.search(r"\bfma\.rn\.b?f16", ptx) is not None


def _products(ptx: str) -> str:
    for name in ("wgmma.mma_async", "mma.sync"):
        if name in ptx:
            return name
    return ""


def _fp8_from(ptx: str) -> str:
    """What the instruction that makes e4m3 takes."""
    return next((kind for kind in ("f32", "f16x2") if f"cvt.rn.satfinite.e4m3x2.{kind}" in ptx), "")


if __name__ == "__main__":
    main()
