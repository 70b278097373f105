"""What a decoding step can't be faster than: its floating-point operations at the peak of a matmul, as measured.

The peak is `ceilings.matmul_tflops` of the same run: an ideal, which products of a few hundred rows never reach.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnivoice_triton.engine.shape import BackboneShape
from omnivoice_triton.speech import InputError

Request = tuple[int, int]
"""(prompt rows, frames) of one guided request."""


def linear_flop_per_row(shape: BackboneShape) -> float:
    """Of one packed row in the linears of all layers: 880.8 MFLOP for the published model."""
    q, kv = shape.q_heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = shape.hidden * (q + 2 * kv) + q * shape.hidden + 3 * shape.hidden * shape.intermediate
    return 2.0 * weights * shape.layers


def packed_rows(requests: Sequence[Request]) -> int:
    """Rows of a step: prompt and frames, and the frames again without the prompt."""
    return sum(prompt + 2 * frames for prompt, frames in requests)


def step_flop(shape: BackboneShape, requests: Sequence[Request]) -> float:
    """Of one guided step: linears on every row, heads on the target rows, attention within each segment.

    Attention of a segment of n rows is 4 n² D per query head and layer: scores and weighted sum, 2 n² D each.
    """
    linears = linear_flop_per_row(shape) * packed_rows(requests)
    heads = 2.0 * shape.hidden * shape.codebooks * shape.audio_vocab * sum(2 * frames for _, frames in requests)
    squares = sum((prompt + frames) ** 2 + frames**2 for prompt, frames in requests)
    attention = 4.0 * squares * shape.head_dim * shape.q_heads * shape.layers
    return linears + heads + attention


def flop_floor_ms(shape: BackboneShape, requests: Sequence[Request], peak_tflops: float) -> float:
    """Milliseconds of one step at a peak in 10^12 operations per second."""
    return step_flop(shape, requests) / (peak_tflops * 1e12) * 1000.0


def percent_of_floor(floor_ms: float, measured_ms: float) -> float:
    """How near a time is to its floor: 100 is at the floor, 50 takes twice as long.

    Raises:
        InputError: a time that is not above 0.
    """
    if floor_ms <= 0 or measured_ms <= 0:
        raise InputError(f"a floor and a time must be above 0 ms, not {floor_ms!r} and {measured_ms!r}")
    return 100.0 * floor_ms / measured_ms
