"""Turbo's own matrix products for `bench kernels`, each with the tile that the engine takes at so many rows.

PyTorch's side is cuBLAS, then what our kernel folds in as eager operations. Rows that the tile table leaves to cuBLAS
have no figure: the engine never runs the kernel there.

Bytes: x, weight and the result once each. Partial sums of a K that is cut are not counted: cuBLAS has none. Operations:
2 M N K.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.bench.kernel_case import TOLERANCE, Case, Tensors, Unmeasured
from omnivoice_triton.bench.kernel_packed import EPS, HEAD_SHAPE, HEADS, SHAPE, Batch, Draw, tiles_of
from omnivoice_triton.bench.kernel_packed_cases import heads_of, normed_and_turned
from omnivoice_triton.engine.tiles import AnyGemmTile
from omnivoice_triton.kernels import engine_reference, reference
from omnivoice_triton.kernels.tiles import HopperTile

HIDDEN, MIDDLE, DIM = SHAPE.hidden, SHAPE.intermediate, SHAPE.head_dim
WEIGHTS = {
    "qkv": (HEADS * DIM, HIDDEN),
    "o": (HIDDEN, SHAPE.q_heads * DIM),
    "gate_up": (2 * MIDDLE, HIDDEN),
    "down": (HIDDEN, MIDDLE),
    "heads": (SHAPE.codebooks * SHAPE.audio_vocab, HIDDEN),
}
"""Rows and columns of each weight."""
NAMES = {"qkv": "qkv_rope", "gate_up": "gate_up", "o": "o", "down": "down", "heads": "heads"}

Function = Callable[..., Any]


def tile_of(name: str, rows: int, draw: Draw) -> AnyGemmTile:
    """The engine's tile of one product.

    Raises:
        Unmeasured: it takes cuBLAS.
    """
    tiles = tiles_of(draw.dtype, draw.device)
    if not tiles.gemm:
        raise Unmeasured("there is no tile table for this GPU and dtype: the engine takes cuBLAS")
    tile = tiles.for_gemm(name, rows)
    if tile is None:
        raise Unmeasured("the tile table leaves these rows to cuBLAS")
    if tile.swiglu:
        raise Unmeasured("tiles that take SwiGLU in are not timed by themselves")
    return tile


def _launcher(tile: AnyGemmTile, name: str) -> Function:
    """The kernel that a tile is for."""
    if isinstance(tile, HopperTile):
        from omnivoice_triton.kernels import hopper_gemm as module

        found: Function = getattr(module, f"hopper_{name}")
        return found
    found = getattr(import_module(f"omnivoice_triton.kernels.{name}"), f"triton_{name}")
    return found


def _case(name: str, rows: int, draw: Draw, tile: AnyGemmTile, **functions: Any) -> Case:
    columns, depth = WEIGHTS[name]
    written = MIDDLE if name == "gate_up" else columns
    return Case(
        kernel=f"{'hopper' if isinstance(tile, HopperTile) else 'triton'}_{NAMES[name]}",
        shape={"rows": rows, "columns": columns, "depth": depth},
        dtype=draw.dtype,
        counted=0,
        moved=lambda inputs: (rows * depth + columns * depth + rows * written) * draw.dtype.itemsize,
        flop=2.0 * rows * columns * depth,
        # Sums in another order, rounded before what follows.
        tolerance=(2 * TOLERANCE[draw.dtype], 4 * TOLERANCE[draw.dtype]),
        **functions,
    )


def _operands(name: str, rows: int, draw: Draw, seed: int) -> Tensors:
    columns, depth = WEIGHTS[name]
    return draw.normal(seed, rows, depth), draw.normal(seed + 1, columns, depth, std=depth**-0.5)


def qkv_rope(rows: int, draw: Draw) -> Case:
    """QKV's product with q and k normed and rotated."""
    tile, batch = tile_of("qkv", rows, draw), Batch(rows, draw.device)
    cos, sin = draw.angles(batch.longest)

    def make(seed: int) -> Tensors:
        norms = draw.normal(seed + 2, DIM), draw.normal(seed + 3, DIM)
        table = batch["rows"]
        out = draw.empty(rows, HEADS * DIM)
        return *_operands("qkv", rows, draw, seed), table, cos, sin, *norms, out, *batch.turned(cos, sin)

    def project(function: Function) -> Function:
        def run(*inputs: Tensor) -> Tensors:
            function(*inputs[:7], EPS, tile, **HEAD_SHAPE, qkv=inputs[7])
            return heads_of(inputs[7])

        return run

    def eager(x: Tensor, weight: Tensor, *rest: Tensor) -> Tensors:
        return normed_and_turned(x @ weight.t(), rest[3], rest[4], *rest[6:])

    twin = project(engine_reference.qkv_rope)
    launch = project(_launcher(tile, "qkv_rope"))
    return _case("qkv", rows, draw, tile, make=make, triton=launch, twin=twin, pytorch=eager)


def gate_up(rows: int, draw: Draw) -> Case:
    """Both products and SwiGLU of them."""
    tile = tile_of("gate_up", rows, draw)

    def make(seed: int) -> Tensors:
        return *_operands("gate_up", rows, draw, seed), draw.empty(rows, MIDDLE)

    def call(function: Function) -> Function:
        def run(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
            function(x, weight, tile, out=out)
            return out

        return run

    def eager(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        return reference.swiglu(*(x @ weight.t()).chunk(2, dim=-1))

    twin, launch = call(engine_reference.gate_up), call(_launcher(tile, "gate_up"))
    return _case("gate_up", rows, draw, tile, make=make, triton=launch, twin=twin, pytorch=eager)


def product(name: str) -> Callable[[int, Draw], Case]:
    """The builder of o, down or heads: a whole product, or partial sums that the norm after it adds up."""

    def build(rows: int, draw: Draw) -> Case:
        tile, columns = tile_of(name, rows, draw), WEIGHTS[name][0]
        whole = isinstance(tile, HopperTile) and tile.sums

        def make(seed: int) -> Tensors:
            partials = draw.empty(tile.splits, rows, columns, dtype=torch.float32)
            return *_operands(name, rows, draw, seed), draw.empty(rows, columns) if whole else partials

        def call(function: Function) -> Function:
            def run(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
                function(x, weight, tile, **{"out" if whole else "partials": out})
                return out

            return run

        def values(inputs: Tensors, outputs: Tensors) -> Tensors:
            return tuple(x.sum(0) if x.dim() == 3 else x for x in outputs)

        op = "gemm" if whole else "split_k"
        return _case(
            name,
            rows,
            draw,
            tile,
            make=make,
            triton=call(_launcher(tile, op)),
            twin=call(getattr(engine_reference, op)),
            pytorch=lambda x, weight, out: x @ weight.t(),
            values=values,
        )

    return build
