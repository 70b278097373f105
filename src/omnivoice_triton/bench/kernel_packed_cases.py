"""Turbo's kernels between its matrix products for `bench kernels`: norms, embedding, FP8 rows, Snake.

PyTorch's side is what upstream runs for the same work. Kernels are launched as they are, without programmatic
dependence on the one before, which in a graph would hide a part of each behind its predecessor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omnivoice_triton.bench.kernel_case import TOLERANCE, Case, Tensors, Unmeasured
from omnivoice_triton.bench.kernel_packed import EPS, HEAD_SHAPE, HEADS, SHAPE, Batch, Draw, capability
from omnivoice_triton.kernels import engine_reference, fp8_reference, reference

HIDDEN, DIM = SHAPE.hidden, SHAPE.head_dim
E4M3 = (0.02, 0.14)
"""A value between two e4m3 numbers may fall either way: an eighth of it at most, and few do."""
HOP = 960
"""Samples of a codec frame."""

Function = Callable[..., Any]


def packed_add_norm(rows: int, draw: Draw) -> Case:
    """In place on the residual: two inputs, two outputs and a weight. Called again, the sum grows until it rounds."""
    from omnivoice_triton.kernels.packed_norm import triton_packed_add_norm

    def add(function: Function) -> Function:
        def run(delta: Tensor, residual: Tensor, weight: Tensor, y: Tensor) -> Tensors:
            function(delta, residual, weight, EPS, y=y)
            return y, residual

        return run

    return Case(
        kernel="packed_add_norm",
        shape={"rows": rows, "columns": HIDDEN},
        dtype=draw.dtype,
        make=lambda seed: (
            *(draw.normal(seed + i, rows, HIDDEN) for i in range(2)),
            draw.normal(seed + 2, HIDDEN),
            draw.empty(rows, HIDDEN),
        ),
        triton=add(triton_packed_add_norm),
        twin=add(engine_reference.packed_add_norm),
        pytorch=lambda delta, residual, weight, y: reference.add_rms_norm(delta, residual, weight),
        counted=3,
    )


def packed_qk_norm_rope(rows: int, draw: Draw) -> Case:
    """In place on q and k; v is not touched. PyTorch gets its angles by row, as upstream's layers do."""
    from omnivoice_triton.kernels.qkv import triton_qk_norm_rope_packed

    batch, turned = Batch(rows, draw.device), SHAPE.q_heads + SHAPE.kv_heads
    cos, sin = draw.angles(batch.longest)

    def make(seed: int) -> Tensors:
        norms = draw.normal(seed + 1, DIM), draw.normal(seed + 2, DIM)
        return draw.normal(seed, rows, HEADS * DIM), batch["rows"], cos, sin, *norms, *batch.turned(cos, sin)

    def rotate(function: Function) -> Function:
        def run(qkv: Tensor, table: Tensor, cos: Tensor, sin: Tensor, q: Tensor, k: Tensor, *_: Tensor) -> Tensors:
            function(qkv, table, cos, sin, q, k, EPS, **HEAD_SHAPE)
            return heads_of(qkv)[:2]

        return run

    def eager(qkv: Tensor, table: Tensor, cos: Tensor, sin: Tensor, q: Tensor, k: Tensor, *by_row: Tensor) -> Tensors:
        return normed_and_turned(qkv, q, k, *by_row)[:2]

    return Case(
        kernel="packed_qk_norm_rope",
        shape={"rows": rows, **HEAD_SHAPE, "head_dim": DIM},
        dtype=draw.dtype,
        make=make,
        triton=rotate(triton_qk_norm_rope_packed),
        twin=rotate(engine_reference.qk_norm_rope_packed),
        pytorch=eager,
        counted=0,
        # q and k read and written, both weights, the angles of each position once, a position a row.
        moved=lambda inputs: (
            (2 * rows * turned * DIM + 2 * DIM + 2 * cos.numel()) * inputs[0].element_size() + 4 * rows
        ),
        # Two products of up to 16 cancel: an element is a few roundings of theirs from its twin, not of its own.
        tolerance=(TOLERANCE[draw.dtype], 8 * TOLERANCE[draw.dtype]),
    )


