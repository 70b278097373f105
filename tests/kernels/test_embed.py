"""Embedding of packed rows against its twin."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import engine_reference as ref
from omnivoice_triton.kernels.embed import triton_embed_rows

from .packed import make_packed

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Relative, about 2 ulps: the sum over codebooks may run in another order."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hidden", [64, 72])
def test_equals_twin(device: str, dtype: torch.dtype, hidden: int) -> None:
    codebooks, vocabulary = 3, 11
    packed = make_packed([(1, 1, True), (5, 3, True), (4, 2, False)], device=device)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(16, hidden, generator=generator).to(device, dtype)
    table = torch.randn(codebooks * vocabulary, hidden, generator=generator).to(device, dtype)
    weight = torch.randn(hidden, generator=generator).to(device, dtype)
    canvas = torch.randint(0, vocabulary, (12, codebooks), generator=generator, dtype=torch.int32).to(device)
    rows = packed.table("rows")
    want = [torch.full((rows.shape[0], hidden), float("nan"), dtype=dtype, device=device) for _ in range(2)]
    got = [torch.full_like(w, float("nan")) for w in want]
    ref.embed_rows(rows, prompt, canvas, table, weight, 1e-6, x=want[0], y=want[1])
    triton_embed_rows(rows, prompt, canvas, table, weight, 1e-6, x=got[0], y=got[1])
    for w, g in zip(want, got, strict=True):
        torch.testing.assert_close(g, w, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert not got[0][packed.used_rows :].any()  # padding embeds as zeros


def test_each_codebook_has_its_own_rows(device: str) -> None:
    """Planted fault: without the codebook's offset every codebook would read the first one's rows."""
    packed = make_packed([(1, 2, True)], device=device)
    canvas = torch.full((5, 2), 3, dtype=torch.int32, device=device)
    table = torch.arange(14.0, device=device).repeat_interleave(16).view(14, 16)
    x, y = (torch.empty(packed.bucket.rows, 16, device=device) for _ in range(2))
    triton_embed_rows(
        packed.table("rows"),
        torch.zeros(4, 16, device=device),
        canvas,
        table,
        torch.ones(16, device=device),
        1e-6,
        x=x,
        y=y,
    )
    assert (x[1:3] == 3 + (7 + 3)).all()


def test_bad_input_names_the_fault(device: str) -> None:
    packed = make_packed([(1, 2, True)], device=device)
    x = torch.empty(packed.bucket.rows, 16, device=device)
    canvas = torch.zeros(5, 2, dtype=torch.int32, device=device)
    args = (
        torch.zeros(4, 16, device=device),
        canvas,
        torch.zeros(14, 16, device=device),
        torch.ones(16, device=device),
    )
    with pytest.raises(ValueError, match=r"rows is torch\.int64"):
        triton_embed_rows(packed.table("rows").long(), *args, 1e-6, x=x, y=x.clone())
    bad = (args[0], canvas, torch.zeros(13, 16, device=device), args[3])
    with pytest.raises(ValueError, match="multiple of the canvas's 2 codebooks"):
        triton_embed_rows(packed.table("rows"), *bad, 1e-6, x=x, y=x.clone())
