"""What the device reaches when it does nothing but copy, or nothing but multiply: measured in the run that uses it.

Copy: one tensor onto another, both far larger than the L2 cache, bytes read and written per second. Matmul:
`torch.mm` of two square matrices, 2 n³ operations. Both are the medians of single timings by CUDA events, and ideals:
small kernels never reach them. Percentages of a clock that leaves the L2 cache warm can lie above 100.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from omnivoice_triton.speech import InputError

COPY_BYTES = 2**30
MATMUL_SIZE = 8192
TIMINGS = 20
LEAST_TIMINGS = 5
PATIENCE_MS = 500.0
"""Timings end here, but for the least: fp32 products of a small GPU take over 100 ms each."""

Ceilings = dict[str, Any]


def event_times_ms(call: Callable[[], object], timings: int = TIMINGS) -> list[float]:
    """Milliseconds of each call by CUDA events, after three that are not timed; fewer of slow calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times = []
    for number in range(timings + 3):
        start.record()
        call()
        end.record()
        end.synchronize()
        if number >= 3:
            times.append(start.elapsed_time(end))
        if len(times) >= LEAST_TIMINGS and sum(times) > PATIENCE_MS:
            break
    return times


def measure(
    dtypes: Sequence[torch.dtype],
    device: str = "cuda",
    copy_bytes: int = COPY_BYTES,
    size: int = MATMUL_SIZE,
    time_ms: Callable[[Callable[[], object]], list[float]] = event_times_ms,
) -> Ceilings:
    """Both ceilings: `copy_gb_per_s`, and `matmul_tflops` by dtype, and what they were measured on."""
    copy_ms = _copy_ms(copy_bytes, device, time_ms)
    matmul = {str(dtype).removeprefix("torch."): matmul_tflops(dtype, device, size, time_ms) for dtype in dtypes}
    return {
        "copy_gb_per_s": 2.0 * copy_bytes / copy_ms / 1e6,
        "copy_bytes": copy_bytes,
        "matmul_tflops": matmul,
        "matmul_size": size,
    }


def matmul_tflops(
    dtype: torch.dtype,
    device: str = "cuda",
    size: int = MATMUL_SIZE,
    time_ms: Callable[[Callable[[], object]], list[float]] = event_times_ms,
) -> float:
    """10^12 operations per second of a square product in that dtype.

    In 16 bits on a data-centre GPU it takes tens of milliseconds and 384 MiB, which the allocator keeps: whoever
    measures memory after it empties its cache.
    """
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2.0 * size**3 / median(time_ms(lambda: torch.mm(left, right, out=out))) / 1e9


def _copy_ms(n_bytes: int, device: str, time_ms: Callable[[Callable[[], object]], list[float]]) -> float:
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return median(time_ms(lambda: target.copy_(source)))


def percent_of_copy(ceilings: Ceilings, n_bytes: int, microseconds: float) -> float:
    """How much of the copy ceiling a kernel reaches that has to move so many bytes."""
    return 100.0 * n_bytes / _positive(microseconds) / 1e3 / float(ceilings["copy_gb_per_s"])


def percent_of_matmul(ceilings: Ceilings, flop: float, microseconds: float, dtype: str) -> float:
    """How much of the matmul ceiling of that dtype a kernel reaches that has to do so many operations."""
    return 100.0 * flop / _positive(microseconds) / 1e6 / float(ceilings["matmul_tflops"][dtype])


def _positive(microseconds: float) -> float:
    if not microseconds > 0:
        raise InputError(f"a time must be above 0 µs, not {microseconds!r}")
    return microseconds