def heads_of(qkv: Tensor) -> Tensors:
    """q, k and v of packed rows, (R, heads, D), views."""
    heads = qkv.view(qkv.shape[0], HEADS, DIM)
    return tuple(torch.split(heads, [SHAPE.q_heads, SHAPE.kv_heads, SHAPE.kv_heads], dim=1))


def normed_and_turned(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor) -> Tensors:
    """`heads_of` with q and k normed and rotated by PyTorch's operations; cos and sin (1, R, D)."""
    q, k, v = heads_of(qkv)
    q, k = reference.qk_norm_rope(q[None], k[None], q_weight, k_weight, cos, sin, EPS)
    return q[0].transpose(0, 1), k[0].transpose(0, 1), v


def embed_rows(rows: int, draw: Draw) -> Case:
    """Sum of 8 embeddings for a frame, a row of the prompt for others, then RMSNorm. PyTorch gets its indices ready."""
    from omnivoice_triton.kernels.embed import triton_embed_rows

    batch, books, ids = Batch(rows, draw.device), SHAPE.codebooks, SHAPE.audio_vocab
    source = batch["rows"][:, 0]
    is_frame = (source < 0)[:, None]
    frame, prompt = (-1 - source).clamp(min=0).long(), source.clamp(min=0).long()
    first_id = torch.arange(books, device=draw.device) * ids

    def make(seed: int) -> Tensors:
        canvas = draw.ids(seed, ids, batch.canvas_rows, books)
        values = draw.normal(seed, max(1, batch.prompt_rows), HIDDEN), draw.normal(seed + 1, books * ids, HIDDEN)
        weight, out = draw.normal(seed + 2, HIDDEN), (draw.empty(rows, HIDDEN) for _ in range(2))
        return batch["rows"], values[0], canvas, values[1], weight, *out, frame, prompt, is_frame, first_id

    def embed(function: Function) -> Function:
        def run(table: Tensor, source: Tensor, canvas: Tensor, codes: Tensor, weight: Tensor, *rest: Tensor) -> Tensors:
            function(table, source, canvas, codes, weight, EPS, x=rest[0], y=rest[1])
            return rest[0], rest[1]

        return run

    def eager(table: Tensor, source: Tensor, canvas: Tensor, codes: Tensor, weight: Tensor, *rest: Tensor) -> Tensors:
        frame, prompt, is_frame, first_id = rest[2:]
        x = torch.where(is_frame, F.embedding(canvas[frame] + first_id, codes).sum(1), source[prompt])
        return x, reference.rms_norm(x, weight, EPS)

    def moved(inputs: Tensors) -> int:
        # Each embedding that occurs once, though a guided frame's are gathered twice; prompt, weight, both outputs;
        # tokens, and the table of rows.
        embeddings = torch.unique(inputs[2] + first_id).numel()
        values = (embeddings + batch.prompt_rows + 1 + 2 * rows) * HIDDEN
        n_bytes: int = values * inputs[1].element_size() + 4 * (inputs[2].numel() + inputs[0].numel())
        return n_bytes

    return Case(
        kernel="embed_rows",
        shape={"rows": rows, "columns": HIDDEN, "codebooks": books},
        dtype=draw.dtype,
        make=make,
        triton=embed(triton_embed_rows),
        twin=embed(engine_reference.embed_rows),
        pytorch=eager,
        counted=0,
        moved=moved,
    )


def _quantised(inputs: Tensors, outputs: Tensors) -> Tensors:
    """(e4m3 rows, scales, …) multiplied out."""
    return (outputs[0].to(torch.float32) * outputs[1].to(torch.float32), *outputs[2:])


def eager_quantise(x: Tensor) -> Tensors:
    """Rows to e4m3 with their scales, by PyTorch's operations."""
    wide = x.to(torch.float32)
    amax = wide.abs().amax(-1, keepdim=True).clamp(min=fp8_reference.SMALLEST_AMAX)
    return (wide * (fp8_reference.FP8_MAX / amax)).to(fp8_reference.FP8), amax / fp8_reference.FP8_MAX


