"""RMSNorm against its twin, float64 and transformers' own module."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from omnivoice_triton.kernels import TritonRMSNorm, launch, reference, triton_rms_norm

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


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_twin(width: int, dtype: torch.dtype, device: str, rows: int) -> None:
    make = Inputs(width, device, dtype)
    x, weight = make.hidden(rows, width), make.weight(width)
    assert_close(triton_rms_norm(x, weight), reference.rms_norm(x, weight))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("rows", "width"), [(290, 1024), (512, 1024), (4096, 3072), (8192, 128), (3, 65536)])
def test_equals_twin_large(rows: int, width: int, dtype: torch.dtype, device: str) -> None:
    make = Inputs(rows, device, dtype)
    x, weight = make.hidden(rows, width), make.weight(width)
    assert_close(triton_rms_norm(x, weight), reference.rms_norm(x, weight), rare=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [1, 128, 1000, 1024])
def test_as_accurate_as_pytorch(width: int, dtype: torch.dtype, device: str, many_rows: int) -> None:
    make = Inputs(1, device, dtype)
    x, weight = make.hidden(many_rows, width), make.weight(width)
    exact = reference.rms_norm(x.double(), weight.double())
    assert_as_accurate(triton_rms_norm(x, weight), reference.rms_norm(x, weight), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_rounds_as_qwen3(dtype: torch.dtype, device: str, many_rows: int) -> None:
    make = Inputs(2, device, dtype)
    x, weight = make.hidden(many_rows, 1024), make.weight(1024)
    module = Qwen3RMSNorm(1024, eps=1e-6).to(device, dtype)
    module.weight.data = weight
    theirs = module(x).detach()
    assert_same_bits(triton_rms_norm(x, weight), theirs)

    wide = x.float()
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    with pytest.raises(AssertionError, match="bit-equal"):  # the fault: rounded once, at the end
        assert_same_bits((wide * rstd * weight.float()).to(dtype), theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_strided_inputs(dtype: torch.dtype, device: str) -> None:
    make = Inputs(3, device, dtype)
    weight = make.weight(96)
    wide = make.hidden(6, 5, 128)
    inputs = {
        "columns of a wider tensor": wide[..., 8:104],
        "every other row": make.hidden(10, 96)[::2],
        "transposed": make.hidden(96, 7).t(),
        "no common row stride": wide[:, 1:4, 16:112],
        "one row repeated": make.hidden(1, 96).expand(4, 96),
        "one dimension": make.hidden(96),
        "four dimensions": make.hidden(2, 3, 2, 96),
    }
    for case, x in inputs.items():
        out = triton_rms_norm(x, weight)
        assert out.is_contiguous(), case
        assert_close(out, reference.rms_norm(x, weight))


def test_strided_views_are_not_copied(device: str) -> None:
    wide = torch.zeros(6, 5, 128, device=device)
    for x in (wide, wide[..., 8:104], wide[0].t(), wide[:, 0]):
        assert launch.as_rows(x)[0].data_ptr() == x.data_ptr()
    assert launch.as_rows(wide[:, 1:4])[0].data_ptr() != wide[:, 1:4].data_ptr()


@pytest.mark.parametrize("shape", [(0, 1024), (2, 0, 128)])
def test_zero_rows(shape: tuple[int, ...], device: str) -> None:
    x = torch.zeros(shape, device=device)
    assert triton_rms_norm(x, torch.ones(shape[-1], device=device)).shape == shape


def test_zeros_stay_zeros(device: str) -> None:
    out = triton_rms_norm(torch.zeros(3, 77, device=device), torch.ones(77, device=device))
    assert torch.equal(out, torch.zeros_like(out))


def test_out(device: str, rows: int) -> None:
    make = Inputs(4, device, torch.float32)
    x, weight = make.hidden(rows, 256), make.weight(256)
    wanted = reference.rms_norm(x, weight)
    packed = torch.empty(rows, 512, device=device)
    out = packed[:, :256]
    assert triton_rms_norm(x, weight, out=out) is out
    assert_close(out, wanted)
    assert packed[:, 256:].isnan().all()
    assert_close(triton_rms_norm(x, weight, out=x), wanted)


def test_module_keeps_the_published_interface(device: str) -> None:
    make = Inputs(5, device, torch.float16)
    norm = TritonRMSNorm(128, eps=1e-5).to(device, torch.float16)
    assert isinstance(norm.weight, torch.nn.Parameter)
    assert norm.eps == 1e-5
    assert "hidden_size=128" in repr(norm)
    x = make.hidden(2, 3, 128)
    assert_close(norm(x), reference.rms_norm(x, norm.weight.detach(), 1e-5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, w: (x.double(), w), "x is torch.float64"),
        (lambda x, w: (x.long(), w), "wanted a tensor of float32"),
        (lambda x, w: (x, w.half()), r"weight is torch.float16 \(64,\).*wanted torch.float32 \(64,\)"),
        (lambda x, w: (x, w[:63]), r"weight is torch.float32 \(63,\)"),
        (lambda x, w: (x, w[None]), r"weight is torch.float32 \(1, 64\)"),
        (lambda x, w: (x[0, 0], w), r"wanted shape \(..., N\)"),
        (lambda x, w: (x[:, :0], w[:0]), r"wanted shape \(..., N\)"),
        (lambda x, w: (x, w.to("meta")), "weight is torch.float32 .* on meta"),
        (lambda x, w: (x.to("meta"), w), "on meta: wanted a CUDA device"),
        (lambda x, w: ([1.0], w), "x is a list"),
        (lambda x, w: (x, w, -1e-6), "eps is -1e-06"),
        (lambda x, w: (x, w, float("nan")), "eps is nan"),
        (lambda x, w: (x, w, "1"), "eps is '1'"),
        (lambda x, w: (x.new_zeros(1, 65537), w.new_ones(65537)), "at most 65536 columns"),
    ],
)
def test_refuses(change, said: str, device: str) -> None:
    x, weight = torch.zeros(2, 64, device=device), torch.ones(64, device=device)
    with pytest.raises(ValueError, match=said):
        triton_rms_norm(*change(x, weight))


def test_refuses_out(device: str) -> None:
    x, weight = torch.zeros(2, 3, 64, device=device), torch.ones(64, device=device)
    for out, said in (
        (x.half(), "out is torch.float16"),
        (x[:1], r"out is .*\(1, 3, 64\)"),
        (torch.zeros(2, 1, 64, device=device).expand(2, 3, 64), "out has strides"),
        (torch.zeros(2, 5, 64, device=device)[:, :3], "out has strides"),
    ):
        with pytest.raises(ValueError, match=said):
            triton_rms_norm(x, weight, out=out)


def test_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_INTERPRETING", False)
    with pytest.raises(ValueError, match=r"on cpu: wanted a CUDA device .*TRITON_INTERPRET=1"):
        triton_rms_norm(torch.zeros(2, 64), torch.ones(64))


@triton.jit
def _short_kernel(x_ptr, y_ptr, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """The fault: the last column is left out."""
    cols = tl.arange(0, BLOCK_N)
    tl.store(y_ptr + cols, tl.load(x_ptr + cols, mask=cols < N, other=0.0), mask=cols < N - 1)


def test_the_comparison_catches_planted_faults(device: str, rows: int) -> None:
    make = Inputs(6, device, torch.float16)
    x, weight = make.hidden(rows, 128), make.weight(128)
    twin = reference.rms_norm(x, weight)
    assert_close(twin.clone(), twin)

    unwritten = torch.empty_like(twin[0])
    _short_kernel[(1,)](twin[0], unwritten, N=128, BLOCK_N=128)
    with pytest.raises(AssertionError, match="1 of 128 elements unwritten"):
        assert_close(unwritten, twin[0])
    faults = {
        "one column off": twin.roll(1, -1),
        "one row off": twin.roll(1, 0),
        "no weight": reference.rms_norm(x, torch.ones_like(weight)),
        "mean over one column less": reference.rms_norm(x, weight) * (127 / 128) ** 0.5,
        "other eps": reference.rms_norm(x, weight, 0.1),
    }
    for case, wrong in faults.items():
        assert_caught(case, wrong, twin)
    exact = reference.rms_norm(x.double(), weight.double())
    with pytest.raises(AssertionError, match="PyTorch's"):
        assert_as_accurate((twin.float() * 1.001).half(), twin, exact)


@pytest.mark.gpu
def test_new_row_counts_compile_nothing(device: str) -> None:
    from omnivoice_triton.kernels.rms_norm import _rms_norm_kernel

    weight = torch.ones(1024, device=device)
    triton_rms_norm(torch.zeros(8, 1024, device=device), weight)
    before = len(_rms_norm_kernel.device_caches[torch.cuda.current_device()][0])
    for n in (1, 2, 7, 16, 100, 290):
        triton_rms_norm(torch.zeros(n, 1024, device=device), weight)
    assert len(_rms_norm_kernel.device_caches[torch.cuda.current_device()][0]) == before
