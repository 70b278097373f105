"""Compile the kernels for GPUs that need not be here, and print what each takes, as JSON.

Run as a program by `test_compile`: the interpreter, once chosen, leaves nothing to compile in its process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from omnivoice_triton.kernels import attention, fused_norm_residual, launch, quantise_keys, rms_norm, rope, swiglu

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def compile_for(capability: int, kernel: Any, types: dict[str, str], constants: dict[str, int], **options: Any) -> Any:
    """Compiled kernel; pointers are 16-byte aligned, arguments not named are int32, strides of rows multiples of 16."""
    signature, values, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in constants:
            signature[name], values[(i,)] = "constexpr", constants[name]
            continue
        signature[name] = types.get(name, "i32")
        if signature[name].startswith("*") or name.endswith("row_stride"):
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def pointers(dtype: torch.dtype, *names: str) -> dict[str, str]:
    """Types of pointer arguments."""
    return {f"{name}_ptr": f"*{TYPES[dtype]}" for name in names}


def row_kernels(capability: int, dtype: torch.dtype, width: int) -> Iterator[tuple[str, Any]]:
    """RMSNorm, add + RMSNorm and SwiGLU on contiguous rows."""
    tile = launch.row_tile(width)
    unit = {f"{name}_col_stride": 1 for name in ("x", "y", "residual", "sum", "gate", "up")}
    cut = {"N": width, "ROWS": tile.rows, "BLOCK_N": tile.block, **unit}
    types = pointers(dtype, "x", "residual", "weight", "y", "sum", "gate", "up") | {"eps": "fp32"}
    for kernel in (rms_norm._rms_norm_kernel, fused_norm_residual._add_rms_norm_kernel):
        yield kernel.__name__, compile_for(capability, kernel, types, cut, num_warps=tile.num_warps)
    block_r, block_n = swiglu._tile(width)
    cut = {"N": width, "BLOCK_R": block_r, "BLOCK_N": block_n, **unit}
    yield "_swiglu_kernel", compile_for(capability, swiglu._swiglu_kernel, types, cut, num_warps=4)


def rope_kernels(capability: int, dtype: torch.dtype, width: int) -> Iterator[tuple[str, Any]]:
    """QK-norm + RoPE with 16 and 8 heads of `width`."""
    block_h, block_half, num_warps = rope._tile(width, 16)
    names = ("q", "k", "q_weight", "k_weight", "cos", "sin", "q_out", "k_out")
    cut = {"HQ": 16, "HKV": 8, "D": width, "UNIT": launch.stride_unit(width), "BLOCK_H": block_h}
    cut["BLOCK_HALF"] = block_half
    types = pointers(dtype, *names) | {"eps": "fp32"}
    kernel = rope._qk_norm_rope_kernel
    yield kernel.__name__, compile_for(capability, kernel, types, cut, num_warps=num_warps, enable_fp_fusion=False)


def attention_kernels(capability: int, dtype: torch.dtype, width: int) -> Iterator[tuple[str, Any]]:
    """Both kernels of INT8-QK attention with 16 and 8 heads of `width`."""
    tensor_cores = capability >= 80
    tile = launch.attention_tile(width, dtype, tensor_cores)
    types = pointers(dtype, "q", "k", "v", "out")
    types |= {"lengths_ptr": "*i32", "k8_ptr": "*i8", "k_scale_ptr": "*fp32", "scale_log2": "fp32"}
    cut = {"HKV": 8, "D": width, "UNIT": launch.stride_unit(width), "BLOCK_N": tile.block_n}
    cut["BLOCK_D"] = tile.block_d
    kernel = quantise_keys._quantise_keys_kernel
    keys = cut | {"MEAN_ROWS": launch.SMOOTH_ROWS}
    yield kernel.__name__, compile_for(capability, kernel, types, keys, num_warps=8, enable_fp_fusion=False)
    kernel = attention._int8_attention_kernel
    cut |= {"GROUP": 2, "BLOCK_M": tile.block_m, "INT8_DOT": tensor_cores}
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages, "enable_fp_fusion": False}
    yield kernel.__name__, compile_for(capability, kernel, types, cut, **options)


def usage(kernel: Any) -> dict[str, Any]:
    """Shared memory and registers of a compiled kernel, bytes spilled, and the widest load it makes."""
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        report = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", report)[0])
    ptx = kernel.asm["ptx"]
    return {
        "shared": kernel.metadata.shared,
        "registers": registers,
        "stack": stack,
        "vector_loads": "ld.global.v4.b32" in ptx,
        "int8_products": ".s32.s8.s8" in ptx,
    }


def main() -> None:
    """Compile everything and print the list."""
    groups: list[tuple[Callable[..., Iterator[tuple[str, Any]]], tuple[int, ...]]] = [
        (row_kernels, (1024, 3072)),
        (rope_kernels, (128,)),
        (attention_kernels, (64, 128, 256)),
    ]
    results = []
    for capability, dtypes in ((75, (torch.float16, torch.float32)), (90, (torch.bfloat16, torch.float32))):
        for dtype in dtypes:
            for kernels, widths in groups:
                for width in widths:
                    for name, kernel in kernels(capability, dtype, width):
                        what = {"kernel": name, "capability": capability, "dtype": TYPES[dtype], "width": width}
                        results.append(what | usage(kernel))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
