"""The packed add + norm, which sums a split GEMM's partials, against its twin."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.packed_norm import triton_packed_add_norm

from .packed import randn


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
    x = randn(4, 16, seed=0, device=device)
    delta = torch.zeros(2, 3, 16, device=device)
    with pytest.raises(ValueError, match=r"wanted float32 \(P, 4, 16\)"):
        triton_packed_add_norm(delta, x, x[0].clone(), 1e-6, y=x.clone())
    with pytest.raises(ValueError, match="wanted int32"):
        triton_packed_add_norm(x, x.clone(), x[0].clone(), 1e-6, y=x[:1].clone(), pick=torch.tensor([0], device=device))
