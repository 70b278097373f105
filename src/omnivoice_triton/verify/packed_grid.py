"""Tier 1's grid of turbo's backbone: kernels on packed rows, and GEMMs with something folded in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnivoice_triton.engine.layout import Bucket, Placement, pack, row_count
from omnivoice_triton.verify.kernel_case import (
    EPS,
    WIDE,
    Case,
    Draw,
    Function,
    Outputs,
    Sizes,
    launcher,
    poison,
    wide,
)


class Packed:
    """Tables of one packed batch on the device, its rows shuffled so that an index taken for another is seen."""

    def __init__(self, sizes: Sizes, device: str, tile_rows: int, spare_rows: int = 5) -> None:
        rng = np.random.default_rng(0)
        prompts = rng.permutation(sum(r[0] for r in sizes.requests) + 3).astype(np.int32)
        frames = rng.permutation(sum(r[1] for r in sizes.requests) + 3).astype(np.int32)
        slots = rng.permutation(len(sizes.requests) + 2)
        self.placements = []
        for (n_prompt, n_frames, guided), slot in zip(sizes.requests, slots, strict=False):
            self.placements.append(Placement(int(slot), prompts[:n_prompt], frames[:n_frames], guided))
            prompts, frames = prompts[n_prompt:], frames[n_frames:]
        self.used_rows = sum(row_count(*r) for r in sizes.requests)
        self.rows = self.used_rows + spare_rows
        self.prompt_rows = sum(r[0] for r in sizes.requests) + 3
        self.canvas_rows = sum(r[1] for r in sizes.requests) + 3
        self.targets = sum(r[1] for r in sizes.requests)
        self.slots = len(sizes.requests) + 2
        self.longest = max(p + f for p, f, _ in sizes.requests)
        bucket = Bucket(self.rows, len(sizes.requests) + 1, tile_rows)
        flat = torch.from_numpy(pack(self.placements, bucket).flat).to(device)
        self.tables = {
            name: flat[offset : offset + int(np.prod(shape))].view(shape)
            for name, (offset, shape) in bucket.spans.items()
        }

    @property
    def label(self) -> str:
        """Rows and requests."""
        return f"{self.used_rows} packed rows of {len(self.placements)} requests"


def cases(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    """All of them, in one dtype."""
    yield from _packed(sizes, draw)
    yield from _gemms(sizes, draw)


def _packed(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    hidden, heads, kv, dim = sizes.hidden, sizes.q_heads, sizes.kv_heads, sizes.head_dim
    packed = Packed(sizes, draw.device, sizes.attention.rows)
    rows = packed.tables["rows"]
    canvas = torch.randint(
        0, sizes.vocabulary, (packed.canvas_rows, sizes.codebooks), generator=torch.Generator().manual_seed(0)
    )
    canvas = canvas.to(draw.device, torch.int32)
    prompt, table = (
        draw.normal(1, packed.prompt_rows, hidden),
        draw.normal(2, sizes.codebooks * sizes.vocabulary, hidden),
    )
    weight = draw.norm_weight(3, hidden)

    def embed(function: Function, parts: tuple[Tensor, ...] = (prompt, table, weight)) -> Outputs:
        source, codes, gain = parts
        x, y = (poison(source, packed.rows, hidden) for _ in range(2))
        function(rows, source, canvas, codes, gain, EPS, x=x, y=y)
        return {"x": x, "y": y}

    def embed_exactly() -> Outputs:
        return embed(ref.embed_rows, tuple(wide(prompt, table, weight)))

    get = launcher("embed", "triton_embed_rows")
    yield Case("triton_embed_rows", packed.label, draw.dtype, embed, get, ref.embed_rows, embed_exactly, slack=2.0)

    qkv = draw.hidden(4, packed.rows, (heads + 2 * kv) * dim)
    cos, sin = draw.angles(packed.longest, dim)
    norms = (draw.norm_weight(5, dim), draw.norm_weight(6, dim))
    shape = {"q_heads": heads, "kv_heads": kv}
    label = f"{packed.label}, {heads}/{kv} heads of {dim}"

    def rotate(function: Function, parts: tuple[Tensor, ...] = (qkv, cos, sin, *norms)) -> Outputs:
        out = parts[0].clone()
        function(out, rows, *parts[1:], EPS, **shape)
        return {"qkv": out}

    def rotate_exactly() -> Outputs:
        return rotate(ref.qk_norm_rope_packed, tuple(wide(qkv, cos, sin, *norms)))

    get = launcher("qkv", "triton_qk_norm_rope_packed")
    twin: Function = ref.qk_norm_rope_packed
    yield Case("triton_qk_norm_rope_packed", label, draw.dtype, rotate, get, twin, rotate_exactly)

    normal = draw.normal(7, packed.rows, (heads + 2 * kv) * dim)
    normal[packed.used_rows :] = float("nan")  # padding must not be attended

    def attend(function: Function, x: Tensor = normal) -> Outputs:
        out = poison(x, packed.rows, heads * dim)
        function(x, packed.tables["tiles"], **shape, scale=dim**-0.5, tile=sizes.attention, out=out)
        return {"out": out[: packed.used_rows]}

    def attend_exactly() -> Outputs:
        return attend(ref.varlen_attention, normal.to(WIDE))

    get = launcher("varlen_attention", "triton_varlen_attention")
    twin = ref.varlen_attention
    yield Case(
        "triton_varlen_attention", label, draw.dtype, attend, get, twin, attend_exactly, slack=4.0, multiplies=True
    )

    pick = packed.tables["heads"]
    for partials in (0, 3):
        residual = draw.hidden(8, packed.rows, hidden)
        delta = draw.normal(9, packed.rows, hidden)
        if partials:
            delta = draw.normal(9, partials, packed.rows, hidden, dtype=torch.float32)
        for picked in (False, True):

            def add(
                function: Function,
                parts: tuple[Tensor, ...] = (delta, residual, weight),
                picked: bool = picked,
            ) -> Outputs:
                total, y = parts[1].clone(), poison(parts[1])
                function(parts[0], total, parts[2], EPS, y=y, pick=pick if picked else None)
                return {"residual": total, "y": y}

            def add_exactly(
                add: Any = add, parts: tuple[Tensor, ...] = (delta, residual, weight), picked: bool = picked
            ) -> Outputs:
                done: Outputs = add(ref.packed_add_norm, tuple(wide(*parts)), picked)
                return done

            get = launcher("packed_norm", "triton_packed_add_norm")
            what = f"{packed.rows} x {hidden}, {partials or 'no'} partial sums{', picked' if picked else ''}"
            yield Case("triton_packed_add_norm", what, draw.dtype, add, get, ref.packed_add_norm, add_exactly)


def _gemms(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import engine_reference as ref

    tile, hidden, middle = sizes.gemm, sizes.hidden, sizes.intermediate
    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    for rows in (1, sizes.rows[-1]):
        for swiglu in (False, True):
            x = draw.normal(1, rows, 2 * middle if swiglu else middle)
            weight = draw.normal(2, hidden, middle, std=middle**-0.5)

            def split(
                function: Function, x: Tensor = x, weight: Tensor = weight, rows: int = rows, swiglu: bool = swiglu
            ) -> Outputs:
                out = poison(x, tile.splits, rows, hidden, dtype=torch.float32)
                function(x, weight, tile, partials=out, swiglu=swiglu)
                return {"partials": out}

            def split_exactly(x: Tensor = x, weight: Tensor = weight, swiglu: bool = swiglu) -> Outputs:
                w = weight.to(WIDE)
                a = x.to(WIDE)
                if swiglu:
                    gate, up = a.chunk(2, dim=-1)
                    a = torch.nn.functional.silu(gate) * up
                chunk = -(-a.shape[1] // tile.splits)
                at = [slice(p * chunk, (p + 1) * chunk) for p in range(tile.splits)]
                return {"partials": torch.stack([a[:, s] @ w[:, s].T for s in at])}

            label = f"{rows} x {hidden} x {middle}, {tile.splits} sums{', SwiGLU in' if swiglu else ''}"
            get = launcher("split_k", "triton_split_k")
            yield Case(
                "triton_split_k", label, draw.dtype, split, get, ref.split_k, split_exactly, slack=4.0, multiplies=True
            )

        x = draw.normal(3, rows, hidden)
        both = draw.normal(4, 2 * middle, hidden, std=hidden**-0.5)

        def gate_up(function: Function, x: Tensor = x, both: Tensor = both, rows: int = rows) -> Outputs:
            out = poison(x, rows, middle)
            function(x, both, tile._replace(splits=1), out=out)
            return {"out": out}

        def gate_up_exactly(gate_up: Any = gate_up, x: Tensor = x, both: Tensor = both) -> Outputs:
            done: Outputs = gate_up(ref.gate_up, *wide(x, both))
            return done

        label = f"{rows} x {2 * middle} x {hidden}"
        get = launcher("gate_up", "triton_gate_up")
        yield Case(
            "triton_gate_up", label, draw.dtype, gate_up, get, ref.gate_up, gate_up_exactly, slack=4.0, multiplies=True
        )

    packed = Packed(sizes, draw.device, sizes.attention.rows)
    x = draw.normal(5, packed.rows, hidden)
    weight = draw.normal(6, (heads + 2 * kv) * dim, hidden, std=hidden**-0.5)
    cos, sin = draw.angles(packed.longest, dim)
    norms = (draw.norm_weight(7, dim), draw.norm_weight(8, dim))

    def project(function: Function, parts: tuple[Tensor, ...] = (x, weight, cos, sin, *norms)) -> Outputs:
        out = poison(parts[0], packed.rows, (heads + 2 * kv) * dim)
        function(
            *parts[:2],
            packed.tables["rows"],
            *parts[2:],
            EPS,
            tile._replace(block_n=0, splits=1),
            q_heads=heads,
            kv_heads=kv,
            qkv=out,
        )
        return {"qkv": out}

    def project_exactly() -> Outputs:
        return project(ref.qkv_rope, tuple(wide(x, weight, cos, sin, *norms)))

    label = f"{packed.rows} x {weight.shape[0]} x {hidden}"
    get = launcher("qkv_rope", "triton_qkv_rope")
    yield Case(
        "triton_qkv_rope", label, draw.dtype, project, get, ref.qkv_rope, project_exactly, slack=4.0, multiplies=True
    )
