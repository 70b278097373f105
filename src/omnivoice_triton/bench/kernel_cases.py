"""What `bench kernels` measures: each kernel of the six modes in the shapes of the backbone, then turbo's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from omnivoice_triton import kernels
from omnivoice_triton.bench import kernel_attention_cases as attention
from omnivoice_triton.bench import kernel_decode_cases as decode
from omnivoice_triton.bench import kernel_gemm_cases as gemm
from omnivoice_triton.bench import kernel_packed_cases as packed
from omnivoice_triton.bench.kernel_attention_cases import masked_sdpa
from omnivoice_triton.bench.kernel_case import Case, Tensors
from omnivoice_triton.bench.kernel_packed import Draw, split_rows
from omnivoice_triton.kernels import reference

HIDDEN, INTERMEDIATE = 1024, 3072
Q_HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128


@dataclass(frozen=True)
class Plan:
    """A case before it is built: a kernel that can't run here raises only then."""

    kernel: str
    build: Callable[[], Case]
    once: bool = False
    """At the first number of rows alone: its shape is the codec's."""
    compile_once: bool = False
    """torch.compile, which takes seconds a case, at the first number of rows alone."""


SIX_MODES = ("rms_norm", "swiglu", "swiglu", "fused_norm_residual", "rope", "attention")
TURBO: dict[str, Callable[[int, Draw], Case]] = {
    "packed_attention": attention.packed_attention,
    "hopper_attention": attention.hopper_attention,
    "packed_add_norm": packed.packed_add_norm,
    "packed_qk_norm_rope": packed.packed_qk_norm_rope,
    "embed_rows": packed.embed_rows,
    "score_cells": decode.score_cells,
    "select_cells": decode.select_cells,
    "hopper_qkv_rope": gemm.qkv_rope,
    "hopper_gate_up": gemm.gate_up,
    "hopper_o": gemm.product("o"),
    "hopper_down": gemm.product("down"),
    "hopper_heads": gemm.product("heads"),
    "snake": packed.snake("snake"),
    "add_snake": packed.snake("add_snake"),
    "quantise_rows": packed.quantise("quantise_rows"),
    "add_norm_quantise": packed.quantise("add_norm_quantise"),
    "swiglu_quantise": packed.quantise("swiglu_quantise"),
    "packed_int8_attention": attention.packed_int8_attention,
}
ONCE = ("snake", "add_snake")


def plans(rows: int, dtype: torch.dtype, device: str = "cuda") -> list[Plan]:
    """Every kernel of the package at that many rows, not built yet."""
    draw = Draw(dtype, device)
    six = [Plan(name, lambda at=at: cases(rows, dtype, device)[at]) for at, name in enumerate(SIX_MODES)]  # type: ignore[misc]
    turbo = [
        Plan(name, partial(build, rows, draw), once=name in ONCE, compile_once=True) for name, build in TURBO.items()
    ]
    return [*six, *turbo]


def cases(rows: int, dtype: torch.dtype, device: str = "cuda") -> list[Case]:
    """Every kernel of the six modes at that many rows, in the shapes of OmniVoice's backbone."""

    def normal(seed: int, *shape: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    lengths = split_rows(rows)
    batch, size = len(lengths), max(lengths)
    valid = torch.arange(size, device=device) < torch.tensor(lengths, device=device)[:, None]
    mask = (valid[:, None, :] | torch.eye(size, dtype=torch.bool, device=device))[:, None]  # padding sees itself
    heads = {"batch": batch, "rows": size, "q_heads": Q_HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}

    def rope_inputs(seed: int) -> Tensors:
        angles = torch.arange(size, device=device)[:, None] * 1e6 ** (-torch.arange(0, 1, 2 / HEAD_DIM, device=device))
        angles = torch.cat((angles, angles), -1)[None]
        q, k = (normal(seed, batch, size, n, HEAD_DIM) for n in (Q_HEADS, KV_HEADS))
        return q, k, normal(seed, HEAD_DIM), normal(seed + 1, HEAD_DIM), angles.cos().to(dtype), angles.sin().to(dtype)

    def attention_inputs(seed: int) -> Tensors:
        q, k, v = (normal(seed + i, batch, n, size, HEAD_DIM) for i, n in enumerate((Q_HEADS, KV_HEADS, KV_HEADS)))
        return q, k, v, torch.tensor(lengths, dtype=torch.int32, device=device), mask

    made = [
        Case(
            kernel="rms_norm",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, HIDDEN)),
            triton=kernels.triton_rms_norm,
            twin=reference.rms_norm,
            pytorch=reference.rms_norm,
            counted=2,
        ),
        Case(
            kernel="fused_norm_residual",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, rows, HIDDEN), normal(seed + 2, HIDDEN)),
            triton=kernels.triton_fused_add_rms_norm,
            twin=reference.add_rms_norm,
            pytorch=reference.add_rms_norm,
            counted=3,
        ),
        Case(
            kernel="rope",
            shape=heads,
            dtype=dtype,
            make=rope_inputs,
            triton=kernels.triton_qk_norm_rope,
            twin=reference.qk_norm_rope,
            pytorch=reference.qk_norm_rope,
            counted=6,
        ),
        Case(
            kernel="attention",
            shape={**heads, "lengths": list(lengths)},
            dtype=dtype,
            make=attention_inputs,
            triton=lambda q, k, v, lengths, mask: kernels.int8_qk_attention(q, k, v, lengths),
            twin=lambda q, k, v, lengths, mask: reference.int8_qk_attention(q, k, v, lengths),
            pytorch=lambda q, k, v, lengths, mask: masked_sdpa(q, k, v, mask),
            counted=4,
            flop=sum(4.0 * n * n * HEAD_DIM * Q_HEADS for n in lengths),
        ),
    ]
    swiglu = [
        Case(
            kernel="swiglu",
            shape={"rows": rows, "columns": columns},
            dtype=dtype,
            make=lambda seed, n=columns: (normal(seed, rows, n), normal(seed + 1, rows, n)),  # type: ignore[misc]
            triton=kernels.triton_swiglu_forward,
            twin=reference.swiglu,
            pytorch=reference.swiglu,
            counted=2,
        )
        for columns in (HIDDEN, INTERMEDIATE)
    ]
    return [*made[:1], *swiglu, *made[1:]]
