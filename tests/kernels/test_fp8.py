"""Quantisation to FP8 by rows against its twins, and products of quantised matrices against float64."""

from __future__ import annotations

import pytest
import torch

from omnivoice_triton.kernels import fp8, fp8_reference, scaled_mm
from omnivoice_triton.kernels.fp8_reference import FP8

from .kernel_checks import Inputs, assert_caught, name, relative_error

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BAR = 0.04
"""Norm of a product's error over its norm: both operands have 3 bits of mantissa, 2.5 to 2.7 % each."""


def outputs(rows: int, width: int, device: str) -> dict[str, torch.Tensor]:
    """Poisoned buffers."""
    return {
        "out": torch.full((rows, width), float("nan"), device=device).to(FP8),
        "scale": torch.full((rows, 1), float("nan"), device=device),
    }


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], rate: float = 1.0) -> None:
    """Scales within fp32's rounding, values bit for bit but for a share where the sum before went the other way."""
    torch.testing.assert_close(got["scale"], want["scale"], rtol=1e-6 if rate == 1 else 1e-2, atol=0)
    same = (got["out"].float() == want["out"].float()).double().mean().item()
    assert same >= rate, f"{same:.3%} of the values are bit-equal, wanted {rate:.1%}"
    torch.testing.assert_close(got["out"].float(), want["out"].float(), rtol=0.13, atol=2.0**-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [1, 77, 1024, 2048, 3072])
def test_rows_equal_twin(dtype: torch.dtype, width: int, device: str, rows: int) -> None:
    x = Inputs(width, device, dtype).hidden(rows, width)
    got, want = outputs(rows, width, device), outputs(rows, width, device)
    fp8.triton_quantise_rows(x, **got)
    fp8_reference.quantise_rows(x, **want)
    assert_same(got, want)
    assert not got["out"].float().isnan().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [77, 1024])
def test_add_norm_equals_twin(dtype: torch.dtype, width: int, device: str, rows: int) -> None:
    make = Inputs(1, device, dtype)
    delta, residual, weight = make.normal(rows, width), make.hidden(rows, width), make.weight(width)
    got, want = outputs(rows, width, device), outputs(rows, width, device)
    ours, theirs = residual.clone(), residual.clone()
    fp8.triton_add_norm_quantise(delta, ours, weight, 1e-6, **got)
    fp8_reference.add_norm_quantise(delta, theirs, weight, 1e-6, **want)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, residual)
    assert_same(got, want, rate=0.98)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("width", [48, 3072])
def test_swiglu_equals_twin(dtype: torch.dtype, width: int, device: str, rows: int) -> None:
    gate_up = Inputs(2, device, dtype).normal(rows, 2 * width)
    got, want = outputs(rows, width, device), outputs(rows, width, device)
    fp8.triton_swiglu_quantise(gate_up, **got)
    fp8_reference.swiglu_quantise(gate_up, **want)
    assert_same(got, want, rate=0.98)


def test_every_value_rounds_as_pytorch_rounds_it(device: str) -> None:
    """Every e4m3 value, every midpoint between two, and their fp32 neighbours: ties go to even, nothing overflows."""
    codes = torch.arange(127, dtype=torch.uint8).view(FP8).float()  # 0 to 448; 127 is NaN
    middles = (codes[1:] + codes[:-1]) / 2
    near = torch.cat([x.nextafter(torch.tensor(to)) for x in (codes, middles) for to in (0.0, 448.0)])
    if device == "cuda" and torch.cuda.get_device_capability() < (9, 0):
        near = near[:0]  # cut to fp16 there, what is just above a midpoint becomes a tie
    values = torch.cat((codes, middles, near)).clamp(max=448.0)
    x = torch.cat((torch.tensor([448.0]), values, -values))[None].contiguous().to(device)  # amax 448: a scale of 1
    got = outputs(1, x.shape[1], device)
    fp8.triton_quantise_rows(x, **got)
    assert got["scale"].item() == 1.0
    assert torch.equal(got["out"].float(), x.to(FP8).float())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, of the interpreter: infinities are multiplied
def test_rows_stay_apart(device: str) -> None:
    """Rows of zeros, tiny and huge rows; rows that nobody has (NaN, infinities) spoil none but themselves."""
    x = Inputs(3, device, torch.float32).normal(6, 64)
    alone = outputs(6, 64, device)
    fp8.triton_quantise_rows(x, **alone)
    mixed = x.clone()
    mixed[0], mixed[2], mixed[4] = float("nan"), float("inf"), 0
    got = outputs(6, 64, device)
    fp8.triton_quantise_rows(mixed, **got)
    for row in (1, 3, 5):
        assert torch.equal(got["out"][row].float(), alone["out"][row].float())
        assert torch.equal(got["scale"][row], alone["scale"][row])
    assert not got["out"][4].float().any()
    assert got["scale"][4].isfinite().all()
    for factor in (2.0**-30, 2.0**60):  # powers of two change the scale and nothing else
        scaled = outputs(6, 64, device)
        fp8.triton_quantise_rows(x * factor, **scaled)
        assert torch.equal(scaled["out"].float(), alone["out"].float())
        torch.testing.assert_close(scaled["scale"], alone["scale"] * factor, rtol=1e-6, atol=0)


