"""Tier 1's grid of the CUDA C++ kernels for compute capability 9.0; empty on every other device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile
from omnivoice_triton.verify.kernel_case import (
    EPS,
    Case,
    Draw,
    Function,
    Outputs,
    Sizes,
    launcher,
    poison,
    wide,
)
from omnivoice_triton.verify.packed_grid import Packed

KERNELS = ("hopper_attention", "hopper_gate_up", "hopper_gemm", "hopper_qkv_rope", "hopper_split_k")


def problem(device: str) -> str | None:
    """Why these kernels can't run on `device`, or None."""
    if torch.device(device).type != "cuda":
        return "they need a GPU of compute capability 9.0"
    capability = torch.cuda.get_device_capability(device)
    if capability != (9, 0):
        return f"they need compute capability 9.0, not {'.'.join(map(str, capability))}"
    from omnivoice_triton.kernels import nvrtc

    return nvrtc.problem()


def cases(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    """Every kernel at the model's shapes, in 16 bits."""
    if draw.dtype is torch.float32 or problem(draw.device) is not None:
        return
    yield from _products(sizes, draw)
    yield from _packed(sizes, draw)


def _products(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    hidden, middle = sizes.hidden, sizes.intermediate
    weight = draw.normal(0, hidden, middle, std=middle**-0.5)
    both = draw.normal(1, 2 * middle, hidden, std=hidden**-0.5)
    for rows in sizes.rows:
        x, narrow = draw.normal(2, rows, middle), draw.normal(3, rows, hidden)
        # The last has a cluster that adds its parts of K up itself.
        for tile in (HopperTile(80, 2, 2, 2, 3), HopperTile(80, 1, 1, 2, 8, 2)):

            def multiply(function: Function, x: Tensor = x, tile: HopperTile = tile) -> Outputs:
                out = poison(x, x.shape[0], hidden)
                function(x, weight, tile, out=out)
                return {"out": out}

            def multiply_exactly(x: Tensor = x) -> Outputs:
                return {"out": x.double() @ weight.double().T}

            label = f"{rows} x {hidden} x {middle}, {tile.splits} parts"
            get = launcher("hopper_gemm", "hopper_gemm")
            yield Case("hopper_gemm", label, draw.dtype, multiply, get, ref.gemm, multiply_exactly, slack=4.0)

        tile = HopperTile(64, 2, 1, 1, 8, 3)

        def split(function: Function, x: Tensor = x, tile: HopperTile = tile) -> Outputs:
            out = poison(x, tile.splits, x.shape[0], hidden, dtype=torch.float32)
            function(x, weight, tile, partials=out)
            return {"partials": out}

        def split_exactly(x: Tensor = x, parts: int = tile.splits) -> Outputs:
            pairs = zip(x.double().chunk(parts, 1), weight.double().chunk(parts, 1), strict=True)
            return {"partials": torch.stack([a @ b.T for a, b in pairs])}

        label = f"{rows} x {hidden} x {middle}, {tile.splits} sums"
        get = launcher("hopper_gemm", "hopper_split_k")
        yield Case("hopper_split_k", label, draw.dtype, split, get, ref.split_k, split_exactly, slack=4.0)

        gated = HopperTile(160, 2, 2, 1, 3)

        def gate_up(function: Function, x: Tensor = narrow, w: Tensor = both, tile: HopperTile = gated) -> Outputs:
            out = poison(x, x.shape[0], middle)
            function(x, w, tile, out=out)
            return {"out": out}

        def gate_up_exactly(gate_up: Any = gate_up, x: Tensor = narrow) -> Outputs:
            done: Outputs = gate_up(ref.gate_up, *wide(x, both))
            return done

        label = f"{rows} x {2 * middle} x {hidden}"
        get = launcher("hopper_gemm", "hopper_gate_up")
        yield Case("hopper_gate_up", label, draw.dtype, gate_up, get, ref.gate_up, gate_up_exactly, slack=4.0)


def _packed(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    shape = {"q_heads": heads, "kv_heads": kv}
    for tile in (HopperAttentionTile(32, 3), HopperAttentionTile(64, 2)):
        packed = Packed(sizes, draw.device, tile.rows)
        qkv = draw.normal(4, packed.rows, (heads + 2 * kv) * dim)
        qkv[packed.used_rows :] = float("inf")  # of no segment: nobody may see it

        def attend(
            function: Function, x: Tensor = qkv, packed: Packed = packed, tile: HopperAttentionTile = tile
        ) -> Outputs:
            out = poison(x, packed.rows, heads * dim)
            function(x, packed.tables["tiles"], **shape, scale=dim**-0.5, tile=tile, out=out)
            return {"out": out[: packed.used_rows]}

        def attend_exactly(attend: Any = attend, x: Tensor = qkv) -> Outputs:
            done: Outputs = attend(ref.varlen_attention, x.double())
            return done

        label = f"{packed.label}, {tile.rows} a tile"
        get = launcher("hopper_attention", "hopper_attention")
        twin: Function = ref.varlen_attention
        yield Case("hopper_attention", label, draw.dtype, attend, get, twin, attend_exactly, slack=4.0)

    packed = Packed(sizes, draw.device, sizes.attention.rows)
    x = draw.normal(5, packed.rows, sizes.hidden)
    weight = draw.normal(6, (heads + 2 * kv) * dim, sizes.hidden, std=sizes.hidden**-0.5)
    cos, sin = draw.angles(packed.longest, dim)
    inputs = (x, weight, cos, sin, draw.norm_weight(7, dim), draw.norm_weight(8, dim))
    for number, projected in enumerate((HopperTile(80, 2, 1, 1, 6), HopperTile(48, 1, 2, 2, 4))):

        def project(function: Function, parts: tuple[Tensor, ...] = inputs, tile: HopperTile = projected) -> Outputs:
            out = poison(parts[0], packed.rows, (heads + 2 * kv) * dim)
            function(*parts[:2], packed.tables["rows"], *parts[2:], EPS, tile, **shape, qkv=out)
            return {"qkv": out}

        def project_exactly(project: Any = project) -> Outputs:
            done: Outputs = project(ref.qkv_rope, tuple(wide(*inputs)))
            return done

        label = f"{packed.rows} x {weight.shape[0]} x {sizes.hidden}, tile {number + 1}"
        get = launcher("hopper_gemm", "hopper_qkv_rope")
        yield Case("hopper_qkv_rope", label, draw.dtype, project, get, ref.qkv_rope, project_exactly, slack=4.0)
