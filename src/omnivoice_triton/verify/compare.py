"""Figures by which two runs of one computation are compared."""

from __future__ import annotations

import torch


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of two tensors taken as vectors, in float64."""
    x, y = a.double().flatten(), b.double().flatten()
    return float(torch.dot(x, y) / (x.norm() * y.norm()).clamp_min(1e-300))


def worst_row_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Smallest cosine of any pair of rows, tensors (..., H)."""
    x, y = a.double().flatten(0, -2), b.double().flatten(0, -2)
    return float(torch.nn.functional.cosine_similarity(x, y, dim=-1).min())


def relative_error(a: torch.Tensor, reference: torch.Tensor) -> float:
    """‖a - reference‖ / ‖reference‖ in float64; NaN if `a` holds NaN."""
    x, y = a.double(), reference.double()
    return float((x - y).norm() / y.norm().clamp_min(1e-300))


def screened_agreement(a: torch.Tensor, reference: torch.Tensor, margin: float) -> tuple[float, int]:
    """How often the argmax over the last dimension agrees where the reference's top two lie over `margin` apart.

    Returns:
        (share that agrees, number of rows compared).
    """
    top = reference.float().topk(2, dim=-1).values
    clear = (top[..., 0] - top[..., 1]) > margin
    agree = a.argmax(-1) == reference.argmax(-1)
    count = int(clear.sum())
    return (float(agree[clear].double().mean()) if count else float("nan")), count


def guided(logits: torch.Tensor, guidance: float, mask_id: int) -> torch.Tensor:
    """What a step chooses from: (1 + g) c - g u over the real ids.

    Args:
        logits: [2 T, C, V], conditional rows then unconditional; [T, C, V] where `guidance` is 0.
        guidance: g.
        mask_id: first id that can't be chosen.

    Returns:
        [T, C, mask_id].
    """
    z = logits
    if guidance:
        conditional, free = logits.chunk(2)
        z = conditional + guidance * (conditional - free)
    return z[..., :mask_id]
