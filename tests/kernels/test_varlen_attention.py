"""Packed attention and the kernel before it, against their twins."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.qkv import triton_qk_norm_rope_packed
from omnivoice_triton.kernels.tiles import VarlenTile, varlen_tile
from omnivoice_triton.kernels.varlen_attention import triton_varlen_attention

from .packed import Packed, make_packed

REQUESTS = [(1, 1, True), (20, 17, True), (30, 2, False), (9, 40, True)]


def random_qkv(packed: Packed, heads: int, dim: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(packed.bucket.rows, heads * dim, generator=generator).to(device, dtype)


@pytest.mark.parametrize(
    ("dtype", "q_heads", "kv_heads", "dim", "tile"),
    [
        (torch.float32, 4, 2, 16, VarlenTile(8, 16, 4, 1)),
        (torch.float32, 3, 1, 24, VarlenTile(5, 16, 4, 1)),  # odd group, odd width
        (torch.float16, 2, 1, 128, VarlenTile(32, 64, 4, 2)),
        (torch.float16, 2, 2, 32, VarlenTile(16, 32, 4, 1)),
    ],
)
def test_equals_twin(device: str, dtype: torch.dtype, q_heads: int, kv_heads: int, dim: int, tile: VarlenTile) -> None:
    packed = make_packed(REQUESTS, device=device, tile_rows=tile.rows)
    qkv = random_qkv(packed, q_heads + 2 * kv_heads, dim, dtype, device)
    qkv[packed.used_rows :] = float("nan")  # padding must not be attended
    settings = {"q_heads": q_heads, "kv_heads": kv_heads, "scale": dim**-0.5, "tile": tile}
    want = torch.full((packed.bucket.rows, q_heads * dim), float("nan"), dtype=dtype, device=device)
    got = want.clone()
    ref.varlen_attention(qkv, packed.table("tiles"), out=want, **settings)
    triton_varlen_attention(qkv, packed.table("tiles"), out=got, **settings)
    used = packed.used_rows
    tolerance = 2e-3 if dtype is torch.float16 else 2e-5
    torch.testing.assert_close(got[:used], want[:used], rtol=tolerance, atol=tolerance)
    assert got[used:].isnan().all()  # rows of no tile aren't written


def test_attention_is_bidirectional_and_stays_in_its_segment(device: str) -> None:
    """Planted faults: a causal kernel leaves query 0 untouched by the last key; a leaking one moves the neighbours."""
    packed = make_packed([(3, 5, True), (2, 4, True)], device=device, tile_rows=8)
    tile = VarlenTile(8, 16, 4, 1)
    qkv = random_qkv(packed, 4, 16, torch.float32, device)
    settings = {"q_heads": 2, "kv_heads": 1, "scale": 0.25, "tile": tile}

    def attend(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(packed.bucket.rows, 32, device=device)
        triton_varlen_attention(x, packed.table("tiles"), out=out, **settings)
        return out

    before = attend(qkv)
    start, length = packed.segments[0]
    changed = qkv.clone()
    changed[start + length - 1, 2 * 16 :] += 1.0  # k and v of the segment's last row
    moved = (attend(changed) - before).abs().amax(dim=1) > 1e-6
    assert moved[start : start + length].all()
    assert not moved[start + length :].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("q_heads", "kv_heads", "dim"), [(4, 2, 16), (16, 8, 128), (3, 1, 24)])
def test_qk_norm_rope_equals_twin(device: str, dtype: torch.dtype, q_heads: int, kv_heads: int, dim: int) -> None:
    packed = make_packed([(2, 3, True), (1, 1, False)], device=device)
    qkv = random_qkv(packed, q_heads + 2 * kv_heads, dim, dtype, device)
    angles = torch.arange(16.0)[:, None] * torch.rand(1, dim // 2, generator=torch.Generator().manual_seed(0))
    cos, sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)
    q_weight, k_weight = (torch.rand(dim, generator=torch.Generator().manual_seed(s)).to(device, dtype) for s in (1, 2))
    want, got = qkv.clone(), qkv.clone()
    args = (packed.table("rows"), cos, sin, q_weight, k_weight, 1e-6)
    ref.qk_norm_rope_packed(want, *args, q_heads=q_heads, kv_heads=kv_heads)
    triton_qk_norm_rope_packed(got, *args, q_heads=q_heads, kv_heads=kv_heads)
    # The last bit of rstd may differ, which moves a rounding now and then: one ulp of the largest value.
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    v_columns = slice((q_heads + kv_heads) * dim, None)
    assert torch.equal(got[:, v_columns], qkv[:, v_columns])


def test_tiles_suit_the_gpu() -> None:
    """Without matrix instructions a tile of 64 rows spills to local memory."""
    assert varlen_tile(128, 2, 2, 90) == VarlenTile(32, 64, 4, 2)
    assert varlen_tile(128, 2, 2, 75) == VarlenTile(16, 32, 8, 1)
    assert varlen_tile(128, 2, 4, 90).rows == 8


def test_bad_input_names_the_fault(device: str) -> None:
    packed = make_packed([(3, 5, True)], device=device)
    qkv = random_qkv(packed, 4, 16, torch.float32, device)
    out = torch.zeros(packed.bucket.rows, 32, device=device)
    tile = VarlenTile(8, 16, 4, 1)
    with pytest.raises(ValueError, match=r"wanted 2 \+ 2 x 3 heads"):
        triton_varlen_attention(qkv, packed.table("tiles"), q_heads=2, kv_heads=3, scale=1.0, tile=tile, out=out)
    with pytest.raises(ValueError, match=r"out is torch\.float64"):
        triton_varlen_attention(
            qkv, packed.table("tiles"), q_heads=2, kv_heads=1, scale=1.0, tile=tile, out=out.double()
        )
