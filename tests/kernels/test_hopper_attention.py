"""The CUDA C++ attention for compute capability 9.0: compiled everywhere, computed on such a GPU."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels import nvrtc, tables
from omnivoice_triton.kernels.hopper_attention import hopper_attention, variant_source
from omnivoice_triton.kernels.tiles import HopperAttentionTile, VarlenTile

from .test_hopper_gemm import error, needs_hopper

TILES = [HopperAttentionTile(32, 2), HopperAttentionTile(32, 4), HopperAttentionTile(64, 3)]
HEADS = {"q_heads": 16, "kv_heads": 8, "scale": 128**-0.5}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("tile", TILES)
def test_nothing_spills(tile: HopperAttentionTile, bf16: bool) -> None:
    assert tile.problem() is None
    defines, prologue = variant_source(tile, bf16, True)
    text = nvrtc.assembled("hopper_attention", defines, prologue)
    _, messages = nvrtc.compile_cubin("hopper_attention", text, "sm_90a", anew=True)
    assert "0 bytes spill stores, 0 bytes spill loads" in messages
    assert "serialized" not in messages


def test_bad_input() -> None:
    assert "wanted 32 or 64" in (HopperAttentionTile(48, 2).problem() or "")
    assert "shared memory" in (HopperAttentionTile(64, 6).problem() or "")
    qkv, tiles = torch.zeros(4, 4096), torch.zeros(1, tables.TILE_WIDTH, dtype=torch.int32)
    with pytest.raises(ValueError, match="a CUDA device"):
        hopper_attention(qkv, tiles, **HEADS, tile=TILES[0], out=torch.zeros(4, 2048))


def table(lengths: list[int], rows: int) -> torch.Tensor:
    """Tiles of segments that follow each other, and three unused entries."""
    entries, start = [], 0
    for length in lengths:
        for offset in range(0, length, rows):
            entry = [0] * tables.TILE_WIDTH
            entry[tables.TILE_START], entry[tables.TILE_LENGTH], entry[tables.TILE_OFFSET] = start, length, offset
            entries.append(entry)
        start += length
    entries += [[0] * tables.TILE_WIDTH] * 3
    return torch.tensor(entries, dtype=torch.int32, device="cuda")


@needs_hopper
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[1], [5, 64, 65], [165, 125], [63, 1, 128, 33], [400, 375], [1200]])
@pytest.mark.parametrize("tile", TILES)
def test_segments_see_themselves_alone(dtype: torch.dtype, lengths: list[int], tile: HopperAttentionTile) -> None:
    used, beyond = sum(lengths), 7
    qkv = torch.randn(used + beyond, 4096, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    qkv[used:] = float("inf")  # a neighbour's broken values must not come through a weight of 0
    tiles = table(lengths, tile.rows)
    out = torch.empty(used + beyond, 2048, dtype=dtype, device="cuda")
    hopper_attention(qkv, tiles, **HEADS, tile=tile, out=out, pdl=True)
    twin = VarlenTile(tile.rows, 64, 4, 2)
    want = torch.empty(used + beyond, 2048, dtype=torch.float64, device="cuda")
    ref.varlen_attention(qkv.double(), tiles, **HEADS, tile=twin, out=want)
    base = torch.empty_like(out)
    ref.varlen_attention(qkv, tiles, **HEADS, tile=twin, out=base)
    assert torch.isfinite(out[:used]).all()
    assert torch.isnan(out[used:]).all()  # rows of no tile are left alone
    assert error(out[:used], want[:used]) <= max(1.2 * error(base[:used], want[:used]), 1e-3)


@needs_hopper
@pytest.mark.gpu
def test_same_bits_each_time() -> None:
    qkv = torch.randn(290, 4096, generator=torch.Generator().manual_seed(0)).to("cuda", torch.float16)
    tiles = table([165, 125], 32)
    outs = [torch.empty(290, 2048, dtype=torch.float16, device="cuda") for _ in range(3)]
    for out, pdl in zip(outs, (False, True, True), strict=True):
        hopper_attention(qkv, tiles, **HEADS, tile=TILES[1], out=out, pdl=pdl)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[1], outs[2])
