"""Snake's kernels against their twin, with bias, residual, kept sum and cut-off lengths."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
import triton
import triton.language as tl

from omnivoice_triton.kernels import reference
from omnivoice_triton.kernels.snake import sin_squared, triton_add_snake, triton_snake

SHAPES = [(1, 1, 1), (2, 3, 5), (1, 7, 1023), (2, 5, 1024), (3, 2, 1025), (1, 33, 24), (2, 4, 2056)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
HALF_ULP = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}  # of a value in [1, 2)


def make(shape: tuple[int, int, int], dtype: torch.dtype, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    batch, channels, samples = shape
    return {
        "x": (torch.randn(shape, generator=g) * 3).to(dtype).to(device),
        "residual": torch.randn(shape, generator=g).to(dtype).to(device),
        "alpha": (torch.rand(channels, generator=g) * 2 + 0.05).to(device),
        "bias": torch.randn(channels, generator=g).to(device),
        "lengths": torch.randint(0, samples + 2, (batch,), generator=g, dtype=torch.int32).to(device),
    }


def exact(inputs: dict[str, torch.Tensor], rate: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(sum, y) in float64, and how far a float32 computation of y may be off."""
    wide = {k: v if k == "lengths" else v.double() for k, v in inputs.items()}
    total, y = reference.add_snake(**wide, rate=rate)
    alpha = wide["alpha"][:, None]
    # The argument alpha * s carries half an ulp, sin^2 another 3e-7, and the last add half an ulp.
    slack = 2**-23 * (y.abs() + total.abs() + (3 + (alpha * total).abs()) / alpha)
    return total, y, slack


def check(got: torch.Tensor, want: torch.Tensor, slack: torch.Tensor) -> None:
    error = (got.double() - want).abs()
    allowed = slack + HALF_ULP[got.dtype] * want.abs() * 1.01 + 2**-25  # the last: fp16's subnormals
    assert torch.isfinite(got).all()
    assert (error <= allowed).all(), f"error {error.max():.3g}, {(error / allowed).max():.2f} of what is allowed"


