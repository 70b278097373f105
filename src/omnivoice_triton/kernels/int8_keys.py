"""Buffers of packed INT8-QK attention: the keys of all segments, quantised, and what belongs to them."""

from __future__ import annotations

from typing import NamedTuple

import torch

MEAN_ROWS = 128
"""Rows of a segment that set the grid on which the mean of its keys is taken."""


class Int8Keys(NamedTuple):
    """Indexed by packed row, so that no table has to say where a segment's share lies.

    At 4,096 rows, 8 key heads of 128: 21 MB.
    """

    values: torch.Tensor
    """[R, Hkv, Dp] int8; Dp is `padded_width` of a head."""
    scales: torch.Tensor
    """[R, Hkv] fp32: the scale of a block of keys, at the block's first row."""
    means: torch.Tensor
    """[R, Hkv, Dp] fp32: the mean of a segment's keys, at the segment's first row."""

    @classmethod
    def allocate(cls, rows: int, kv_heads: int, head_dim: int, device: torch.device) -> Int8Keys:
        """Buffers for `rows` packed rows."""
        shape = (rows, kv_heads, padded_width(head_dim))
        return cls(
            torch.zeros(shape, dtype=torch.int8, device=device),
            torch.zeros(shape[:2], dtype=torch.float32, device=device),
            torch.zeros(shape, dtype=torch.float32, device=device),
        )


def padded_width(head_dim: int) -> int:
    """Columns of a head in an INT8 matrix product: a power of two, at least 32."""
    return max(32, 1 << (head_dim - 1).bit_length())
