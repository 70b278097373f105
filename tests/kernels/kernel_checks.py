"""Inputs and comparisons that the kernel tests share."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDTHS = (1, 77, 128, 1000, 1024, 3072, 3073)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-2}
"""Absolute and relative, against the twin."""


def name(value: object) -> str | None:
    """Test id of a dtype."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


class Inputs:
    """Random tensors from one seed, the same on every device."""

    def __init__(self, seed: int, device: str, dtype: torch.dtype) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._device, self._dtype = device, dtype

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self._generator) * std).to(self._device, self._dtype)

    def hidden(self, *shape: int) -> Tensor:
        """Like hidden states of the real model: std about 1, a few channels beyond +-12."""
        x = torch.randn(shape, generator=self._generator)
        loud = torch.randperm(shape[-1], generator=self._generator)[: max(1, shape[-1] // 200)]
        x[..., loud] = x[..., loud] * 2 + 14 * (1 - 2 * (loud % 2))
        return x.to(self._device, self._dtype)

    def weight(self, width: int) -> Tensor:
        """Like a norm's weight: 1 +- 0.1."""
        return (1 + 0.1 * torch.randn(width, generator=self._generator)).to(self._device, self._dtype)


def assert_close(out: Tensor, twin: Tensor, magnitude: Tensor | None = None, rare: float = 0.0) -> None:
    """Every element within the dtype's tolerance of the twin, none unwritten.

    `magnitude` replaces |twin| in the relative part, where an element's error comes from more than itself. A share of
    `rare` elements may be out by up to twice the tolerance: two roundings that both fall the other way.
    """
    assert out.shape == twin.shape, f"shape {tuple(out.shape)}, wanted {tuple(twin.shape)}"
    assert out.dtype == twin.dtype, f"dtype {out.dtype}, wanted {twin.dtype}"
    assert twin.isfinite().all(), "the twin itself is not finite"
    assert out.isfinite().all(), f"{(~out.isfinite()).sum()} of {out.numel()} elements unwritten or not finite"
    tolerance = TOLERANCE[twin.dtype]
    magnitude = twin.double().abs() if magnitude is None else magnitude.double()
    excess = (out.double() - twin.double()).abs() - tolerance * (1 + magnitude)
    doubled = excess - tolerance * (1 + magnitude)
    if 0 < (excess > 0).sum() <= rare * out.numel() and not (doubled > 0).any():
        return
    assert not (excess > 0).any(), f"{(excess > 0).sum()} of {out.numel()} elements out by up to {excess.max():.3g}"


def relative_error(x: Tensor, exact: Tensor) -> float:
    """Norm of the error over norm of the exact result."""
    return ((x.double() - exact).norm() / exact.norm()).item()


def assert_as_accurate(out: Tensor, eager: Tensor, exact: Tensor) -> None:
    """Error against the float64 result at most 1.2 times that of PyTorch's own op."""
    assert exact.dtype == torch.float64
    assert out.numel() >= 32, "too few elements for statistics"
    ours, theirs = relative_error(out, exact), relative_error(eager, exact)
    assert ours <= 1.2 * theirs, f"relative error {ours:.3g}, PyTorch's {theirs:.3g}"


def assert_same_bits(out: Tensor, twin: Tensor, rate: float = 0.998) -> None:
    """Nearly all elements bit-equal: the rounding points are the twin's, only sums differ in their order."""
    same = (out == twin).double().mean().item()
    assert same >= rate, f"{same:.4%} of the elements are bit-equal, wanted {rate:.2%}"


def assert_caught(case: str, wrong: Tensor, twin: Tensor, magnitude: Tensor | None = None) -> None:
    """The planted fault `wrong` must not pass for `twin`."""
    try:
        assert_close(wrong, twin, magnitude)
    except AssertionError:
        return
    raise AssertionError(f"not caught: {case}")
