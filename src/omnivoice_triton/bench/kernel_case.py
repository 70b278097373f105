"""One kernel at one shape for `bench kernels`, and how its result is compared before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnivoice_triton.speech import OmniVoiceTritonError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

Tensors = tuple[Tensor, ...]


class WrongResult(OmniVoiceTritonError):
    """A kernel's result is not that of its twin: it has no speed worth reporting."""


class Unmeasured(OmniVoiceTritonError):
    """Why a kernel has no figure here: this GPU, or a tile table that doesn't choose it."""


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype; `make(seed)` gives a set of inputs for the three functions.

    Functions may write into buffers among the inputs, and must then do the same work when they are called again.
    """

    kernel: str
    shape: dict[str, Any]
    dtype: torch.dtype
    make: Callable[[int], Tensors]
    triton: Callable[..., Any]
    """Ours; a few are CUDA C++."""
    twin: Callable[..., Any]
    pytorch: Callable[..., Any]
    counted: int
    """How many of the inputs are activations or weights that a call must read."""
    flop: float = 0.0
    """Operations of its matrix products; 0 where it has none."""
    moved: Callable[[Tensors], int] | None = None
    """Bytes that any implementation must move, where they are not the counted inputs and the outputs."""
    values: Callable[[Tensors, Tensors], Tensors] | None = None
    """What of (inputs, outputs) is compared, where the outputs themselves can't be: packed and padded, for instance."""
    tolerance: tuple[float, float] | None = None
    """Against the twin: of norms, and of an element; by default the dtype's and twice that."""
    no_compile: str = ""
    """Why torch.compile is not timed, if it isn't."""

    def bytes(self, inputs: Tensors) -> int:
        """Bytes that any implementation must move: each counted input once, each output once."""
        if self.moved is not None:
            return self.moved(inputs)
        outputs = _outputs(self.triton(*fresh(inputs)))
        return sum(x.numel() * x.element_size() for x in (*inputs[: self.counted], *outputs))


def fresh(inputs: Tensors) -> Tensors:
    """Copies, for functions that write into their inputs."""
    return tuple(x.clone() for x in inputs)


def compared(case: Case, function: Callable[..., Any], inputs: Tensors) -> Tensors:
    """What one call makes of copies of the inputs, as it is compared."""
    given = fresh(inputs)
    outputs = _outputs(function(*given))
    return outputs if case.values is None else case.values(given, outputs)


def _outputs(result: Any) -> Tensors:
    return result if isinstance(result, tuple) else (result,)


def check(case: Case) -> dict[str, float]:
    """Relative errors (of norms) of the kernel against its twin and against PyTorch's op.

    Raises:
        WrongResult: an element is unwritten or further from the twin than two roundings of the dtype explain. Whole
            numbers must be equal.
    """
    inputs = case.make(0)
    limit, most = case.tolerance or (TOLERANCE[case.dtype], 2 * TOLERANCE[case.dtype])
    errors = {}
    mine = compared(case, case.triton, inputs)
    for name, other in (("error_to_twin", case.twin), ("error_to_pytorch", case.pytorch)):
        worst = 0.0
        for ours, theirs in zip(mine, compared(case, other, inputs), strict=True):
            out, wanted = ours.double(), theirs.double()
            if name == "error_to_pytorch":
                out, wanted = (_without_padding(case, inputs, x) for x in (out, wanted))
            worst = max(worst, _relative(out, wanted))
            if name == "error_to_twin":
                off = (out - wanted).abs() > (most * (1 + wanted.abs()) if ours.is_floating_point() else 0)
                bad = int((off | ~out.isfinite()).sum())
                if bad or not worst <= limit:
                    raise WrongResult(
                        f"{case.kernel} {case.shape} {case.dtype}: {bad} of {out.numel()} elements are wrong, "
                        f"relative error {worst:.3g}; nothing is timed"
                    )
        errors[name] = worst
    return errors


def _relative(out: Tensor, wanted: Tensor) -> float:
    """Relative error of norms; infinite where it is no number."""
    error = ((out - wanted).norm() / wanted.norm()).item()
    return error if math.isfinite(error) else math.inf


def _without_padding(case: Case, inputs: Tensors, out: Tensor) -> Tensor:
    """What padding attends to is nobody's concern."""
    if case.kernel != "attention":
        return out
    return out * (torch.arange(out.shape[1], device=out.device) < inputs[3][:, None])[..., None, None]


def exact(case: Case, inputs: Tensors) -> Tensors:
    """The case in float64: PyTorch's operations on widened inputs."""
    wide = tuple(x.double() if x.is_floating_point() and x.element_size() > 1 else x for x in inputs)
    return tuple(_without_padding(case, inputs, x) for x in compared(case, case.pytorch, wide))


def error_to(wanted: Tensors, case: Case, inputs: Tensors, function: Callable[..., Any]) -> float:
    """Largest relative error (of norms) of a function's outputs; infinite where one is not finite."""
    worst = 0.0
    for out, right in zip(compared(case, function, inputs), wanted, strict=True):
        worst = max(worst, _relative(_without_padding(case, inputs, out.double()), right.double()))
    return worst
