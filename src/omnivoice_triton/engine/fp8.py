"""The backbone's layers in FP8 (W8A8): four products of e4m3 operands, everything between them in the model's dtype.

Weights are quantised once, with a scale for each output channel, activations on the way, with a scale for each row; the
embeddings, norms, attention, residual and audio heads stay as they are. The 16-bit weights are kept beside: steps of
few rows use them. Of the full model FP8 takes 0.44 GB more, and 3 KB for each of `max_rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from omnivoice_triton.engine.ops import Ops
from omnivoice_triton.engine.weights import BackboneWeights
from omnivoice_triton.engine.workspace import Activations
from omnivoice_triton.kernels import fp8_reference, scaled_mm
from omnivoice_triton.speech import InputError, ModeUnavailable

PRECISIONS = (None, "fp8")
FP8_FROM_ROWS = 512
"""Packed rows of the smallest bucket that runs in FP8: below, products of 16 bit were faster (H200, products alone:
0.85x at 290 rows, 1.25x at 790, 1.7x at 3,712)."""


def check_precision(precision: str | None) -> str | None:
    """Raise InputError for an unknown precision of the engine."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: choose 'fp8', or None for the model's dtype")
    return precision


def check_fp8(backend: str, weights: BackboneWeights) -> None:
    """Raise unless these weights can run in FP8 with that back end.

    Raises:
        ModeUnavailable: the GPU has no FP8.
        InputError: PyTorch's product doesn't put out the model's dtype here, or a matrix has an odd size.
    """
    shape, device = weights.shape, weights.device
    sizes = (shape.hidden, shape.qkv_width, shape.attention_width, shape.intermediate)
    if any(size % 16 for size in sizes):
        raise InputError(f"precision='fp8' needs matrices of multiples of 16, but this model's are {sizes}")
    if backend == "reference" or device.type != "cuda":
        return
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < scaled_mm.MIN_CAPABILITY:
        raise ModeUnavailable(
            "precision='fp8' needs a GPU of compute capability 8.9 or later (Ada, Hopper), "
            f"but this one has {major}.{minor}: leave precision out"
        )
    if (reason := scaled_mm.problem(device, weights.dtype)) is not None:
        name = str(weights.dtype).removeprefix("torch.")
        raise InputError(f"precision='fp8' can't put out {name} here ({reason}): load the model with dtype='bf16'")


@dataclass(frozen=True)
class Fp8Matrix:
    """A weight [out, in] as e4m3, and the scale of each output channel, [1, out]."""

    values: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def quantise(cls, weight: torch.Tensor) -> Fp8Matrix:
        """Of a weight in any float dtype."""
        values = torch.empty_like(weight, dtype=fp8_reference.FP8)
        scale = torch.empty(len(weight), 1, dtype=torch.float32, device=weight.device)
        fp8_reference.quantise_rows(weight, out=values, scale=scale)
        return cls(values, scale.view(1, -1))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.scale.nbytes


@dataclass(frozen=True)
class Fp8Layer:
    """The matrices of one decoder layer."""

    qkv: Fp8Matrix
    o: Fp8Matrix
    gate_up: Fp8Matrix
    down: Fp8Matrix


class Fp8Layers:
    """Runs the layers in FP8, for buckets of enough rows.

    Args:
        weights: of the model, left as they are.
        ops: the back end.
        max_rows: rows of the largest bucket.
        from_rows: rows of the smallest bucket that runs in FP8.
    """

    def __init__(self, weights: BackboneWeights, ops: Ops, max_rows: int, from_rows: int = FP8_FROM_ROWS) -> None:
        self.from_rows = from_rows
        self._ops = ops
        self._layers = tuple(
            Fp8Layer(*map(Fp8Matrix.quantise, (layer.qkv, layer.o, layer.gate_up, layer.down)))
            for layer in weights.layers
        )
        s = weights.shape
        widest = max(s.hidden, s.attention_width, s.intermediate)
        self._values = torch.zeros(max_rows * widest, dtype=fp8_reference.FP8, device=weights.device)
        self._scale = torch.zeros(max_rows, 1, dtype=torch.float32, device=weights.device)

    @property
    def nbytes(self) -> int:
        """Bytes held beside the model's own."""
        matrices = [m for layer in self._layers for m in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        return sum(m.nbytes for m in matrices) + self._values.nbytes + self._scale.nbytes

    def serves(self, rows: int) -> bool:
        """Whether a bucket of so many rows runs in FP8."""
        return rows >= self.from_rows

    def run(
        self,
        w: BackboneWeights,
        a: Activations,
        rows: torch.Tensor,
        heads: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        attend: Callable[[], None],
    ) -> None:
        """From the embedded rows in a.x and a.y to the final norm of the head rows in a.y.

        Args:
            w: weights; of a rehearsal the first layers alone.
            a: buffers.
            rows: [R, 2] int32 table.
            heads: [R] int32 rows whose logits are wanted.
            rotary: cosine and sine tables.
            attend: a.qkv to a.attended.
        """
        ops, s = self._ops, w.shape
        self._quantise(a.y)
        for index, (layer, low) in enumerate(zip(w.layers, self._layers, strict=False)):
            self._multiply(low.qkv, a.qkv)
            ops.qk_norm_rope(
                a.qkv, rows, *rotary, layer.q_norm, layer.k_norm, s.eps, q_heads=s.q_heads, kv_heads=s.kv_heads
            )
            attend()
            self._quantise(a.attended)
            self._multiply(low.o, a.delta)
            self._add_norm(a, layer.post_norm, s.eps)
            self._multiply(low.gate_up, a.gate_up)
            out, scale = self._buffers(len(a.x), s.intermediate)
            ops.swiglu_quantise(a.gate_up, out=out, scale=scale)
            self._multiply(low.down, a.delta)
            if index + 1 < s.layers:
                self._add_norm(a, w.layers[index + 1].input_norm, s.eps)
            else:
                ops.add_norm(a.delta, a.x, w.final_norm, s.eps, y=a.y, pick=heads)

    def _buffers(self, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the operand of the next product lies: values [R, width] and scales [R, 1]."""
        return self._values[: rows * width].view(rows, width), self._scale[:rows]

    def _quantise(self, x: torch.Tensor) -> None:
        out, scale = self._buffers(*x.shape)
        self._ops.quantise_rows(x, out=out, scale=scale)

    def _add_norm(self, a: Activations, weight: torch.Tensor, eps: float) -> None:
        out, scale = self._buffers(*a.x.shape)
        self._ops.add_norm_quantise(a.delta, a.x, weight, eps, out=out, scale=scale)

    def _multiply(self, weight: Fp8Matrix, out: torch.Tensor) -> None:
        values, scale = self._buffers(len(out), weight.values.shape[1])
        self._ops.scaled_mm(values, scale, weight.values, weight.scale, out=out)
