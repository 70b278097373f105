"""Residual add + RMSNorm against its twin, float64 and two separate ops."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import TritonFusedAddRMSNorm, reference, triton_fused_add_rms_norm

from .kernel_checks import (
    DTYPES,
    WIDTHS,
    Inputs,
    assert_as_accurate,
    assert_caught,
    assert_close,
    assert_same_bits,
    name,
)


def make_inputs(seed: int, device: str, dtype: torch.dtype, *shape: int) -> tuple[torch.Tensor, ...]:
    make = Inputs(seed, device, dtype)
    return make.normal(*shape), make.hidden(*shape), make.weight(shape[-1])


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_twin(width: int, dtype: torch.dtype, device: str, rows: int) -> None:
    x, residual, weight = make_inputs(width, device, dtype, rows, width)
    before = x.clone(), residual.clone()
    normed, total = triton_fused_add_rms_norm(x, residual, weight)
    wanted, sums = reference.add_rms_norm(x, residual, weight)
    assert_close(normed, wanted)
    assert torch.equal(total, sums)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("rows", "width"), [(290, 1024), (512, 1024), (4096, 3072), (3, 65536)])
def test_equals_twin_large(rows: int, width: int, dtype: torch.dtype, device: str) -> None:
    x, residual, weight = make_inputs(rows, device, dtype, rows, width)
    normed, total = triton_fused_add_rms_norm(x, residual, weight)
    wanted, sums = reference.add_rms_norm(x, residual, weight)
    assert_close(normed, wanted, rare=1e-6)
    assert torch.equal(total, sums)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [128, 1000, 1024])
def test_as_accurate_as_pytorch(width: int, dtype: torch.dtype, device: str, many_rows: int) -> None:
    x, residual, weight = make_inputs(1, device, dtype, many_rows, width)
    ours = triton_fused_add_rms_norm(x, residual, weight)
    eager = reference.add_rms_norm(x, residual, weight)
    exact = reference.add_rms_norm(x.double(), residual.double(), weight.double())
    for out, theirs, wanted in zip(ours, eager, exact, strict=True):
        assert_as_accurate(out, theirs, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_rounds_as_separate_ops(dtype: torch.dtype, device: str, many_rows: int) -> None:
    """The norm is that of the rounded sum: the layer computes what it computed unfused."""
    x, residual, weight = make_inputs(2, device, dtype, many_rows, 1024)
    theirs, _ = reference.add_rms_norm(x, residual, weight)
    assert_same_bits(triton_fused_add_rms_norm(x, residual, weight)[0], theirs)

    wide = x.float() + residual.float()  # the fault, as in 0.1.0: the norm of the unrounded sum
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    with pytest.raises(AssertionError, match="bit-equal"):
        assert_same_bits(weight * (wide * rstd).to(dtype), theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_strided_inputs(dtype: torch.dtype, device: str) -> None:
    make = Inputs(3, device, dtype)
    weight = make.weight(96)
    packed, plain = make.hidden(2, 3, 192), make.normal(2, 3, 96)
    inputs = {
        "halves of a packed tensor": (packed[..., :96], packed[..., 96:]),
        "one strided": (plain, packed[..., 8:104]),
        "transposed": (make.normal(96, 5).t(), make.hidden(5, 96)),
        "no common row stride": (make.normal(2, 5, 96)[:, 1:4], plain),
        "one row repeated": (make.normal(1, 1, 96).expand(2, 3, 96), plain),
    }
    for case, (x, residual) in inputs.items():
        normed, total = triton_fused_add_rms_norm(x, residual, weight)
        assert normed.is_contiguous(), case
        assert total.is_contiguous(), case
        wanted, sums = reference.add_rms_norm(x, residual, weight)
        assert_close(normed, wanted)
        assert torch.equal(total, sums)


@pytest.mark.parametrize("shape", [(0, 1024), (2, 0, 77)])
def test_zero_rows(shape: tuple[int, ...], device: str) -> None:
    x = torch.zeros(shape, device=device)
    normed, total = triton_fused_add_rms_norm(x, x, torch.ones(shape[-1], device=device))
    assert normed.shape == total.shape == shape


def test_out(device: str, rows: int) -> None:
    x, residual, weight = make_inputs(4, device, torch.float32, rows, 256)
    wanted, sums = reference.add_rms_norm(x, residual, weight)
    normed = torch.empty(rows, 512, device=device)[:, :256]
    result = triton_fused_add_rms_norm(x, residual, weight, out=(normed, residual))
    assert result[0] is normed
    assert result[1] is residual
    assert_close(normed, wanted)
    assert torch.equal(residual, sums)


def test_module_keeps_the_published_interface(device: str) -> None:
    x, residual, _ = make_inputs(5, device, torch.float16, 2, 3, 64)
    norm = TritonFusedAddRMSNorm(64, eps=1e-5).to(device, torch.float16)
    assert isinstance(norm.weight, torch.nn.Parameter)
    assert "eps=1e-05" in repr(norm)
    normed, total = norm(x, residual)
    wanted, sums = reference.add_rms_norm(x, residual, norm.weight.detach(), 1e-5)
    assert_close(normed, wanted)
    assert torch.equal(total, sums)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, r, w: (x.double(), r, w), "x is torch.float64"),
        (lambda x, r, w: (x, r.half(), w), "residual is torch.float16"),
        (lambda x, r, w: (x, r[:1], w), r"residual is torch.float32 \(1, 64\) .*wanted torch.float32 \(2, 64\)"),
        (lambda x, r, w: (x, r, w.bfloat16()), "weight is torch.bfloat16"),
        (lambda x, r, w: (x, r, w[:32]), r"weight is torch.float32 \(32,\)"),
        (lambda x, r, w: (x, r.to("meta"), w), "residual is .* on meta"),
        (lambda x, r, w: (x.to("meta"), r, w), "wanted a CUDA device"),
        (lambda x, r, w: (x, None, w), "residual is a NoneType"),
        (lambda x, r, w: (x, r, w, float("inf")), "eps is inf"),
        (lambda x, r, w: (x, r, w, None), "eps is None"),
    ],
)
def test_refuses(change, said: str, device: str) -> None:
    x, residual, weight = (torch.ones(shape, device=device) for shape in ((2, 64), (2, 64), (64,)))
    with pytest.raises(ValueError, match=said):
        triton_fused_add_rms_norm(*change(x, residual, weight))
    with pytest.raises(ValueError, match=r"out\[1\] is torch.float16"):
        triton_fused_add_rms_norm(x, residual, weight, out=(x, residual.half()))


def test_the_comparison_catches_planted_faults(device: str, rows: int) -> None:
    x, residual, weight = make_inputs(6, device, torch.float16, rows, 128)
    twin, _ = reference.add_rms_norm(x, residual, weight)
    faults = {
        "residual not added": reference.rms_norm(x, weight),
        "residual one column off": reference.add_rms_norm(x, residual.roll(1, -1), weight)[0],
        "residual one row off": reference.add_rms_norm(x, residual.roll(1, 0), weight)[0],
        "no weight": reference.add_rms_norm(x, residual, torch.ones_like(weight))[0],
    }
    for case, wrong in faults.items():
        assert_caught(case, wrong, twin)
