"""The packed operations of one back end: Triton kernels, or their plain PyTorch twins on any device.

The back end is chosen once, by name or by the device, never by an exception. Both have the same signatures, so the
engine is one code path and what the CPU tests prove of it holds on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    qkv_rope: Op
    gate_up: Op
    gemm: Op
    int8_attention: Op
    quantise_rows: Op
    add_norm_quantise: Op
    swiglu_quantise: Op
    scaled_mm: Op
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


def get_ops(backend: str, *, pdl: bool = False) -> Ops:
    """The operations of `triton` or `reference`; with `pdl` Triton's are launched dependent on the kernel before."""
    if backend == "reference":
        from omnivoice_triton.kernels import engine_reference as ref
        from omnivoice_triton.kernels import fp8_reference, int8_reference, unmask_reference

        return Ops(
            backend,
            embed_rows=ref.embed_rows,
            qk_norm_rope=ref.qk_norm_rope_packed,
            attention=ref.varlen_attention,
            add_norm=ref.packed_add_norm,
            swiglu=ref.swiglu,
            split_k=ref.split_k,
            qkv_rope=ref.qkv_rope,
            gate_up=ref.gate_up,
            gemm=ref.gemm,
            int8_attention=int8_reference.packed_int8_attention,
            quantise_rows=fp8_reference.quantise_rows,
            add_norm_quantise=fp8_reference.add_norm_quantise,
            swiglu_quantise=fp8_reference.swiglu_quantise,
            scaled_mm=fp8_reference.scaled_mm,
            score_cells=unmask_reference.score_cells,
            select_cells=partial(unmask_reference.select_cells, choose=unmask_reference.as_upstream),
        )
    from omnivoice_triton.kernels import (
        embed,
        fp8,
        gate_up,
        hopper_attention,
        hopper_gemm,
        packed_int8,
        packed_norm,
        qkv,
        qkv_rope,
        scaled_mm,
        score_cells,
        select_cells,
        split_k,
        swiglu,
        varlen_attention,
    )
    from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile

    def by_tile(triton_op: Op, hopper_op: Op) -> Op:
        """The kernel that a tile is for."""

        def run(*args: Any, **kwargs: Any) -> None:
            tile = kwargs["tile"] if "tile" in kwargs else next(arg for arg in args if isinstance(arg, tuple))
            hopper = isinstance(tile, (HopperTile, HopperAttentionTile))
            (hopper_op if hopper else triton_op)(*args, **kwargs, pdl=pdl)

        return run

    return Ops(
        backend,
        embed_rows=partial(embed.triton_embed_rows, pdl=pdl),
        qk_norm_rope=partial(qkv.triton_qk_norm_rope_packed, pdl=pdl),
        attention=by_tile(varlen_attention.triton_varlen_attention, hopper_attention.hopper_attention),
        add_norm=partial(packed_norm.triton_packed_add_norm, pdl=pdl),
        swiglu=swiglu.triton_swiglu_forward,
        split_k=by_tile(split_k.triton_split_k, hopper_gemm.hopper_split_k),
        qkv_rope=by_tile(qkv_rope.triton_qkv_rope, hopper_gemm.hopper_qkv_rope),
        gate_up=by_tile(gate_up.triton_gate_up, hopper_gemm.hopper_gate_up),
        gemm=partial(hopper_gemm.hopper_gemm, pdl=pdl),
        int8_attention=partial(packed_int8.triton_packed_int8_attention, pdl=pdl),
        quantise_rows=partial(fp8.triton_quantise_rows, pdl=pdl),
        add_norm_quantise=partial(fp8.triton_add_norm_quantise, pdl=pdl),
        swiglu_quantise=partial(fp8.triton_swiglu_quantise, pdl=pdl),
        scaled_mm=scaled_mm.scaled_mm,
        score_cells=partial(score_cells.triton_score_cells, pdl=pdl),
        select_cells=partial(select_cells.triton_select_cells, pdl=pdl),
    )