def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    buffers = outputs(*x.shape, str(x.device))
    fp8_reference.quantise_rows(x, **buffers)
    return buffers["out"], buffers["scale"]


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("width", "depth"), [(96, 1024), (64, 2048), (64, 3072)])
def test_product_against_float64(dtype: torch.dtype, width: int, depth: int, device: str) -> None:
    """On a CPU the twin, on a GPU PyTorch's: within the bar, and the twin's figure is the quantisation's own."""
    if device == "cuda" and torch.cuda.get_device_capability() < scaled_mm.MIN_CAPABILITY:
        pytest.skip("no FP8 before compute capability 8.9")
    make = Inputs(depth, device, dtype)
    x, weight = make.hidden(64, depth), make.normal(width, depth, std=0.02)
    exact = x.double() @ weight.double().t()
    (x8, x_scale), (w8, w_scale) = quantised(x), quantised(weight)
    out = torch.full((64, width), float("nan"), dtype=dtype, device=device)
    scaled_mm.scaled_mm(x8, x_scale, w8, w_scale.view(1, -1), out=out)
    wide = torch.empty_like(exact)
    fp8_reference.scaled_mm(x8, x_scale, w8, w_scale.view(1, -1), out=wide)
    assert 0.02 < relative_error(wide, exact) < BAR
    assert relative_error(out, exact) < BAR
    assert relative_error(out, wide) < 5e-3  # what accumulation and rounding add
    assert_caught("scale of the weight forgotten", out / w_scale.view(1, -1).to(dtype), out)
    assert_caught("scale of the rows one off", out * (x_scale.roll(1, 0) / x_scale).to(dtype), out)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name)
def test_pytorchs_product_is_right_here(dtype: torch.dtype) -> None:
    if torch.cuda.get_device_capability() < scaled_mm.MIN_CAPABILITY:
        pytest.skip("no FP8 before compute capability 8.9")
    assert scaled_mm.problem(torch.device("cuda"), dtype) is None


def test_a_wrong_product_is_seen(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe takes no bits for numbers: the fault planted is bf16's bits in an fp16 result."""
    if device == "cuda" and torch.cuda.get_device_capability() < scaled_mm.MIN_CAPABILITY:
        pytest.skip("no FP8 before compute capability 8.9")
    where = torch.device(device)
    assert scaled_mm.problem(where, torch.bfloat16) is None
    right = scaled_mm.scaled_mm

    def wrong(*args: torch.Tensor, out: torch.Tensor) -> None:
        made = torch.empty_like(out, dtype=torch.bfloat16)
        right(*args, out=made)
        out.copy_(made.view(torch.float16))

    monkeypatch.setattr(scaled_mm, "scaled_mm", wrong)
    assert "came out wrong" in str(scaled_mm.problem(where, torch.float16))

    def refused(*args: torch.Tensor, out: torch.Tensor) -> None:
        raise RuntimeError("Only bf16\nand more")

    monkeypatch.setattr(scaled_mm, "scaled_mm", refused)
    assert scaled_mm.problem(where, torch.float16) == "Only bf16"


def test_bad_input_names_the_fault(device: str) -> None:
    x = torch.zeros(4, 32, device=device)
    good = outputs(4, 32, device)
    with pytest.raises(ValueError, match=r"out is torch\.float32 .*wanted contiguous torch\.float8_e4m3fn \(4, 32\)"):
        fp8.triton_quantise_rows(x, out=x, scale=good["scale"])
    with pytest.raises(ValueError, match=r"scale is .*wanted contiguous torch\.float32 \(4, 1\)"):
        fp8.triton_quantise_rows(x, out=good["out"], scale=good["scale"][:3])
    with pytest.raises(ValueError, match="x has strides"):
        fp8.triton_quantise_rows(torch.zeros(32, 4, device=device).t(), **good)
    with pytest.raises(ValueError, match=r"delta is torch\.float16"):
        fp8.triton_add_norm_quantise(x.half(), x, x[0], 1e-6, **good)
    with pytest.raises(ValueError, match="eps"):
        fp8.triton_add_norm_quantise(x, x.clone(), x[0], -1.0, **good)
    with pytest.raises(ValueError, match=r"wanted torch\.float32 \(4, 32\)"):
        fp8.triton_swiglu_quantise(torch.zeros(4, 33, device=device), **outputs(4, 16, device))
