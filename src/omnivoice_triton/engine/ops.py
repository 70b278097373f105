"""The packed operations of one back end: Triton kernels, or their plain PyTorch twins on any device.

The back end is chosen once, by name or by the device, never by an exception. Both have the same signatures, so the
engine is one code path and what the CPU tests prove of it holds on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from omnivoice_triton.speech import InputError, ModeUnavailable

BACKENDS = ("auto", "triton", "reference")

Op = Callable[..., Any]


@dataclass(frozen=True)
class Ops:
    """One function for each packed operation; each writes into buffers that the caller owns."""

    name: str
    embed_rows: Op
    qk_norm_rope: Op
    attention: Op
    add_norm: Op
    swiglu: Op
    split_k: Op
    score_cells: Op
    select_cells: Op


def resolve_backend(backend: str, device: torch.device) -> str:
    """`triton` or `reference` for a request of one of `BACKENDS`: `auto` takes Triton on CUDA devices.

    Raises:
        InputError: no such back end.
        ModeUnavailable: Triton was asked for where it can't run.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "triton" if device.type == "cuda" else "reference"
    if backend == "triton" and device.type != "cuda":
        from omnivoice_triton.kernels.launch import interpreting

        if device.type != "cpu" or not interpreting():
            raise ModeUnavailable(
                f"backend 'triton' needs a CUDA device, not {device}: use 'reference' (or TRITON_INTERPRET=1 for tests)"
            )
    return backend


def get_ops(backend: str) -> Ops:
    """The operations of `triton` or `reference`."""
    if backend == "reference":
        from omnivoice_triton.kernels import engine_reference as ref

        return Ops(
            backend,
            embed_rows=ref.embed_rows,
            qk_norm_rope=ref.qk_norm_rope_packed,
            attention=ref.varlen_attention,
            add_norm=ref.packed_add_norm,
            swiglu=ref.swiglu,
            split_k=ref.split_k,
            score_cells=ref.score_cells,
            select_cells=ref.select_cells,
        )
    from omnivoice_triton.kernels import embed, gemm, packed_norm, qkv, swiglu, unmask, varlen_attention

    return Ops(
        backend,
        embed_rows=embed.triton_embed_rows,
        qk_norm_rope=qkv.triton_qk_norm_rope_packed,
        attention=varlen_attention.triton_varlen_attention,
        add_norm=packed_norm.triton_packed_add_norm,
        swiglu=swiglu.triton_swiglu_forward,
        split_k=gemm.triton_split_k,
        score_cells=unmask.triton_score_cells,
        select_cells=unmask.triton_select_cells,
    )
