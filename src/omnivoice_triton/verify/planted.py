"""Faults on purpose, one for each tool of compute-sanitizer: a run that doesn't find them has looked at nothing.

memcheck    the engine's embedding kernel reads a prompt row that isn't there, as a wrong table would make it
racecheck   two warps exchange values through shared memory without a barrier; in PTX, since Triton sets its own
"""

from __future__ import annotations

import ctypes
import sys

import torch

RACE_PTX = """
.version 6.4
.target sm_75
.address_size 64
.visible .entry planted_race(.param .u64 out)
{
    .reg .u32 %r<8>;
    .reg .u64 %d<4>;
    .shared .align 4 .b8 cells[256];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    mov.u32 %r3, cells;
    add.u32 %r4, %r3, %r2;
    st.volatile.shared.u32 [%r4], %r1;
    sub.u32 %r5, 252, %r2;
    add.u32 %r6, %r3, %r5;
    ld.volatile.shared.u32 %r7, [%r6];
    ld.param.u64 %d1, [out];
    cvta.to.global.u64 %d2, %d1;
    mul.wide.u32 %d3, %r1, 4;
    add.u64 %d2, %d2, %d3;
    st.global.u32 [%d2], %r7;
    ret;
}
"""
"""64 threads: each writes its cell and reads that of a thread of the other warp."""


def read_past_the_end(device: str = "cuda") -> None:
    """`triton_embed_rows` by a table that names prompt row 2^20 of 3."""
    from omnivoice_triton.kernels import tables
    from omnivoice_triton.kernels.embed import triton_embed_rows

    width = 64
    rows = torch.zeros(2, tables.ROW_WIDTH, dtype=torch.int32, device=device)
    rows[1, tables.ROW_SOURCE] = 1 << 20
    triton_embed_rows(
        rows,
        torch.ones(3, width, device=device),
        torch.zeros(1, 1, dtype=torch.int32, device=device),
        torch.ones(8, width, device=device),
        torch.ones(width, device=device),
        1e-6,
        x=torch.empty(2, width, device=device),
        y=torch.empty(2, width, device=device),
    )
    torch.cuda.synchronize()


def race() -> None:
    """Load `RACE_PTX` through the driver and launch one block of 64 threads."""
    out = torch.zeros(64, dtype=torch.int32, device="cuda")  # makes the context current, too
    torch.cuda.synchronize()
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        status = getattr(driver, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with CUDA error {status}")

    module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(RACE_PTX.encode()))
    call("cuModuleGetFunction", ctypes.byref(kernel), module, ctypes.c_char_p(b"planted_race"))
    pointer = ctypes.c_uint64(out.data_ptr())
    parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.pointer(pointer), ctypes.c_void_p))
    grid_and_block = [ctypes.c_uint(n) for n in (1, 1, 1, 64, 1, 1)]
    call("cuLaunchKernel", kernel, *grid_and_block, ctypes.c_uint(0), ctypes.c_void_p(None), parameters, None)
    torch.cuda.synchronize()


FAULTS = {"memcheck": read_past_the_end, "racecheck": race}
"""By tool."""
