"""Helpers that need triton but are no kernels: 0.1.0's block sizes, and Triton's own timer."""

from __future__ import annotations

from collections.abc import Callable

import triton
import triton.testing

from omnivoice_triton.kernels.launch import MAX_WIDTH


def calculate_settings(n: int) -> tuple[int, int]:
    """(BLOCK_SIZE, num_warps) for a row of `n` elements held by one program (name and result as in 0.1.0).

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


def do_bench_ms(fn: Callable[[], object]) -> list[float]:
    """Milliseconds of each timed call of `fn` by `triton.testing.do_bench`, which clears the L2 cache before each."""
    return list(triton.testing.do_bench(fn, return_mode="all"))
