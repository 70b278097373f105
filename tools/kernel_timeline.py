"""Where the time of a layer goes on compute capability 9.0: a clock at points of every CTA of the CUDA C++ kernels.

    python tools/kernel_timeline.py [ROWS] [--dtype float16]

One backbone of the real shape and random weights runs at ROWS packed rows (default: 320), with the package's tiles.
Each CTA writes its SM's clock where it begins (entry), has its first loads under way (asked), may read what the kernel
before wrote (waited), has its first operands (first), has multiplied (loop) and has written (end). Printed are the
medians of what lies between, and, SM by SM, from the end of one kernel to the next one's points. The clocks take time
too: compare the first line with the backbone of `engine.measure`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from omnivoice_triton.commands import Parser, command, whole
from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.engine.tiles import Tiles
from omnivoice_triton.engine.weights import BackboneWeights, LayerWeights
from omnivoice_triton.kernels import nvrtc
from omnivoice_triton.kernels.tiles import QK_ROPE, STORE, SWIGLU
from omnivoice_triton.speech import ModeUnavailable

POINTS = ("entry", "asked", "waited", "first", "loop", "end")
SM = len(POINTS)  # the column after them
COLUMNS, CTAS = 8, 4096
ORDER = ("qkv", "attention", "o", "gate_up", "down")
LABELS = {STORE: "heads", SWIGLU: "gate_up", QK_ROPE: "qkv"}
"""By epilogue; a kernel that adds up parts of K is o's before gate_up's is loaded, and down's after."""
FULL = BackboneShape(1024, 3072, 28, 16, 8, 128, 8, 1025, 1e-6)

DECLARED = f"""
extern "C" {{ __device__ unsigned long long timeline[{CTAS * COLUMNS}]; }}
__device__ __forceinline__ void mark(int point) {{
    unsigned long long clock;
    unsigned sm;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clock));
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    unsigned long long* mine = timeline + (blockIdx.x + gridDim.x * blockIdx.y) % {CTAS} * {COLUMNS};
    mine[point] = clock, mine[{SM}] = sm;
}}
"""
DONE = 'asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");'
WAIT = 'asm volatile("griddepcontrol.wait;" ::: "memory");'
PLACES = {
    "hopper_gemm": (
        ("    const u32 ring = (", "    if (threadIdx.x == 0) mark(0);\n    const u32 ring = ("),
        (WAIT, f"mark(1); {WAIT} mark(2);"),
        (
            "barrier_wait(full + 8 * stage, phase);\n",
            "barrier_wait(full + 8 * stage, phase);\n                if (kt == 0 && threadIdx.x == 0) mark(3);\n",
        ),
        (DONE, f"{DONE}\n            if (threadIdx.x == 0) mark(4);"),
    ),
    "hopper_attention": (
        ("    const int* entry =", "    if (threadIdx.x == 0) mark(0);\n    const int* entry ="),
        (WAIT, f"mark(1); {WAIT} mark(2);"),
        ("    barrier_wait(q_full, 0);\n", "    barrier_wait(q_full, 0);\n    if (threadIdx.x == 0) mark(3);\n"),
        ("    const float scale[2] =", "    if (threadIdx.x == 0) mark(4);\n    const float scale[2] ="),
    ),
}
"""What of each kernel's source is replaced by what; each stands there once."""


def with_clocks(name: str, source: str) -> str:
    """The kernel's whole source with its points marked.

    Raises:
        ValueError: a place isn't there, or more than once.
    """
    for old, new in PLACES[name]:
        if source.count(old) != 1:
            raise ValueError(f"{name}: {source.count(old)} places look like {old.strip()!r}: wanted one")
        source = source.replace(old, new)
    head, _, tail = source.rpartition("}")
    return (head + "    if (threadIdx.x == 0) mark(5);\n}" + tail).replace(
        'extern "C" __global__', f'{DECLARED}extern "C" __global__', 1
    )


