"""What `bench kernels` measures: each kernel of the six modes in the shapes of the backbone, and how it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omnivoice_triton import kernels
from omnivoice_triton.kernels import reference
from omnivoice_triton.speech import OmniVoiceTritonError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-2}
HIDDEN, INTERMEDIATE = 1024, 3072
Q_HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128

Tensors = tuple[Tensor, ...]


class WrongResult(OmniVoiceTritonError):
    """A kernel's result is not that of its twin: it has no speed worth reporting."""


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype; `make(seed)` gives a set of inputs for the three functions."""

    kernel: str
    shape: dict[str, Any]
    dtype: torch.dtype
    make: Callable[[int], Tensors]
    triton: Callable[..., Any]
    twin: Callable[..., Any]
    pytorch: Callable[..., Any]
    counted: int
    """How many of the inputs are activations or weights that a call must read."""
    flop: float = 0.0
    """Operations of its matrix products; 0 where it has none."""

    def bytes(self, inputs: Tensors) -> int:
        """Bytes that any implementation must move: each counted input once, each output once."""
        return sum(x.numel() * x.element_size() for x in (*inputs[: self.counted], *_outputs(self.triton(*inputs))))


def _outputs(result: Any) -> Tensors:
    return result if isinstance(result, tuple) else (result,)


def split_rows(rows: int) -> tuple[int, int]:
    """Rows of the conditional and unconditional item of one utterance: 290 are 165 and 125, as 5 s of speech has."""
    conditional = math.ceil(rows * 165 / 290)
    return conditional, rows - conditional


def masked_sdpa(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
    """What upstream runs: keys and values repeated per group, SDPA with a mask, heads brought back beside rows."""
    group = q.shape[1] // k.shape[1]
    k, v = (x[:, :, None].expand(-1, -1, group, -1, -1).reshape(q.shape) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).contiguous()


def cases(rows: int, dtype: torch.dtype, device: str = "cuda") -> list[Case]:
    """Every kernel at that many rows, in the shapes of OmniVoice's backbone."""

    def normal(seed: int, *shape: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    lengths = split_rows(rows)
    batch, size = len(lengths), max(lengths)
    valid = torch.arange(size, device=device) < torch.tensor(lengths, device=device)[:, None]
    mask = (valid[:, None, :] | torch.eye(size, dtype=torch.bool, device=device))[:, None]  # padding sees itself
    heads = {"batch": batch, "rows": size, "q_heads": Q_HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}

    def rope_inputs(seed: int) -> Tensors:
        angles = torch.arange(size, device=device)[:, None] * 1e6 ** (-torch.arange(0, 1, 2 / HEAD_DIM, device=device))
        angles = torch.cat((angles, angles), -1)[None]
        q, k = (normal(seed, batch, size, n, HEAD_DIM) for n in (Q_HEADS, KV_HEADS))
        return q, k, normal(seed, HEAD_DIM), normal(seed + 1, HEAD_DIM), angles.cos().to(dtype), angles.sin().to(dtype)

    def attention_inputs(seed: int) -> Tensors:
        q, k, v = (normal(seed + i, batch, n, size, HEAD_DIM) for i, n in enumerate((Q_HEADS, KV_HEADS, KV_HEADS)))
        return q, k, v, torch.tensor(lengths, dtype=torch.int32, device=device), mask

    made = [
        Case(
            kernel="rms_norm",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, HIDDEN)),
            triton=kernels.triton_rms_norm,
            twin=reference.rms_norm,
            pytorch=reference.rms_norm,
            counted=2,
        ),
        Case(
            kernel="fused_norm_residual",
            shape={"rows": rows, "columns": HIDDEN},
            dtype=dtype,
            make=lambda seed: (normal(seed, rows, HIDDEN), normal(seed + 1, rows, HIDDEN), normal(seed + 2, HIDDEN)),
            triton=kernels.triton_fused_add_rms_norm,
            twin=reference.add_rms_norm,
            pytorch=reference.add_rms_norm,
            counted=3,
        ),
        Case(
            kernel="rope",
            shape=heads,
            dtype=dtype,
            make=rope_inputs,
            triton=kernels.triton_qk_norm_rope,
            twin=reference.qk_norm_rope,
            pytorch=reference.qk_norm_rope,
            counted=6,
        ),
        Case(
            kernel="attention",
            shape={**heads, "lengths": list(lengths)},
            dtype=dtype,
            make=attention_inputs,
            triton=lambda q, k, v, lengths, mask: kernels.int8_qk_attention(q, k, v, lengths),
            twin=lambda q, k, v, lengths, mask: reference.int8_qk_attention(q, k, v, lengths),
            pytorch=masked_sdpa,
            counted=4,
            flop=sum(4.0 * n * n * HEAD_DIM * Q_HEADS for n in lengths),
        ),
    ]
    swiglu = [
        Case(
            kernel="swiglu",
            shape={"rows": rows, "columns": columns},
            dtype=dtype,
            make=lambda seed, n=columns: (normal(seed, rows, n), normal(seed + 1, rows, n)),  # type: ignore[misc]
            triton=kernels.triton_swiglu_forward,
            twin=reference.swiglu,
            pytorch=reference.swiglu,
            counted=2,
        )
        for columns in (HIDDEN, INTERMEDIATE)
    ]
    return [*made[:1], *swiglu, *made[1:]]


def check(case: Case) -> dict[str, float]:
    """Relative errors (of norms) of the kernel against its twin and against PyTorch's op.

    Raises:
        WrongResult: an element is unwritten or further from the twin than two roundings of the dtype explain.
    """
    inputs = case.make(0)
    errors = {}
    for name, other in (("error_to_twin", case.twin), ("error_to_pytorch", case.pytorch)):
        worst = 0.0
        for ours, theirs in zip(_outputs(case.triton(*inputs)), _outputs(other(*inputs)), strict=True):
            out, wanted = ours.double(), theirs.double()
            if name == "error_to_pytorch":
                out, wanted = (_without_padding(case, inputs, x) for x in (out, wanted))
            worst = max(worst, ((out - wanted).norm() / wanted.norm()).item())
            if name == "error_to_twin":
                off = (out - wanted).abs() > 2 * TOLERANCE[case.dtype] * (1 + wanted.abs())
                bad = int((off | ~out.isfinite()).sum())
                if bad or not worst <= TOLERANCE[case.dtype]:
                    raise WrongResult(
                        f"{case.kernel} {case.shape} {case.dtype}: {bad} of {out.numel()} elements are wrong, "
                        f"relative error {worst:.3g}; nothing is timed"
                    )
        errors[name] = worst
    return errors


def _without_padding(case: Case, inputs: Tensors, out: Tensor) -> Tensor:
    """What padding attends to is nobody's concern."""
    if case.kernel != "attention":
        return out
    return out * (torch.arange(out.shape[1], device=out.device) < inputs[3][:, None])[..., None, None]


def exact(case: Case, inputs: Tensors) -> Tensors:
    """The case in float64: PyTorch's operations on widened inputs."""
    wide = (x.double() if x.is_floating_point() else x for x in inputs)
    return tuple(_without_padding(case, inputs, x) for x in _outputs(case.pytorch(*wide)))


def error_to(wanted: Tensors, case: Case, inputs: Tensors, function: Callable[..., Any]) -> float:
    """Largest relative error (of norms) of a function's outputs; infinite where one is not finite."""
    worst = 0.0
    for out, right in zip(_outputs(function(*inputs)), wanted, strict=True):
        mine = _without_padding(case, inputs, out.double())
        error = ((mine - right).norm() / right.norm()).item()
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst
