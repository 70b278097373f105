"""The gate and up GEMM with SwiGLU in its epilogue against its twin."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.gate_up import triton_gate_up
from omnivoice_triton.kernels.tiles import GemmTile

from .packed import randn


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
