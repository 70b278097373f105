"""How the packed kernels cut their work: plain values, apart from the kernels, so that reading them needs no GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class VarlenTile(NamedTuple):
    """Packed attention: `rows` query positions a tile (what tile tables are made for), `block_n` keys at a time."""

    rows: int
    block_n: int
    num_warps: int
    num_stages: int


class GemmTile(NamedTuple):
    """A Triton GEMM: blocks of M, N and K, and into how many partial sums K is cut (1 where sums aren't wanted)."""

    block_m: int
    block_n: int
    block_k: int
    splits: int
    num_warps: int
    num_stages: int
    swiglu: bool = False
    """Of `down`: take silu(gate) * up on the way in, in place of a kernel before."""


@lru_cache(maxsize=64)
def varlen_tile(head_dim: int, group: int, itemsize: int, capability: int) -> VarlenTile:
    """The attention tile for a head size, query heads per key head, bytes per value and compute capability (75, 90, …).

    Below 8.0 Triton has no matrix instructions: tiles there are small enough for products in registers, without spills
    (204 registers) and in 32 KB of shared memory. From 8.0 up the 16-bit tile takes 80 KB, which every GPU has.
    """
    if itemsize >= 4 or head_dim > 128:
        return VarlenTile(max(1, 16 // group), 32, 4, 1)
    if capability < 80:
        return VarlenTile(max(1, 32 // group), 32, 8, 1)
    return VarlenTile(max(1, 64 // group), 64, 4, 2)
