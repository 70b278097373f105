"""The QKV GEMM with QK-norm and RoPE in its epilogue against its twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels import qkv, qkv_rope
from omnivoice_triton.kernels.qkv import triton_qk_norm_rope_packed
from omnivoice_triton.kernels.qkv_rope import triton_qkv_rope
from omnivoice_triton.kernels.tiles import GemmTile

from .packed import make_packed, randn


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


def test_both_kernels_are_launched_without_contraction(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiled code then does is `test_engine_compile`'s to see."""
    launched: list[dict[str, Any]] = []

    class Recorder:
        def __getitem__(self, grid: Any) -> Any:
            return lambda **arguments: launched.append(arguments)

    monkeypatch.setattr(qkv, "_qk_norm_rope_kernel", Recorder())
    monkeypatch.setattr(qkv_rope, "_qkv_rope_kernel", Recorder())
    packed = make_packed([(2, 3, True)], device=device, spare_rows=2)
    m = packed.bucket.rows
    x, w = randn(m, 32, seed=0, device=device), randn(96, 32, seed=1, device=device)
    angles = torch.zeros(8, 16, device=device)
    norms = (randn(32, seed=2, device=device), randn(32, seed=3, device=device))
    out, heads = torch.empty(m, 96, device=device), {"q_heads": 1, "kv_heads": 1}
    args = (packed.table("rows"), angles, angles, *norms, 1e-6)
    triton_qk_norm_rope_packed(out, *args, **heads)
    triton_qkv_rope(x, w, *args, GemmTile(16, 0, 16, 1, 4, 1), **heads, qkv=out)
    assert [launch["enable_fp_fusion"] for launch in launched] == [False, False]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_are_rounded_before_they_are_added(dtype: torch.dtype) -> None:
    """Without `launch.ROUNDED` the compiled kernel was a quarter of a rounding (2.3e-4 in fp16) from its twin."""
    packed = make_packed([(40, 125, True)], device="cuda", spare_rows=9)
    qkv = randn(packed.bucket.rows, 32 * 128, seed=0, device="cuda", dtype=dtype)
    angles = torch.arange(165.0)[:, None] * 1e6 ** (-torch.arange(0, 1, 1 / 64))
    cos, sin = angles.cos().to("cuda", dtype), angles.sin().to("cuda", dtype)
    norms = (randn(128, seed=2, device="cuda", dtype=dtype), randn(128, seed=3, device="cuda", dtype=dtype))
    want, got = qkv.clone(), qkv.clone()
    args = (packed.table("rows"), cos, sin, *norms, 1e-6)
    ref.qk_norm_rope_packed(want, *args, q_heads=16, kv_heads=8)
    triton_qk_norm_rope_packed(got, *args, q_heads=16, kv_heads=8)
    error = ((got.float() - want.float()).norm() / want.float().norm()).item()
    assert error < (5e-5 if dtype is torch.float16 else 4e-4)


def test_heads_of_odd_width_are_refused(device: str) -> None:
    x = randn(4, 16, seed=0, device=device)
    with pytest.raises(ValueError, match="heads are 24 wide: wanted a power of two"):
        triton_qkv_rope(
            x, x, x, x, x, x[0].repeat(2)[:24], x, 1e-6, GemmTile(16, 0, 16, 1, 4, 1), q_heads=1, kv_heads=1, qkv=x
        )
