"""Block size and warps for a row kernel (the helper of 0.1.0, same name and result)."""

from __future__ import annotations

import triton

from omnivoice_triton.kernels.launch import MAX_WIDTH


def calculate_settings(n: int) -> tuple[int, int]:
    """(BLOCK_SIZE, num_warps) for a row of `n` elements held by one program.

    Raises:
        ValueError: `n` is below 1 or above 65,536.
    """
    if not 1 <= n <= MAX_WIDTH:
        raise ValueError(f"n is {n}: wanted 1 to {MAX_WIDTH}")
    block = triton.next_power_of_2(n)
    if block >= 32768:
        return block, 32
    if block >= 8192:
        return block, 16
    return block, 8 if block >= 2048 else 4
