"""Capturing CUDA graphs into one memory pool, for everything in this package that captures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Replayable(Protocol):
    """A captured computation."""

    def replay(self) -> None:
        """Run it again, on whatever its buffers hold now."""

    def reset(self) -> None:
        """Free what it holds."""


@lru_cache(maxsize=16)
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream that captures run on: cuBLAS keeps a workspace (32 MB on Hopper) for each stream it ever saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


_one_at_a_time = threading.Lock()
"""What runs on the side stream while it is being captured becomes part of the graph."""


class GraphPool:
    """Captures functions into graphs that share one memory pool.

    Args:
        device: where they run.
        tidy: give back what the warm run before a capture took. It costs a tenth of a second each time, so callers
            that capture dozens of graphs over buffers of their own switch it off.
    """

    def __init__(self, device: torch.device, *, tidy: bool = True) -> None:
        index = device.index if device.index is not None else torch.cuda.current_device()
        self._device = torch.device(device.type, index)
        self._tidy = tidy
        self._pool: Any = None

    def __call__(self, run: Callable[[], T], rehearse: Callable[[], object] | None = None) -> tuple[Replayable, T]:
        """Run `run` to compile kernels and make library handles, which can't be done while capturing; then capture it.

        Args:
            run: what to capture.
            rehearse: run this before instead: something shorter that launches the same kernels.

        Returns:
            The graph and what the captured run returned: tensors in the pool, rewritten by each replay.
        """
        stream, current = side_stream(self._device), torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        with _one_at_a_time, torch.cuda.stream(stream):
            stream.wait_stream(current)
            (rehearse or run)()
            stream.synchronize()
            if self._tidy:
                torch.cuda.empty_cache()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            # Only this thread's calls may break the capture: others may be allocating or copying.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                output = run()
            finally:
                graph.capture_end()
        current.wait_stream(stream)
        replayable: Replayable = graph
        return replayable, output

    @property
    def used_bytes(self) -> int:
        """What the pool holds on the device."""
        if self._pool is None:
            return 0
        segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        return sum(s["total_size"] for s in segments if tuple(s["segment_pool_id"]) == tuple(self._pool))

    def restart(self) -> None:
        """Give the pool back; no graph of it may be alive."""
        torch.cuda.synchronize(self._device)
        self._pool = None
        torch.cuda.empty_cache()
