"""Split-K GEMM against its twin."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.split_k import triton_split_k
from omnivoice_triton.kernels.tiles import GemmTile

from .packed import randn


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_swiglu_on_the_way_in_equals_twin(device: str, dtype: torch.dtype) -> None:
    tile = GemmTile(16, 16, 16, 2, 4, 1)
    x, w = randn(9, 2 * 40, seed=0, device=device, dtype=dtype), randn(24, 40, seed=1, device=device, dtype=dtype)
    want, got = (torch.full((2, 9, 24), float("nan"), device=device) for _ in range(2))
    ref.split_k(x, w, tile, partials=want, swiglu=True)
    triton_split_k(x, w, tile, partials=got, swiglu=True)
    tolerance = 1e-4 if dtype is torch.float32 else 5e-3  # a rounding of silu's result moves now and then
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_bad_input_names_the_fault(device: str) -> None:
    x, w = randn(4, 16, seed=0, device=device), randn(8, 16, seed=1, device=device)
    with pytest.raises(ValueError, match=r"wanted float32 \(2, 4, 8\)"):
        triton_split_k(x, w, GemmTile(16, 16, 16, 2, 4, 1), partials=torch.zeros(1, 4, 8, device=device))
