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


STORE, PARTIALS, SWIGLU, QK_ROPE, REDUCE = range(5)
"""What a Hopper GEMM does with its product."""
_BLOCK_K = 64
_MOST_SHARED = 232_448  # bytes a CTA may take at 9.0
_STATIC_SHARED = 1024


class HopperTile(NamedTuple):
    """How a GEMM is cut on compute capability 9.0.

    A CTA makes `rows` rows x 64 * `warpgroups` * `subtiles` columns (of gate and up together under SwiGLU, which needs
    2 subtiles); a cluster, `cluster` neighbouring row tiles. Of o and down: with as many splits as CTAs in a cluster
    the cluster adds up its parts itself, else partial sums are left to the norm.
    """

    rows: int
    warpgroups: int
    subtiles: int
    cluster: int
    stages: int
    splits: int = 1

    @property
    def swiglu(self) -> bool:
        """Never taken on the way in, as a `GemmTile` may."""
        return False

    @property
    def columns(self) -> int:
        """Rows of the weight in a tile."""
        return 64 * self.warpgroups * self.subtiles

    @property
    def sums(self) -> bool:
        """Whether the whole product is written, not partial sums of it."""
        return self.cluster == self.splits

    @property
    def hands_over(self) -> bool:
        """Whether the producer's registers go to the consumers; the kernel's own formula."""
        return self.warpgroups == 2 and self.subtiles * self.rows // 2 > 80

    @property
    def threads(self) -> int:
        """Of a CTA."""
        return 128 * self.warpgroups + (128 if self.hands_over else 32)

    def shared_bytes(self, epilogue: int) -> int:
        """Dynamic shared memory of a CTA."""
        columns = self.columns // 2 if epilogue == SWIGLU else self.columns
        staging = {PARTIALS: 0, REDUCE: self.rows * (columns + 4) * 4}.get(epilogue, self.rows * (columns + 8) * 2)
        return 1024 + self.stages * (self.columns + self.rows) * _BLOCK_K * 2 + staging

    def problem(self, epilogue: int, depth: int) -> str | None:
        """Why this tile can't be used for a product over `depth`, or None."""
        if self.rows % 16 or not 16 <= self.rows <= 256:
            return f"row tiles of {self.rows}: wanted a multiple of 16 up to 256"
        if self.warpgroups not in (1, 2) or self.subtiles not in (1, 2) or not 1 <= self.cluster <= 8:
            return "wanted 1 or 2 warpgroups and subtiles, and clusters of 1 to 8"
        if self.subtiles * self.rows // 2 > 176:
            return f"{self.subtiles} x {self.rows // 2} accumulators a thread: wanted at most 176"
        if self.splits < 1 or depth % (self.splits * _BLOCK_K):
            return f"K = {depth} in {self.splits} parts: wanted parts that are multiples of {_BLOCK_K}"
        if self.splits > 1 and epilogue not in (PARTIALS, REDUCE):
            return "partial sums where nothing adds them up"
        sharing = 1 if epilogue == REDUCE else self.cluster
        if self.columns // sharing % (16 if epilogue == SWIGLU else 8) or self.columns % sharing:
            return f"{self.columns} columns don't go into {sharing} shares of 8"
        if epilogue == REDUCE and (not self.sums or self.hands_over):
            return f"a cluster of {self.cluster} can't add up {self.splits} parts of {self.rows} rows"
        if epilogue == SWIGLU and self.subtiles != 2:
            return "SwiGLU takes 2 subtiles, gate and up"
        if epilogue == QK_ROPE and (self.columns != 128 or self.rows > 128 * self.warpgroups):
            return f"tiles of {self.columns} columns: wanted a head of 128, and at most 128 rows to a warpgroup"
        if self.stages < 2 or self.shared_bytes(epilogue) + _STATIC_SHARED > _MOST_SHARED:
            return (
                f"{self.stages} stages need {self.shared_bytes(epilogue)} bytes of shared memory: over {_MOST_SHARED}"
            )
        return None


class HopperAttentionTile(NamedTuple):
    """Packed attention on compute capability 9.0: `rows` query positions a tile (32 or 64), `stages` blocks of 64 keys
    in flight."""

    rows: int
    stages: int

    @property
    def warpgroups(self) -> int:
        """Each takes 32 positions of two heads."""
        return self.rows // 32

    @property
    def threads(self) -> int:
        """Of a CTA."""
        return 128 * self.warpgroups + 32

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a CTA: queries, the ring, and the result on its way out."""
        return 1024 + self.warpgroups * (64 * 128 * 2 + 64 * 136 * 2) + self.stages * 2 * 64 * 128 * 2

    def problem(self) -> str | None:
        """Why this tile can't be used, or None."""
        if self.rows not in (32, 64):
            return f"tiles of {self.rows} positions: wanted 32 or 64"
        if self.stages < 1 or self.shared_bytes + _STATIC_SHARED > _MOST_SHARED:
            return f"{self.stages} stages take {self.shared_bytes} bytes of shared memory: over {_MOST_SHARED}"
        return None


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
