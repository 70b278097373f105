"""SwiGLU against its twin and float64."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import TritonSwiGLU, reference, triton_swiglu_forward

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


def make_inputs(seed: int, device: str, dtype: torch.dtype, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    make = Inputs(seed, device, dtype)
    return make.hidden(*shape), make.normal(*shape, std=0.3)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_twin(width: int, dtype: torch.dtype, device: str, rows: int) -> None:
    gate, up = make_inputs(width, device, dtype, rows, width)
    assert_close(triton_swiglu_forward(gate, up), reference.swiglu(gate, up))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("rows", "width"), [(290, 1024), (512, 3072), (3712, 3072), (5, 100_003)])
def test_equals_twin_large(rows: int, width: int, dtype: torch.dtype, device: str) -> None:
    gate, up = make_inputs(rows, device, dtype, rows, width)
    assert_close(triton_swiglu_forward(gate, up), reference.swiglu(gate, up))


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [128, 1000, 3072])
def test_as_accurate_as_pytorch(width: int, dtype: torch.dtype, device: str, many_rows: int) -> None:
    gate, up = make_inputs(1, device, dtype, many_rows, width)
    exact = reference.swiglu(gate.double(), up.double())
    assert_as_accurate(triton_swiglu_forward(gate, up), reference.swiglu(gate, up), exact)


def test_each_value_is_accurate_in_fp32(device: str) -> None:
    """Over the whole range of the gate, not only in norm: small results of large negative gates count too."""
    gate = torch.linspace(-85, 85, 20_000, device=device)
    out = triton_swiglu_forward(gate, torch.ones_like(gate))
    exact = reference.swiglu(gate.double(), torch.ones_like(gate).double())
    error = ((out.double() - exact).abs() / exact.abs().clamp(min=1e-35)).max().item()
    assert error < 5e-7, f"{error:.3g}: 4 units in the last place of fp32 are 4.8e-7"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_rounds_as_two_ops(dtype: torch.dtype, device: str, many_rows: int) -> None:
    make = Inputs(2, device, dtype)
    gate, up = make.hidden(many_rows, 1024), make.normal(many_rows, 1024)
    theirs = reference.swiglu(gate, up)
    assert_same_bits(triton_swiglu_forward(gate, up), theirs)
    once = (torch.nn.functional.silu(gate.float()) * up.float()).to(dtype)
    with pytest.raises(AssertionError, match="bit-equal"):  # the fault: silu kept in fp32
        assert_same_bits(once, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_strided_inputs(dtype: torch.dtype, device: str) -> None:
    make = Inputs(3, device, dtype)
    packed = make.hidden(2, 3, 192)
    other = make.normal(2, 3, 96, std=0.3)
    deep = make.hidden(2, 5, 96)
    inputs = {
        "halves of a packed tensor": (packed[..., :96], packed[..., 96:]),
        "one packed, one not": (packed[..., 96:], other),
        "transposed": (make.hidden(96, 5).t(), make.normal(96, 5).t()),
        "no common row stride": (deep[:, 1:4], other),
        "one row repeated": (make.hidden(1, 1, 96).expand(2, 3, 96), other),
        "one dimension": (make.hidden(77), make.normal(77)),
    }
    for case, (gate, up) in inputs.items():
        out = triton_swiglu_forward(gate, up)
        assert out.is_contiguous(), case
        assert_close(out, reference.swiglu(gate, up))


def test_extreme_values(device: str) -> None:
    """Same as PyTorch at the ends of the range: no overflow on the way, zeros stay zeros."""
    for dtype in DTYPES:
        top = torch.finfo(dtype).max
        gate = torch.tensor([0.0, -0.0, 1e-4, -1e-4, -88.0, -104.0, -1e4, 1e4, top, -top], device=device, dtype=dtype)
        up = torch.ones_like(gate)
        assert_close(triton_swiglu_forward(gate, up), reference.swiglu(gate, up))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's word on inf * 0, in the interpreter
def test_infinities_and_nan_come_out_as_in_pytorch(device: str) -> None:
    gate = torch.tensor([float("inf"), float("-inf"), float("nan")], device=device)
    out = triton_swiglu_forward(gate, torch.ones_like(gate))
    torch.testing.assert_close(out, reference.swiglu(gate, torch.ones_like(gate)), equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3072), (2, 0, 77)])
def test_zero_rows(shape: tuple[int, ...], device: str) -> None:
    x = torch.zeros(shape, device=device)
    assert triton_swiglu_forward(x, x).shape == shape


def test_out(device: str, rows: int) -> None:
    gate, up = make_inputs(4, device, torch.float32, rows, 200)
    wanted = reference.swiglu(gate, up)
    packed = torch.empty(rows, 400, device=device)
    out = packed[:, 200:]
    assert triton_swiglu_forward(gate, up, out=out) is out
    assert_close(out, wanted)
    assert packed[:, :200].isnan().all()
    assert_close(triton_swiglu_forward(gate, up, out=gate), wanted)


def test_module(device: str) -> None:
    gate, up = make_inputs(5, device, torch.float16, 2, 3, 64)
    module = TritonSwiGLU()
    assert not list(module.parameters())
    assert_close(module(gate, up), reference.swiglu(gate, up))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, u: (g.double(), u), "gate is torch.float64"),
        (lambda g, u: (g, u.half()), r"up is torch.float16 \(2, 64\) .* wanted torch.float32 \(2, 64\)"),
        (lambda g, u: (g, u[:, :63]), r"up is torch.float32 \(2, 63\)"),
        (lambda g, u: (g, u[:1]), r"up is torch.float32 \(1, 64\)"),
        (lambda g, u: (g, u.to("meta")), "up is .* on meta"),
        (lambda g, u: (g.to("meta"), u), "wanted a CUDA device"),
        (lambda g, u: (g, 1.0), "up is a float"),
        (lambda g, u: (g[:, :0], u[:, :0]), r"wanted shape \(..., N\)"),
    ],
)
def test_refuses(change, said: str, device: str) -> None:
    gate, up = torch.zeros(2, 64, device=device), torch.ones(2, 64, device=device)
    with pytest.raises(ValueError, match=said):
        triton_swiglu_forward(*change(gate, up))
    with pytest.raises(ValueError, match=r"out is torch\.float16"):
        triton_swiglu_forward(gate, up, out=gate.half())


def test_the_comparison_catches_planted_faults(device: str, rows: int) -> None:
    gate, up = make_inputs(6, device, torch.float16, rows, 128)
    twin = reference.swiglu(gate, up)
    faults = {
        "halves swapped": reference.swiglu(up, gate),
        "one column off": reference.swiglu(gate, up.roll(1, -1)),
        "sigmoid for silu": torch.sigmoid(gate) * up,
        "tanh-approximated gelu for silu": torch.nn.functional.gelu(gate, approximate="tanh") * up,
    }
    for case, wrong in faults.items():
        assert_caught(case, wrong, twin)
    short = twin.clone()
    short[-1, -1] = float("nan")
    assert_caught("one element unwritten", short, twin)