def random_weights(dtype: torch.dtype) -> BackboneWeights:
    """A model of the real shape on the GPU: what its weights hold takes no time."""
    generator = torch.Generator(device="cuda").manual_seed(0)

    def normal(*shape: int, std: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, device="cuda", generator=generator) * std).to(dtype)

    def norm(width: int) -> torch.Tensor:
        return 1 + normal(width, std=0.1)

    class Angles(nn.Module):
        def forward(self, like: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            angle = ids[0, :, None].float() * 1e6 ** (-torch.arange(0, 1, 1 / 64, device="cuda"))
            both = torch.cat([angle, angle], -1)[None]
            return both.cos().to(like.dtype), both.sin().to(like.dtype)

    s = FULL
    layers = tuple(
        LayerWeights(
            input_norm=norm(s.hidden),
            qkv=normal(s.qkv_width, s.hidden, std=s.hidden**-0.5),
            q_norm=norm(s.head_dim),
            k_norm=norm(s.head_dim),
            o=normal(s.hidden, s.attention_width, std=0.3 * s.attention_width**-0.5),
            post_norm=norm(s.hidden),
            gate_up=normal(2 * s.intermediate, s.hidden, std=s.hidden**-0.5),
            down=normal(s.hidden, s.intermediate, std=0.15 * s.intermediate**-0.5),
        )
        for _ in range(s.layers)
    )
    ids = s.logits_width
    embeddings = normal(1000, s.hidden), normal(ids, s.hidden), normal(ids, s.hidden, std=4 * s.hidden**-0.5)
    return BackboneWeights(s, layers, norm(s.hidden), *embeddings, Angles())


def record(rows: int, dtype: torch.dtype) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds of the marked backbone, and of each kernel's last launch [CTAs, points and SM]."""
    from cuda.bindings import driver

    from omnivoice_triton.engine.tuning import _Bench
    from omnivoice_triton.kernels.graph_timer import time_graph

    loaded: list[tuple[str, nvrtc.CudaKernel]] = []
    assembled, construct = nvrtc.assembled, nvrtc.CudaKernel.__init__

    def keep(kernel: nvrtc.CudaKernel, name: str, defines: dict[str, int], *rest: Any) -> None:
        construct(kernel, name, defines, *rest)
        label = "attention" if name == "hopper_attention" else LABELS.get(defines["EPILOGUE"])
        if label is None:
            label = "down" if any(there == "gate_up" for there, _ in loaded) else "o"
        loaded.append((label, kernel))

    nvrtc.assembled = lambda name, *rest: with_clocks(name, assembled(name, *rest))
    nvrtc.CudaKernel.__init__ = keep  # type: ignore[method-assign,assignment]
    try:
        tiles = Tiles.default(FULL, 2, 90)
        bench = _Bench(random_weights(dtype), "triton", tiles, rows, time_graph)
        seconds = bench.seconds(rows, tiles)
    finally:
        nvrtc.assembled, nvrtc.CudaKernel.__init__ = assembled, construct  # type: ignore[method-assign]
    found = {}
    for label, kernel in loaded:
        code, pointer, size = driver.cuModuleGetGlobal(kernel._module, b"timeline")
        host = np.zeros(CTAS * COLUMNS, dtype=np.uint64)
        assert code == driver.CUresult.CUDA_SUCCESS, code.name
        assert size == host.nbytes
        nvrtc.check(driver.cuMemcpyDtoH(host.ctypes.data, pointer, host.nbytes))
        table = host.reshape(CTAS, COLUMNS).astype(np.int64)
        found[label] = table[table[:, POINTS.index("end")] > 0]
    return seconds, found


def lines(found: dict[str, np.ndarray], clock_hz: float) -> list[str]:
    """Medians within each kernel, and between neighbours on one SM, in microseconds."""
    us = 1e6 / clock_hz
    told = [f"{'kernel':10}{'CTAs':>6}" + "".join(f"{'to ' + point:>11}" for point in POINTS[1:])]
    for label, table in found.items():
        spent = np.median(np.diff(table[:, :SM], axis=1), axis=0) * us
        told.append(f"{label:10}{len(table):6}" + "".join(f"{value:11.2f}" for value in spent))
    told.append("from a kernel's last end on an SM to the next one's first point there: median, least, most")
    here = [label for label in ORDER if label in found]
    for before, after in pairwise(here):
        ends = _by_sm(found[before], POINTS.index("end"), max)
        for point in ("entry", "waited", "first"):
            starts = _by_sm(found[after], POINTS.index(point), min)
            gaps = [(starts[sm] - ends[sm]) * us for sm in starts if sm in ends]
            if gaps:
                told.append(f"{before} to {after} {point}: {np.median(gaps):.2f} {min(gaps):.2f} {max(gaps):.2f}")
    return told


def _by_sm(table: np.ndarray, column: int, choose: Callable[[list[int]], int]) -> dict[int, int]:
    found: dict[int, list[int]] = {}
    for row in table:
        found.setdefault(int(row[SM]), []).append(int(row[column]))
    return {sm: choose(clocks) for sm, clocks in found.items()}


@command("kernel_timeline")
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description="Where the time of a layer goes, by clocks inside its kernels.")
    parser.add_argument("rows", nargs="?", type=whole(1), default=320, help="packed rows (default: 320)")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        raise ModeUnavailable("needs a GPU of compute capability 9.0")
    seconds, found = record(options.rows, getattr(torch, options.dtype))
    print(f"backbone at {options.rows} rows, with clocks: {seconds * 1e6:.1f} us")
    clock_hz = 1e3 * torch.cuda.get_device_properties(0).clock_rate
    print("\n".join(lines(found, clock_hz)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
