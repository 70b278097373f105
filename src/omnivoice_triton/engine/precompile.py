"""Compile what the buckets need side by side, before the first capture: 30 kernels at 0.2 s each, one by one else."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from omnivoice_triton.engine.candidates import epilogue
from omnivoice_triton.engine.tiles import GEMMS, Tiles
from omnivoice_triton.kernels.tiles import HopperAttentionTile, HopperTile

Variant = tuple[HopperTile, int] | HopperAttentionTile


def variants(tiles: Tiles, rows: Iterable[int]) -> set[Variant]:
    """The CUDA C++ kernels that buckets of so many packed rows launch."""
    found: set[Variant] = set()
    for n in rows:
        attention = tiles.for_attention(n)
        if isinstance(attention, HopperAttentionTile):
            found.add(attention)
        for name in GEMMS:
            tile = tiles.for_gemm(name, n)
            if isinstance(tile, HopperTile):
                found.add((tile, epilogue(name, tile)))
    return found


def precompile(tiles: Tiles, rows: Iterable[int], *, bf16: bool) -> int:
    """Put the machine code of all of them into the cache; returns how many there are. Needs no GPU.

    Args:
        tiles: the choices.
        rows: packed rows of every bucket.
        bf16: the weights' dtype; fp16 else.
    """
    wanted = variants(tiles, rows)
    compile_all(wanted, bf16=bf16, pdl=tiles.pdl)
    return len(wanted)


def compile_all(wanted: Collection[Variant], *, bf16: bool, pdl: bool) -> None:
    """Compile kernels side by side into the cache; the first failure is raised."""
    if not wanted:
        return
    from omnivoice_triton.kernels import hopper_attention, hopper_gemm

    def compile_one(variant: Variant) -> None:
        if isinstance(variant, HopperAttentionTile):
            hopper_attention.compile_variant(variant, bf16, pdl)
        else:
            hopper_gemm.compile_variant(variant[0], variant[1], bf16, pdl)

    with ThreadPoolExecutor() as pool:
        list(pool.map(compile_one, wanted))
