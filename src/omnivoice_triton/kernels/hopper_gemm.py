"""The backbone's GEMMs for few rows on compute capability 9.0, in CUDA C++ (`cuda/hopper_gemm.cu`).

    store      out[m, n]         = round(sum over k of x[m, k] * w[n, k])
    partials   out[p, m, n]      = the same over chunk p of K, in fp32, for the norm that follows to add up
    SwiGLU     out[m, i]         = round(round(silu(round(gate[m, i]))) * round(up[m, i]))
    QK + RoPE  out[m, head, :]   = the product with q and k normed and rotated

What bounds a CTA at a few hundred rows is the rate of its matrix instructions, what comes into its shared memory (64
bytes a clock), and above all the latency of starting: 3 us of the 9 that gate_up takes at 320 rows. So row tiles are
multiples of 16 rows, tiles are near square, what follows is folded in, and the weights of the first stages are asked
for before the kernel before has ended. A cluster can share weights by multicast, which gained nothing on an H200 at 320
rows, or add up its parts of K (docs/lab.md).

Same roundings as the kernels that they stand in for (`split_k`, `qkv_rope`, `gate_up`); their twins are in
`engine_reference`.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import torch

from omnivoice_triton.kernels import launch, nvrtc, tables
from omnivoice_triton.kernels.tiles import PARTIALS, QK_ROPE, REDUCE, STORE, SWIGLU, HopperTile


def variant_source(tile: HopperTile, epilogue: int, bf16: bool, pdl: bool) -> tuple[dict[str, int], str]:
    """Macros and prologue that make the kernel's source complete."""
    kind = "bf16" if bf16 else "f16"
    count = tile.rows // 2
    registers = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{tile.rows}k16.f32.{kind}.{kind}"
    prologue = (
        f"__device__ __forceinline__ void wgmma(float (&d)[{count}], unsigned long long a, unsigned long long b) {{\n"
        f'    asm volatile("{instruction} {{{registers}}}, %{count}, %{count + 1}, 1, 1, 1, 0, 0;"\n'
        f'        : {operands} : "l"(a), "l"(b));\n}}\n'
    )
    defines = {
        "ROWS": tile.rows,
        "WARPGROUPS": tile.warpgroups,
        "SUBTILES": tile.subtiles,
        "CLUSTER": tile.cluster,
        "STAGES": tile.stages,
        "SPLITS": tile.splits,
        "EPILOGUE": epilogue,
        "BF16": int(bf16),
        "PDL": int(pdl),
    }
    return defines, prologue


def compile_variant(tile: HopperTile, epilogue: int, bf16: bool, pdl: bool) -> None:
    """Put a variant's machine code into the cache; needs no GPU."""
    defines, prologue = variant_source(tile, epilogue, bf16, pdl)
    nvrtc.cubin("hopper_gemm", defines, prologue, "sm_90a")


@lru_cache(maxsize=512)
def _kernel(device: int, tile: HopperTile, epilogue: int, bf16: bool, pdl: bool) -> tuple[nvrtc.CudaKernel, int]:
    """The loaded kernel and how many of its clusters run at once; `device` is the current one."""
    if (reason := nvrtc.problem()) is not None:
        raise RuntimeError(reason)
    if torch.cuda.get_device_capability(device) != (9, 0):
        raise ValueError(f"Hopper's GEMMs need compute capability 9.0, not {torch.cuda.get_device_capability(device)}")
    defines, prologue = variant_source(tile, epilogue, bf16, pdl)
    made = nvrtc.CudaKernel("hopper_gemm", defines, prologue, "sm_90a", tile.shared_bytes(epilogue))
    clusters = made.most_clusters(tile.threads, tile.cluster)
    if clusters < 1:
        raise ValueError(f"{tile} doesn't fit this GPU")
    return made, clusters