def quantise(kernel: str) -> Callable[[int, Draw], Case]:
    """The builder of one of the three kernels that put out FP8 rows."""

    def build(rows: int, draw: Draw) -> Case:
        if torch.device(draw.device).type == "cuda" and capability(draw.device) < 89:
            raise Unmeasured("FP8 needs compute capability 8.9")
        from omnivoice_triton.kernels import fp8

        width = SHAPE.intermediate if kernel == "swiglu_quantise" else HIDDEN

        def make(seed: int) -> Tensors:
            if kernel == "swiglu_quantise":
                given: Tensors = (draw.normal(seed, rows, 2 * width),)
            elif kernel == "add_norm_quantise":
                given = (*(draw.normal(seed + i, rows, width) for i in range(2)), draw.normal(seed + 2, width))
            else:
                given = (draw.normal(seed, rows, width),)
            unwritten = torch.full((rows, width), 0x7F, dtype=torch.uint8, device=draw.device)  # e4m3's NaN
            return *given, unwritten.view(fp8_reference.FP8), draw.empty(rows, 1, dtype=torch.float32)

        def call(function: Function) -> Function:
            def run(*inputs: Tensor) -> Tensors:
                *given, out, scale = inputs
                more = (EPS,) if kernel == "add_norm_quantise" else ()
                function(*given, *more, out=out, scale=scale)
                return (out, scale, given[1]) if kernel == "add_norm_quantise" else (out, scale)

            return run

        def eager(*inputs: Tensor) -> Tensors:
            if kernel == "add_norm_quantise":
                y, total = reference.add_rms_norm(inputs[0], inputs[1], inputs[2])
                return *eager_quantise(y), total
            if kernel == "swiglu_quantise":
                return eager_quantise(reference.swiglu(*inputs[0].chunk(2, dim=-1)))
            return eager_quantise(inputs[0])

        return Case(
            kernel=kernel,
            shape={"rows": rows, "columns": width},
            dtype=draw.dtype,
            make=make,
            triton=call(getattr(fp8, f"triton_{kernel}")),
            twin=call(getattr(fp8_reference, kernel)),
            pytorch=eager,
            counted=3 if kernel == "add_norm_quantise" else 1,
            values=_quantised,
            tolerance=E4M3,
        )

    return build


def snake(kernel: str) -> Callable[[int, Draw], Case]:
    """The builder of Snake with the bias before it, or of the sum that is kept and Snake of it.

    At the codec's last block: 32 channels, every sample of one utterance (120,000 of 5 s).
    """

    def build(rows: int, draw: Draw) -> Case:
        from omnivoice_triton.kernels import snake as ours

        channels, samples = 32, Batch(rows, draw.device).frames[0] * HOP
        adds = kernel == "add_snake"

        def make(seed: int) -> Tensors:
            alpha = 1 + 0.2 * draw.normal(seed, channels, dtype=torch.float32).clamp(-4, 4)
            alpha, bias = alpha.to(draw.dtype), draw.normal(seed + 1, channels)
            x, residual = (draw.normal(seed + 2 + i, 1, channels, samples) for i in range(2))
            return x, alpha.float(), bias.float(), *((residual,) if adds else ()), alpha, bias

        def call(function: Function) -> Function:
            def run(x: Tensor, alpha: Tensor, bias: Tensor, *rest: Tensor) -> Any:
                return function(x, alpha, bias=bias, **({"residual": rest[0]} if adds else {}))

            return run

        def eager(x: Tensor, wide_alpha: Tensor, wide_bias: Tensor, *rest: Tensor) -> Any:
            alpha, bias = (value[:, None] for value in rest[-2:])
            x = x + bias
            if adds:
                x = rest[0] + x
            y = x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)
            return (x, y) if adds else y

        return Case(
            kernel=kernel,
            shape={"batch": 1, "channels": channels, "samples": samples},
            dtype=draw.dtype,
            make=make,
            triton=call(getattr(ours, f"triton_{kernel}")),
            twin=call(getattr(reference, kernel)),
            pytorch=eager,
            counted=4 if adds else 3,
        )

    return build
