"""One kernel at one shape: its inputs, its launcher and its float64 reference, and how large the grid of them is.

Kernels are looked up in their modules when a case runs, never bound at import: what is tested is what the package runs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.kernels.tiles import GemmTile, VarlenTile

PACKAGE = "omnivoice_triton.kernels"
EPS = 1e-6
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDE = torch.float64

Outputs = dict[str, Tensor]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Sizes:
    """How large the grid is: the model's own shapes on a GPU, small ones for the interpreter."""

    rows: tuple[int, ...]
    widths: tuple[int, ...]
    hidden: int
    intermediate: int
    q_heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    codebooks: int
    requests: tuple[tuple[int, int, bool], ...]
    """(prompt rows, frames, guided) of a packed batch."""
    channels: tuple[tuple[int, int, int], ...]
    """(B, C, T) of the codec's activations."""
    gemm: GemmTile
    attention: VarlenTile


GPU = Sizes(
    rows=(1, 65, 290, 1000),
    widths=(77, 1000, 1024, 3072),
    hidden=1024,
    intermediate=3072,
    q_heads=16,
    kv_heads=8,
    head_dim=128,
    vocabulary=1025,
    codebooks=8,
    requests=((1, 1, True), (40, 125, True), (70, 33, False), (9, 64, True)),
    channels=((1, 1, 1), (2, 256, 5000), (1, 33, 40001)),
    gemm=GemmTile(64, 64, 32, 2, 4, 2),
    attention=VarlenTile(16, 32, 4, 1),
)
CPU = Sizes(
    rows=(1, 5),
    widths=(77, 1024),
    hidden=64,
    intermediate=48,
    q_heads=4,
    kv_heads=2,
    head_dim=32,
    vocabulary=33,
    codebooks=3,
    requests=((1, 1, True), (5, 7, True), (3, 2, False)),
    channels=((1, 1, 1), (2, 3, 70)),
    gemm=GemmTile(16, 16, 16, 2, 4, 1),
    attention=VarlenTile(8, 16, 4, 1),
)


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype."""

    kernel: str
    """The launcher's name."""
    shape: str
    dtype: torch.dtype
    run: Callable[[Function], Outputs]
    """Calls a function of the launcher's signature on fresh inputs, returns what it wrote."""
    launcher: Callable[[], Function]
    twin: Function
    exact: Callable[[], Outputs]
    """The result in float64, on the same inputs."""
    slack: float = 1.0
    """Factor on the tolerance against the twin: sums over thousands in another order, quantisation steps."""
    approximation: float = 0.0
    """How far from float64 the twin may be by design (INT8), beyond rounding."""
    strict: frozenset[str] = frozenset()
    """Outputs that `slack` and `approximation` don't loosen: a sum beside a result that is quantised."""
    multiplies: bool = False
    """Whether it multiplies matrices in its own dtype: Triton's interpreter can't in bfloat16."""


def launchers() -> set[str]:
    """Names of every launcher in the kernels package, found by looking: nobody keeps a list.

    Public functions that launch a Triton kernel of their module themselves, or are named `triton_…` or `hopper_…`.
    """
    found: set[str] = set()
    package = importlib.import_module(PACKAGE)
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{PACKAGE}.{info.name}")
        for name, value in vars(module).items():
            if not inspect.isfunction(value) or value.__module__ != module.__name__ or name.startswith("_"):
                continue
            if name.startswith(("triton_", "hopper_")) or _launches(value):
                found.add(name)
    return found


def _launches(function: Any) -> bool:
    from omnivoice_triton.kernels.cached import is_kernel

    return any(is_kernel(function.__globals__.get(name)) for name in function.__code__.co_names)


def launcher(module: str, name: str) -> Callable[[], Function]:
    """A getter of one launcher, by name."""

    def get() -> Function:
        function: Function = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
        return function

    return get


class Draw:
    """Random inputs of one dtype; the same seed gives the same values on every device."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def normal(self, seed: int, *shape: int, std: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Normal values."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std
        return values.to(self.device, dtype or self.dtype)

    def hidden(self, seed: int, *shape: int) -> Tensor:
        """Like hidden states of the real weights: std 1, a few channels beyond 12."""
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        values[..., :: max(1, shape[-1] // 4)] *= 13
        return values.to(self.device, self.dtype)

    def norm_weight(self, seed: int, width: int) -> Tensor:
        """1 with a spread of 0.1."""
        values = 1 + 0.1 * torch.randn(width, generator=torch.Generator().manual_seed(seed))
        return values.to(self.device, self.dtype)

    def angles(self, positions: int, dim: int, *, halves: int = 1) -> tuple[Tensor, Tensor]:
        """RoPE's cos and sin, [positions, dim / 2] repeated `halves` times."""
        inverse = 1e6 ** (-torch.arange(0, 1, 2 / dim, dtype=torch.float64))
        angle = (torch.arange(positions, dtype=torch.float64)[:, None] * inverse).repeat(1, halves)
        return angle.cos().to(self.device, self.dtype), angle.sin().to(self.device, self.dtype)


def poison(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """NaN everywhere, so that an element that no kernel wrote shows."""
    return torch.full(shape or like.shape, float("nan"), dtype=dtype or like.dtype, device=like.device)


def wide(*values: Tensor) -> list[Tensor]:
    """In float64."""
    return [value.to(WIDE) for value in values]


def named(names: Sequence[str], values: Any) -> Outputs:
    """Outputs by name."""
    return dict(zip(names, values if isinstance(values, tuple) else (values,), strict=True))
