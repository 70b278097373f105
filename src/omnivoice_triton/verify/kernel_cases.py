"""Tier 1's grid: every kernel at the shapes that this device can afford.

Here are the cases of upstream's layers and of the codec; turbo's are in the `*_grid` files that `cases` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.verify import lossy_grid, packed_grid, unmask_grid
from omnivoice_triton.verify.kernel_case import (
    DTYPES,
    Case,
    Draw,
    Function,
    Outputs,
    Sizes,
    launcher,
    named,
    wide,
)


def cases(sizes: Sizes, device: str, dtypes: Sequence[torch.dtype] = DTYPES) -> Iterator[Case]:
    """The whole grid."""
    for dtype in dtypes:
        draw = Draw(device, dtype)
        yield from _elementwise(sizes, draw)
        yield from _upstream_heads(sizes, draw)
        yield from _codec(sizes, draw)
        yield from packed_grid.cases(sizes, draw)
        yield from unmask_grid.cases(sizes, draw)
        yield from lossy_grid.cases(sizes, draw)


def _elementwise(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    plans: tuple[tuple[str, str, Function, tuple[str, ...], bool], ...] = (
        ("rms_norm", "triton_rms_norm", ref.rms_norm, ("y",), True),
        ("swiglu", "triton_swiglu_forward", ref.swiglu, ("y",), False),
        ("fused_norm_residual", "triton_fused_add_rms_norm", ref.add_rms_norm, ("y", "sum"), True),
    )
    for module, name, twin, outputs, has_weight in plans:
        for rows in sizes.rows:
            for width in sizes.widths:
                inputs = [draw.hidden(rows + width, rows, width)]
                if name != "triton_rms_norm":
                    inputs.append(draw.normal(rows * width, rows, width))
                if has_weight:
                    inputs.append(draw.norm_weight(3, width))

                def run(function: Function, inputs: list[Tensor] = inputs, names: Any = outputs) -> Outputs:
                    return named(names, function(*(value.clone() for value in inputs)))

                def exact(inputs: list[Tensor] = inputs, twin: Function = twin, names: Any = outputs) -> Outputs:
                    return named(names, twin(*wide(*inputs)))

                yield Case(name, f"{rows} x {width}", draw.dtype, run, launcher(module, name), twin, exact)


def _upstream_heads(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    heads, kv, dim = sizes.q_heads, sizes.kv_heads, sizes.head_dim
    for rows in sizes.rows:
        q, k = draw.hidden(rows, 2, rows, heads, dim), draw.hidden(rows + 1, 2, rows, kv, dim)
        cos, sin = (a[None] for a in draw.angles(rows, dim, halves=2))
        inputs = [q, k, draw.norm_weight(1, dim), draw.norm_weight(2, dim), cos, sin]

        def run(function: Function, inputs: list[Tensor] = inputs) -> Outputs:
            return named(("q", "k"), function(*inputs))

        def exact(inputs: list[Tensor] = inputs) -> Outputs:
            q, k, q_weight, k_weight, cos, sin = wide(*inputs)
            return named(("q", "k"), ref.qk_norm_rope(q, k, q_weight, k_weight, cos, sin))

        label = f"2 x {rows}, {heads}/{kv} heads of {dim}"
        get = launcher("rope", "triton_qk_norm_rope")
        yield Case("triton_qk_norm_rope", label, draw.dtype, run, get, ref.qk_norm_rope, exact)

        query, key, value = (draw.normal(rows + i, 2, n, rows, dim) for i, n in enumerate((heads, kv, kv)))
        lengths = torch.tensor([rows, (rows + 1) // 2], dtype=torch.int32, device=draw.device)
        parts = (query, key, value, lengths)

        def attend(function: Function, parts: tuple[Tensor, ...] = parts) -> Outputs:
            return named(("out",), function(*parts))

        def exactly(parts: tuple[Tensor, ...] = parts) -> Outputs:
            q, k, v = wide(*parts[:3])
            return named(("out",), ref.attention(q, k, v, parts[3]))

        get = launcher("attention", "int8_qk_attention")
        # A score on the edge between two INT8 steps may fall either way.
        twin: Function = ref.int8_qk_attention
        yield Case("int8_qk_attention", label, draw.dtype, attend, get, twin, exactly, slack=8.0, approximation=0.02)


def _codec(sizes: Sizes, draw: Draw) -> Iterator[Case]:
    from omnivoice_triton.kernels import reference as ref

    for batch, channels, samples in sizes.channels:
        x, residual = draw.normal(1, batch, channels, samples, std=3.0), draw.normal(2, batch, channels, samples)
        # As in the checkpoint: 1 with a spread of 0.2.
        alpha = (1 + 0.2 * draw.normal(3, channels, dtype=torch.float32)).abs().clamp_min(0.05)
        bias = draw.normal(4, channels, dtype=torch.float32)
        lengths = torch.full((batch,), max(1, samples - 3), dtype=torch.int32, device=draw.device)
        keywords = {"bias": bias, "residual": residual, "lengths": lengths}
        for name, twin, outputs in (
            ("triton_snake", ref.snake, ("y",)),
            ("triton_add_snake", ref.add_snake, ("sum", "y")),
        ):

            def run(
                function: Function, x: Tensor = x, alpha: Tensor = alpha, kw: Any = keywords, names: Any = outputs
            ) -> Outputs:
                return named(names, function(x, alpha, **kw))

            def exact(
                x: Tensor = x, alpha: Tensor = alpha, kw: Any = keywords, twin: Any = twin, names: Any = outputs
            ) -> Outputs:
                double = {key: value if key == "lengths" else value.double() for key, value in kw.items()}
                return named(names, twin(x.double(), alpha.double(), **double))

            label = f"{batch} x {channels} x {samples}"
            # sin^2 is our own polynomial: an ulp or two away from torch's.
            yield Case(name, label, draw.dtype, run, launcher("snake", name), twin, exact, slack=2.0)
