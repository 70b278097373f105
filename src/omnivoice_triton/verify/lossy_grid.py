"""Tier 1's grid of the kernels that give up bits on purpose: rows quantised to FP8, packed INT8-QK attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.verify.kernel_case import EPS, Case, Draw, Function, Outputs, Sizes, launcher, poison
from omnivoice_triton.verify.kernel_tier import TOLERANCE
from omnivoice_triton.verify.packed_grid import Packed

_E4M3_STEP = 0.02
"""What is allowed from the twin: a value between two e4m3 numbers may fall either way, a sixteenth of it at most."""
_E4M3_ERROR = 0.04
"""How far rows in e4m3 are from float64: values keep four bits, 2.6 % of the norm on normal values."""


def cases(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    """Every such kernel."""
    yield from _fp8(sizes, draw)
    yield from _keys(sizes, draw)
    yield from _int8(sizes, draw)


def _dequantised(shape: torch.Size, device: str, call: Any) -> Tensor:
    """What `call(out, scale)` wrote, multiplied out; NaN where it wrote nothing."""
    out = torch.full(shape, 0x7F, dtype=torch.uint8, device=device).view(torch.float8_e4m3fn)  # e4m3's NaN
    scale = torch.full((shape[0], 1), float("nan"), device=device)
    call(out, scale)
    return out.to(torch.float32) * scale


def _fp8(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import fp8_reference as ref

    slack = _E4M3_STEP / TOLERANCE[draw.dtype]
    for rows in sizes.rows:
        for width in (77, sizes.hidden):
            x, delta = draw.normal(rows, rows, width), draw.normal(rows + 1, rows, width)
            pair, weight = draw.normal(rows + 2, rows, 2 * width), draw.norm_weight(3, width)

            def plain(function: Function, x: Tensor = x) -> Outputs:
                return {"y": _dequantised(x.shape, draw.device, lambda out, scale: function(x, out=out, scale=scale))}

            def plain_exactly(x: Tensor = x) -> Outputs:
                return {"y": x.double()}

            def add(function: Function, x: Tensor = x, delta: Tensor = delta, weight: Tensor = weight) -> Outputs:
                total = x.clone()

                def call(out: Tensor, scale: Tensor) -> None:
                    function(delta, total, weight, EPS, out=out, scale=scale)

                y = _dequantised(x.shape, draw.device, call)
                return {"y": y, "residual": total}

            def add_exactly(x: Tensor = x, delta: Tensor = delta, weight: Tensor = weight) -> Outputs:
                total = x.double() + delta.double()
                y = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS) * weight.double()
                return {"y": y, "residual": total}

            def swiglu(function: Function, pair: Tensor = pair, width: int = width) -> Outputs:
                shape = torch.Size((pair.shape[0], width))
                return {"y": _dequantised(shape, draw.device, lambda out, scale: function(pair, out=out, scale=scale))}

            def swiglu_exactly(pair: Tensor = pair) -> Outputs:
                gate, up = pair.double().chunk(2, dim=-1)
                return {"y": torch.nn.functional.silu(gate) * up}

            plans: tuple[tuple[str, Any, Function, Any], ...] = (
                ("triton_quantise_rows", plain, ref.quantise_rows, plain_exactly),
                ("triton_add_norm_quantise", add, ref.add_norm_quantise, add_exactly),
                ("triton_swiglu_quantise", swiglu, ref.swiglu_quantise, swiglu_exactly),
            )
            label = f"{rows} x {width}"
            for name, run, twin, exact in plans:
                get, plain_sum = launcher("fp8", name), frozenset({"residual"})
                yield Case(name, label, draw.dtype, run, get, twin, exact, slack, _E4M3_ERROR, plain_sum)


def _keys(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref
    from omnivoice_triton.kernels.launch import attention_tile

    kv, dim = sizes.kv_heads, sizes.head_dim
    tile = attention_tile(dim, draw.dtype)
    for rows in sizes.rows:
        # Not at rest around zero: the mean is what is smoothed away.
        k = draw.normal(rows, 2, rows, kv, dim).add(2.0).transpose(1, 2)
        lengths = torch.tensor([rows, (rows + 1) // 2], dtype=torch.int32, device=draw.device)
        written = [-(-n // tile.block_n) for n in lengths.tolist()]

        def quantise(
            function: Function, k: Tensor = k, lengths: Tensor = lengths, written: list[int] = written
        ) -> Outputs:
            whole, scale = function(k, lengths, tile)
            return {
                "values": torch.cat([whole[i, :, : n * tile.block_n] for i, n in enumerate(written)], dim=1),
                "scales": torch.cat([scale[i, :, :n] for i, n in enumerate(written)], dim=1),
            }

        def exactly(quantise: Any = quantise, k: Tensor = k) -> Outputs:
            done: Outputs = quantise(ref.quantise_keys, k.double())
            return done

        get = launcher("quantise_keys", "quantise_keys")
        yield Case("quantise_keys", f"2 x {kv} x {rows} x {dim}", draw.dtype, quantise, get, ref.quantise_keys, exactly)


def _int8(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference, int8_reference
    from omnivoice_triton.kernels.int8_keys import Int8Keys

    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    packed = Packed(sizes, draw.device, sizes.attention.rows)
    qkv = draw.normal(7, packed.rows, (heads + 2 * kv) * dim)
    qkv[packed.used_rows :] = float("nan")  # padding must not be attended
    shape = {"q_heads": heads, "kv_heads": kv, "scale": dim**-0.5, "tile": sizes.attention}

    def attend(function: Function, qkv: Tensor = qkv) -> Outputs:
        out = poison(qkv, packed.rows, heads * dim)
        keys = Int8Keys.allocate(packed.rows, kv, dim, torch.device(draw.device))
        function(qkv, packed.tables["tiles"], **shape, keys=keys, out=out)
        return {"out": out[: packed.used_rows]}

    def exactly() -> Outputs:
        out = poison(qkv, packed.rows, heads * dim, dtype=torch.float64)
        engine_reference.varlen_attention(qkv.double(), packed.tables["tiles"], **shape, out=out)
        return {"out": out[: packed.used_rows]}

    # A score on the edge between two INT8 steps may fall either way.
    yield Case(
        "triton_packed_int8_attention",
        f"{packed.label}, {heads}/{kv} heads of {dim}",
        draw.dtype,
        attend,
        launcher("packed_int8", "triton_packed_int8_attention"),
        int8_reference.packed_int8_attention,
        exactly,
        slack=8.0,
        approximation=0.02,
    )
