"""Split-K GEMM and the add + norm that sums its partials, against their twins."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.gemm import triton_gate_up, triton_qkv_rope, triton_split_k
from omnivoice_triton.kernels.packed_norm import triton_packed_add_norm
from omnivoice_triton.kernels.tiles import GemmTile

from .packed import make_packed


def randn(*shape: int, seed: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("m", "n", "k", "tile"),
    [
        (33, 48, 64, GemmTile(16, 16, 16, 2, 4, 2)),
        (1, 40, 72, GemmTile(16, 32, 16, 3, 4, 1)),  # K not a multiple of the chunk, nor N of the block
        (17, 16, 50, GemmTile(16, 16, 32, 4, 4, 2)),  # chunks of 13: odd, smaller than a block
    ],
)
def test_partials_equal_twin(device: str, dtype: torch.dtype, m: int, n: int, k: int, tile: GemmTile) -> None:
    x, w = randn(m, k, seed=0, device=device, dtype=dtype), randn(n, k, seed=1, device=device, dtype=dtype)
    want, got = (torch.full((tile.splits, m, n), float("nan"), device=device) for _ in range(2))
    ref.split_k(x, w, tile, partials=want)
    triton_split_k(x, w, tile, partials=got)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.sum(0), x.float() @ w.float().T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("partials", [None, 1, 3])
@pytest.mark.parametrize("pick", [False, True])
def test_add_norm_equals_twin(device: str, dtype: torch.dtype, partials: int | None, pick: bool) -> None:
    rows, width = 7, 72
    residual = randn(rows, width, seed=0, device=device, dtype=dtype)
    weight = randn(width, seed=1, device=device, dtype=dtype)
    if partials is None:
        delta = randn(rows, width, seed=2, device=device, dtype=dtype)
    else:
        delta = randn(partials, rows, width, seed=2, device=device)
    index = torch.tensor([6, 0, 3], dtype=torch.int32, device=device) if pick else None
    results = []
    for function in (ref.packed_add_norm, triton_packed_add_norm):
        s = residual.clone()
        y = torch.full((3 if pick else rows, width), float("nan"), dtype=dtype, device=device)
        function(delta, s, weight, 1e-6, y=y, pick=index)
        results.append((s, y))
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    assert torch.equal(results[1][0], results[0][0])  # the sum has one rounding: no room to differ
    torch.testing.assert_close(results[1][1], results[0][1], rtol=tolerance, atol=tolerance)
    if pick:
        assert torch.equal(results[1][0], residual)


def test_bad_input_names_the_fault(device: str) -> None:
    x, w = randn(4, 16, seed=0, device=device), randn(8, 16, seed=1, device=device)
    with pytest.raises(ValueError, match=r"wanted float32 \(2, 4, 8\)"):
        triton_split_k(x, w, GemmTile(16, 16, 16, 2, 4, 1), partials=torch.zeros(1, 4, 8, device=device))
    delta = torch.zeros(2, 3, 16, device=device)
    with pytest.raises(ValueError, match=r"wanted float32 \(P, 4, 16\)"):
        triton_packed_add_norm(delta, x, x[0].clone(), 1e-6, y=x.clone())
    with pytest.raises(ValueError, match="wanted int32"):
        triton_packed_add_norm(x, x.clone(), x[0].clone(), 1e-6, y=x[:1].clone(), pick=torch.tensor([0], device=device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_swiglu_on_the_way_in_equals_twin(device: str, dtype: torch.dtype) -> None:
    tile = GemmTile(16, 16, 16, 2, 4, 1)
    x, w = randn(9, 2 * 40, seed=0, device=device, dtype=dtype), randn(24, 40, seed=1, device=device, dtype=dtype)
    want, got = (torch.full((2, 9, 24), float("nan"), device=device) for _ in range(2))
    ref.split_k(x, w, tile, partials=want, swiglu=True)
    triton_split_k(x, w, tile, partials=got, swiglu=True)
    tolerance = 1e-4 if dtype is torch.float32 else 5e-3  # a rounding of silu's result moves now and then
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("m", "i", "k"), [(17, 24, 40), (1, 16, 32)])
def test_gate_up_equals_twin(device: str, dtype: torch.dtype, m: int, i: int, k: int) -> None:
    x, w = randn(m, k, seed=0, device=device, dtype=dtype), randn(2 * i, k, seed=1, device=device, dtype=dtype)
    want, got = (torch.full((m, i), float("nan"), device=device, dtype=dtype) for _ in range(2))
    tile = GemmTile(16, 16, 16, 1, 4, 1)
    ref.gate_up(x, w / k**0.5, tile, out=want)
    triton_gate_up(x, w / k**0.5, tile, out=got)
    tolerance = 1e-4 if dtype is torch.float32 else 4e-3
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("q_heads", "kv_heads", "dim", "k"), [(2, 1, 32, 40), (3, 2, 64, 32)])
def test_qkv_rope_equals_twin(device: str, dtype: torch.dtype, q_heads: int, kv_heads: int, dim: int, k: int) -> None:
    packed = make_packed([(2, 3, True), (1, 1, False)], device=device, spare_rows=9)
    m, heads = packed.bucket.rows, q_heads + 2 * kv_heads
    x = randn(m, k, seed=0, device=device, dtype=dtype)
    w = randn(heads * dim, k, seed=1, device=device, dtype=dtype)
    angles = torch.arange(8.0)[:, None] * torch.rand(1, dim // 2, generator=torch.Generator().manual_seed(0))
    cos, sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)
    norms = (randn(dim, seed=2, device=device, dtype=dtype), randn(dim, seed=3, device=device, dtype=dtype))
    want, got = (torch.full((m, heads * dim), float("nan"), device=device, dtype=dtype) for _ in range(2))
    args = (x, w, packed.table("rows"), cos, sin, *norms, 1e-6, GemmTile(16, 0, 16, 1, 4, 1))
    ref.qkv_rope(*args, q_heads=q_heads, kv_heads=kv_heads, qkv=want)
    triton_qkv_rope(*args, q_heads=q_heads, kv_heads=kv_heads, qkv=got)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_heads_of_odd_width_are_refused(device: str) -> None:
    x = randn(4, 16, seed=0, device=device)
    with pytest.raises(ValueError, match="heads are 24 wide: wanted a power of two"):
        triton_qkv_rope(
            x, x, x, x, x, x[0].repeat(2)[:24], x, 1e-6, GemmTile(16, 0, 16, 1, 4, 1), q_heads=1, kv_heads=1, qkv=x
        )
