"""Launches of the kernels for compute capability 9.0 at awkward sizes: one row, a bucket's edge, a row past a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from omnivoice_triton.kernels import tables
from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile
from omnivoice_triton.verify.kernel_case import Draw

ROWS = (1, 64, 81, 290)
HEADS = {"q_heads": 16, "kv_heads": 8}


def usable(draw: Draw) -> bool:
    """Whether these kernels run in that dtype on that device."""
    return (
        torch.device(draw.device).type == "cuda"
        and draw.dtype is not torch.float32
        and torch.cuda.get_device_capability(draw.device) == (9, 0)
    )


def _gemm(draw: Draw) -> Iterator[Callable[[], object]]:
    if usable(draw):
        from omnivoice_triton.kernels.hopper_gemm import hopper_gemm

        weight = draw.normal(0, 1032, 2048)
        for rows in ROWS:
            for tile in (HopperTile(80, 2, 2, 2, 3), HopperTile(80, 1, 1, 2, 8, 2), HopperTile(256, 2, 1, 1, 3)):
                out = torch.empty(rows, 1032, dtype=draw.dtype, device=draw.device)
                yield partial(hopper_gemm, draw.normal(1, rows, 2048), weight, tile, out=out, pdl=True)


def _split_k(draw: Draw) -> Iterator[Callable[[], object]]:
    if usable(draw):
        from omnivoice_triton.kernels.hopper_gemm import hopper_split_k

        weight = draw.normal(0, 1024, 3072)
        for rows in ROWS:
            tile = HopperTile(64, 2, 1, 1, 8, 3)
            partials = torch.empty(3, rows, 1024, device=draw.device)
            yield partial(hopper_split_k, draw.normal(1, rows, 3072), weight, tile, partials=partials, pdl=True)


def _gate_up(draw: Draw) -> Iterator[Callable[[], object]]:
    if usable(draw):
        from omnivoice_triton.kernels.hopper_gemm import hopper_gate_up

        weight = draw.normal(0, 6144, 1024, std=0.05)
        for rows in ROWS:
            for tile in (HopperTile(64, 2, 2, 1, 5), HopperTile(160, 2, 2, 2, 3)):
                out = torch.empty(rows, 3072, dtype=draw.dtype, device=draw.device)
                yield partial(hopper_gate_up, draw.normal(1, rows, 1024), weight, tile, out=out, pdl=True)


def _qkv_rope(draw: Draw) -> Iterator[Callable[[], object]]:
    if usable(draw):
        from omnivoice_triton.kernels.hopper_gemm import hopper_qkv_rope

        weight, norm = draw.normal(0, 4096, 1024, std=0.03), draw.norm_weight(1, 128)
        for rows in ROWS:
            table = torch.zeros(rows, tables.ROW_WIDTH, dtype=torch.int32, device=draw.device)
            table[:, tables.ROW_POSITION] = torch.arange(rows, device=draw.device, dtype=torch.int32)
            cos, sin = draw.angles(rows, 128)
            for tile in (HopperTile(80, 2, 1, 1, 6), HopperTile(48, 1, 2, 2, 4)):
                qkv = torch.empty(rows, 4096, dtype=draw.dtype, device=draw.device)
                x = draw.normal(2, rows, 1024)
                angles = (table, cos, sin, norm, norm, 1e-6)
                yield partial(hopper_qkv_rope, x, weight, *angles, tile, q_heads=16, kv_heads=8, qkv=qkv, pdl=True)


def _attention(draw: Draw) -> Iterator[Callable[[], object]]:
    if usable(draw):
        from omnivoice_triton.kernels.hopper_attention import hopper_attention

        for lengths in ((1,), (64, 65), (1, 127, 128, 34)):
            for tile in (HopperAttentionTile(32, 3), HopperAttentionTile(64, 2)):
                qkv = draw.normal(0, sum(lengths), 4096)
                out = torch.empty(sum(lengths), 2048, dtype=draw.dtype, device=draw.device)
                entries = _tiles(lengths, tile.rows).to(draw.device)
                yield partial(hopper_attention, qkv, entries, **HEADS, scale=128**-0.5, tile=tile, out=out, pdl=True)


def _tiles(lengths: tuple[int, ...], rows: int) -> torch.Tensor:
    """Segments one after another, and an unused entry."""
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    entries = [(s, n, at) for s, n in zip(starts, lengths, strict=True) for at in range(0, n, rows)] + [(0, 0, 0)]
    table = torch.zeros(len(entries), tables.TILE_WIDTH, dtype=torch.int32)
    table[:, [tables.TILE_START, tables.TILE_LENGTH, tables.TILE_OFFSET]] = torch.tensor(entries, dtype=torch.int32)
    return table


LAUNCHES: tuple[tuple[str, Callable[[Draw], Iterator[Callable[[], object]]]], ...] = (
    ("hopper_gemm", _gemm),
    ("hopper_split_k", _split_k),
    ("hopper_gate_up", _gate_up),
    ("hopper_qkv_rope", _qkv_rope),
    ("hopper_attention", _attention),
)