def poison(like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.full(like.shape, float("nan"), dtype=dtype or like.dtype, device=like.device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_snake_alone(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> None:
    inputs = make(shape, dtype, device)
    inputs = {name: inputs[name] for name in ("x", "alpha")}
    _, want, slack = exact(inputs)
    out = poison(inputs["x"])
    got = triton_snake(**inputs, out=out)
    assert got is out
    check(got, want, slack)
    assert torch.equal(got, triton_snake(**inputs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_everything_at_once(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> None:
    inputs = make(shape, dtype, device, seed=1)
    want_sum, want, slack = exact(inputs)
    out = (poison(inputs["x"]), poison(inputs["x"]))
    total, y = triton_add_snake(**inputs, out=out)
    check(total, want_sum, 2**-23 * (want_sum.abs() + 3))
    check(y, want, slack)
    again = triton_add_snake(**inputs)
    assert torch.equal(again[0], total)
    assert torch.equal(again[1], y)


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
def test_each_part_can_be_left_out(flags: tuple[bool, ...], device: str) -> None:
    inputs = make((2, 3, 40), torch.float32, device, seed=2)
    for name, wanted in zip(("bias", "residual", "lengths"), flags, strict=True):
        if not wanted:
            del inputs[name]
    want_sum, want, slack = exact(inputs)
    check(triton_snake(**inputs), want, slack)
    total, y = triton_add_snake(**inputs)
    check(total, want_sum, 2**-23 * (want_sum.abs() + 3))
    check(y, want, slack)


def test_lengths_count_in_units_of_rate(device: str) -> None:
    inputs = make((4, 3, 60), torch.float32, device, seed=3)
    inputs["lengths"] = torch.tensor([0, 1, 3, 9], dtype=torch.int32, device=device)
    y = triton_snake(**inputs, rate=20)
    for row, samples in enumerate((0, 20, 60, 60)):
        assert (y[row, :, samples:] == 0).all()
        assert (y[row, :, :samples] != 0).all()
    _, want, slack = exact(inputs, rate=20)
    check(y, want, slack)


def test_what_lies_beyond_a_length_may_be_anything(device: str) -> None:
    inputs = make((2, 2, 16), torch.float32, device)
    inputs["lengths"] = torch.tensor([5, 16], dtype=torch.int32, device=device)
    clean = triton_snake(**inputs)
    inputs["x"][0, :, 5:] = float("nan")
    assert torch.equal(triton_snake(**inputs), clean)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [24, 31])
def test_rows_of_a_larger_tensor(dtype: torch.dtype, samples: int, device: str) -> None:
    """Strided batches and channels, and an odd offset in time."""
    whole = make((4, 6, 80), dtype, device, seed=4)
    parts = dict(whole)
    for name in ("x", "residual"):
        parts[name] = whole[name][::2, 1:6:2, 7 : 7 + samples]
    for name in ("alpha", "bias"):
        parts[name] = whole[name][1:6:2].contiguous()
    parts["lengths"] = whole["lengths"][::2].contiguous()
    _, want, slack = exact(parts)
    assert not parts["x"].is_contiguous()
    check(triton_snake(**parts, out=poison(parts["x"])), want, slack)


@pytest.mark.parametrize("strided", ["x", "residual"])
def test_x_and_residual_may_differ_in_strides(strided: str, device: str) -> None:
    inputs = make((2, 3, 40), torch.float32, device, seed=8)
    whole = torch.full((2, 5, 64), float("nan"), device=device)
    whole[:, 1:4, 16:56] = inputs[strided]
    inputs[strided] = whole[:, 1:4, 16:56]
    _, want, slack = exact(inputs)
    check(triton_snake(**inputs), want, slack)


def test_a_dead_channel_passes_through(device: str) -> None:
    """alpha 0: the 1e-9 keeps 0 / 0 away."""
    x = torch.randn(1, 2, 9, device=device)
    y = triton_snake(x, torch.tensor([0.0, 1.0], device=device))
    assert torch.equal(y[:, 0], x[:, 0])


def test_in_place(device: str) -> None:
    inputs = make((2, 3, 1030), torch.float32, device, seed=5)
    want_total, want = triton_add_snake(**inputs)
    residual = inputs["residual"].clone()
    total, y = triton_add_snake(**{**inputs, "residual": residual}, out=(residual, poison(residual)))
    assert total is residual
    assert torch.equal(total, want_total)
    assert torch.equal(y, want)
    x = inputs["x"].clone()
    assert torch.equal(triton_snake(**{**inputs, "x": x}, out=x), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_output_of_16_bit_input(dtype: torch.dtype, device: str) -> None:
    inputs = make((2, 3, 50), dtype, device, seed=6)
    _, want, slack = exact(inputs)
    got = triton_snake(**inputs, out=poison(inputs["x"], torch.float32))
    check(got, want, slack)
    assert torch.equal(triton_snake(**inputs, dtype=torch.float32), got)
    torch.testing.assert_close(reference.snake(**inputs, dtype=torch.float32), got, rtol=1e-6, atol=1e-5)


def test_equals_the_layer_of_transformers(device: str) -> None:
    from transformers.models.dac.modeling_dac import Snake1d

    inputs = make((2, 5, 300), torch.float32, device, seed=7)
    layer = Snake1d(5).to(device)
    layer.alpha.data = inputs["alpha"].reshape(1, 5, 1)
    with torch.no_grad():
        torch.testing.assert_close(triton_snake(inputs["x"], inputs["alpha"]), layer(inputs["x"]), rtol=2e-6, atol=2e-5)


@triton.jit
def _sin_squared_kernel(x_ptr, y_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, sin_squared(tl.load(x_ptr + at, mask=at < N, other=0.0)), mask=at < N)


def test_sin_squared(device: str) -> None:
    g = torch.Generator().manual_seed(0)
    near_zeros = torch.pi * torch.randint(-31_000, 31_000, (20_000,), generator=g) + torch.randn(20_000, generator=g)
    wide = (torch.rand(60_000, generator=g) * 2 - 1) * 1e5
    small = torch.randn(60_000, generator=g) * 3
    x = torch.cat([small, wide, near_zeros, torch.tensor([0.0, 1e-20, -1e-4, 3.1415927, 1.5707964])]).to(device)
    y = torch.full_like(x, float("nan"))
    _sin_squared_kernel[(triton.cdiv(len(x), 4096),)](x, y, len(x), BLOCK=4096)
    assert (y.double() - x.double().sin().square()).abs().max() <= 3e-7

    huge = torch.tensor([3e5, -1e7, 1e20, 3e38, -3e38], device=device)
    y = torch.full_like(huge, float("nan"))
    _sin_squared_kernel[(1,)](huge, y, len(huge), BLOCK=8)
    assert ((y >= 0) & (y <= 1.000001)).all()


def test_not_a_number_goes_through(device: str) -> None:
    x = torch.tensor([[[1.0, float("nan"), 2.0]]], device=device)
    y = triton_snake(x, torch.ones(1, device=device))
    assert y.isnan().flatten().tolist() == [False, True, False]


def test_nothing_to_do(device: str) -> None:
    assert triton_snake(torch.empty(0, 3, 8, device=device), torch.ones(3, device=device)).shape == (0, 3, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 8)}, r"\(B, C, T\)"),
        ({"x": torch.zeros(2, 3, 8, dtype=torch.float64)}, "float32, float16 or bfloat16"),
        ({"x": torch.zeros(2, 8, 3).transpose(1, 2)}, "wanted 1 in the last"),
        ({"alpha": torch.zeros(4)}, "alpha is"),
        ({"alpha": torch.zeros(3, dtype=torch.float16)}, "alpha is"),
        ({"bias": torch.zeros(1, 3)}, "bias is"),
        ({"residual": torch.zeros(2, 3, 9)}, "residual is"),
        ({"lengths": torch.zeros(2, dtype=torch.int64)}, "lengths is"),
        ({"lengths": torch.zeros(2, dtype=torch.int32), "rate": 0}, "rate is 0"),
        ({"out": torch.zeros(2, 3, 9)}, "out is"),
        ({"dtype": torch.float16}, "out is"),
        ({"dtype": torch.float16, "out": torch.zeros(2, 3, 8)}, "out is"),
        ({"out": torch.zeros(2, 8, 3).transpose(1, 2)}, "out has strides"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str, device: str) -> None:
    arguments: dict[str, object] = {"x": torch.zeros(2, 3, 8), "alpha": torch.ones(3), **change}
    arguments = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    with pytest.raises(ValueError, match=message):
        triton_snake(**arguments)


_COMPILE = """
    import json
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from omnivoice_triton.kernels.snake import _BLOCK_T, _VECTOR, _snake_kernel

    found = []
    for capability in (75, 90):
        for element in ("fp32", "fp16") + (("bf16",) if capability >= 80 else ()):
            names = _snake_kernel.arg_names
            constants = {"UNIT": _VECTOR, "BLOCK_T": _BLOCK_T}
            constants |= {name: True for name in ("HAS_BIAS", "HAS_RESIDUAL", "HAS_LENGTHS", "STORE_SUM")}
            pointers = {"bias_ptr": "*fp32", "alpha_ptr": "*fp32", "lengths_ptr": "*i32"}
            signature = {
                name: "constexpr" if name in constants
                else pointers.get(name, "*" + element) if name.endswith("_ptr")
                else "i32"
                for name in names
            }
            aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")}
            source = ASTSource(_snake_kernel, signature, constants, aligned)
            made = compile(source, target=GPUTarget("cuda", capability, 32))
            ptx = made.asm["ptx"]
            found.append({
                "capability": capability, "element": element, "shared": made.metadata.shared,
                "vector_loads": ptx.count("ld.global.v4"), "local": ptx.count("ld.local"),
            })
    print(json.dumps(found))
"""


def test_compiles_for_old_and_new_gpus() -> None:
    """No shared memory and no spills, and rows are read in vectors although their length isn't specialised on."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_COMPILE)], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert len(found) == 5
    for made in found:
        assert made["shared"] == 0, made
        assert made["local"] == 0, made
        assert made["vector_loads"] >= 2, made  # x and residual
