"""What `tune` tries: every tile that could be the fastest at a number of rows.

Hopper's tiles are many (rows, warpgroups, clusters, stages, splits), so they are ranked by a model of what holds a CTA
before any is timed: arithmetic of an SM, bytes into its shared memory, and bytes that all of them read out of L2.
"""

from __future__ import annotations

from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.kernels.tiles import (
    PARTIALS,
    QK_ROPE,
    REDUCE,
    STORE,
    SWIGLU,
    GemmTile,
    HopperAttentionTile,
    HopperTile,
    VarlenTile,
)

ATTENTION_TILES = tuple(
    VarlenTile(rows, block_n, warps, 2) for rows, warps in ((16, 4), (32, 4), (64, 8)) for block_n in (32, 64, 128)
)
HOPPER_ATTENTION_TILES = tuple(HopperAttentionTile(rows, stages) for rows in (32, 64) for stages in (2, 3, 4))

_SHAPES = ((64, 64, 4), (64, 128, 4), (128, 128, 8))
GEMM_TILES: dict[str, tuple[GemmTile, ...]] = {
    "qkv": tuple(GemmTile(m, 128, k, 1, w, s) for m, w in ((64, 4), (128, 8)) for k in (64, 128) for s in (3, 4)),
    "gate_up": tuple(
        GemmTile(m, n, 64, 1, w, s)
        for m, n, w in ((64, 64, 4), (64, 128, 8), (128, 64, 8), (128, 128, 8))
        for s in (3, 4)
    ),
    "o": tuple(GemmTile(m, n, 64, p, w, s) for m, n, w in _SHAPES for p in (1, 2, 4) for s in (3, 4)),
    "down": tuple(
        GemmTile(m, n, 64, p, w, s, swiglu)
        for m, n, w in _SHAPES
        for p in (1, 2, 4)
        for s in (3, 4)
        for swiglu in (False, True)
    ),
}

_FIXED = {"qkv": QK_ROPE, "gate_up": SWIGLU, "heads": STORE}


def epilogue(name: str, tile: HopperTile) -> int:
    """What the kernel of a tile does with the product of that GEMM."""
    if name in _FIXED:
        return _FIXED[name]
    return PARTIALS if not tile.sums else REDUCE if tile.splits > 1 else STORE


# Of an H100 or H200, per SM and clock, or for all SMs: 132 SMs, wgmma's rate, what L2 delivers.
_SMS = {1: 132, 2: 130}  # in clusters of so many: they don't cross a GPC, and a GPC can have an odd number
_CLOCK_HZ = 1.7e9
_FLOPS = 4096
_SHARED_BYTES = 64
_L2_BYTES_A_SECOND = 1.1e13
_START_SECONDS = 2.5e-6  # until the first product of a CTA, and its epilogue


def fits_hopper(shape: BackboneShape) -> bool:
    """Whether the CUDA C++ kernels for compute capability 9.0 can run this model: heads of 128, two to a key head."""
    return shape.head_dim == 128 and shape.q_heads == 2 * shape.kv_heads


def hopper_tiles(name: str, rows: int, shape: BackboneShape, *, most: int = 24) -> tuple[HopperTile, ...]:
    """The most promising tiles of one GEMM at `rows` packed rows, best guess first.

    Args:
        name: one of `tiles.GEMMS`.
        rows: packed rows.
        shape: of the model.
        most: how many to return.
    """
    columns, depth = _product(name, shape)
    found: dict[HopperTile, float] = {}
    for tile in _all(rows, _PLAIN if name in _FIXED else _SPLIT, gated=name == "gate_up"):
        kind = epilogue(name, tile)
        if kind == SWIGLU and columns // 2 % (tile.columns // 2):
            continue
        fitting = [n for n in range(3, 11) if tile._replace(stages=n).problem(kind, depth) is None]
        if fitting:  # a deeper ring was seldom slower, and one depth a tile leaves time for more tiles
            made = tile._replace(stages=fitting[-1])
            found[made] = _seconds(made, rows, columns, depth)
    return tuple(sorted(found, key=lambda tile: (round(found[tile], 8), -tile.stages))[:most])


def _product(name: str, shape: BackboneShape) -> tuple[int, int]:
    """Columns and depth of a GEMM."""
    return {
        "qkv": (shape.qkv_width, shape.hidden),
        "o": (shape.hidden, shape.attention_width),
        "gate_up": (2 * shape.intermediate, shape.hidden),
        "down": (shape.hidden, shape.intermediate),
        "heads": (shape.logits_width, shape.hidden),
    }[name]


# Clusters and parts of K: shared weights; partial sums; sums within a cluster. Larger clusters are left out: which fit
# differs from one H200 to the next, and 32 clusters of 4 took two rounds on one of two.
_PLAIN = ((1, 1), (2, 1))
_SPLIT = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 2))


def _all(rows: int, parts: tuple[tuple[int, int], ...], *, gated: bool) -> list[HopperTile]:
    sizes = {min(256, -(-rows // (16 * count)) * 16) for count in (1, 2, 3, 4, 5, 6, 8, 12, 16)} | {64, 128, 160}
    return [
        HopperTile(size, groups, subtiles, cluster, 2, splits)
        for size in sorted(sizes)
        if size >= 32 or size >= rows
        for groups, subtiles in ((1, 1), (1, 2), (2, 1), (2, 2))
        # 128 columns are better off with two warpgroups; SwiGLU alone needs two subtiles.
        if gated or (groups, subtiles) != (1, 2)
        for cluster, splits in parts
        if splits == cluster or cluster <= -(-rows // size)
    ]


def _seconds(tile: HopperTile, rows: int, columns: int, depth: int) -> float:
    """A guess, good for an order only."""
    sharing = 1 if tile.sums else tile.cluster
    row_tiles = -(-rows // (tile.rows * sharing)) * sharing
    ctas = row_tiles * -(-columns // tile.columns) * tile.splits
    inner = depth // tile.splits
    arithmetic = 2 * tile.rows * tile.columns * inner / _FLOPS
    moved = (tile.rows + tile.columns) * inner * 2
    read = (tile.rows + tile.columns / sharing) * inner * 2
    # Deeper rings hide latency, up to a point.
    cta = max(arithmetic, moved / _SHARED_BYTES) / _CLOCK_HZ * (1 + 0.3 / tile.stages)
    waves = -(-ctas // _SMS[tile.cluster])
    sums = tile.splits * rows * columns * 8 / _L2_BYTES_A_SECOND if not tile.sums else 0.0
    return max(waves * cta, ctas * read / _L2_BYTES_A_SECOND) + _START_SECONDS + sums