def _run(
    x: torch.Tensor,
    weight: torch.Tensor,
    tile: HopperTile,
    epilogue: int,
    out: torch.Tensor,
    *,
    pdl: bool,
    n_columns: int,
    extra: tuple[torch.Tensor, ...] = (),
    eps: float = 0.0,
    heads: tuple[int, int] = (0, 0),
) -> None:
    launch.check_input("x", x)
    (m_rows, depth), bf16 = x.shape, x.dtype is torch.bfloat16
    if not x.is_cuda or x.dtype is torch.float32:
        raise ValueError(f"x is {launch.describe(x)}: wanted 16 bit on a CUDA device")
    for name, tensor in (("x", x), ("weight", weight), ("out", out)):
        if not tensor.is_contiguous() or tensor.data_ptr() % 16:
            raise ValueError(f"{name} has strides {tensor.stride()}: wanted it contiguous and on 16 bytes")
    if (reason := tile.problem(epilogue, depth)) is not None:
        raise ValueError(f"{tile}: {reason}")
    if n_columns % 8:
        raise ValueError(f"{n_columns} columns: wanted a multiple of 8")
    out_columns = tile.columns // 2 if epilogue == SWIGLU else tile.columns
    if epilogue == SWIGLU and n_columns % out_columns:
        raise ValueError(f"{n_columns} columns of gate: wanted a multiple of {out_columns} for {tile}")
    if m_rows == 0:
        return
    with launch.on_device_of(x):
        kernel, most = _kernel(x.device.index, tile, epilogue, bf16, pdl)
        sharing = 1 if epilogue == REDUCE else tile.cluster
        row_tiles = -(-m_rows // (tile.rows * sharing)) * sharing
        column_tiles = -(-n_columns // out_columns)
        clusters = row_tiles * column_tiles * tile.splits // tile.cluster
        share = tile.columns // sharing // (2 if epilogue == SWIGLU else 1)
        if epilogue == REDUCE:
            most = clusters  # one tile to a CTA: what doesn't fit at once follows
        stream = torch.cuda.current_stream(x.device).cuda_stream
        config = kernel.config(
            min(clusters, most) * tile.cluster, tile.threads, cluster=tile.cluster, pdl=pdl, stream=stream
        )
        void, number = ctypes.c_void_p, ctypes.c_int
        pointers = [void(tensor.data_ptr()) for tensor in extra] or [void(0)] * 5
        kernel.launch(
            config,
            [
                nvrtc.tensor_map(x.data_ptr(), bf16, m_rows, depth, tile.rows),
                nvrtc.tensor_map(weight.data_ptr(), bf16, weight.shape[0], depth, share),
                void(out.data_ptr()),
                number(m_rows),
                number(n_columns),
                number(depth),
                number(row_tiles),
                number(column_tiles),
                pointers[0],
                number(tables.ROW_WIDTH),
                number(tables.ROW_POSITION),
                *pointers[1:],
                ctypes.c_float(eps),
                number(heads[0]),
                number(heads[1]),
            ],
        )


def hopper_gemm(
    x: torch.Tensor, weight: torch.Tensor, tile: HopperTile, *, out: torch.Tensor, pdl: bool = False
) -> None:
    """x weightᵀ; with `tile.splits` over 1, a cluster adds up its parts of K.

    Args:
        x: [M, K], 16 bit, contiguous.
        weight: [N, K], contiguous; N a multiple of 8.
        tile: how to cut.
        out: [M, N], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype, device or tile that doesn't fit.
    """
    launch.check_like("weight", weight, x, (weight.shape[0], x.shape[1]))
    launch.check_like("out", out, x, (x.shape[0], weight.shape[0]))
    _run(x, weight, tile, REDUCE if tile.splits > 1 else STORE, out, pdl=pdl, n_columns=weight.shape[0])


def hopper_split_k(
    x: torch.Tensor, weight: torch.Tensor, tile: HopperTile, *, partials: torch.Tensor, pdl: bool = False
) -> None:
    """Partial products of x and weightᵀ; their sum over the first dimension is the product.

    Args:
        x: [M, K], 16 bit, contiguous.
        weight: [N, K], contiguous; N a multiple of 8.
        tile: how to cut; `tile.splits` partial sums.
        partials: [splits, M, N] fp32, written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype, device or tile that doesn't fit.
    """
    launch.check_like("weight", weight, x, (weight.shape[0], x.shape[1]))
    wanted = (tile.splits, x.shape[0], weight.shape[0])
    if partials.dtype is not torch.float32 or tuple(partials.shape) != wanted or partials.device != x.device:
        raise ValueError(f"partials is {launch.describe(partials)}: wanted float32 {wanted} on {x.device}")
    _run(x, weight, tile, PARTIALS, partials, pdl=pdl, n_columns=weight.shape[0])


def hopper_gate_up(
    x: torch.Tensor, weight: torch.Tensor, tile: HopperTile, *, out: torch.Tensor, pdl: bool = False
) -> None:
    """silu(x gateᵀ) * (x upᵀ).

    Args:
        x: [M, K], 16 bit, contiguous.
        weight: [2 I, K], gate over up, contiguous.
        tile: how to cut; half of its columns are gate's.
        out: [M, I], written.
        pdl: launch dependent on the kernel before (see `pdl`).

    Raises:
        ValueError: a shape, dtype, device or tile that doesn't fit.
    """
    width = weight.shape[0] // 2
    launch.check_like("weight", weight, x, (2 * width, x.shape[1]))
    launch.check_like("out", out, x, (x.shape[0], width))
    _run(x, weight, tile, SWIGLU, out, pdl=pdl, n_columns=width)


def hopper_qkv_rope(
    x: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    eps: float,
    tile: HopperTile,
    *,
    q_heads: int,
    kv_heads: int,
    qkv: torch.Tensor,
    pdl: bool = False,
) -> None:
    """The QKV product with q and k normed and rotated; shapes as `qkv_rope.triton_qkv_rope`, heads of 128.

    Raises:
        ValueError: a shape, dtype, device or tile that doesn't fit.
    """
    heads, head_dim = q_heads + 2 * kv_heads, q_weight.shape[0]
    if head_dim != 128:
        raise ValueError(f"heads are {head_dim} wide: wanted 128")
    launch.check_like("weight", weight, x, (heads * head_dim, x.shape[1]))
    launch.check_like("qkv", qkv, x, (x.shape[0], heads * head_dim))
    launch.check_like("q_weight", q_weight, x, (head_dim,))
    launch.check_like("k_weight", k_weight, x, (head_dim,))
    launch.check_like("cos", cos, x, (cos.shape[0], head_dim // 2))
    launch.check_like("sin", sin, x, (cos.shape[0], head_dim // 2))
    tables.check("rows", rows, (x.shape[0], tables.ROW_WIDTH), x.device)
    _run(
        x,
        weight,
        tile,
        QK_ROPE,
        qkv,
        pdl=pdl,
        n_columns=heads * head_dim,
        extra=(rows, cos, sin, q_weight, k_weight),
        eps=launch.check_eps(eps),
        heads=(q_heads, kv_heads),
    )
